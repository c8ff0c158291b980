from collections import Counter
from random import Random

import pytest

from iadbe.data.transforms import without_transform
from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.errors import BadConfig
from iadbe.settings.few_shot import AUGMENTATIONS, FewShot, spaced

INDEX = Index(Toy().samples())


def test_k_good_images_that_the_seed_decides():
    (step,) = FewShot(k=3).steps("metal", INDEX, Random(0))
    assert len(step.shards[0]) == 3
    assert {e.sample for e in step.shards[0]} <= set(INDEX.train("metal"))
    assert step.tests == {"metal": INDEX.test("metal")}
    assert step.shards != FewShot(k=3).steps("metal", INDEX, Random(1))[0].shards


@pytest.mark.parametrize("k", [0, 10_000])
def test_a_k_that_cannot_be_is_one_sentence(k):
    with pytest.raises(BadConfig, match="good training images"):
        FewShot(k=k).steps("metal", INDEX, Random(0))


class TestAugmentation:
    def test_every_image_comes_as_it_is_and_with_its_copies(self):
        (plain,) = FewShot(k=2).steps("metal", INDEX, Random(5))
        (more,) = FewShot(k=2, augment=("rotation", "flip"), copies=4).steps("metal", INDEX, Random(5))
        assert [e.sample for e in more.shards[0]][::8] == [e.sample for e in plain.shards[0]]
        assert len(more.shards[0]) == 2 * (1 + 4 + 3)
        assert Counter(without_transform(e.sample) for e in more.shards[0]) == {e.sample: 8 for e in plain.shards[0]}
        assert more.tests == plain.tests

    def test_changes_do_not_accumulate(self):
        """open-iad kept adding to one list: later copies had all earlier ones' transforms, and so had later shots."""
        (step,) = FewShot(k=2, augment=("rotation", "scale"), copies=2).steps("metal", INDEX, Random(0))
        changes = [e.sample.transform for e in step.shards[0]]
        assert changes == 2 * ["", "rotation=120", "rotation=240", "scale=0.75", "scale=0.5"]

    def test_the_spacing_is_the_papers_and_no_copy_is_the_image_itself(self):
        assert spaced("rotation", 4) == [72, 144, 216, 288]
        assert spaced("scale", 4) == [0.875, 0.75, 0.625, 0.5]
        assert spaced("translation", 4) == spaced("perspective", 4) == [0.125, 0.25, 0.375, 0.5]
        assert spaced("colour", 4) == [0.5, 0.75, 1.25, 1.5]
        assert spaced("colour", 1) == [1.5]
        assert spaced("flip", 2) == [1, 2]
        for kind in AUGMENTATIONS:
            for copies in range(1, 9):
                values = spaced(kind, copies)
                assert len(set(values)) == (min(copies, 3) if kind == "flip" else copies)
                assert {"rotation": 360, "scale": 1, "colour": 1}.get(kind, 0) not in values

    @pytest.mark.parametrize(
        ("wrong", "sentence"), [({"augment": ("rotate",)}, "Did you mean rotation"), ({"copies": 0}, "at least 1")]
    )
    def test_a_mistake_is_one_sentence(self, wrong, sentence):
        with pytest.raises(BadConfig, match=sentence):
            FewShot(**wrong)


class TestOthers:
    def test_all_other_categories_come_first_and_are_not_tested(self):
        first, second = FewShot(k=2, others=True).steps("metal", INDEX, Random(0))
        assert Counter(e.sample.category for e in first.shards[0]) == {"board": 40, "fabric": 40, "washer": 40}
        assert first.tests == {}
        assert {e.sample.category for e in second.shards[0]} == {"metal"}
        assert second.tests == {"metal": INDEX.test("metal")}

    def test_meta_learning_is_demanded_only_with_others(self):
        assert FewShot(others=True).demanded() == {"meta-learning"}
        assert FewShot().demanded() == set()

    def test_one_category_alone_has_no_others(self):
        alone = Index(INDEX.train("metal") + INDEX.test("metal"))
        with pytest.raises(BadConfig, match="there are none"):
            FewShot(others=True).steps("metal", alone, Random(0))
