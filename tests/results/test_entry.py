import pytest

from fake_results import NAN, result
from iadbe.results.comparison import compare
from iadbe.results.entry import fastest
from iadbe.types import Row


def the_only(results):
    (comparison,) = compare(results)
    return comparison


def mean(comparison, name, metric="image_auroc"):
    return comparison.mean(next(e for e in comparison.entries if e.name == name), metric)


def test_the_last_step_counts_and_what_was_lost_is_known():
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


def test_tests_of_several_tasks_are_kept_apart():
    def pair(task):
        return result(task=task, rows=tuple(Row(0, t, "image_auroc", 0.5) for t in task.split(">")))

    assert the_only([pair("a>b"), pair("b>a")]).categories("image_auroc") == (
        "a>b: a",
        "a>b: b",
        "b>a: a",
        "b>a: b",
    )


def test_costs():
    runs = [
        result(task="a", latency_ms=10.0, memory={"peak": 2**30}),
        result(task="b", latency_ms=NAN, memory={"peak": 2**31}, seconds={}),
        result(task="c", latency_ms=20.0),
    ]
    (entry,) = the_only(runs).entries
    assert entry.cost("latency_ms") == 15
    assert entry.cost("memory_mb") == 2048
    assert entry.cost("fit_seconds") == 2


def entry(*runs):
    (found,) = the_only(list(runs)).entries
    return found


class TestTraining:
    def test_the_least_trained_run_decides(self):
        found = entry(
            result(task="a", steps={"done": 9, "planned": 4800}),
            result(task="b", steps={"done": 4800, "planned": 4800}),
        )
        assert found.steps == (9, 4800)
        assert found.unfinished

    def test_half_of_the_steps_is_enough(self):
        assert not entry(result(steps={"done": 50, "planned": 100})).unfinished
        assert entry(result(steps={"done": 49, "planned": 100})).unfinished

    def test_without_training_nothing_is_unfinished(self):
        for steps in ({}, {"done": 0, "planned": 0}):
            found = entry(result(steps=steps))
            assert (found.steps, found.progress, found.unfinished) == (None, 1.0, False)


class TestLatency:
    def test_the_range_is_over_runs_and_repeats(self):
        runs = [result(task="a", latency_ms=10.0, latency_range_ms=(8.0, 12.0)), result(task="b", latency_ms=30.0)]
        assert entry(*runs).latency_range == (8.0, 30.0)
        assert entry(runs[0]).latency_range == (8.0, 12.0)

    def test_one_measurement_has_no_range(self):
        assert entry(result(latency_ms=10.0)).latency_range is None
        assert entry(result(latency_ms=NAN)).latency_range is None

    @pytest.mark.parametrize(("slow", "expected"), [((13.0, 20.0), "a"), ((11.0, 20.0), None), ((), None)])
    def test_the_fastest_is_named_only_where_ranges_do_not_overlap(self, slow, expected):
        found = the_only(
            [
                result("a", latency_ms=10.0, latency_range_ms=(8.0, 12.0)),
                result("b", latency_ms=15.0, latency_range_ms=slow),
            ]
        )
        best = fastest(found.entries)
        assert (best and best.name) == expected
