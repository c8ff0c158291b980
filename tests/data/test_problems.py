import numpy as np

from iadbe.data.problems import Record, _example, problems
from iadbe.dataset import Dataset
from iadbe.types import Sample


class Empty(Dataset):
    def __init__(self):
        pass

    categories = ()

    def samples(self):
        return ()


def record(name, split="train", **facts):
    return Record(Sample(name, "c", split, "good", f"{name}.png"), size=(64, 64), **facts)


def sentences(seen, copies=()):
    return [p.sentence for p in problems(Empty(), seen, [], copies)]


def test_near_copies_give_one_warning_for_each_pair_of_splits():
    train, val, test, other = record("a"), record("b", "val"), record("c", "test"), record("d", "test")
    found = sentences([train, val, test, other], [(train, test), (train, other), (val, test), (test, other)])
    assert len(found) == 3
    assert found[0].startswith("2 test images are nearly the same as a train image (for example c and a)")
    assert "promised share of rejected normal images looks surer" in found[1]
    assert "confidence intervals are too narrow" in found[2]


def test_a_record_has_no_signature_until_it_is_read():
    assert record("a").signature.shape == (0,)
    assert np.array_equal(record("a").signature, record("b").signature)


def test_images_of_usual_size_have_no_problem():
    assert sentences([record("a"), record("b", "test")]) == []


def test_masks_that_mark_most_of_their_image_may_be_inverted():
    class Masked(Empty):
        categories = ("c",)
        gives = frozenset({"mask"})

    def defect(name, marked):
        sample = Sample(name, "c", "test", "scratch", f"{name}.png", f"{name}_mask.png")
        return Record(sample, size=(64, 64), mask=(64, 64), marked=marked, in_view=True)

    seen = [record(f"g{i}") for i in range(12)] + [record("t", "test")]
    found = [p.sentence for p in problems(Masked(), [*seen, defect("x", 0.98), defect("y", 0.9)], [], [])]
    assert next(s for s in found if "dark on white" in s).startswith("2 masks of c (for example x) mark ")
    few = [p.sentence for p in problems(Masked(), [*seen, defect("x", 0.98), defect("y", 0.1)], [], [])]
    assert not [s for s in few if "dark on white" in s]


def test_one_of_a_kind_is_said_in_the_singular():
    one = record("images/x")
    assert _example([one], "images", "are") == "1 image (for example images/x) is"
    assert _example([one], "defects of masks", "have") == "1 defect of masks (for example images/x) has"
    assert _example([one], "masks of masks", "mark") == "1 mask of masks (for example images/x) marks"
    assert _example([one], "of 3 defects of c", "have") == "1 of 3 defects of c (for example images/x) has"
    assert _example([one, one], "images", "are") == "2 images (for example images/x) are"
