import numpy as np
import pytest

from fake_results import result
from iadbe.curves.curve import Curve
from iadbe.data.images import View
from iadbe.data.transforms import TransformedDataset, with_transform, without_transform
from iadbe.datasets.mvtec_ad import MVTecAD
from iadbe.errors import BadConfig, BadData
from iadbe.files import image_io
from iadbe.metric import MASK_RULES, parse
from iadbe.results.explanation import AS_RUN, COLUMNS, explain, listing, row_name, variants
from iadbe.results.table import to_markdown
from iadbe.running.artifacts import keep_maps
from iadbe.running.store import Store
from iadbe.types import Row
from part_images import draw_mvtec


@pytest.fixture
def kept(tmp_path):
    """A store with one run whose maps are kept, and what they were made from."""
    root = draw_mvtec(tmp_path / "data")
    dataset = MVTecAD(root=str(root))
    samples = [s for s in dataset.samples() if s.split == "test"]
    masks = [dataset.mask(s) if s.is_anomaly else np.zeros((64, 64), bool) for s in samples]
    truth = np.stack([View(48)(m) for m in masks])
    maps = (np.random.default_rng(0).normal(size=truth.shape) + 2 * truth).astype(np.float32)
    store = Store(tmp_path / "runs")
    metrics = ("pixel_auroc", "pixel_aupro")
    values = {m: parse(m)[1](truth, maps) for m in metrics}
    run = result("padim", "nut", values, metrics=metrics, protocol="uniform@48", data=dataset.digest())
    staging = store.staging(run.spec)
    keep_maps(staging / "maps", "0-nut", samples, maps)
    store.save(run, staging)
    return store, str(root), truth, maps


def only(store):
    """Return the id of the only run."""
    (folder,) = store.folders()
    return folder.name.rpartition("-")[2]


def rows_of(table):
    names = [c.name for c in table.columns]
    return {row[0].text: dict(zip(names, row, strict=True)) for row in table.rows}


def test_every_variant_has_a_row(kept):
    store, root, truth, maps = kept
    (table,) = explain(store, only(store), root)
    rows = rows_of(table)
    assert list(rows) == [AS_RUN, *variants()]
    half = maps.astype(np.float16).astype(np.float32)
    for way in ("exact", "rd4ad", "adeval_50", "orthoad", "uniad"):
        for column in COLUMNS:
            cell = rows[way][column]
            if (name := row_name(column, way)) is None:
                assert cell.text == "—"
            else:
                assert cell.value == pytest.approx(parse(name)[1](truth, half), abs=1e-12)
    assert rows[AS_RUN]["pixel_auroc"].value == pytest.approx(rows["exact"]["pixel_auroc"].value, abs=1e-3)
    assert rows[AS_RUN]["pixel_ap"].text == "—"  # the run did not measure it


def test_mask_rules_are_rows_of_their_own(kept):
    store, root, *_ = kept
    rows = rows_of(explain(store, only(store), root)[0])
    for rule in MASK_RULES:
        assert (rule in rows) == (rule != "nearest")
    values = {rows[way]["pixel_ap"].text for way in ("exact", "over_half", "touched", "whole")}
    assert len(values) == 4


def test_footnotes_name_the_code_of_each_dialect(kept):
    store, root, *_ = kept
    (table,) = explain(store, only(store), root)
    assert [mark for row in table.rows[1:] for mark in row[0].marks] == [m for m, _ in table.footnotes if m]
    assert "RD4AD" in to_markdown([table])
    told = dict(zip(variants(), (text for mark, text in table.footnotes if mark), strict=True))
    assert "F1max and IoU-max: " not in told["rd4ad"]
    assert told["ader"].startswith("AUPRO: ADer: as dinomaly")
    assert "half precision" in to_markdown([table])


class TestTrouble:
    def test_a_run_without_maps_says_how_to_get_them(self, tmp_path):
        store = Store(tmp_path)
        store.save(result())
        with pytest.raises(BadConfig, match="kept no maps.*--keep-maps"):
            explain(store, only(store))

    def test_a_failed_run(self, tmp_path):
        store = Store(tmp_path)
        store.save(result(error="out of memory"))
        with pytest.raises(BadConfig, match="failed.*out of memory"):
            explain(store, only(store))

    def test_no_folder_of_the_data(self, kept):
        with pytest.raises(BadConfig, match=r"--data\.root"):
            explain(kept[0], only(kept[0]))

    def test_other_data_than_was_tested(self, kept, tmp_path):
        store, root, *_ = kept
        (tmp_path / "data/nut/test/good/0.png").write_bytes(b"other")
        with pytest.raises(BadData, match="not what the run was tested on"):
            explain(store, only(store), root)

    def test_scores_that_half_precision_cannot_hold(self, kept):
        store, root, _, maps = kept
        file = store.find(only(store)) / "maps/0-nut.npz"
        with np.load(file) as found:
            ids = found["ids"]
        broken = maps.astype(np.float16)
        broken[0, 0, 0] = np.inf
        np.savez_compressed(file, maps=broken, ids=ids)
        with pytest.raises(BadData, match="half precision"):
            explain(store, only(store), root)
        file.write_bytes(b"x")
        with pytest.raises(BadData, match="damaged"):
            explain(store, only(store), root)


