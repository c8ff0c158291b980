import math
from dataclasses import replace

import pytest

from fake_results import NAN, result
from iadbe.registry import card
from iadbe.results.comparison import changed_params, compare, format_value, setting_name
from iadbe.types import Row


def the_only(results):
    (comparison,) = compare(results)
    return comparison


def mean(comparison, name, metric="image_auroc"):
    return comparison.mean(next(e for e in comparison.entries if e.name == name), metric)


class TestGrouping:
    def test_never_another_protocol_setting_dataset_or_data(self):
        runs = [
            result(),
            result(protocol="paper"),
            result(dataset="visa"),
            result(setting="few_shot", setting_params={"k": 4}),
            result(setting="few_shot", setting_params={"k": 1}),
            result(data="fedcba9876543210"),
        ]
        comparisons = compare(runs)
        assert len(comparisons) == 6
        assert len({c.title for c in comparisons}) == 6
        assert "few_shot(k=4)" in [c.setting for c in comparisons]

    def test_numbers_in_names_are_ordered_as_numbers(self):
        names = ("uniform+900s", "uniform+90s", "uniform", "paper", "uniform@512")
        found = compare([result(protocol=name) for name in names])
        assert [c.protocol for c in found] == ["paper", "uniform", "uniform+90s", "uniform+900s", "uniform@512"]
        found = compare([result(setting="few_shot", setting_params={"k": k}) for k in (8, 16, 4)])
        assert [c.setting for c in found] == ["few_shot(k=4)", "few_shot(k=8)", "few_shot(k=16)"]

    def test_variants_are_named_by_what_tells_them_apart(self):
        many = [result(detector_params={"coreset": c, "backbone": "x", "flag": True}) for c in (0.1, 0.01)]
        names = [e.name for e in the_only([*many, result("padim", detector_params={"dims": 100})]).entries]
        assert names == ["padim", "patchcore(coreset=0.01)", "patchcore(coreset=0.1)"]

    def test_versions_are_variants_too(self):
        old, new = result(), result(versions={"detector": 2, "dataset": 1, "setting": 1, "image_auroc": 1})
        assert [e.name for e in the_only([old, new]).entries] == ["patchcore(version=1)", "patchcore(version=2)"]

    def test_an_older_metric_is_left_out(self):
        new = {"detector": 1, "dataset": 1, "setting": 1, "image_auroc": 2}
        comparison = the_only([result("padim"), result("stfpm", versions=new)])
        assert math.isnan(mean(comparison, "padim").value)
        assert mean(comparison, "stfpm").value == 0.9

    def test_a_run_done_again_counts_by_how_it_went_at_last(self):
        bad = result(error="out of memory", date="2026-01-01")
        good = result(date="2026-01-02", metrics=("image_auroc", "image_ap"))
        (entry,) = the_only([good, bad]).entries
        assert (len(entry.runs), len(entry.failed)) == (1, 0)


