from statistics import fmean

import pytest

from iadbe.errors import UnknownName
from iadbe.results import published

EVERYTHING = [r for name in published.sources() for r in published.read(name)]
OBJECTS = "bottle cable capsule hazelnut metal_nut pill screw toothbrush transistor zipper"
TEXTURES = "carpet grid leather tile wood"
ALL_15 = (*OBJECTS.split(), *TEXTURES.split())
THEIR_16 = (
    "cfa cflow csflow dfkde dfm draem dsr fastflow fre ganomaly padim patchcore reverse_distillation rkde stfpm uflow"
)


def mean_of(source, detector, dataset, metric="image_auroc"):
    return next(
        r
        for r in published.read(source)
        if (r.detector, r.dataset, r.metric, r.category) == (detector, dataset, metric, "mean")
    )


def find(detector, metric="image_auroc", categories=ALL_15, params=None, setting="vanilla", **more):
    return published.find(detector, params or {}, "mvtec_ad", setting, metric, categories, **more)


class TestTheData:
    def test_every_number_is_a_share_with_a_source(self):
        assert len(EVERYTHING) > 2000
        for row in EVERYTHING:
            assert 0 <= row.value <= 1
            assert all((row.detector, row.paper, row.dataset, row.metric, row.dialect, row.setting))
            assert len(row.source) > 10
            assert row.category == "mean" or row.of == 1

    def test_nothing_is_there_twice(self):
        keys = [r[:7] + r[8:] for r in EVERYTHING]
        assert len(keys) == len(set(keys))

    def test_averages_are_those_of_their_cells(self):
        checked = 0
        for name in published.sources():
            rows = published.read(name)
            for mean in (r for r in rows if r.category == "mean" and r.of > 1):
                same = [r for r in rows if r[:3] + r[5:7] + r[8:11] == mean[:3] + mean[5:7] + mean[8:11]]
                cells = [r.value for r in same if r.category != "mean"]
                if cells:
                    assert len(cells) == mean.of
                    assert fmean(cells) == pytest.approx(mean.value, abs=5e-4)
                    checked += 1
        assert checked > 70

    @pytest.mark.parametrize(
        ("dataset", "detector", "printed", "true", "of"),
        [
            ("visa", "cfa", 0.7532, 0.6470, 12),
            ("visa", "csflow", 0.5246, 0.5063, 12),
            ("visa", "dfm", 0.8721, 0.8687, 12),
            ("mvtec_3d", "reverse_distillation", 0.9506, 0.8506, 8),
        ],
    )
    def test_averages_that_were_printed_wrong_are_right_here(self, dataset, detector, printed, true, of):
        mean = mean_of("iadbe", detector, dataset)
        assert (mean.value, mean.of) == (true, of)
        assert printed not in [r.value for r in published.read("iadbe") if (r.dataset, r.category) == (dataset, "mean")]

    def test_known_anchors(self):
        assert mean_of("papers", "patchcore", "mvtec_ad").value == 0.992
        assert mean_of("iadbe", "patchcore", "mvtec_ad").value == 0.9891
        assert mean_of("orthoad_paddle", "orthoad", "mvtec_ad").value == 0.946072
        kolektor = {r.detector for r in published.read("iadbe") if r.dataset == "kolektor_sdd"}
        assert kolektor >= {"uflow", "reverse_distillation"}
        assert {r.detector for r in published.read("iadbe")} == set(THEIR_16.split())


