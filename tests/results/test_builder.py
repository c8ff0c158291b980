import csv
import io
import json
from dataclasses import replace

import pytest

from fake_results import FIFTEEN, MACHINE, cell, result, runs, scores, texts
from iadbe.evaluation.confidence import category_scores
from iadbe.metric import parse
from iadbe.results import builder
from iadbe.results.builder import entry_samples, same_machine, sorted_entries
from iadbe.results.comparison import compare
from iadbe.results.entry import MAD_OF
from iadbe.results.ranking import by_category, ranking, ranking_of
from iadbe.results.table import to_csv, to_json, to_latex


class TestBuilder:
    def test_times_of_different_machines_are_not_ranked(self):
        other = {**MACHINE, "processor": "another"}
        results = [result("padim", latency_ms=1.0), result("stfpm", environment=other)]
        assert not same_machine(compare(results)[0])
        (table,) = ranking(results)
        assert not cell(table, "padim", "latency_ms").best
        assert "compare no times" in texts(table)

    def test_a_note_says_whose_numbers_it_is_about(self):
        late = "training ended with its budget of 9 s, before its last epoch."
        masks = "bottle: there are no masks."
        (table,) = ranking(
            [result("stfpm", notes=(late, masks)), result("padim", notes=(masks,)), result("dfm", notes=(masks,))]
        )
        assert f"stfpm: {late}" in texts(table)
        assert f"all detectors: {masks}" in texts(table)

    def test_notes_and_parameters_reach_the_reader(self):
        (table,) = ranking([result(detector_params={"coreset": 0.5}, notes=("bottle: there are no masks.",))])
        assert "patchcore ran with coreset=0.5" in texts(table)
        assert "there are no masks" in texts(table)

    def test_detectors_with_the_same_parameters_share_a_note(self):
        names = {"dfm": 1, "padim": 1, "stfpm": 2}
        runs = [result(name, detector_params={"sigma": sigma}) for name, sigma in names.items()]
        (table,) = ranking([*runs, result("patchcore")])
        assert "dfm and padim ran with sigma=1; their other parameters are the defaults." in texts(table)
        assert "stfpm ran with sigma=2; its other parameters are the defaults." in texts(table)

    def test_order(self):
        results = [result("none", error="x"), result("low", values={"image_auroc": 0.1}), result("high")]
        assert [e.name for e in sorted_entries(compare(results)[0], "image_auroc")] == ["high", "low", "none"]


class TestIntervals:
    def made(self, shift=1.0, **more):
        scored = scores(shift=shift, good=40, bad=40)
        cases = category_scores((s.sample, s.defect != "good", [s.score]) for s in scored)
        values = {f"image_{m}": parse(f"image_{m}")[1](cases.truth, cases.score[0]) for m in ("auroc", "ap", "escape")}
        values["pixel_auroc"] = 0.9
        return result(values=values, scores=scored, metrics=tuple(values), **more)

    def test_image_metrics_have_one_and_pixel_metrics_none(self):
        (table,) = ranking([self.made()])
        for metric in ("image_auroc", "image_ap", "image_escape"):
            found = cell(table, "patchcore", metric)
            assert found.low < found.value < found.high
            assert 0.02 < found.high - found.low < 0.6
            assert found.text == f"{found.value:.3f} ({found.low:.3f}–{found.high:.3f})"
        assert cell(table, "patchcore", "pixel_auroc").low is None
        assert "In brackets: 95 % score intervals" in texts(table)

    def test_they_are_the_same_each_time_and_in_every_form(self):
        first, second = (ranking([self.made()])[0] for _ in range(2))
        assert first == second
        row = next(csv.DictReader(io.StringIO(to_csv([first]))))
        assert float(row["image_ap_low"]) == cell(first, "patchcore", "image_ap").low
        assert (
            json.loads(to_json([first]))[0]["rows"][0]["image_ap"]["high"] == cell(first, "patchcore", "image_ap").high
        )
        assert "--" in to_latex([first])

    def test_each_category_has_its_own(self):
        (table,) = by_category([self.made(), self.made()], "image_ap")
        assert cell(table, "patchcore", "bottle").low is not None

    def test_without_scores_there_are_none(self):
        (table,) = ranking([result()])
        assert cell(table, "patchcore", "image_auroc").text == "0.900"
        assert "brackets" not in texts(table)


