import json

import numpy as np
import pytest
from PIL import Image

from iadbe.curves.curve import Curve
from iadbe.data.images import Images, View, read_view
from iadbe.datasets.toy import Toy
from iadbe.errors import BadData
from iadbe.evaluation.measure import DetectorOutput
from iadbe.files import image_io
from iadbe.progress import Report
from iadbe.running import artifacts
from iadbe.running.artifacts import (
    POINTS,
    RATES,
    Losses,
    calibrated,
    keep_curves,
    keep_images,
    keep_maps,
    map_range,
    one_of_each_kind,
    training_digests,
)
from iadbe.types import Sample, Step, TrainingImage, TrainingLabel

TOY = Toy()
SAMPLES = [s for s in TOY.samples() if s.category == "metal" and s.split == "test"][::6]
IMAGES = Images(TOY, [TrainingImage(s) for s in SAMPLES], View(64))
TRUTH = np.array([s.is_anomaly for s in SAMPLES])
RNG = np.random.default_rng(0)
MAPS = RNG.random((len(SAMPLES), 64, 64)).astype(np.float32) + TRUTH[:, None, None]
EVIDENCE = DetectorOutput(MAPS.max((1, 2)), MAPS)


def test_images_of_every_kind_come_with_an_index(tmp_path):
    keep_images(tmp_path, IMAGES, EVIDENCE, 3)
    keep_images(tmp_path, IMAGES, EVIDENCE, 2)  # another test of the same run
    entries = json.loads((tmp_path / "images.json").read_text())
    assert [e["n"] for e in entries] == [0, 1, 2, 3, 4]
    for entry in entries:
        assert image_io.size(tmp_path / f"{entry['n']:02d}_input.jpg") == (64, 64)
        with Image.open(tmp_path / f"{entry['n']:02d}_map.png") as heat:
            assert heat.mode == "L"
        assert (tmp_path / f"{entry['n']:02d}_mask.png").exists() == entry["mask"] == (entry["defect"] != "good")


def test_no_images_when_none_are_wanted(tmp_path):
    keep_images(tmp_path / "images", IMAGES, EVIDENCE, 0)
    assert not (tmp_path / "images").exists()


def test_spread_takes_every_kind_in_turn():
    kinds = ["good"] * 9 + ["spot"] * 9 + ["crack"] * 2
    samples = [Sample(str(i), "c", "test", kind, "") for i, kind in enumerate(kinds)]
    assert sorted(kinds[i] for i in one_of_each_kind(samples, 5)) == ["crack", "crack", "good", "spot", "spot"]
    assert one_of_each_kind(samples, 99) == list(range(20))


def test_maps_are_kept_with_their_names(tmp_path):
    keep_maps(tmp_path, "0-metal/../x", SAMPLES, MAPS)
    (file,) = tmp_path.iterdir()
    with np.load(file) as kept:
        assert list(kept["ids"]) == [s.id for s in SAMPLES]
        np.testing.assert_allclose(kept["maps"], MAPS, atol=2e-3)


def test_the_scale_of_the_maps_is_one_for_all_images():
    low, high = map_range(EVIDENCE, IMAGES)
    assert 0.4 < low < 0.6  # the median of good images
    assert 1.9 < high <= 2.0


def test_the_threshold_has_the_best_f1():
    score = np.where(TRUTH, 5.0, 1.0).astype(np.float32)
    found = calibrated(DetectorOutput(score), IMAGES)
    assert 1.0 < found.threshold < 5.0
    assert "optimistic" in found.how
    assert found.scaled(1.0) == pytest.approx(0.1)  # a usual good part
    assert found.scaled(found.threshold) == 0.5


def test_without_defects_the_threshold_is_the_highest_good_score():
    good = IMAGES.subset(np.flatnonzero(~TRUTH).tolist())
    found = calibrated(DetectorOutput(np.arange(len(good), dtype=np.float32)), good)
    assert found.threshold == len(good) - 1


