"""Reference images beside an exported file: plain arrays, read without trust."""

import io
import zipfile

import numpy as np
import pytest

from exported_models import random_image
from iadbe.errors import BadConfig, BadData
from iadbe.runtime import references
from iadbe.runtime.inspector import Inspection
from iadbe.runtime.references import References, beside, chosen, digest, kept_size, read, stride_of


@pytest.fixture
def model(tmp_path):
    file = tmp_path / "part.onnx"
    file.write_bytes(b"a model")
    return file


def some(maps=True):
    images = tuple(random_image(300, 200 + n, n) for n in range(3))
    found = tuple(
        Inspection(1.5 + n, None if n else 0.25, "reject" if n else "good", image[::2, ::2, 0] / 7 if maps else None)
        for n, image in enumerate(images)
    )
    return References(images, found, (2, 2, 2), (600, 400), "given images", 1e-4, 3.0)


@pytest.mark.parametrize("maps", [True, False])
def test_what_is_written_is_read(model, maps):
    given = some(maps)
    file = given.write(beside(model), model)
    assert file.name == "part.reference.npz"
    found, belongs = read(file)
    assert belongs == digest(model)
    assert (found.native, found.source, found.strides) == ((600, 400), "given images", (2, 2, 2))
    assert (found.tolerance, found.map_scale) == (1e-4, 3.0)
    for a, b, one, other in zip(given.images, found.images, given.expected, found.expected, strict=True):
        assert np.array_equal(a, b)
        assert (one.score, one.probability, one.verdict) == (other.score, other.probability, other.verdict)
        assert np.array_equal(one.anomaly_map, other.anomaly_map) if maps else other.anomaly_map is None


def test_the_digest_of_openvinos_pair_is_of_both_files(tmp_path):
    graph, weights = tmp_path / "part.xml", tmp_path / "part.bin"
    graph.write_text("<net/>")
    weights.write_bytes(b"1")
    first = digest(graph)
    weights.write_bytes(b"2")
    assert digest(graph) != first


def test_hostile_archives_are_one_sentence(model, tmp_path, monkeypatch):
    with pytest.raises(BadConfig, match="no reference images"):
        read(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(BadData, match="is damaged"):
        read(tmp_path / "text.npz")
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "pickle.npz", "w") as archive:
        archive.writestr("about.npy", pickled.getvalue())
    with pytest.raises(BadData, match="is damaged"):
        read(tmp_path / "pickle.npz")
    file = some().write(beside(model), model)
    monkeypatch.setattr(references, "LARGEST", 1000)
    with pytest.raises(BadData, match="holds more than"):
        read(file)


def test_a_map_that_does_not_fit_its_image_is_refused(model):
    given = some()
    wrong = References(given.images, given.expected, (2, 2, 3), (1, 1), "given images", 1e-4)
    with pytest.raises(BadData, match="map 2 does not fit"):
        read(wrong.write(beside(model), model))


def test_large_images_are_made_smaller_and_maps_thinned():
    assert kept_size(random_image(50, 60)).shape == (50, 60, 3)
    assert kept_size(random_image(4000, 2000)).shape == (1024, 512, 3)
    assert stride_of(random_image(1024, 512)) == 8
    assert stride_of(random_image(100, 90)) == 1


def test_few_of_many_images_are_evenly_spaced():
    assert chosen(list(range(31)), 16) == list(range(0, 31, 2))
    assert chosen([1, 2], 16) == [1, 2]
