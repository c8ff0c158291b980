import math
from dataclasses import replace

import pytest

from fake_results import NAN, result, spec
from iadbe.results.comparison import compare


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


class TestData:
    def test_tasks_of_a_published_dataset_may_come_from_different_folders(self):
        runs = [result(task="bottle", data="a"), result(task="cable", data="b"), result("padim", "cable", data="b")]
        (found,) = compare(runs)
        assert found.categories("image_auroc") == ("bottle", "cable")

    def test_one_task_is_never_compared_on_different_data(self):
        runs = [
            result(task="bottle", data="a"),
            result("padim", task="bottle", data="b"),
            result(task="cable", data="b"),
        ]
        found = compare(runs)
        assert [sorted(r.spec.data for e in c.entries for r in e.runs) for c in found] == [["a"], ["b", "b"]]
        assert [c.title.partition(",")[0] for c in found] == ["mvtec_ad (data a)", "mvtec_ad (data b)"]

    def test_ones_own_folders_are_called_by_their_name(self):
        own = {"dataset": "folder", "dataset_params": {"abnormal_dir": ["dirt", "scratch"]}}
        found = compare(
            [
                result(task="screws", data="a", data_name="screws", **own),
                result(task="caps", data="b", data_name="caps", **own),
            ]
        )
        assert [c.title for c in found] == ["screws, vanilla, protocol uniform", "caps, vanilla, protocol uniform"]

    def test_own_parts_in_a_published_layout_are_called_by_their_folder(self):
        runs = [result(task="part", data=d, data_name=n, images={"part": 40}) for d, n in (("a", "one"), ("b", "two"))]
        assert [c.title.partition(",")[0] for c in compare(runs)] == ["one", "two"]
        official = result(task="bottle", data_name="mvtec", images={"bottle": 292})
        assert compare([official])[0].title.startswith("mvtec_ad,")

    def test_equal_names_get_what_tells_them_apart(self):
        runs = [result(data=d, data_name=n, images={"bottle": 292}) for d, n in (("a", "full"), ("b", "small"))]
        assert [c.title.partition(",")[0] for c in compare(runs)] == ["mvtec_ad (full)", "mvtec_ad (small)"]
        own = [
            result(dataset="folder", dataset_params={"normal_dir": n}, data=n, data_name="parts")
            for n in ("ok", "fine")
        ]
        assert {c.title.partition(",")[0] for c in compare(own)} == {"parts (normal_dir=ok)", "parts (normal_dir=fine)"}


def test_what_a_machine_lacked_is_no_failure_of_a_detector():
    lacked = replace(result("padim", "cable", error="no GPU"), transient=True)
    (entry,) = the_only([result("padim"), lacked, replace(lacked, spec=spec("dfm"))]).entries
    assert (entry.name, entry.failed) == ("padim", ())
