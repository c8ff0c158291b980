"""Known bugs of earlier benchmarks are not repeated; those of one file alone are tested beside that file.

There: noise and labelled defects drawn by an index into another list, caps that are handed on to later categories,
augmentations that pile up, colours changed in masks (settings, changes); a student that begins as its teacher (stfpm);
only the first mask of several (mvtec_loco); heat maps stretched image by image (api).
"""

import inspect
import math
from random import Random

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from drawn_images import batch, images, parts
from fake_results import result
from iadbe.data.images import View
from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.errors import Missing, UnknownName
from iadbe.metric import DEFAULT, parse
from iadbe.registry import load, names
from iadbe.results.comparison import compare
from iadbe.results.ranking import ranking
from iadbe.results.table import FORMATS
from iadbe.running import plan
from iadbe.seeds import seed_for

RNG = np.random.default_rng(0)
TRUTH = np.zeros((6, 40, 40), bool)
TRUTH[1:, 8:20, 10:22] = True
MAPS = RNG.normal(size=TRUTH.shape) + 1.5 * TRUTH


class TestMetrics:
    def test_there_is_no_overlap_of_regions_of_an_image_s_label(self):
        """IADBE's image PRO, which was 1 whatever the detector."""
        with pytest.raises(UnknownName, match="aupro is a pixel metric"):
            parse("image_aupro")

    def test_aupro_is_not_the_overlap_at_one_threshold(self):
        """IADBE's pixel PRO, which was 1 for detectors that were worse than chance."""
        overlap_if_all_is_called_defective = 1.0
        value = parse("pixel_aupro")[1](TRUTH, -MAPS)
        assert value < 0.05 < overlap_if_all_is_called_defective

    def test_maps_are_not_cut_before_pixel_metrics(self):
        """open-iad cut PatchCore's, SimpleNet's and SoftPatch's maps at half their range."""
        truth, score = TRUTH.ravel(), MAPS.ravel()
        assert parse("pixel_auroc")[1](TRUTH, MAPS) == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
        assert parse("pixel_ap")[1](TRUTH, MAPS) == pytest.approx(average_precision_score(truth, score), abs=1e-12)
        for name in ("auroc", "ap", "aupro"):
            cut, whole = (parse(f"pixel_{way}")[1](TRUTH, MAPS) for way in (f"{name}.open_iad", name))
            assert cut < whole - 0.05

    @pytest.mark.parametrize("name", ["patchcore", "softpatch", "simplenet"])
    def test_nor_do_detectors_cut_them(self, name):
        params = {"epochs": 1} if name == "simplenet" else {"coreset": 0.05}
        detector = load("detectors", name)(weights="none", **params)
        detector.view = View(64)
        with torch.random.fork_rng(devices=[]):
            detector.fit(images(parts(4)), np.random.default_rng(np.random.SeedSequence(0)))
            shown = detector.eval().predict(batch(parts(2, seed=3)))
        assert len(shown.map.unique()) > 1000

    def test_what_is_worse_than_chance_is_not_turned_round(self):
        """UniAD's and RealNet's code does that; here it is a dialect."""
        for row in ("image_auroc", "pixel_auroc"):
            truth, score = (TRUTH, MAPS) if row.startswith("pixel") else (TRUTH.any((1, 2)), -MAPS.mean((1, 2)))
            assert parse(row)[1](truth, -score if row.startswith("pixel") else score) < 0.5

    def test_an_image_and_its_mask_are_seen_alike_whatever_their_sides(self):
        """open-iad squeezed images into a square and cut a square out of masks."""
        pixels, mask = np.zeros((40, 120, 3), np.uint8), np.zeros((40, 120), bool)
        pixels[5:15, 90:115], mask[5:15, 90:115] = 255, True
        for view in (View(64), View(64, 48)):
            assert ((view(pixels)[:, :, 0] > 127) == view(mask)).mean() > 0.98


class TestSplits:
    @pytest.mark.parametrize("setting", [{"name": "few_shot", "k": 3}, "noisy", "semi", "federated"])
    def test_the_split_depends_on_the_seed_and_not_on_the_detector(self, setting):
        """open-iad set its seed when the detector was made, after the split was drawn."""
        grid = {"data": [{"name": "toy", "count": 12, "categories": ["metal"]}], "settings": [setting], "seeds": [5]}
        (one,) = plan.expand({**grid, "detectors": ["padim"]}).runs
        (other,) = plan.expand({**grid, "detectors": ["patchcore"], "protocol": "paper"}).runs
        index = Index(Toy(count=12).samples())

        def steps(spec, noise):
            np.random.seed(noise)  # whatever the global random state is
            rule = load("settings", spec.setting)(**spec.setting_params)
            return rule.steps(spec.task, index, Random(seed_for(spec, "split")))

        assert steps(one, 1) == steps(other, 2)

    def test_no_image_of_the_test_decides_when_training_ends(self):
        """IADBE stopped early by the test split. Here a detector cannot: it never gets that split."""
        for name in names("detectors"):
            try:
                kind = load("detectors", name)
            except Missing:  # another tool's, which is not installed
                continue
            for method in ("fit", "update"):
                arguments = list(inspect.signature(getattr(kind, method)).parameters)
                assert arguments == ["self", "train", "rng"]


class TestAverages:
    def test_are_recomputed_from_the_categories(self):
        """IADBE stated 75.3 where its cells gave 64.7; IM-IAD printed 0.994 for 0.983."""
        values = {"a": 0.9, "b": 0.4, "c": 0.65}
        (comparison,) = compare([result(task=task, values={"image_auroc": v}) for task, v in values.items()])
        assert comparison.mean(comparison.entries[0], "image_auroc").value == pytest.approx(sum(values.values()) / 3)

    def test_what_is_missing_is_never_a_zero(self):
        """IADBE's server read '-' as 0.0, and averages over fewer categories stood beside whole ones."""
        runs = [result("padim", task) for task in "abc"] + [result("stfpm", "a", {"image_auroc": 0.95})]
        runs += [result("stfpm", "b", error="boom"), result("stfpm", "c", {"image_auroc": math.nan})]
        (table,) = ranking(runs, ("image_auroc",))
        stfpm = next(row for row in table.rows if row[0].text == "stfpm")
        assert stfpm[1].value == pytest.approx(0.95)
        assert stfpm[1].marks
        assert not stfpm[1].best
        assert "Mean over 1 of 3 categories, so not ranked" in FORMATS["markdown"]([table])
        (table,) = ranking([result("padim", values={"pixel_ap": math.nan, "image_auroc": 0.5})], DEFAULT)
        assert [c.text for c in table.rows[0] if c.value == 0.0] == []

    def test_a_table_holds_one_metric_per_column_and_one_protocol(self):
        """IADBE compared the F1 of boxes with the F1 of images."""
        tables = ranking([result("padim"), result("stfpm", protocol="paper")])
        assert [[row[0].text for row in table.rows] for table in tables] == [["stfpm"], ["padim"]]
