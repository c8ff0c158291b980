"""From runs on a small drawn MVTec AD 2 to an archive, which an independent reader checks."""

import csv
import io
import json
import shutil
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from dataset_trees import draw, draw_mask
from iadbe import api
from iadbe.files import ad2_submission
from iadbe.types import Options

SIZES = {"can": (40, 52), "rice": (33, 64)}
COUNT = 3
QUICK = Options("cpu", features="off", images=2)
PARAMS = {"dims": 8, "backbone": "test_resnet", "weights": "none"}


def draw_tree(root):
    for name, size in SIZES.items():
        for i in range(6):
            draw(root / name / f"train/good/{i:03d}_regular.png", size=size)
        for i in range(COUNT):
            draw(root / name / f"validation/good/{i:03d}_regular.png", size=size)
            draw(root / name / f"test_public/good/{i:03d}_regular.png", size=size)
            draw(root / name / f"test_public/bad/{i:03d}_regular.png", size=size)
            draw_mask(root / name / f"test_public/ground_truth/bad/{i:03d}_regular_mask.png", size=size)
            draw(root / name / f"test_private/{i:03d}_regular.png", size=size)
            draw(root / name / f"test_private_mixed/{i:03d}_mixed.png", size=size)
    return root


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    """The data, a run with its model for each object, and runs with maps of a private split for one object."""
    root = tmp_path_factory.mktemp("factory")
    data = draw_tree(root / "mvtec_ad_2")
    runs = api.train("padim", str(data), protocol="uniform@32", store=root / "runs", options=QUICK, **PARAMS)
    for split in ("private", "private_mixed"):
        grid = {
            "detectors": [{"name": "padim", **PARAMS}],
            "data": [{"name": "mvtec_ad2", "root": str(data), "test_type": split, "categories": ["rice"]}],
            "protocol": "uniform@32",
        }
        found = api.benchmark(grid, store=root / "runs", options=Options("cpu", features="off", keep_maps=True))
        assert not found.failed
    maps = [f for f in sorted((root / "runs").glob("padim-*")) if (f / "maps").is_dir()]
    return SimpleNamespace(root=root, data=data, runs=[run.folder for run in runs], maps=maps)


def unpacked(archive):
    """Return the files of an archive, read by tarfile, tifffile and Pillow alone: path -> array."""
    found = {}
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            data = io.BytesIO(tar.extractfile(member).read())
            is_map = member.name.endswith(".tiff")
            found[member.name] = tifffile.imread(data) if is_map else np.asarray(Image.open(data))
    return found


@pytest.fixture
def submit(iadbe, factory):
    def run(runs, *more, out="x.tar.gz"):
        how = ("--root", factory.data, "--out", out, "--device", "cpu", "--store", factory.root / "runs")
        return iadbe("submit", "mvtec_ad2", *runs, *how, *more)

    return run


def expected_map(folder, file, validation):
    """Return the standardised map of an image, computed from predictions alone."""
    model = folder / "model"
    values = np.stack([found.map for found in api.predict(model, validation, device="cpu")]).astype(np.float64)
    (found,) = api.predict(model, file, device="cpu")
    return (found.map - values.mean()) / values.std()


