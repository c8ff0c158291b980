import numpy as np
import pytest
from PIL import Image

from dataset_trees import draw, mvtec_ad
from iadbe.dataset import Index, evenly_spaced
from iadbe.datasets.mvtec_ad import MVTecAD
from iadbe.errors import BadConfig, BadData
from iadbe.types import Sample


def sample(name, split="train", defect="good", category="bolt"):
    return Sample(f"{category}/{name}", category, split, defect, f"{name}.png")


SAMPLES = [
    sample("a"),
    sample("b", defect="bent"),
    sample("c", "val"),
    sample("d", "test"),
    sample("e", "test", "bent"),
    sample("f", category="nut"),
]


def test_an_index_answers_by_category_split_and_goodness():
    index = Index(SAMPLES)
    assert index.categories == ("bolt", "nut")
    assert [s.image[0] for s in index.train("bolt")] == ["a"]
    assert [s.image[0] for s in index.val("bolt")] == ["c"]
    assert [s.image[0] for s in index.test("bolt")] == ["d", "e"]
    assert [s.image[0] for s in index.anomalies("bolt")] == ["e"]
    assert index.test("nut") == ()


def test_a_misspelt_category_is_reported_with_the_right_ones():
    with pytest.raises(BadConfig, match=r"'blot'. Did you mean bolt\? There are: bolt, nut"):
        Index(SAMPLES).train("blot")


def test_a_dataset_needs_a_folder_that_is_there(tmp_path):
    with pytest.raises(BadConfig, match=r"--data\.root DIR"):
        MVTecAD()
    with pytest.raises(BadData, match=r"there is no folder .*nowhere"):
        MVTecAD(str(tmp_path / "nowhere"))


def test_regions_touch_at_no_corner_unless_a_dataset_says_so(tmp_path):
    dataset = MVTecAD(**mvtec_ad(tmp_path, ("bolt",)))
    bent = next(s for s in dataset.samples() if s.is_anomaly)
    mask = np.zeros((20, 28), np.uint8)
    mask[2:4, 2:4] = mask[4:6, 4:6] = mask[10, 20:25] = 255  # the first two touch at a corner: one region
    Image.fromarray(mask).save(tmp_path / bent.mask)
    regions = dataset.defects(bent)
    assert sorted(r.mask.sum() for r in regions) == [5, 8]
    assert {r.saturation for r in regions} == {1.0}
    assert dataset.defects(dataset.samples()[0]) == ()
    assert dataset.depth(bent) is None


def test_the_digest_knows_names_and_sizes_but_not_the_place(tmp_path):
    mvtec_ad(tmp_path / "one", ("bolt",))
    (tmp_path / "one").rename(tmp_path / "two")
    before = MVTecAD(str(tmp_path / "two")).digest()
    assert len(before) == 16
    (tmp_path / "two").rename(tmp_path / "three")
    assert MVTecAD(str(tmp_path / "three")).digest() == before
    draw(tmp_path / "three/bolt/train/good/999.png")
    assert MVTecAD(str(tmp_path / "three")).digest() != before


def test_the_digest_of_a_category_is_the_same_from_either_root_and_ignores_other_categories(tmp_path):
    mvtec_ad(tmp_path, ("bolt", "nut"))
    both, one = MVTecAD(str(tmp_path)), MVTecAD(str(tmp_path / "bolt"))
    assert both.digest(["bolt"]) == one.digest() == one.digest(["bolt"])
    assert both.digest(["nut"]) != both.digest(["bolt"]) != both.digest()
    draw(tmp_path / "nut/train/good/999.png")
    assert MVTecAD(str(tmp_path)).digest(["bolt"]) == one.digest()
    assert MVTecAD(str(tmp_path)).digest() != both.digest()


def test_evenly_spaced_samples_have_the_first_and_the_last_and_none_twice():
    assert evenly_spaced(list("abcdefg"), 3) == ["a", "d", "g"]
    assert evenly_spaced(list("ab"), 5) == ["a", "b"]
    assert evenly_spaced([], 5) == []
