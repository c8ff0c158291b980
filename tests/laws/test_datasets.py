"""Laws that every dataset keeps, whatever its name."""

from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image

from iadbe import inspection, picture, sources
from iadbe.errors import Missing
from iadbe.registry import card, names
from trees import REAL, TREES, real


@pytest.fixture(params=names("datasets"))
def name(request):
    return request.param


@pytest.fixture
def params(name, tmp_path):
    assert name in TREES, f"add a small folder in the layout of {name} to tests/trees.py"
    return TREES[name](tmp_path)


@pytest.fixture
def dataset(name, params):
    return sources.make(name, params)


def test_the_index_is_the_same_each_time(name, params, dataset):
    assert dataset.samples() == dataset.samples() == sources.make(name, params).samples()
    assert dataset.digest() == sources.make(name, params).digest()
    assert len(dataset.samples()) > 4


def test_ids_are_unique_and_categories_are_told(dataset):
    samples = dataset.samples()
    assert len({s.id for s in samples}) == len(samples)
    assert dataset.categories == tuple(sorted({s.category for s in samples}))
    assert {s.split for s in samples} <= {"train", "val", "test"}


def test_training_is_good_and_the_test_has_both(dataset):
    for category in dataset.categories:
        mine = [s for s in dataset.samples() if s.category == category]
        assert {s.is_anomaly for s in mine if s.split == "train"} == {False}
        assert {s.is_anomaly for s in mine if s.split == "test"} == {True, False}


def test_no_picture_is_on_two_sides(name, dataset):
    assert len({s.image for s in dataset.samples()}) == len(dataset.samples())
    if name == "toy":
        return  # drawing all of it takes minutes
    assert not [p for p in inspection.check(dataset).problems if p.grade == "error"]


def test_paths_are_relative_with_forward_slashes(name, dataset):
    for s in dataset.samples():
        for path in filter(None, (s.image, s.mask, s.depth)):
            assert not PurePosixPath(path).is_absolute()
            assert "\\" not in path
            assert name == "toy" or (dataset.root / path).exists()


def test_pictures_and_masks_have_their_shapes(dataset):
    one_of_each = {(s.category, s.split, s.defect): s for s in dataset.samples()}
    for s in list(one_of_each.values())[:12]:
        image, mask = dataset.image(s), dataset.mask(s)
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert np.array_equal(image, dataset.image(s))  # the second look is at the same
        assert s.mask is None or s.is_anomaly
        assert (mask is None) == (s.mask is None)
        if mask is not None:
            assert mask.dtype == bool
            assert mask.shape == image.shape[:2]
            assert mask.any()


def test_masks_are_only_where_they_are_promised(dataset):
    assert ("mask" in dataset.gives) == any(s.mask for s in dataset.samples())


def test_the_digest_follows_the_files(name, params, dataset):
    if name == "toy":
        return  # drawn, not read
    before = dataset.digest()
    file = dataset.root / dataset.samples()[0].image
    file.write_bytes(file.read_bytes() + b"more")
    assert sources.make(name, params).digest() != before


def test_reading_the_index_opens_no_picture(name, params, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a picture was opened")

    for module, function in ((picture, "read_rgb"), (picture, "read_mask"), (picture, "facts"), (Image, "open")):
        monkeypatch.setattr(module, function, refuse)
    made = sources.make(name, params)
    assert made.samples()
    assert made.digest()


def test_its_card_tells_where_it_is_from(name):
    found = card("datasets", name)
    assert found.get("licence")
    assert all(p.doc for p in found.parameters)
    assert found.parameters[0].name == "root"


def test_real_data_is_as_published(name):
    expected = card("datasets", name).get("counts")
    if not expected:
        return
    try:
        made = sources.make(name, {"root": str(real(REAL[name]))} if name in REAL else {})
    except Missing as error:
        pytest.skip(str(error))
    assert set(made.categories) <= set(expected)
    for category in made.categories:
        mine = [s for s in made.samples() if s.category == category]
        bad = sum(s.is_anomaly for s in mine)
        train = sum(s.split == "train" for s in mine)
        split = (train, len(mine) - train - bad, bad) if len(expected[category]) == 3 else (len(mine) - bad, bad)
        assert split == expected[category]