class TestPapers:
    @pytest.mark.parametrize(
        ("detector", "dataset", "setting", "metric", "value"),
        [
            ("reverse_distillation", "mvtec_ad", "vanilla", "image_auroc", 0.985),
            ("dinomaly", "visa", "multi_class", "image_auroc", 0.987),
            ("uniad", "mvtec_ad", "multi_class", "image_auroc", 0.965),
            ("winclip", "mvtec_ad", "zero_shot", "image_auroc", 0.918),
            ("anomalydino", "visa", "few_shot(k=4)", "image_auroc", 0.926),
            ("musc", "mvtec_ad", "zero_shot(transductive=yes)", "image_auroc", 0.978),
            ("csflow", "mtd", "vanilla", "image_auroc", 0.993),
        ],
    )
    def test_headlines(self, detector, dataset, setting, metric, value):
        of = {"mvtec_ad": 15, "visa": 12, "mtd": 1}[dataset]
        match = published.find(detector, {}, dataset, setting, metric, [str(i) for i in range(of)], ("papers",))
        assert (match.value, match.comparable) == (value, True)

    def test_the_backbone_decides_which_of_a_papers_numbers(self):
        cait = find("fastflow", "pixel_auroc", names=("papers",))
        small = find("fastflow", "pixel_auroc", params={"backbone": "resnet18.tv_in1k"}, names=("papers",))
        assert (cait.value, small.value) == (0.985, 0.972)

    def test_an_authors_dialect_is_a_variant_of_our_row(self):
        match = find("reverse_distillation", "pixel_aupro.rd4ad.over_half")
        assert (match.value, match.comparable) == (0.939, True)
        assert not find("reverse_distillation", "pixel_aupro").comparable
        assert find("dinomaly", "pixel_ap.touched", setting="multi_class").comparable


class TestOrthoAD:
    def test_the_papers_rows_by_backbone_and_k(self):
        for backbone, k, auroc, aupro in (
            ("resnet18", 100, 0.975, 0.924),
            ("wide_resnet50_2", 100, 0.979, 0.934),
            ("wide_resnet50_2", 300, 0.982, 0.942),
        ):
            params = {"backbone": backbone, "k": k}
            for metric, value in (("pixel_auroc.orthoad", auroc), ("pixel_aupro.orthoad", aupro)):
                match = find("orthoad", metric, params=params, names=("papers",))
                assert (match.value, match.comparable) == (value, True)

    def test_the_ports_two_ways_to_compute_an_auroc(self):
        macro = find("orthoad", "pixel_auroc.orthoad", names=("orthoad_paddle",))
        assert (macro.value, macro.comparable) == (0.9823, True)
        assert find("orthoad", "pixel_auroc", names=("orthoad_paddle",)).value == 0.978197  # the first run
        pill = find("orthoad", "pixel_auroc.orthoad", categories=("pill",), names=("orthoad_paddle",))
        assert pill.value == 0.9796
        assert "second run" in pill.note

    def test_the_ports_pro_has_a_dialect(self):
        match = find("orthoad", "pixel_aupro.orthoad_paddle.whole", names=("orthoad_paddle",))
        assert (match.value, match.comparable) == (0.94481, True)


def test_iadbes_column_of_sources_says_row_by_row_what_its_numbers_are():
    quoted = {r.detector: r for r in published.read("iadbe") if r.paper == "IADBE, column Source"}
    assert len(quoted) == 15
    assert {r.dialect for r in quoted.values()} == {"unknown"}
    pixel = {d for d, r in quoted.items() if "pixel AUROC" in r.source}
    assert (
        pixel == {d for d, r in quoted.items() if r.metric == "pixel_auroc"} == {"padim", "patchcore", "stfpm", "uflow"}
    )
    assert quoted["cfa"].value == 0.993
    assert "matches no number" in quoted["cfa"].source
    assert find("cfa", names=("iadbe",)).value == 0.6054


