"""Parts that lie turned and shifted, through a run, its saved model and its predictions."""

import csv

import numpy as np
import pytest
from PIL import Image

import iadbe
from iadbe import api
from iadbe.data.transforms import transform_image, with_transform
from iadbe.datasets.toy import Toy
from iadbe.running import positions

pytest.importorskip("cv2", reason="alignment needs OpenCV: pip install 'iadbe[align]'")

TURNS = (0, 14, -9, 22, -17, 6, -25, 11)


def write(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Washers of one orientation to learn from, turned ones to test, and one image without a washer."""
    root, toy = tmp_path_factory.mktemp("parts"), Toy()
    own = [s for s in toy.samples() if s.category == "washer"]
    straight = next(s for s in own if s.split == "train")
    noise = np.random.default_rng(0)
    for i in range(12):
        grain = noise.normal(0, 4, (256, 256, 3))
        write((toy.image(straight) + grain).clip(0, 255).astype(np.uint8), root / f"train/good/{i}.png")
    for i, turn in enumerate(TURNS):
        image = toy.image(straight).copy()
        if i % 2:
            image[118:134, 60:76] = (250, 40, 40)  # a stain on the ring
        turned = with_transform(with_id(straight, str(i)), "rotation", turn)
        write(transform_image(image, turned), root / f"test/{'stain' if i % 2 else 'good'}/{i:03d}.png")
    write(noise.integers(0, 256, (256, 256, 3), np.uint8), root / "test/good/empty.png")
    return root


def with_id(sample, name):
    return type(sample)(**{f: getattr(sample, f) for f in sample.__dataclass_fields__} | {"id": name})


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    (run,) = iadbe.train("padim", str(data), protocol="uniform@128,aligned", store=store, dims=30)
    return run


def test_a_run_tells_where_parts_lie(trained):
    with (trained.folder / positions.FILE).open(newline="", encoding="utf-8") as file:
        rows = {row["sample"].rpartition("/")[2].removesuffix(".png"): row for row in csv.DictReader(file)}
    assert rows["empty"]["found"] == "0"
    for i, turn in enumerate(TURNS):
        assert rows[f"{i:03d}"]["found"] == "1"
        assert float(rows[f"{i:03d}"]["rotation"]) == pytest.approx(-turn, abs=1)
    assert any("not found in 1 of 9 images" in note for note in trained.result.notes)


def test_a_saved_model_finds_parts_and_draws_maps_where_they_are(trained, data):
    model = api.load(trained.folder)
    assert len(model.templates) == 1
    (found,) = api.predict(model, data / "test/stain/003.png")
    assert found.position_found
    assert found.map.shape == (256, 256)
    image = np.asarray(Image.open(data / "test/stain/003.png")).astype(int)
    stain = (image[:, :, 0] - image[:, :, 1]) > 120
    top = np.unravel_index(found.map.argmax(), found.map.shape)
    rows, columns = np.nonzero(stain)
    assert abs(top[0] - rows.mean()) < 16
    assert abs(top[1] - columns.mean()) < 16


def test_without_the_part_there_is_no_verdict(trained, data):
    (empty,) = api.predict(trained.folder, data / "test/good/empty.png", threshold=0.0)
    assert empty.position_found is False
    assert empty.defective is None
    assert "position not found" in repr(empty)
