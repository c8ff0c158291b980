import csv
import io
import json

import pytest

from fake_results import MACHINE, NAN, result, scores
from iadbe.evaluation.confidence import category_scores
from iadbe.metric import parse
from iadbe.results.comparison import MAD_OF, compare
from iadbe.results.ranking import (
    Style,
    by_category,
    label,
    listing,
    lower_is_better,
    number,
    ranking,
    same_machine,
    sorted_entries,
)
from iadbe.results.table import to_csv, to_json, to_latex
from iadbe.types import Row

OBJECTS = "bottle cable capsule hazelnut metal_nut pill screw toothbrush transistor zipper"
FIFTEEN = (*OBJECTS.split(), *["carpet", "grid", "leather", "tile", "wood"])
BOTH = ("image_auroc", "pixel_auroc")


def runs(detector, values, metric="image_auroc", **more):
    return [result(detector, task, {metric: value}, **more) for task, value in values.items()]


def cell(table, row, column):
    names = [c.name for c in table.columns]
    cells = next(r for r in table.rows if r[0].text == row)
    return cells[names.index(column)]


def texts(table):
    return " ".join(text for _, text in table.footnotes)


class TestNumbers:
    @pytest.mark.parametrize(
        ("style", "value", "text"),
        [
            (Style(), 0.98765, "0.988"),
            (Style(digits=4), 0.98765, "0.9877"),
            (Style(percent=True), 0.98765, "98.8"),
            (Style(percent=True, digits=2), 1.0, "100.00"),
            (Style(), -0.0001, "0.000"),
            (Style(), -0.05, "−0.050"),
        ],
    )
    def test_shares(self, style, value, text):
        assert style.share(value) == text

    def test_differences_have_a_sign_but_nothing_has_none(self):
        assert Style().share(0.0123, signed=True) == "+0.012"
        assert Style().share(-0.0123, signed=True) == "−0.012"
        assert Style().share(0.0001, signed=True) == "0.000"

    @pytest.mark.parametrize(("value", "text"), [(1.234, "1.23"), (9.996, "10.0"), (99.96, "100"), (1234.5, "1234")])
    def test_costs(self, value, text):
        assert Style().cost(value) == text

    def test_labels(self):
        assert label("pixel_aupro@5%") == "pixel AUPRO@5%"
        assert label("image_auroc") == "image AUROC"
        assert number("−0.5 ± 0.1") == -0.5


class TestRanking:
    def test_best_first_and_bold_after_rounding(self):
        values = {"a": 0.90001, "b": 0.90004, "c": 0.8}
        (table,) = ranking([result(d, values={"image_auroc": v}) for d, v in values.items()])
        assert [row[0].text for row in table.rows] == ["b", "a", "c"]
        assert [row[1].best for row in table.rows] == [True, True, False]

    def test_lower_is_better_for_costs(self):
        times = {"quick": 5.0, "slow": 50.0}
        (table,) = ranking([result(d, latency_ms=ms) for d, ms in times.items()])
        assert cell(table, "quick", "latency_ms").best
        assert not cell(table, "slow", "latency_ms").best
        assert cell(table, "slow", "memory_mb").text == "500"

    def test_a_single_detector_is_not_marked_best(self):
        (table,) = ranking([result()])
        assert not any(c.best for c in table.rows[0])

    def test_missing_values_are_a_dash_not_zero(self):
        both = [result("padim", values={"image_auroc": 0.9, "pixel_auroc": 0.8}, metrics=BOTH)]
        (table,) = ranking([*both, result("dfkde", values={"image_auroc": 0.7, "pixel_auroc": NAN}, latency_ms=NAN)])
        assert cell(table, "dfkde", "pixel_auroc").text == "—"
        assert cell(table, "dfkde", "latency_ms").text == "—"
        assert "0.000" not in to_latex([table])

    def test_empty_columns_are_left_out(self):
        (table,) = ranking([result(values={"image_auroc": 0.9, "pixel_auroc": NAN}, metrics=BOTH)])
        assert "pixel_auroc" not in [c.name for c in table.columns]

    def test_a_mean_over_fewer_categories_is_marked_and_not_ranked(self):
        whole = runs("padim", {"a": 0.8, "b": 0.8}) + runs("stfpm", {"a": 0.7, "b": 0.7})
        (table,) = ranking(whole + runs("patchcore", {"a": 0.99}))
        assert [row[0].text for row in table.rows] == ["padim", "stfpm", "patchcore"]
        lacking = cell(table, "patchcore", "image_auroc")
        assert (lacking.text, lacking.best, lacking.marks) == ("0.990", False, ("1",))
        assert "Mean over 1 of 2 categories, so not ranked; missing: b." in texts(table)
        assert cell(table, "padim", "image_auroc").best

    def test_failures_have_their_reasons_below(self):
        failed = [result("patchcore", t, error="out of memory.") for t in ("a", "b")]
        failed.append(result("patchcore", "c", error="time limit", seed=1))
        (table,) = ranking([*runs("padim", {"a": 0.8, "b": 0.8}), *failed])
        assert cell(table, "patchcore", "image_auroc").text == "failed"
        assert cell(table, "patchcore", "runs").text == "0/3"
        assert "patchcore: 3 of 3 runs failed: out of memory [a, b]; time limit [c (seed 1)]." in texts(table)

    def test_spread_over_seeds(self):
        many = [result(values={"image_auroc": v}, seed=s) for s, v in enumerate((0.8, 0.9))]
        (table,) = ranking(many, style=Style(percent=True))
        assert cell(table, "patchcore", "image_auroc").text == "85.0 ± 7.1"
        assert "standard deviation" in texts(table)

    def test_protocols_never_share_a_table(self):
        tables = ranking([result(), result(protocol="paper")])
        assert [t.about["protocol"] for t in tables] == ["paper", "uniform"]

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

    def test_forgetting_is_a_column_where_there_are_steps(self):
        rows = (Row(0, "a", "image_auroc", 0.9), Row(1, "a", "image_auroc", 0.6), Row(1, "b", "image_auroc", 0.8))
        (table,) = ranking([result(task="a>b", setting="continual", rows=rows)])
        assert cell(table, "patchcore", "forgetting").text == "0.300"

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
        assert "In brackets: 95 % intervals" in texts(table)

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


