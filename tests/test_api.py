"""The main jobs from Python, from images on disk to verdicts."""

import pkgutil
import shutil

import numpy as np
import pytest
from PIL import Image

import iadbe
from iadbe import api
from iadbe.data import check, resolve
from iadbe.errors import BadConfig, RunFailed
from iadbe.files import image_io
from iadbe.types import Options

QUICK = Options(features="off", images=2)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Good plates, and plates with a bright square."""
    root = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    for kind, count in (("good", 12), ("square", 4)):
        (root / kind).mkdir()
        for i in range(count):
            pixels = rng.integers(90, 110, (64, 80, 3), dtype=np.uint8)
            if kind == "square":
                pixels[20:36, 20:36] = 220
            Image.fromarray(pixels).save(root / kind / f"{i:03d}.png")
    return root


@pytest.fixture(scope="module")
def trained(parts, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    (found,) = iadbe.train("padim", str(parts), dims=16, protocol="uniform@64", store=store, options=QUICK)
    return found


def test_training_gives_numbers_and_a_model(trained):
    assert trained.result.error == ""
    assert {r.metric: r.value for r in trained.rows}["image_auroc"] == 1.0
    assert (trained.folder / "model/detector.json").is_file()


def test_predictions_are_of_the_images_own_size_and_have_a_verdict(trained, parts):
    found = list(iadbe.predict(trained.folder, [parts / "square", str(parts / "good/00*.png")]))
    assert [f.defective for f in found] == [True] * 4 + [False] * 10
    assert all(f.map.shape == f.heat.shape == (64, 80) for f in found)
    assert all(f.heat.min() >= 0 and f.heat.max() <= 1 for f in found)


def test_one_bad_image_does_not_stop_the_others(trained, parts, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes((parts / "good/000.png").read_bytes())
    bad, good = iadbe.predict(trained.folder, tmp_path)
    assert "empty file" in bad.error
    assert bad.defective is None
    assert good.error == ""


def test_what_drift_watches_is_measured_where_it_is_asked_for(trained, parts):
    image = parts / "square/000.png"
    assert next(iter(iadbe.predict(trained, image))).channels == {}
    assert {"score", "brightness", "x"} <= set(next(iter(iadbe.predict(trained, image, measure=True))).channels)


def test_what_train_returns_stands_for_its_model(trained, parts):
    image = parts / "square/000.png"
    scores = [next(iter(iadbe.predict(model, image))).score for model in (trained.folder, trained, [trained])]
    assert scores[0] == scores[1] == scores[2]
    with pytest.raises(BadConfig, match=r"these are 2 models \(\[0\] \w+, \[1\] \w+\), not one"):
        iadbe.load([trained, trained])
    with pytest.raises(BadConfig, match="these are 0 models"):
        iadbe.predict([], image)


def test_a_threshold_of_ones_own(trained, parts):
    found = list(iadbe.predict(trained.folder, parts / "good", threshold=-1.0))
    assert all(f.defective for f in found)


def test_good_images_calibrate_a_model(trained, parts, tmp_path):
    rng = np.random.default_rng(9)
    for i in range(20):
        Image.fromarray(rng.integers(90, 110, (64, 80, 3), dtype=np.uint8)).save(tmp_path / f"{i:02d}.png")
    model = shutil.copytree(trained.folder / "model", tmp_path / "model")
    made = api.calibrate(model, tmp_path / "*.png", [parts / "square"], overkill=0.1)
    assert (made.folder, made.calibration.good, made.calibration.bad) == (model, 20, 4)
    assert made.calibration.escape.value == 0
    assert iadbe.load(model).calibration == made.calibration
    first, second, third = made.highest
    assert first.score > second.score > third.score
    assert (first.defective, second.defective) == (True, False)  # of 20 the highest one: floor(0.1 * 21) - 1
    assert [f.defective for f in iadbe.predict(model, parts / "square")] == [True] * 4
    with pytest.raises(BadConfig, match="not a model folder"):
        api.calibrate(parts, parts / "good")


def test_a_read_only_model_is_not_calibrated(trained, parts, monkeypatch):
    monkeypatch.setattr(api.system, "is_writable", lambda folder: False)
    with pytest.raises(BadConfig, match="is read-only, so no threshold can be kept in it"):
        api.calibrate(trained.folder / "model", parts / "good")


def test_testing_a_loaded_model_gives_the_runs_own_numbers(trained, parts):
    rows = iadbe.test(iadbe.load(trained.folder), str(parts))
    own = {r.metric: r.value for r in trained.rows}
    assert next(iter(rows.values()))["image_auroc"] == own["image_auroc"]


def test_arrays_and_pillow_images_score_as_their_files(trained, parts):
    model = iadbe.load(trained.folder)
    (file,) = iadbe.predict(model, parts / "square/000.png")
    with Image.open(parts / "square/000.png") as image:
        (array,), (pillow,) = (list(iadbe.predict(model, one)) for one in (np.asarray(image), image))
    assert file.score == array.score == pillow.score
    assert file.key == array.key
    np.testing.assert_array_equal(file.map, array.map)
    assert len(list(iadbe.predict(model, np.zeros((3, 20, 20, 3), np.uint8)))) == 3


def test_a_failed_run_raises_as_on_the_command_line(parts, tmp_path):
    with pytest.raises(RunFailed, match=rf"1 of 1 runs failed. patchcore on folder {parts.name}: coreset"):
        iadbe.train("patchcore", str(parts), coreset=5, protocol="uniform@64", store=tmp_path, options=QUICK)


def test_a_trained_run_says_what_it_is(trained, parts):
    assert repr(trained).startswith(f"TrainedRun(padim on folder {parts.name}, seed 0: image_auroc 1, ")
    assert len(repr(trained)) < 400


def test_a_grid_gives_tables(parts, tmp_path):
    grid = {"detectors": [{"name": "padim", "dims": 8}], "data": [str(parts)], "protocol": "uniform@64"}
    found = iadbe.benchmark(grid, store=tmp_path, options=QUICK)
    assert (found.summary.done, len(found), found.failed) == (1, 1, ())
    assert "padim" in found.table(["image_auroc"])
    assert found.rows()[0]["image_auroc"] == 1.0
    assert iadbe.benchmark(grid, store=tmp_path, options=QUICK).summary.already == 1
    with pytest.raises(BadConfig, match="there is nothing to run"):
        iadbe.benchmark({**grid, "settings": ["zero_shot"]}, store=tmp_path)


def test_inputs_that_match_nothing_are_one_sentence(trained, tmp_path):
    with pytest.raises(BadConfig, match="has no images or videos in it"):
        list(iadbe.predict(trained.folder, tmp_path))
    with pytest.raises(BadConfig, match="no pattern"):
        list(iadbe.predict(trained.folder, tmp_path / "*.png"))


def test_inputs_are_taken_once_and_in_order(parts):
    found = api.expand([parts / "good", parts / "good/000.png"])
    assert len(found) == 12
    assert found == sorted(found)


def test_the_public_names_are_there():
    assert set(dir(iadbe)) >= {"train", "test", "predict", "benchmark", "load", "Detector", "__version__"}
    assert all(getattr(iadbe, name) is not None for name in dir(iadbe))


def test_no_public_name_is_a_package():
    """Importing a package would put it in the place of the function: it would work once."""
    packages = {module.name for module in pkgutil.iter_modules(iadbe.__path__)}
    assert not packages & set(dir(iadbe))


def test_deep_images_are_scaled_alike_in_training_and_prediction(parts, tmp_path):
    """12 bits in 16-bit files: the range is learnt from the good images, kept in the model, and used for each image."""
    import tifffile

    for kind in ("good", "square"):
        (tmp_path / f"deep/{kind}").mkdir(parents=True)
        for file in sorted((parts / kind).iterdir()):
            deep = np.asarray(Image.open(file)).astype(np.uint16) * 16
            tifffile.imwrite(tmp_path / f"deep/{kind}/{file.stem}.tif", deep, photometric="rgb")
    (found,) = iadbe.train(
        "padim", str(tmp_path / "deep"), dims=16, protocol="uniform@64", store=tmp_path, options=QUICK
    )
    model = iadbe.load(found.folder)
    assert (model.intensity.low, model.intensity.high) == (0, 4095)
    good = tmp_path / "deep/good/000.tif"
    (first,) = iadbe.predict(model, good)
    assert first.note == ""
    assert image_io.read_rgb(good, first.intensity).mean() == pytest.approx(100 * 4080 / 4095, abs=1)
    pixels = tifffile.imread(good)
    pixels[:2, :2] = 4097 * 4  # brighter than white
    tifffile.imwrite(tmp_path / "hot.tif", pixels, photometric="rgb")
    (hot,) = iadbe.predict(model, tmp_path / "hot.tif")
    assert not hot.error
    tifffile.imwrite(tmp_path / "bright.tif", pixels * 4, photometric="rgb")
    (bright,) = iadbe.predict(model, tmp_path / "bright.tif")
    assert "above the range 0 to 4095 (learnt from" in bright.note
    values = iadbe.test(model, str(tmp_path / "deep"))
    assert values["deep"]["image_auroc"] == 1.0


def test_a_deep_image_for_a_model_of_8_bits_is_noted(trained, tmp_path):
    Image.fromarray((np.random.default_rng(0).random((64, 80)) * 4095).astype(np.uint16)).save(tmp_path / "a.png")
    (found,) = iadbe.predict(trained.folder, tmp_path / "a.png")
    assert "nearly black" in found.note


def test_channels_and_pages_are_alike_in_training_prediction_and_check(parts, tmp_path):
    """Five channels in pages: the components learnt from the good images are kept in the model and used for each."""
    import tifffile

    mix = np.random.default_rng(0).random((3, 5))
    for kind in ("good", "square"):
        (tmp_path / f"deep/{kind}").mkdir(parents=True)
        pages = [
            (np.asarray(Image.open(file)) @ mix * 16).astype(np.uint16) for file in sorted((parts / kind).iterdir())
        ]
        with tifffile.TiffWriter(tmp_path / f"deep/{kind}/stack.tif") as file:
            for page in pages:
                file.write(page, photometric="minisblack", planarconfig="contig")
    data, given = str(tmp_path / "deep"), {"pages": True, "channels": "pca"}
    (found,) = iadbe.train(
        "padim", data, data_params=given, dims=16, protocol="uniform@64", store=tmp_path, options=QUICK
    )
    model = iadbe.load(found.folder)
    assert len(model.intensity.projection.weights) == 3
    results = list(iadbe.predict(model, tmp_path / "deep/square"))
    assert [r.path.name for r in results] == [f"stack.tif#{n:04d}" for n in range(len(results))]
    assert all(r.score > 0 and not r.error for r in results)
    resolved = resolve.find(data, **given)
    report = check.check(resolve.make(resolved.name, resolved.params))
    assert report.intensity.startswith("0 is black and 1 is white, learnt from")
    assert "principal components of 5 channels" in report.intensity
    assert report.ok


@pytest.fixture(scope="module")
def restricted(parts, tmp_path_factory):
    """A model for which only the left half of a plate counts."""
    folder = tmp_path_factory.mktemp("region")
    (folder / "roi.yaml").write_text("- [[0, 0], [39, 0], [39, 63], [0, 63]]", encoding="utf-8")
    (found,) = iadbe.train(
        "padim", str(parts), data_params={"roi": str(folder / "roi.yaml")}, dims=16, protocol="uniform@64",
        store=folder, options=QUICK,
    )  # fmt: skip
    return found


class TestRegion:
    def test_it_is_kept_with_the_model(self, restricted, trained, parts):
        model = iadbe.load(restricted.folder)
        assert model.region.shape == (64, 80)
        assert model.region[:, :40].all()
        assert not model.region[:, 40:].any()
        assert restricted.folder.name != trained.folder.name
        assert {r.metric: r.value for r in restricted.rows}["image_auroc"] == 1.0
        values = iadbe.test(model, str(parts))
        assert values[parts.name]["image_auroc"] == 1.0

    def test_what_does_not_count_changes_no_prediction(self, restricted, parts, tmp_path):
        model = iadbe.load(restricted.folder)
        pixels = np.array(Image.open(parts / "good/000.png"))
        plain, trained_on = pixels.copy(), []
        pixels[5:60, 42:] = 255
        for one in (plain, pixels):
            (found,) = iadbe.predict(model, one)
            trained_on.append((found.score, found.key))
            assert not found.defective
            assert (found.view_map[:, 32:] == found.view_map[:, :32].min()).all()
            assert found.region_at(32, 40).sum() == 32 * 20
        assert trained_on[0] == trained_on[1]
        assert any(model.was_trained_on(f.key) for f in iadbe.predict(model, parts / "good"))
        pixels[20:36, 10:26] = 220
        assert next(iadbe.predict(model, pixels)).defective

    def test_images_of_other_proportions_are_refused_one_by_one(self, restricted):
        model = iadbe.load(restricted.folder)
        same, other = iadbe.predict(model, [np.zeros((128, 160, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)])
        assert not same.error
        assert "is a region of 64x80 (height x width), but an image is 64x64" in other.error