class TestCategories:
    """What authors and anomalib's readmes give for single categories."""

    @pytest.mark.parametrize(
        ("detector", "setting", "metric", "bottle", "transistor"),
        [
            ("cfa", "vanilla", "image_auroc", 1, 1),
            ("msflow", "vanilla", "pixel_auroc", 0.990, 0.983),
            ("musc", "zero_shot(transductive=yes)", "image_auroc", 0.9992, 0.9942),
            ("patchcore", "vanilla", "pixel_aupro", 0.9714, 0.8324),
            ("regad", "few_shot(k=4, others=yes)", "image_auroc", 0.994, 0.852),
            ("softpatch", "noisy(ratio=0.1)", "pixel_auroc", 0.9878, 0.9064),
            ("supersimplenet", "vanilla", "image_ap", 1, 0.9989),
            ("winclip", "zero_shot", "image_auroc", 0.986, 0.891),
            ("csflow", "vanilla", "image_auroc", 1, 0.987),
            ("dinomaly", "vanilla", "pixel_auroc", 0.990, 0.951),
            ("fastflow", "vanilla", "image_auroc", 1, 0.979),
            ("fre", "vanilla", "image_auroc", 0.996, 0.943),
            ("reverse_distillation", "vanilla", "pixel_auroc", 0.984, 0.893),
            ("uflow", "vanilla", "pixel_auroc", 0.9798, 0.9670),
        ],
    )
    def test_bottle_and_transistor(self, detector, setting, metric, bottle, transistor):
        def value(*categories):
            return find(detector, metric, categories, setting=setting, names=("papers", "anomalib")).value

        assert (value("bottle"), value("transistor")) == (bottle, transistor)
        assert value("bottle", "transistor") == pytest.approx((bottle + transistor) / 2)

    def test_a_rerun_does_not_change_the_papers_mean(self):
        few = {"setting": "zero_shot(transductive=yes)"}
        assert find("musc", "pixel_auroc", **few).value == 0.973
        assert "rerun" in find("musc", "pixel_auroc", ["bottle"], **few).note

    def test_averages_that_were_printed_wrong_are_right_here(self):
        rows = [r for r in published.read("papers") + published.read("anomalib") if "printed as" in r.source]
        found = {(r.detector, r.dataset, r.metric): r.value for r in rows}
        assert found["reverse_distillation", "mvtec_ad", "pixel_auroc"] == 0.9735  # 0.969
        assert found["musc", "visa", "pixel_f1max"] == 0.4734  # 0.6756
        assert found["regad", "mvtec_ad", "pixel_auroc"] == 0.9667  # 0.968

    def test_the_size_of_the_image_is_reported(self):
        match = find("csflow", params={"size": 768}, names=("anomalib",))
        assert match.value == 0.9869
        assert "size=768" in match.note


class TestIMIAD:
    """Tables of one publication, one number of each."""

    @pytest.mark.parametrize(
        ("detector", "dataset", "setting", "metric", "value"),
        [
            ("cfa", "mvtec_ad", "few_shot(augment=rotation, k=8)", "pixel_auroc", 0.966),
            ("dra", "mpdd", "semi(n=10)", "image_auroc", 0.915),
            ("devnet", "mvtec_ad", "semi(n=5)", "image_ap", 0.905),
            ("reverse_distillation", "mvtec_ad", "continual", "image_auroc", 0.596),
            ("patchcore", "mpdd", "continual", "image_auroc_forgetting", 0.016),
            ("padim", "btad", "vanilla", "pixel_aupro", 0.798),
            ("patchcore", "mtd", "vanilla", "image_auroc", 0.975),
        ],
    )
    def test_a_number_of_each_table(self, detector, dataset, setting, metric, value):
        wanted = (detector, dataset, setting, metric)
        (row,) = (r for r in published.read("im_iad") if (r.detector, r.dataset, r.setting, r.metric) == wanted)
        assert row.value == value

    def test_what_was_copied_by_mistake_is_left_out(self):
        rows = [(r.detector, r.dataset, r.setting, r.metric) for r in published.read("im_iad")]
        assert ("padim", "mtd", "vanilla", "pixel_aupro") not in rows
        assert not {("cfa", "mpdd", "continual"), ("spade", "mpdd", "continual")} & {r[:3] for r in rows}

    def test_kinds_of_defects_are_not_all_defects(self):
        rows = [r for r in published.read("im_iad") if r.dataset == "mvtec_loco" and r.metric == "image_auroc"]
        values = {(r.detector, r.dialect): r.value for r in rows}
        for detector in {r.detector for r in rows}:
            kinds = [values[detector, kind] for kind in ("structural-only", "logical-only")]
            assert fmean(kinds) == pytest.approx(values[detector, "mean-of-kinds"], abs=6e-4)
        match = published.find("cfa", {}, "mvtec_loco", "vanilla", "image_auroc", "abcde", ("im_iad",))
        assert (match.value, match.comparable) == (0.809, False)
        assert "mean-of-kinds" in match.note