class TestRanks:
    def test_detectors_that_share_a_letter_do_not_differ_significantly(self):
        many = [f"c{i}" for i in range(10)]
        spread = {c: 0.9 + i / 200 for i, c in enumerate(many)}
        results = runs("best", spread) + runs("worst", {c: v - 0.2 for c, v in spread.items()})
        results += runs("same", {c: v + (0.01 if i % 2 else -0.01) for i, (c, v) in enumerate(spread.items())})
        (table,) = ranking([*results, *runs("partial", {"c0": 0.99})])
        assert cell(table, "best", "rank").text == "1.5 a"
        assert cell(table, "same", "rank").text == "1.5 a"
        assert cell(table, "worst", "rank").text == "3.0 b"
        assert cell(table, "partial", "rank").text == "—"
        assert "By image AUROC: Ranks are means over 10 categories" in texts(table)

    def test_two_categories_have_no_ranks(self):
        (table,) = ranking(runs("a", {"x": 0.9, "y": 0.8}) + runs("b", {"x": 0.8, "y": 0.7}))
        assert "rank" not in [c.name for c in table.columns]


class TestMad:
    def test_is_the_mean_of_the_seven(self):
        values = dict(zip(MAD_OF, (0.988, 0.995, 0.984, 0.983, 0.599, 0.610, 0.942), strict=True))
        both = [result(values=values, metrics=MAD_OF, seed=s) for s in (0, 1)]
        (table,) = ranking(both, style=Style(percent=True))
        assert cell(table, "patchcore", "mad").text == "87.2 ± 0.0"  # ADer's table, PatchCore after 100 epochs
        assert table.columns[[c.name for c in table.columns].index("mad")].label == "mAD"

    def test_without_one_of_them_there_is_none(self):
        values = dict.fromkeys(MAD_OF[:-1], 0.9)
        (table,) = ranking([result(values=values, metrics=MAD_OF[:-1])])
        assert "mad" not in [c.name for c in table.columns]


def test_labels_of_dialects_and_thresholds():
    assert label("pixel_aupro.rd4ad.touched@5%") == "pixel AUPRO@5% (rd4ad, touched)"
    assert label("image_overkill") == "image FPR (overkill) at escape 0%"
    assert label("image_escape@1%") == "image FNR (escape) at overkill 1%"
    assert label("image_escape.held_out@1%") == "image escape (threshold from held-out, 1%)"
    assert label("pixel_iou_max") == "pixel IoU-max"
    assert lower_is_better("image_escape.held_out@1%")
    assert not lower_is_better("mad")


class TestByCategory:
    def test_a_category_has_a_spread_over_seeds(self):
        (table,) = by_category([result(values={"image_auroc": v}, seed=s) for s, v in enumerate((0.8, 0.9))])
        assert cell(table, "patchcore", "bottle").text == "0.850 ± 0.071"

    def test_comparisons_without_the_metric_have_no_table(self):
        """As without masks there are no pixel metrics; but a failure is told."""
        having = [result(values={"image_auroc": 0.9, "pixel_ap": 0.5})]
        lacking = result(protocol="paper", values={"image_auroc": 0.8})
        failed = result(protocol="uniform+9s", error="boom")
        titles = [t.title.rpartition(" ")[2] for t in by_category([*having, lacking, failed], "pixel_ap")]
        assert titles == ["uniform", "uniform+9s"]
        assert len(by_category([lacking], "pixel_ap")) == 1, "a table that says so is better than none"

    def test_failed_and_missing(self):
        results = runs("padim", {"a": 0.8, "b": 0.9}) + runs("stfpm", {"a": 0.85})
        (table,) = by_category([*results, result("stfpm", "b", error="boom"), result("stfpm", "c", error="boom")])
        assert [c.name for c in table.columns] == ["detector", "a", "b", "c", "mean"]
        assert [c.text for c in table.rows[0]] == ["padim", "0.800", "0.900", "—", "0.850"]
        assert [c.text for c in table.rows[1]] == ["stfpm", "0.850", "failed", "failed", "0.850"]
        assert table.rows[1][1].best
        assert not table.rows[1][-1].best
        assert table.title.startswith("image AUROC: ")


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


def test_listing():
    table = listing([result(), result("padim", "cable", error="boom", seed=3)])
    assert [c.text for c in table.rows[0]][1:8] == [
        "patchcore",
        "mvtec_ad",
        "bottle",
        "vanilla",
        "uniform",
        "0",
        "0.900",
    ]
    assert cell(table, table.rows[1][0].text, "image_auroc").text == "failed"
    assert table.footnotes == (("1", "boom"),)