def test_the_archive_holds_what_the_server_wants(submit, iadbe, factory, elsewhere):
    output = submit(factory.runs, "--repeats", "2", "--warmup", "1")
    assert output.code == 0, output.err
    assert "12 maps and 12 masks, all checked" in output.out
    assert "the server would refuse the archive" in output.err  # two of eight objects
    files = unpacked(elsewhere / "x.tar.gz")
    names = {
        f"x/{kind}/{name}/{split}/{i:03d}_{suffix}.{ending}"
        for kind, ending in (("anomaly_images", "tiff"), ("anomaly_images_thresholded", "png"))
        for name in SIZES
        for split, suffix in (("test_private", "regular"), ("test_private_mixed", "mixed"))
        for i in range(COUNT)
    }
    assert set(files) == names
    for name, values in files.items():
        assert values.shape == SIZES[name.split("/")[2]]
        assert values.dtype == (np.float16 if name.endswith(".tiff") else np.uint8)
    for name in (n for n in names if n.endswith(".tiff")):
        mask = files[name.replace("anomaly_images", "anomaly_images_thresholded").replace(".tiff", ".png")]
        assert np.array_equal(mask, (files[name] > 3).astype(np.uint8) * 255)
    run = next(f for f in factory.runs if "-rice-" in f.name)
    wanted = expected_map(run, factory.data / "rice/test_private/001_regular.png", factory.data / "rice/validation")
    found = files["x/anomaly_images/rice/test_private/001_regular.tiff"]
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-3)
    with (elsewhere / "x_runtimes_and_memory_cpu.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sizes = [(row["image_height"], row["image_width"]) for row in rows]
    assert sizes == [("256", "256"), ("512", "512"), ("1024", "1224")]
    assert all(0 < float(r["runtime_min"]) <= float(r["runtime_mean"]) <= float(r["runtime_max"]) for r in rows)
    assert not (elsewhere / "x.tar.gz.parts").exists()
    check = iadbe("submit", "--check", "x.tar.gz", "--root", factory.data)
    assert check.out == "12 maps and 12 masks, checked against the images of the data: no fault\n"
    assert check.code == 0
    official = iadbe("submit", "--check", "x.tar.gz")
    assert official.code == 1
    assert "fault: anomaly_images/can/test_private lacks 318 of 321 files: 003_regular.tiff, 004" in official.out


def test_an_interrupted_command_goes_on(submit, factory, elsewhere, monkeypatch):
    real, written = ad2_submission.write_map, []

    def write_map(path, values):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(path)
        real(path, values)

    monkeypatch.setattr(ad2_submission, "write_map", write_map)
    stopped = submit(factory.runs, "--repeats", "0")
    assert stopped.code == 130
    assert "The same command goes on where it stopped" in stopped.err
    first = {path: path.stat().st_mtime_ns for path in written}
    other = submit(factory.runs, "--repeats", "0", "--deviations", "2")
    assert "is the beginning of another submission. Remove it, or choose another --out" in other.err
    kept = {}

    def counted(path, values):
        kept.update({p: p.stat().st_mtime_ns for p in first})
        written.append(path)
        real(path, values)

    monkeypatch.setattr(ad2_submission, "write_map", counted)
    again = submit(factory.runs, "--repeats", "0")
    assert again.code == 0, again.err
    assert "continues from" in again.err
    assert len(written) == len(set(written)) == 12
    assert kept == first
    monkeypatch.undo()
    monkeypatch.chdir(elsewhere)
    assert submit(factory.runs, "--repeats", "0", out="y.tar.gz").code == 0
    one, two = unpacked(elsewhere / "x.tar.gz"), unpacked(elsewhere / "y.tar.gz")
    assert {k[1:] for k in one} == {k[1:] for k in two}
    assert all(np.array_equal(one[f"x{key[1:]}"], value) for key, value in two.items())


def test_kept_maps_serve_as_well(submit, factory, elsewhere):
    can = [f for f in factory.runs if "-can-" in f.name]
    output = submit([*can, *factory.maps], "--repeats", "0")
    assert output.code == 0, output.err
    assert submit(factory.runs, "--repeats", "0", out="y.tar.gz").code == 0
    one, two = unpacked(elsewhere / "x.tar.gz"), unpacked(elsewhere / "y.tar.gz")
    for key, values in two.items():
        if key.endswith(".tiff"):
            np.testing.assert_allclose(one[f"x{key[1:]}"], values, atol=0.02)  # kept in half precision


def test_a_private_run_gives_scores_and_no_metrics(iadbe, factory):
    assert len(factory.maps) == 2
    for folder in factory.maps:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        assert any("labels of the test images are not published" in note for note in result["notes"])
        lines = (folder / "scores.csv").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 1 + COUNT
        assert all("unlabelled" in line for line in lines[1:])
    table = iadbe("results", "table", "--store", factory.root / "runs")
    assert table.code == 0, table.err
    shown = iadbe("results", "show", factory.maps[0].name.rpartition("-")[2], "--store", factory.root / "runs")
    assert shown.code == 0, shown.err
    assert "labels of the test images are not published" in shown.out
    report = iadbe("results", "report", "x.html", "--store", factory.root / "runs")
    assert report.code == 0, report.err


def test_what_is_lacking_is_said(submit, factory, elsewhere, iadbe):
    lacking = submit(factory.runs[:1])
    assert "no run gives maps of rice/test_private, rice/test_private_mixed. Give a run for each object" in lacking.err
    assert "both give maps of rice" in submit([*factory.runs, *factory.maps]).err
    bare = elsewhere / factory.runs[0].name
    shutil.copytree(factory.runs[0], bare, ignore=shutil.ignore_patterns("model"))
    neither = submit([bare])
    assert "kept neither its model nor maps of a private split" in neither.err
    assert "--keep-models" in neither.err
    assert iadbe("submit").code == 2
    assert iadbe("submit", "mvtec_ad", "x", "--out", "x.tar.gz").code == 2
    assert "is not the name of an archive" in submit(factory.runs, out="x.zip").err
    assert "is not a run's folder" in submit([factory.data]).err