def test_row_names():
    assert row_name("pixel_aupro@5%", "rd4ad") == "pixel_aupro.rd4ad@5%"
    assert row_name("pixel_ap", "touched") == "pixel_ap.touched"
    assert row_name("pixel_ap", "rd4ad") is None
    assert row_name("pixel_ap", "exact") == "pixel_ap"


def test_a_list_of_rows_and_dialects():
    lines = listing(["aupro"])
    assert lines[0].startswith("aupro  (pixel)  Area under")
    assert any(line.startswith("  .rd4ad") for line in lines)
    assert lines[-1].startswith("  .whole")


def test_images_that_were_changed_are_changed_again(tmp_path):
    """Their masks turn with them, so that the numbers are the run's."""
    root = draw_mvtec(tmp_path / "data")
    plain = MVTecAD(root=str(root))
    dataset = TransformedDataset(plain)
    samples = [with_transform(s, "rotation", 45) for s in plain.samples() if s.split == "test"]
    masks = [dataset.mask(s) if s.is_anomaly else np.zeros((64, 64), bool) for s in samples]
    truth = np.stack([View(48)(m) for m in masks])
    maps = (np.random.default_rng(0).normal(size=truth.shape) + 2 * truth).astype(np.float32)
    run = result(
        "padim",
        "nut",
        rows=(Row(0, "nut, rotation 5", "pixel_ap", parse("pixel_ap")[1](truth, maps)),),
        setting="shifted",
        metrics=("pixel_ap",),
        protocol="uniform@48",
        data=plain.digest(),
    )
    store = Store(tmp_path / "runs")
    staging = store.staging(run.spec)
    keep_maps(staging / "maps", "0-nut, rotation 5", samples, maps)
    store.save(run, staging)
    (table,) = explain(store, only(store), str(root))
    rows = rows_of(table)
    assert "nut, rotation 5" in table.title
    assert rows["exact"]["pixel_ap"].value == pytest.approx(rows[AS_RUN]["pixel_ap"].value, abs=1e-3)
    unturned = np.stack(
        [View(48)(plain.mask(without_transform(s)) if s.is_anomaly else np.zeros((64, 64), bool)) for s in samples]
    )
    assert abs(parse("pixel_ap")[1](unturned, maps) - rows[AS_RUN]["pixel_ap"].value) > 0.02


def test_pixels_that_did_not_count_in_the_run_do_not_count_here(kept, tmp_path):
    store, root, truth, maps = kept
    roi = tmp_path / "roi.png"
    counts = np.zeros((64, 64), bool)
    counts[:, :40] = True
    image_io.write(roi, counts.astype(np.uint8) * 255)
    dataset = MVTecAD(root=root)
    dataset.set_region(roi=str(roi))
    run = result("padim", "nut", {"pixel_auroc": 0.5}, protocol="uniform@48", data=dataset.digest(), seed=1)
    staging = store.staging(run.spec)
    keep_maps(staging / "maps", "0-nut", [s for s in dataset.samples() if s.split == "test"], maps)
    saved = store.save(run, staging).name.rpartition("-")[2]
    with pytest.raises(BadData, match=r"--data\.roi"):
        explain(store, saved, root)
    (table,) = explain(store, saved, root, roi=str(roi))
    region = np.broadcast_to(View(48)(counts), truth.shape)
    known = (truth & region).any((1, 2)) | ~truth.any((1, 2))
    half = maps.astype(np.float16).astype(np.float32)
    curve = Curve(truth[known], half[known], region=np.ascontiguousarray(region[known]))
    cell = rows_of(table)["exact"]["pixel_auroc"]
    assert cell.value == pytest.approx(parse("pixel_auroc")[1].value(curve), abs=1e-12)
    assert cell.value != pytest.approx(parse("pixel_auroc")[1](truth, half), abs=1e-6)


def test_registered_images_are_not_explained(kept):
    store, root, *_ = kept
    run = result("padim", "nut", {"pixel_auroc": 0.5}, protocol="uniform@48,aligned")
    saved = store.save(run, store.staging(run.spec)).name.rpartition("-")[2]
    with pytest.raises(BadConfig, match="without --align"):
        explain(store, saved, root)