class TestReported:
    def test_beside_ours_with_the_difference_and_the_source(self):
        results = runs("patchcore", dict.fromkeys(FIFTEEN, 0.95)) + runs("mine", dict.fromkeys(FIFTEEN, 0.9))
        (table,) = ranking(results, reported=("papers",))
        names = [c.name for c in table.columns]
        assert names[:4] == ["detector", "image_auroc", "image_auroc_reported", "image_auroc_difference"]
        assert cell(table, "patchcore", "image_auroc_reported").text == "0.992"
        assert cell(table, "patchcore", "image_auroc_difference").text == "−0.042"
        assert cell(table, "mine", "image_auroc_reported").text == "—"
        assert "Source: README of amazon-science/patchcore-inspection" in texts(table)

    def test_another_dialect_is_shown_but_not_subtracted(self):
        results = runs("orthoad", dict.fromkeys(FIFTEEN, 0.95), "pixel_auroc", metrics=("pixel_auroc",))
        (table,) = ranking(results, reported=("papers",))
        assert cell(table, "orthoad", "pixel_auroc_reported").text == "0.982"
        assert cell(table, "orthoad", "pixel_auroc_difference").text == "—"
        assert "so not subtracted" in texts(table)

    def test_by_category(self):
        (table,) = by_category(runs("patchcore", {"pill": 0.95}), reported=("papers",))
        assert cell(table, "patchcore", "pill_difference").text == "−0.016"

    def test_without_it_nothing_changes(self):
        (table,) = ranking(runs("patchcore", {"pill": 0.95}))
        assert "reported" not in " ".join(c.name for c in table.columns)


class TestUnfinished:
    RUNS = (
        result(
            "fastflow",
            values={"image_auroc": 0.99},
            steps={"done": 9, "planned": 4800},
            latency_ms=1.0,
            latency_range_ms=(1.0, 1.1),
        ),
        result(
            "cflow",
            values={"image_auroc": 0.8},
            steps={"done": 3000, "planned": 4800},
            latency_ms=9.0,
            latency_range_ms=(8.0, 9.5),
        ),
        result("padim", values={"image_auroc": 0.7}, latency_ms=5.0, latency_range_ms=(4.0, 6.0)),
    )

    def test_it_is_neither_best_nor_fastest_and_the_steps_are_shown(self):
        (table,) = ranking(self.RUNS)
        assert [row[0].text for row in table.rows] == ["cflow", "padim", "fastflow"]
        assert {name: cell(table, name, "steps").text for name in ("cflow", "padim", "fastflow")} == {
            "cflow": "3 000 of 4 800", "padim": "—", "fastflow": "9 of 4 800, unfinished",
        }  # fmt: skip
        assert [r for r in ("cflow", "padim", "fastflow") if cell(table, r, "image_auroc").best] == ["cflow"]
        assert [r for r in ("cflow", "padim", "fastflow") if cell(table, r, "latency_ms").best] == ["padim"]
        assert "unfinished: less than 50 % of the planned training steps, so not ranked." in texts(table)
        (table,) = by_category(self.RUNS)
        assert [row[0].text for row in table.rows if row[1].best] == ["cflow"]

    def test_where_all_did_all_steps_there_is_no_column(self):
        (table,) = ranking([result(steps={"done": 10, "planned": 10}), result("padim")])
        assert "steps" not in [c.name for c in table.columns]

    def test_it_has_no_rank(self):
        every = [
            result(d, f"c{i}", {"image_auroc": v}, steps={"done": n, "planned": 100})
            for i in range(8)
            for d, v, n in (("a", 0.9, 1), ("b", 0.8, 100), ("c", 0.5, 100))
        ]
        (table,) = ranking(every)
        assert cell(table, "a", "rank").value is None
        assert cell(table, "b", "rank").value == 1.0