class TestMeans:
    def test_over_seeds_then_categories(self):
        values = {("a", 0): 0.8, ("a", 1): 0.9, ("b", 0): 0.6, ("b", 1): 0.5}
        runs = [result(task=t, values={"image_auroc": v}, seed=s) for (t, s), v in values.items()]
        found = mean(the_only(runs), "patchcore")
        assert found.value == pytest.approx(0.7)
        assert found.std == pytest.approx(0.0, abs=1e-12)  # both seeds have the mean 0.7
        assert (found.seeds, found.categories, found.of, found.complete) == (2, 2, 2, True)

    def test_unequal_numbers_of_seeds_do_not_weigh_categories(self):
        runs = [result(task="a", values={"image_auroc": 1.0}, seed=s) for s in range(9)]
        found = mean(the_only([*runs, result(task="b", values={"image_auroc": 0.0})]), "patchcore")
        assert found.value == 0.5
        assert math.isnan(found.std)  # one seed has both categories

    def test_a_missing_category_is_counted_not_filled(self):
        runs = [result(task=t, values={"image_auroc": v}) for t, v in (("a", 0.5), ("b", 0.7))]
        comparison = the_only([*runs, result("padim", "a", {"image_auroc": 0.9})])
        found = mean(comparison, "padim")
        assert (found.value, found.categories, found.of, found.complete) == (0.9, 1, 2, False)

    def test_a_category_that_no_detector_has_is_not_missing(self):
        runs = [result(task="a", values={"pixel_auroc": 0.8}), result(task="b", values={"pixel_auroc": NAN})]
        assert mean(the_only(runs), "patchcore", "pixel_auroc").complete

    def test_the_last_step_counts_and_what_was_lost_is_known(self):
        rows = (
            Row(0, "a", "image_auroc", 0.9),
            Row(1, "a", "image_auroc", 0.7),
            Row(1, "b", "image_auroc", 0.8),
        )
        comparison = the_only([result(task="a>b", setting="continual", rows=rows)])
        assert comparison.categories("image_auroc") == ("a", "b")
        assert mean(comparison, "patchcore").value == pytest.approx(0.75)
        assert comparison.entries[0].forgetting("image_auroc") == pytest.approx(0.2)
        early = the_only([result(task="a>b", setting="transfer", rows=(rows[0], rows[2]))])
        assert early.categories("image_auroc") == ("b",)  # "a" was not tested at the end

    def test_tests_of_several_tasks_are_kept_apart(self):
        def pair(task):
            return result(task=task, rows=tuple(Row(0, t, "image_auroc", 0.5) for t in task.split(">")))

        assert the_only([pair("a>b"), pair("b>a")]).categories("image_auroc") == (
            "a>b: a",
            "a>b: b",
            "b>a: a",
            "b>a: b",
        )

    def test_costs(self):
        runs = [
            result(task="a", latency_ms=10.0, memory={"peak": 2**30}),
            result(task="b", latency_ms=NAN, memory={"peak": 2**31}, seconds={}),
            result(task="c", latency_ms=20.0),
        ]
        (entry,) = the_only(runs).entries
        assert entry.cost("latency_ms") == 15
        assert entry.cost("memory_mb") == 2048
        assert entry.cost("fit_seconds") == 2


def test_words():
    assert format_value(True) == "yes"
    assert format_value([1, 2]) == "1+2"
    assert format_value("file:net.pt#0123") == "net.pt"
    assert setting_name(replace(result().spec, setting_params={"k": 4, "x": None})) == "vanilla(k=4)"


def test_own_params_are_those_that_are_not_the_defaults():
    (entry,) = the_only([result(detector_params={"coreset": 0.5, "layers": [2, 3], "gone": 1})]).entries
    assert changed_params(entry) == {"coreset": 0.5, "gone": 1}
    (entry,) = the_only([result("nobody.knows:Me", detector_params={"x": 1})]).entries
    assert changed_params(entry) == {"x": 1}


def test_settings_are_named_by_their_number_and_what_is_not_the_default():
    complete = {"k": 4, "augment": [], "copies": 4, "others": False}
    names = [
        setting_name(result(setting=setting, setting_params=params).spec)
        for setting, params in [
            ("vanilla", {}),
            ("few_shot", complete),
            ("few_shot", {**complete, "k": 8, "augment": ["rotation"], "others": True}),
            ("zero_shot", {"transductive": False}),
            ("zero_shot", {"transductive": True}),
            ("continual", {"order": [], "shuffle": False}),
        ]
    ]
    assert names == [
        "vanilla", "few_shot(k=4)", "few_shot(augment=rotation, k=8, others=yes)",
        "zero_shot", "zero_shot(transductive=yes)", "continual",
    ]  # fmt: skip


def test_datasets_are_named_by_what_is_not_the_default():
    few, many = (result(dataset="toy", dataset_params={"count": c, "size": 256}) for c in (40, 80))
    defaults = {p.name: p.default for p in card("datasets", "toy").parameters}
    assert defaults["count"] == 40
    assert [c.dataset for c in compare([few, many])] == ["toy", "toy(count=80)"]
