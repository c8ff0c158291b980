from fake_results import BOTH, NAN, cell, result, runs, texts
from iadbe.results.entry import MAD_OF
from iadbe.results.names import foreign_note
from iadbe.results.ranking import by_category, listing, ranking
from iadbe.results.style import Style
from iadbe.results.table import FORMATS, to_latex
from iadbe.types import Row


class TestRanking:
    def test_best_first_and_bold_after_rounding(self):
        values = {"a": 0.90001, "b": 0.90004, "c": 0.8}
        (table,) = ranking([result(d, values={"image_auroc": v}) for d, v in values.items()])
        assert [row[0].text for row in table.rows] == ["b", "a", "c"]
        assert [row[1].best for row in table.rows] == [True, True, False]

    def test_detectors_of_other_tools_are_marked_in_every_format(self):
        results = [result("anomalib"), result("padim")]
        tables = [*ranking(results), *by_category(results), listing(results)]
        for table in tables:
            both = {"anomalib", "padim"}
            foreign = {row[n].text: row[n].marks for row in table.rows for n in (0, 1) if row[n].text in both}
            assert foreign["padim"] == ()
            assert [dict(table.footnotes)[mark] for mark in foreign["anomalib"]] == [foreign_note("anomalib")]
        for name, made in FORMATS.items():
            assert made(tables).count("anomalib is foreign") >= 3, name

    def test_lower_is_better_for_costs(self):
        times = {"quick": 5.0, "slow": 50.0}
        (table,) = ranking([result(d, latency_ms=ms, latency_range_ms=(ms - 1, ms + 1)) for d, ms in times.items()])
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

    def test_forgetting_is_a_column_where_there_are_steps(self):
        rows = (Row(0, "a", "image_auroc", 0.9), Row(1, "a", "image_auroc", 0.6), Row(1, "b", "image_auroc", 0.8))
        (table,) = ranking([result(task="a>b", setting="continual", rows=rows)])
        assert cell(table, "patchcore", "forgetting").text == "0.300"


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


def test_a_listed_run_says_how_far_its_training_was():
    table = listing([result(steps={"done": 9, "planned": 4800}), result("padim", steps={"done": 10, "planned": 10})])
    assert [row[7].marks for row in table.rows] == [("1",), ()]
    assert table.footnotes == (("1", "9 of 4 800, unfinished: training steps done of those planned."),)


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