class TestLatency:
    def test_the_range_is_shown_and_overlapping_ones_have_no_best(self):
        runs = [
            result("a", latency_ms=10.0, latency_range_ms=(8.0, 12.0)),
            result("b", latency_ms=11.0, latency_range_ms=(9.0, 40.0)),
        ]
        (table,) = ranking(runs)
        assert cell(table, "a", "latency_ms").text == "10.0 (8.00–12.0)"
        assert not any(cell(table, d, "latency_ms").best for d in "ab")
        assert "in brackets the range over runs and repeats" in texts(table)
        assert "score intervals" not in texts(table)

    def test_engines_are_kept_apart(self):
        """A mean over engines would be a time that no engine takes."""
        onnx = {**MACHINE, "engine": "onnxruntime"}
        runs = [
            result("a", latency_ms=10.0, latency_range_ms=(9.0, 11.0)),
            result("a", "cable", latency_ms=20.0, latency_range_ms=(19.0, 21.0)),
            result("a", "tile", latency_ms=3.0, latency_range_ms=(2.0, 4.0), environment=onnx),
            result("b", latency_ms=1.0, latency_range_ms=(1.0, 1.1), environment=onnx),
        ]
        (table,) = ranking(runs)
        assert cell(table, "a", "latency_ms").text == "15.0 (9.00–21.0)"
        assert not any(cell(table, d, "latency_ms").best for d in "ab")
        assert "Latency with the engine torch (2 of 3 runs, without 1 of onnxruntime)." in texts(table)
        assert "Latency with the engine onnxruntime." in texts(table)

    def test_torch_alone_needs_no_words(self):
        (table,) = ranking([result("a"), result("b", environment={**MACHINE, "engine": "torch"})])
        assert "engine" not in texts(table)


class TestPartialData:
    def test_a_difference_on_a_part_of_the_data_says_so(self):
        run = result("patchcore", "magnetic_tile", dataset="mtd", images={"magnetic_tile": 110})
        (table,) = ranking([run], reported=("im_iad",))
        found = cell(table, "patchcore", "image_auroc_difference")
        assert found.value is not None
        assert found.marks
        assert "patchcore ran on 110 of 1 344 images." in texts(table)
        (table,) = ranking([replace(run, images={"magnetic_tile": 1344})], reported=("im_iad",))
        assert "ran on" not in texts(table)
        (table,) = ranking([replace(run, images={"magnetic_tile": 1400})], reported=("im_iad",))
        assert "patchcore ran on 1 400 images, more than the 1 344 published ones." in texts(table)

    def test_old_runs_are_judged_by_their_defective_images(self):
        run = result("patchcore", "bottle", scores=scores(bad=30))
        (table,) = by_category([run], reported=("papers",))
        assert "patchcore ran on 30 of 63 defective test images." in texts(table)
        (table,) = by_category([result("patchcore", "bottle", scores=scores(bad=63))], reported=("papers",))
        assert "ran on" not in texts(table)


@pytest.mark.parametrize("of", [ranking, by_category])
def test_data_of_which_nothing_is_published_says_so(of):
    own = result("patchcore", "metal", dataset="toy")
    (table,) = of([own], reported=("im_iad", "papers"))
    assert (
        "Reported: nothing is published for these detectors on toy in the setting vanilla (2 publications)."
        in texts(table)
    )
    (table,) = of([own])
    assert "Reported" not in texts(table)
    (table,) = of([result("patchcore", "bottle")], reported=("papers",))
    assert "nothing is published" not in texts(table)


def test_mad_is_explained():
    (table,) = ranking([result(values=dict.fromkeys(MAD_OF, 0.5), metrics=MAD_OF)])
    assert (
        "mAD is the mean of image AUROC, image AP, image F1max, pixel AUROC, pixel AP, pixel F1max and pixel AUPRO."
        in texts(table)
    )
    (table,) = ranking([result()])
    assert "mAD" not in texts(table)


def test_intervals_and_samples_of_a_comparison_are_computed_once(monkeypatch):
    (comparison,) = compare([result(d, scores=scores(seed=n)) for n, d in enumerate(("padim", "dfm"))])
    first = ranking_of(comparison)
    sampled = [entry_samples(comparison, entry, "image_auroc") for entry in comparison.entries]
    monkeypatch.setattr(builder, "metric_interval", None)
    monkeypatch.setattr(builder, "bootstrap_all", None)
    assert ranking_of(comparison) == first
    assert [entry_samples(comparison, e, "image_auroc") for e in comparison.entries] == sampled
    assert entry_samples(comparison, comparison.entries[0], "pixel_auroc") is None
