from collections import Counter

import pytest

from dataset_trees import draw, mtd, real
from iadbe.datasets.mtd import MTD, tiles
from iadbe.errors import BadConfig, BadData


def side(dataset, split):
    return [s for s in dataset.samples() if s.split == split]


def test_names_determine_the_tile():
    shots = [
        f"MT_Free/Imgs/exp{light}_num_{number + 10 * light}.jpg" for number in (1000, 9000) for light in range(1, 7)
    ]
    # a pause in the middle of a tile is no new tile: the lights are not yet complete
    paused = ["MT_Free/Imgs/exp1_num_20000.jpg", *(f"MT_Break/Imgs/exp{i}_num_{23000 + i}.jpg" for i in range(2, 7))]
    assert [len(g) for g in tiles([*paused, *shots])] == [6, 6, 6]
    with pytest.raises(BadData, match=r"tile\.jpg is not named"):
        tiles(["MT_Free/Imgs/tile.jpg"])


def test_tiles_stay_whole_and_those_with_a_defect_are_not_trained_on(tmp_path):
    dataset = MTD(**mtd(tmp_path))
    train, test = side(dataset, "train"), side(dataset, "test")
    assert Counter(s.defect for s in train) == {"good": 42}  # 80 % of 59 is 47: seven whole tiles fit
    groups = tiles([s.image for s in dataset.samples()])
    trained = {s.image for s in train}
    assert all(set(g) <= trained or not set(g) & trained for g in groups)
    mixed = next(g for g in groups if len({p.split("/")[0] for p in g}) > 1)
    assert not set(mixed) & trained
    assert {s.defect for s in test} == {"good", "blowhole", "break", "crack", "fray", "uneven"}
    assert MTD(str(tmp_path), seed=1).samples() != dataset.samples()


def test_images_may_be_drawn_one_by_one_as_others_do(tmp_path):
    dataset = MTD(**mtd(tmp_path), split="image", train_share=0.95)
    train = side(dataset, "train")
    assert Counter(s.defect for s in train) == {"good": 56}  # 95 % of 59, of whatever tiles
    trained = {s.image for s in train}
    groups = tiles([s.image for s in dataset.samples()])
    assert any(set(g) & trained and not set(g) <= trained for g in groups)
    assert MTD(str(tmp_path), split="image", train_share=0.95, seed=1).samples() != dataset.samples()
    with pytest.raises(BadConfig, match="tile or image, not 'light'"):
        MTD(str(tmp_path), split="light")


def test_a_share_that_cannot_be_kept_is_reported(tmp_path):
    with pytest.raises(BadConfig, match=r"only 54 of the 59 good images.*at most 0\.91"):
        MTD(**mtd(tmp_path), train_share=0.95).samples()


def test_another_layout_is_refused_in_words(tmp_path):
    draw(tmp_path / "Free/a.jpg")
    with pytest.raises(BadData, match=r"does not hold MT_Free/Imgs.*but Free"):
        MTD(str(tmp_path))


def test_the_real_tiles():
    dataset = MTD(str(real("mtd")))
    samples = dataset.samples()
    assert Counter(s.defect for s in samples) == {
        "good": 952, "blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 103,
    }  # fmt: skip
    groups = tiles([s.image for s in samples])
    good = [g for g in groups if all(p.startswith("MT_Free") for p in g)]
    assert (len(groups), len(good), sum(map(len, good))) == (192, 127, 832)
    assert len(side(dataset, "train")) == 760
    empty = [s.defect for s in samples if s.mask and not dataset.mask(s).any()]
    assert empty == ["uneven"] * 4


@pytest.mark.slow
def test_hardly_a_test_image_has_a_near_copy_in_training():
    """The thumbnails of two shots of one spot correlate above 0.99."""
    import numpy as np

    from iadbe.files import image_io

    dataset = MTD(str(real("mtd")))
    shots = [s for s in dataset.samples() if s.defect == "good"]
    pixels = [dataset.image(s) for s in shots]
    sizes = np.array([p.shape[:2] for p in pixels])
    thumbs = np.stack([image_io.resized(p, 32, 32)[..., 0].ravel().astype(float) for p in pixels])
    near = (np.corrcoef(thumbs) > 0.99) & (np.abs(sizes[:, None] - sizes[None]).max(-1) <= 16)
    train = np.array([s.split == "train" for s in shots])
    assert near[train][:, ~train].any(0).sum() <= 2
    images = side(MTD(str(real("mtd")), split="image"), "train")
    train = np.isin([s.id for s in shots], [s.id for s in images])
    assert near[train][:, ~train].any(0).sum() > 60


def test_images_of_one_tile_share_a_group(tmp_path):
    samples = MTD(**mtd(tmp_path)).samples()
    groups = {}
    for s in samples:
        groups.setdefault(s.group, set()).add(s.image.rpartition("_num_")[2])
    assert len(groups) == 15
    assert {len(numbers) for numbers in groups.values()} == {6}
