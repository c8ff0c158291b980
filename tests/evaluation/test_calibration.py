"""The guarantees hold: simulated, compared with closed forms, and at the edges."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from iadbe.errors import BadConfig
from iadbe.evaluation.calibration import Calibration, ImageScores, ThresholdRule, read, scale_width
from iadbe.evaluation.conformal import Rate, clopper_pearson, conformal_threshold, images_needed
from iadbe.runtime.regions import RegionRule

NONE = ImageScores(np.empty(0, np.float32))
DRAWS = 4000


def shown(*scores, maps=False):
    score = np.array(scores, np.float32)
    return ImageScores(score, score + 10, score - 5) if maps else ImageScores(score)


def overkills(count, share, seed=0):
    """Return the true overkill of many calibrations on normal scores, each a new sample, and what each guaranteed."""
    rng = np.random.default_rng(seed)
    made = [
        ThresholdRule(share).calibrate(ImageScores(rng.normal(size=count).astype(np.float32)), NONE)
        for _ in range(DRAWS)
    ]
    return stats.norm.sf([it.threshold for it in made]), made[0].overkill


class TestGuarantee:
    @pytest.mark.parametrize(("count", "share"), [(19, 0.05), (39, 0.1), (130, 0.02), (199, 0.01)])
    def test_the_overkill_is_distributed_as_stated(self, count, share):
        true, rate = overkills(count, share)
        more = int(share * (count + 1) + 1e-9)
        law = stats.beta(more, count + 1 - more)
        assert rate.value == more / (count + 1) <= share
        assert abs(true.mean() - rate.value) < 4 * law.std() / DRAWS**0.5
        assert stats.kstest(true, law.cdf).pvalue > 1e-3
        above = np.mean(true > rate.high)  # in 1 of 20 samples the overkill is above the stated bound
        assert abs(above - 0.05) < 4 * (0.05 * 0.95 / DRAWS) ** 0.5

    def test_equal_scores_all_pass(self):
        found = ThresholdRule(0.1).calibrate(shown(*[3.0] * 20), NONE)
        assert 3.0 < found.threshold < 3.0001
        assert found.scaled(3.0) < 0.5 <= found.scaled(3.001)

    def test_pixels_of_good_parts_stay_below_the_pixel_threshold_as_often(self):
        good = np.random.default_rng(3).normal(size=50).astype(np.float32)
        found = ThresholdRule(0.1).calibrate(ImageScores(good, good * 2 + 7, good - 9), NONE)
        assert found.pixel_threshold == conformal_threshold(good * 2 + 7, 0.1)
        assert (good * 2 + 7 >= found.pixel_threshold).sum() == (good >= found.threshold).sum() == 4  # floor(5.1) - 1
        assert found.low == pytest.approx(np.median(good) - 9, abs=1e-6)
        assert (found.low + found.high) / 2 == pytest.approx(found.pixel_threshold)


class TestTooFew:
    @pytest.mark.parametrize("share", [0.5, 0.1, 0.05, 0.03, 0.01, 0.001])
    def test_the_number_needed_is_just_enough(self, share):
        count = images_needed(share)
        assert np.ceil((count + 1) * (1 - share) - 1e-9) <= count
        assert np.ceil(count * (1 - share) - 1e-9) > count - 1
        ThresholdRule(share).check(count, 0)
        with pytest.raises(BadConfig, match=f"takes {count} good images"):
            ThresholdRule(share).check(count - 1, 0)

    def test_it_states_what_these_images_can_guarantee_and_that_is_true(self):
        with pytest.raises(BadConfig, match="takes 99 good images .* there are 40: .* overkill of 0.0244") as raised:
            ThresholdRule().calibrate(shown(*range(40)), NONE)
        least = float(str(raised.value).rpartition(" ")[2].rstrip("."))
        assert ThresholdRule(least).calibrate(shown(*range(40)), NONE).overkill.value == 1 / 41

    def test_what_was_learnt_is_named(self):
        with pytest.raises(BadConfig, match="there is 1 beside 30 that it has learnt"):
            ThresholdRule(0.1).check(1, 0, 30)
        with pytest.raises(BadConfig, match=r"there are 0: give more\."):
            ThresholdRule().check(0, 0)

    @pytest.mark.parametrize(
        ("criterion", "sentence"),
        [
            ({"overkill": 0.0}, "overkill is a share"),
            ({"overkill": 1.0}, "overkill is a share"),
            ({"overkill": float("nan")}, "overkill is a share"),
            ({"escape": 1.0}, "escape is a share"),
            ({"cost": 0.0}, "cost is that of"),
            ({"cost": float("inf")}, "cost is that of"),
            ({"cost": 2.0, "defects": 0.0}, "defects is the share"),
            ({"defects": 0.1}, "belongs to cost"),
            ({"overkill": 0.1, "escape": 0.1}, "give one of them"),
        ],
    )
    def test_an_invalid_rule_is_an_error_with_one_sentence(self, criterion, sentence):
        with pytest.raises(BadConfig, match=sentence):
            ThresholdRule(**criterion)

    @pytest.mark.parametrize("criterion", [ThresholdRule(escape=0.1), ThresholdRule(cost=3.0)])
    def test_labelled_needs_both_kinds(self, criterion):
        with pytest.raises(BadConfig, match="give some as bad"):
            criterion.calibrate(shown(1), NONE)
        with pytest.raises(BadConfig, match="no good image"):
            criterion.calibrate(NONE, shown(1))


class TestLabelled:
    GOOD, BAD = shown(1, 2, 3, 4, 6, maps=True), shown(5, 7, 8, 9)

    def test_escape_takes_the_highest_threshold_that_keeps_it(self):
        none, one = (ThresholdRule(escape=x).calibrate(self.GOOD, self.BAD) for x in (0.2, 0.25))
        assert (none.threshold, one.threshold) == (5.0, 7.0)
        assert (none.escape.value, one.escape.value) == (0.0, 0.25)
        assert (none.overkill.value, one.overkill.value) == (0.2, 0.0)
        assert none.pixel_threshold == pytest.approx(14.0, abs=1e-5)  # as one good image is rejected, one may show it
        assert one.pixel_threshold == pytest.approx(16.0, abs=1e-5)
        assert (one.good, one.bad) == (5, 4)

    def test_ties_among_defects_escape_together_or_not_at_all(self):
        found = ThresholdRule(escape=0.5).calibrate(self.GOOD, shown(5, 5, 5, 9))
        assert (found.threshold, found.escape.value) == (5.0, 0.0)

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize(("cost", "defects"), [(1.0, None), (20.0, 0.01), (0.3, 0.5), (1e-6, None), (1e6, None)])
    def test_no_threshold_costs_less(self, seed, cost, defects):
        rng = np.random.default_rng(seed)
        good, bad = (np.round(rng.normal(m, 1, n), 1).astype(np.float32) for m, n in ((0, 30), (1.5, 12)))
        share = 12 / 42 if defects is None else defects

        def costs(t):
            return share * cost * np.mean(bad < t) + (1 - share) * np.mean(good >= t)

        found = ThresholdRule(cost=cost, defects=defects).calibrate(ImageScores(good), ImageScores(bad))
        everywhere = np.arange(-5, 8, 0.05) + 0.025
        assert costs(found.threshold) == pytest.approx(min(map(costs, everywhere)), abs=1e-12)

    def test_a_separating_threshold_is_in_the_middle(self):
        found = ThresholdRule(cost=5.0).calibrate(shown(1, 2, 3), shown(5, 6))
        assert (found.threshold, found.overkill.value, found.escape.value) == (4.0, 0.0, 0.0)

    def test_defects_beside_a_promise_only_measure_the_escape(self):
        alone, beside = (ThresholdRule(0.2).calibrate(self.GOOD, bad) for bad in (NONE, self.BAD))
        assert alone.threshold == beside.threshold
        assert (alone.escape, beside.escape.value) == (None, 0.25)

    def test_all_rejected(self):
        found = ThresholdRule(escape=0.0).calibrate(self.GOOD, shown(0))
        assert (found.overkill.value, found.pixel_threshold) == (1.0, 11.0)
        assert found.high > found.low
        assert "median" not in found.scale()


class TestDisplayScale:
    def test_it_rises_everywhere_and_has_its_marks(self):
        good = np.random.default_rng(4).gamma(2, size=99).astype(np.float32)
        found = ThresholdRule(0.05).calibrate(ImageScores(good), NONE)
        raw = np.concatenate([np.linspace(-50, 50, 20001), np.geomspace(50, 1e30, 2000)]).astype(np.float32)
        near = [np.float32(found.threshold)]
        for _ in range(50):
            near = [np.nextafter(near[0], np.float32(-np.inf)), *near, np.nextafter(near[-1], np.float32(np.inf))]
        raw = np.unique(np.concatenate([raw, near, -raw]))
        scale = np.array([found.scaled(float(s)) for s in raw])
        assert (np.diff(scale) >= 0).all()
        assert (np.diff(scale[np.abs(raw) < 50]) > 0).all(), "no two scores of parts look the same"
        assert scale[0] >= 0
        assert scale[-1] <= 1
        assert ((scale >= 0.5) == (raw >= found.threshold)).all(), "0.5 is the verdict"
        assert found.scaled(float(np.median(good))) == pytest.approx(0.1)

    def test_it_is_invariant_to_units(self):
        good = np.random.default_rng(5).normal(size=50).astype(np.float32)
        small, large = (
            ThresholdRule(0.1).calibrate(ImageScores((good * by).astype(np.float32)), NONE) for by in (1e-3, 1e3)
        )
        assert small.scaled(2e-3) == pytest.approx(large.scaled(2e3), rel=1e-4)

    def test_without_a_threshold_there_is_none(self):
        assert Calibration().scaled(1.0) is None
        assert Calibration(threshold=1.0).scaled(1.0) is None
        assert scale_width(0.0, np.zeros(3)) > 0


class TestModelCard:
    def test_what_is_written_is_read(self):
        found = ThresholdRule(0.2).calibrate(TestLabelled.GOOD, TestLabelled.BAD)
        assert read(json.loads(json.dumps(dataclasses.asdict(found)))) == found

    def test_older_cards_are_read(self):
        old = {"how": "best F1", "threshold": 1.5, "pixel_threshold": None, "low": 0.0, "high": 2.0}
        found = read(old)
        assert (found.threshold, found.width, found.good, found.overkill) == (1.5, None, 0, None)
        assert found.guarantees() == []


def test_the_earlier_name_of_a_guarantee_is_read():
    card = {"overkill": {"value": 0.01, "low": 0.0, "high": 0.0295, "promised": True}}
    assert read(card).overkill == Rate(0.01, 0.0, 0.0295, guaranteed=True)


def test_guarantees_are_stated_in_full():
    rate = Rate(0.01, 0.0, 0.0295, guaranteed=True)
    stated = Calibration("", 1.0, good=199, bad=40, overkill=rate, escape=clopper_pearson(2, 40)).guarantees()
    assert stated == [
        "overkill: at most 1 % on average over such samples of 199 good images; in this one at most 2.95 % with "
        "95 % confidence",
        "escape: 2 of 40 defective images, 5 % (95 % interval 0.611 % to 16.9 %)",
    ]


class TestGroups:
    def test_a_group_has_the_highest_score_of_its_images(self):
        scores = ImageScores(np.array([1, 5, 2, 3], np.float32), np.array([9, 1, 2, 3], np.float32))
        found = scores.by_group(["a", "a", "", ""])
        assert (found.score.tolist(), found.top.tolist(), found.middle) == ([5, 2, 3], [9, 2, 3], None)
        assert found.unit == "image groups"

    def test_the_guarantee_counts_groups(self):
        rng = np.random.default_rng(0)
        copies = ImageScores(np.repeat(rng.normal(size=99), 6).astype(np.float32))
        groups = [f"part {i // 6}" for i in range(594)]
        once = ThresholdRule(0.01).calibrate(ImageScores(copies.score[::6]), NONE)
        found = ThresholdRule(0.01).calibrate(copies.by_group(groups), NONE)
        assert (found.threshold, found.overkill, found.good) == (once.threshold, once.overkill, 99)
        assert found.guarantees()[0].startswith(
            "overkill: at most 1 % on average over such samples of 99 good image groups"
        )
        assert "guaranteed by 99 good image groups" in found.how
        with pytest.raises(BadConfig, match="takes 199 good image groups"):
            ThresholdRule(0.005).calibrate(copies.by_group(groups), NONE)

    def test_new_groups_are_rejected_as_rarely_as_guaranteed_where_images_depend(self):
        """Six images of a part share most of their score; counted one by one the overkill of parts is far above 5 %."""
        rng = np.random.default_rng(1)
        groups = [f"{i // 6}" for i in range(59 * 6)]

        def parts(count):
            return (rng.normal(size=(count, 1)) + 0.5 * rng.normal(size=(count, 6))).astype(np.float32)

        new = parts(4000).max(axis=1)
        rejected = {True: [], False: []}
        for _ in range(200):
            scores = ImageScores(parts(59).ravel())
            for grouped in (True, False):
                given = scores.by_group(groups) if grouped else scores
                rejected[grouped].append((new >= ThresholdRule(0.05).calibrate(given, NONE).threshold).mean())
        assert np.mean(rejected[True]) == pytest.approx(0.05, abs=0.01)
        assert np.mean(rejected[False]) > 0.08

    def test_the_unit_is_kept_in_the_card(self):
        found = ThresholdRule(escape=0.5).calibrate(
            ImageScores(np.arange(4, dtype=np.float32)).by_group("aabb"),
            ImageScores(np.array([1, 5], np.float32)).by_group("xy"),
        )
        assert read(json.loads(json.dumps(dataclasses.asdict(found)))).unit == "image groups"
        assert "of 2 defective image groups escape" in found.how
        assert read({"threshold": 1.0, "good": 3}).unit == "images"


class TestConfidence:
    @pytest.mark.parametrize(("count", "share"), [(59, 0.05), (149, 0.02), (299, 0.01), (598, 0.005)])
    def test_so_many_images_without_a_miss_allow_a_share_with_95_percent_confidence(self, count, share):
        assert images_needed(share, 0.95) == count
        values = np.random.default_rng(0).permutation(count).astype(np.float32)
        assert conformal_threshold(values, share, 0.95) > count - 1, "it is above the highest"
        rule = ThresholdRule(share, confidence=0.95)
        assert rule.calibrate(ImageScores(values), NONE).overkill.high <= share
        with pytest.raises(BadConfig, match=f"with 95 % confidence takes {count} good images"):
            rule.check(count - 1, 0)

    @pytest.mark.parametrize(("count", "misses", "share"), [(93, 1, 0.05), (124, 2, 0.05), (473, 1, 0.01)])
    def test_with_misses_it_takes_more_images(self, count, misses, share):
        """The one-sided bound of Clopper and Pearson: 93 images with one miss are at most 5 %, 92 are not."""
        for n, above in ((count, misses), (count - 1, misses - 1)):
            values = np.arange(n, dtype=np.float32)
            assert (values >= conformal_threshold(values, share, 0.95)).sum() == above
        theirs = stats.binomtest(misses, count, alternative="less").proportion_ci(0.95, "exact").high
        values = np.random.default_rng(1).normal(size=count).astype(np.float32)
        found = ThresholdRule(share, confidence=0.95).calibrate(ImageScores(values), NONE)
        assert found.overkill.high == pytest.approx(theirs)
        assert found.overkill.value == (misses + 1) / (count + 1)

    def test_it_states_what_these_images_can_guarantee_and_that_is_true(self):
        rule = ThresholdRule(0.02, confidence=0.95)
        with pytest.raises(BadConfig, match="takes 149 .* there are 60: .* on average, it takes 49") as raised:
            rule.check(60, 0)
        least = float(str(raised.value).partition("overkill of ")[2].split()[0])
        assert least == 0.0488  # 1 - 0.05 ** (1 / 60) = 0.0487 and something
        ThresholdRule(least, confidence=0.95).check(60, 0)

    def test_the_kind_is_stated_and_kept(self):
        found = ThresholdRule(0.05, confidence=0.9).calibrate(shown(*range(100)), NONE)
        assert found.how == "at most 5 % overkill with 90 % confidence, guaranteed by 100 good images"
        (line,) = found.guarantees()
        high = f"{100 * stats.beta(2, 99).ppf(0.9):.3g}"
        assert line.startswith(f"overkill: at most {high} % with 90 % confidence, by 100 good images; ")
        assert read(json.loads(json.dumps(dataclasses.asdict(found)))) == found


class TestLook:
    def test_both_thresholds_are_those_of_their_shares(self):
        values = np.random.default_rng(0).permutation(199).astype(np.float32)
        found = ThresholdRule(0.005, look=0.05).calibrate(ImageScores(values), shown(150, 190, 500))
        assert (np.floor(found.threshold), np.floor(found.look_threshold)) == (198, 189)
        assert (found.overkill.value, found.look.value) == (1 / 200, 10 / 200)
        assert found.threshold == ThresholdRule(0.005).calibrate(ImageScores(values), NONE).threshold
        assert found.escape.value == 1 / 3, "what is to be looked at has not escaped"
        assert found.guarantees()[1].startswith("good parts to look at, or rejected: at most 5 % on average")
        assert "look at it from 189 on; reject from 198 on" in found.thresholds()[1]
        assert read(json.loads(json.dumps(dataclasses.asdict(found)))) == found

    def test_with_confidence_both_have_it(self):
        rule = ThresholdRule(0.01, look=0.05, confidence=0.95)
        found = rule.calibrate(ImageScores(np.arange(299, dtype=np.float32)), NONE)
        assert (found.overkill.confidence, found.look.confidence) == (0.95, 0.95)
        assert found.overkill.high <= 0.01 < found.look.high <= 0.05

    @pytest.mark.parametrize(
        ("criterion", "sentence"),
        [
            ({"look": 0.01}, "not above 0.01, the share that is rejected"),
            ({"look": 1.5}, "look is a share"),
            ({"look": 0.1, "escape": 0.1}, "belong to overkill"),
            ({"confidence": 0.95, "cost": 3.0}, "belong to overkill"),
            ({"confidence": 95}, "confidence is above 0 and below 1"),
        ],
    )
    def test_an_invalid_rule_is_an_error_with_one_sentence(self, criterion, sentence):
        with pytest.raises(BadConfig, match=sentence):
            ThresholdRule(**criterion)


class TestRegions:
    """With a rule for regions the verdict follows from each image's value by it, and so do guarantee and escape."""

    RULE = RegionRule(min_area=20)

    def scores(self, *values):
        region = np.array(values, np.float32)
        return ImageScores(np.arange(len(region), dtype=np.float32), region + 50, region - 5, region)

    def test_the_pixel_thresholds_are_those_of_regions(self):
        values = np.random.default_rng(0).permutation(99).astype(np.float32)
        good = self.scores(*values)
        found = ThresholdRule(0.01, look=0.1).calibrate(good, self.scores(10, 95, 200), self.RULE)
        assert found.pixel_threshold == conformal_threshold(values, 0.01)
        assert found.look_pixel_threshold == conformal_threshold(values, 0.1)
        assert found.threshold == conformal_threshold(good.score, 0.01), "of the image score, as without a rule"
        assert found.escape.value == 1 / 3
        assert "regions of at least 20 pixels from a map value of 98" in found.thresholds()[1]
        assert read(json.loads(json.dumps(dataclasses.asdict(found)))) == found

    def test_zones_that_reject_too_many_and_rules_that_reject_none_are_refused(self):
        with pytest.raises(BadConfig, match="zones' own thresholds alone"):
            ThresholdRule(0.1).calibrate(self.scores(*range(28), np.inf, np.inf, np.inf), NONE, self.RULE)
        with pytest.raises(BadConfig, match="too few good images show regions of at least 20 pixels"):
            ThresholdRule(0.1).calibrate(self.scores(*[-np.inf] * 30), NONE, self.RULE)
        with pytest.raises(BadConfig, match="belong to overkill"):
            ThresholdRule(escape=0.1).calibrate(self.scores(1), self.scores(2), self.RULE)

    def test_a_group_has_the_highest_value(self):
        assert self.scores(1, 4, 2).by_group("aab").regions.tolist() == [4, 2]