class TestFind:
    def test_the_paper_first_then_anomalib(self):
        assert find("patchcore").value == 0.992
        assert "Roth" in find("patchcore").note
        assert "anomalib" in find("dfkde").note
        assert find("patchcore", names=("iadbe",)).value == 0.9891

    def test_a_category_and_a_mean_over_some(self):
        assert find("patchcore", categories=["pill"]).value == 0.966
        assert find("patchcore", categories=["pill", "cable"]).value == pytest.approx((0.966 + 0.995) / 2)

    def test_a_mean_over_other_categories_is_not_ours(self):
        assert find("stfpm", names=("papers",), categories=["pill", "cable"]) is None
        assert find("patchcore", categories=["pill", "my part"]) is None

    def test_the_same_backbone_comes_first(self):
        resnet = find("padim", "pixel_auroc", params={"backbone": "resnet18.tv_in1k"})
        assert resnet.value == 0.967
        other = find("padim", "pixel_auroc", params={"backbone": "tf_efficientnet_lite0"})
        assert other.value == 0.975
        assert "ours with tf_efficientnet_lite0" in other.note

    def test_the_same_parameters_come_first(self):
        assert find("patchcore", params={"coreset": 0.25}).value == 0.991

    def test_another_dialect_is_not_subtracted(self):
        assert find("padim").comparable
        orthoad = find("orthoad", "pixel_auroc")
        assert (orthoad.value, orthoad.comparable) == (0.982, False)
        assert "orthoad-macro" in orthoad.note

    def test_settings_must_agree(self):
        assert find("patchcore", setting="few_shot(k=4)", names=("papers", "anomalib")) is None
        few = find("patchcore", setting="few_shot(augment=no, k=4)", names=("im_iad",))
        assert few.value == 0.817
        assert find("patchcore", setting="few_shot(k=3)", names=("im_iad",)) is None

    def test_the_most_precise_setting_comes_first(self):
        few = find("patchcore", setting="few_shot(augment=rotation, k=4)", names=("im_iad",))
        assert few.value == 0.858

    def test_a_source_that_is_not_there(self):
        with pytest.raises(UnknownName, match="papers"):
            published.read("paper")


class TestDialects:
    def test_a_row_in_a_dialect_appears_next_to_numbers_of_that_dialect(self):
        match = find("patchcore", "pixel_auroc.whole", setting="vanilla")
        assert match.comparable
        assert match.value == mean_of("papers", "patchcore", "mvtec_ad", "pixel_auroc").value
        assert "not subtracted" not in match.note
        assert not find("patchcore", "pixel_auroc").comparable
        assert find("patchcore", "pixel_auroc.rd4ad") is None
        match = find("cfa", "pixel_aupro.mvtec_3d", names=("im_iad",))
        assert (match.comparable, match.value) == (True, 0.898)
        assert find("cfa", "pixel_aupro.mvtec_3d@5%", names=("im_iad",)) is None

    def test_official_numbers_of_mvtec_loco_appear_next_to_means_over_defect_types(self):
        where = ("cfa", {}, "mvtec_loco", "vanilla")
        categories = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")
        match = published.find(*where, "image_auroc.kinds", categories, ("im_iad",))
        assert (match.comparable, match.value) == (True, 0.809)
        assert published.find(*where, "pixel_spro.kinds", categories, ("im_iad",)).value == 0.581
        assert not published.find(*where, "image_auroc", categories, ("im_iad",)).comparable
