"""Laws that every dataset keeps, whatever its name."""

from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image

from dataset_trees import TREES, whole
from iadbe.data import check, resolve
from iadbe.errors import Missing
from iadbe.files import download, image_io, mask_io
from iadbe.registry import card, names


@pytest.fixture(params=names("datasets"))
def name(request):
    return request.param


@pytest.fixture
def params(name, tmp_path, tmp_path_factory, monkeypatch):
    assert name in TREES, f"add a small folder in the layout of {name} to tests/trees.py"
    if name != "toy":  # which is drawn once for all tests
        monkeypatch.setenv("IADBE_CACHE", str(tmp_path_factory.mktemp("cache")))
    return TREES[name](tmp_path)


@pytest.fixture
def dataset(name, params):
    return resolve.make(name, params)


def test_the_index_is_the_same_each_time(name, params, dataset):
    assert dataset.samples() == dataset.samples() == resolve.make(name, params).samples()
    assert dataset.digest() == resolve.make(name, params).digest()
    assert len(dataset.samples()) > 4


def test_ids_are_unique_and_categories_are_reported(dataset):
    samples = dataset.samples()
    assert len({s.id for s in samples}) == len(samples)
    assert dataset.categories == tuple(sorted({s.category for s in samples}))
    assert {s.split for s in samples} <= {"train", "val", "test"}


def test_training_is_good_and_the_test_has_both(dataset):
    for category in dataset.categories:
        mine = [s for s in dataset.samples() if s.category == category]
        assert {s.is_anomaly for s in mine if s.split == "train"} == {False}
        assert {s.is_anomaly for s in mine if s.split == "test"} == {True, False}


def test_no_image_is_on_two_sides(name, dataset):
    assert len({s.image for s in dataset.samples()}) == len(dataset.samples())
    if name == "toy":
        return  # drawing all of it takes minutes
    assert not [p for p in check.check(dataset).problems if p.grade == "error"]


def test_paths_are_relative_with_forward_slashes(name, dataset):
    for s in dataset.samples():
        for path in filter(None, (s.image, s.mask, s.depth)):
            assert not PurePosixPath(path).is_absolute()
            assert "\\" not in path
            assert name == "toy" or (dataset.root / path).exists()


def test_images_and_masks_have_their_shapes(dataset):
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
    assert resolve.make(name, params).digest() != before


def test_reading_the_index_opens_no_image(name, params, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an image was opened")

    readers = [(image_io, "read_rgb"), (image_io, "read_header")]
    if not card("datasets", name).get("labels_in_masks"):  # then masks tell what is good, and must be read once
        readers += [(mask_io, "read_mask"), (Image, "open")]
    for module, function in readers:
        monkeypatch.setattr(module, function, refuse)
    made = resolve.make(name, params)
    assert made.samples()
    assert made.digest()


def test_regions_are_the_mask_in_parts(dataset):
    for s in [s for s in dataset.samples() if s.mask][:3]:
        regions = dataset.defects(s)
        assert np.array_equal(np.logical_or.reduce([r.mask for r in regions]), dataset.mask(s))
        assert all(0 < r.saturation <= 1 and r.mask.any() for r in regions)
    good = next(s for s in dataset.samples() if s.mask is None)
    assert dataset.defects(good) == ()


def test_a_region_is_an_option_of_every_dataset_and_a_part_of_its_digest(name, params, dataset, tmp_path_factory):
    first = dataset.samples()[0]
    assert dataset.region(first) is None
    assert dataset.region_digest(dataset.samples()) == ""
    size = dataset.image(first).shape[:2]
    assert dataset.image_size(first) == size
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2] = 255
    files = [tmp_path_factory.mktemp("regions") / f"{n}.png" for n in "ab"]
    image_io.write(files[0], mask)
    image_io.write(files[1], mask // 255)
    made, again, other = (resolve.make(name, {**params, "ignore": str(files[n])}) for n in (0, 0, 1))
    assert np.array_equal(made.region(first), mask == 0)
    assert np.array_equal(made.common_region(first), mask == 0)
    assert made.samples() == dataset.samples()
    assert dataset.digest() != made.digest() == again.digest() != other.digest()
    assert dataset.whole_digest() != made.whole_digest()
    assert resolve.make(name, params).digest() == dataset.digest()


def test_depth_is_where_it_is_promised(dataset):
    samples = dataset.samples()
    assert {s.depth is not None for s in samples} == {"depth" in dataset.gives}
    depth = dataset.depth(samples[0])
    if "depth" not in dataset.gives:
        assert depth is None
        return
    assert depth.dtype == np.float32
    assert depth.shape == dataset.image(samples[0]).shape[:2]
    assert np.isfinite(depth).any()


def test_a_folder_is_taken_for_nothing_else(name, params):
    if name == "toy":
        return  # has no folder
    found = resolve.find(params["root"])
    assert found.name == name
    assert resolve.make(name, {**found.params, **params}).samples()


def test_its_card_states_where_it_is_from(name):
    found = card("datasets", name)
    assert found.get("licence")
    assert all(p.doc for p in found.parameters)
    assert found.parameters[0].name == "root"
    counts, total = found.get("counts"), found.get("total")
    if counts and total:
        assert tuple(map(sum, zip(*counts.values(), strict=True))) == total
    for archive in download.archives(found):
        assert archive.url.startswith("https://")
        assert archive.file.endswith((".zip", ".tar", ".tar.gz", ".tar.xz"))
        assert len(archive.digest) == {"sha256": 64, "md5": 32, "": 0}[archive.algorithm]
    assert found.get("archives") or found.get("manual_download") or name in ("folder", "frames", "toy", "yolo")


def test_real_data_is_as_published(name):
    expected, total = (card("datasets", name).get(fact) for fact in ("counts", "total"))
    if not expected and not total:
        return
    try:
        made = resolve.make(name, {"root": str(whole(name))} if name != "elpv" else {})
    except Missing as error:
        pytest.skip(str(error))
    found = {c: counted([s for s in made.samples() if s.category == c]) for c in made.categories}
    for category, split in found.items():
        if expected:
            assert (split if len(expected[category]) == 3 else (split[0] + split[1], split[2])) == expected[category]
    if total and (not expected or set(found) == set(expected)):
        assert tuple(map(sum, zip(*found.values(), strict=True))) == total


def counted(samples):
    """Return how many are trained on, good and not trained on, defective."""
    train, bad = (sum(s.split == "train" for s in samples), sum(s.is_anomaly for s in samples))
    return train, len(samples) - train - bad, bad