def test_without_good_images_there_is_no_threshold():
    bad = IMAGES.subset(np.flatnonzero(TRUTH).tolist())
    assert calibrated(DetectorOutput(np.ones(len(bad), np.float32)), bad).threshold is None


def test_all_that_was_taught_is_known_again():
    first, second, third, fourth, *_ = SAMPLES
    taught = [TrainingImage(first), TrainingImage(second, TrainingLabel.ANOMALOUS)]
    steps = [Step((tuple(taught), (TrainingImage(first),)), {}), Step(((TrainingImage(third),),), {"metal": (fourth,)})]
    assert training_digests(TOY, steps, View(64)) == {read_view(TOY, s, View(64))[1] for s in (first, second, third)}


def test_losses_go_on_from_their_state():
    whole, first, second = Losses(), Losses(), Losses()
    for n in range(2 * POINTS + 3):
        report = Report("loss", value=float(n % 7))
        whole(report)
        if n == POINTS + 1:
            second.load_state_dict(first.state_dict())
        (first if n <= POINTS else second)(report)
    assert second.state_dict() == whole.state_dict()


def test_many_losses_become_means_of_neighbours(tmp_path):
    losses = Losses()
    losses.write(tmp_path)
    assert not list(tmp_path.iterdir())
    for n in range(2 * POINTS):
        losses(Report("loss", value=float(n)))
        losses(Report("fit", 1, 2))
    losses(Report("loss", value=float("nan")))
    assert POINTS / 4 < len(losses.kept) < POINTS
    step, first = losses.kept[0]
    assert first == sum(range(step)) / step
    assert losses.kept[-1][0] == 2 * POINTS
    losses.write(tmp_path)
    lines = (tmp_path / "losses.csv").read_text().splitlines()
    assert lines[:2] == ["step,loss", f"{step},{first:g}"]


def test_a_pro_curve_is_kept_where_it_was_made(tmp_path):
    truth = np.zeros((1, 4, 4), bool)
    truth[0, :2, :2] = True
    curve = Curve(truth, np.where(truth, 2.0, 1.0) + np.arange(16).reshape(1, 4, 4) / 100)
    keep_curves(tmp_path, "bottle", [curve])
    assert not list(tmp_path.iterdir())
    assert curve.pro[-1] == 1
    keep_curves(tmp_path, "bottle", [curve])
    keep_curves(tmp_path, "cable", [curve])
    kept = json.loads((tmp_path / "curves.json").read_text())
    assert list(kept) == ["bottle", "cable"]
    assert kept["bottle"]["overlap"][1:] == [1.0] * (len(RATES) - 1)  # all found before the first false alarm
    assert kept["bottle"]["overkill"][-1] == 1.0


def test_kept_maps_are_read_one_at_a_time_as_they_were_written(tmp_path):
    samples = [Sample(str(i), "bottle", "test", "good", f"{i}.png") for i in range(3)]
    maps = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float16).astype(np.float32)
    artifacts.keep_maps(tmp_path, "0-bottle", samples, maps)
    file = tmp_path / artifacts.maps_file("0-bottle")
    assert artifacts.kept_ids(file) == ["0", "1", "2"]
    np.testing.assert_array_equal(list(artifacts.kept_maps(file)), maps)


@pytest.mark.parametrize("kept", [np.zeros((2, 4)), np.zeros((2, 4, 4)), np.asfortranarray(np.zeros((2, 3, 4), "f2"))])
def test_maps_that_are_none_are_one_sentence(tmp_path, kept):
    np.savez(tmp_path / "a.npz", maps=kept, ids=np.array(["a", "b"]))
    with pytest.raises(BadData, match=r"a\.npz is damaged .* instead of maps in half precision"):
        list(artifacts.kept_maps(tmp_path / "a.npz"))


def test_a_file_of_maps_that_was_cut_is_one_sentence(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", maps=np.zeros((2, 3, 4), np.float16), ids=np.array(["a", "b"]))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2])
    for read in (artifacts.kept_ids, lambda file: list(artifacts.kept_maps(file))):
        with pytest.raises(BadData, match=r"a\.npz is damaged"):
            read(tmp_path / "a.npz")
