"""One verdict on a part, by the maximum or by Fisher's combination."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from iadbe.errors import BadConfig, BadData
from iadbe.runtime.parts import Combination, ViewScore, check_combination, named_by, p_value, parts_of, read

RULE = r"part\d+"


def view(path, score, verdict="good", error="", name=""):
    return ViewScore(Path(path), score, score / 10, verdict, error, name)


def test_the_maximum_takes_the_worst_verdict_and_the_highest_score():
    images = [view("part1_a", 3), view("part2_a", 1), view("part1_b", 5, "look"), view("alone", 9, "reject")]
    first, second, alone = parts_of(images, RULE.replace("part", "(?:part|alone)").replace("+", "*"), 7.0)
    assert (first.name, first.score, first.scaled, first.verdict) == ("part1", 5, 0.5, "look")
    assert (first.highest.path.name, first.threshold, first.defective) == ("part1_b", 7.0, False)
    assert (second.verdict, alone.verdict, alone.defective) == ("good", "reject", True)


def test_a_part_with_an_image_that_failed_is_never_called_good():
    failed = view("part1_b", math.nan, "", "part1_b cannot be read.")
    (good,) = parts_of([view("part1_a", 3), failed], RULE, 7.0)
    assert (good.verdict, good.defective, good.score) == ("", None, 3)
    assert good.error == "1 of 2 images could not be scored: part1_b cannot be read."
    (bad,) = parts_of([view("part1_a", 9, "reject"), failed], RULE, 7.0)
    assert bad.verdict == "reject"
    (none,) = parts_of([failed], RULE, 7.0)
    assert math.isnan(none.score)
    combination = Combination({"": (1.0, 2.0)}, 9.0)
    assert parts_of([view("part1_a", 3), failed], RULE, 7.0, combination)[0].verdict == ""


def test_p_values_are_those_of_split_conformal_prediction():
    reference = (1.0, 2.0, 2.0, 3.0)
    assert [p_value(s, reference) for s in (0, 1, 2, 2.5, 3, 4)] == [1.0, 1.0, 0.8, 0.4, 0.4, 0.2]


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_the_combined_score_is_fishers_with_scipys_distribution(count):
    rng = np.random.default_rng(count)
    reference = tuple(np.sort(rng.normal(size=99)))
    images = [view(f"{n}", float(s), name="v") for n, s in enumerate(rng.normal(1.5, 1, count))]
    p_values = [p_value(image.score, reference) for image in images]
    expected = -np.log(stats.combine_pvalues(p_values, "fisher").pvalue)
    assert Combination({"v": reference}, 1.0).score(images) == pytest.approx(expected, rel=1e-5)


def test_each_view_is_compared_with_its_own_references():
    combination = Combination({"a": tuple(range(9)), "b": tuple(range(100, 109))}, 2.0, 1.0)
    images = [view("part1_a", 20, name="a"), view("part1_b", 20, name="b")]
    (part,) = parts_of(images, RULE, 7.0, combination)
    assert part.score == pytest.approx(-math.log(stats.combine_pvalues([0.1, 1.0], "fisher").pvalue), rel=1e-6)
    assert (part.threshold, part.scaled, part.verdict) == (2.0, None, "look")
    assert parts_of(images[:1], RULE, 7.0, combination)[0].verdict == "reject"
    (unknown,) = parts_of([view("part1_c", 20, name="c")], RULE, 7.0, combination)
    assert (unknown.verdict, math.isnan(unknown.score)) == ("", True)
    assert "of the view 'c', but the model was calibrated on 'a', 'b'" in unknown.error
    with pytest.raises(BadData, match="view 'c'"):
        combination.score([view("x", 1, name="c")])


def test_a_combination_goes_through_a_card():
    combination = Combination({"a": (1.0, 2.0)}, 2.0, 1.0)
    assert read(json.loads(json.dumps(asdict(combination)))) == combination
    assert read(None) is None
    for change in ({"references": {}}, {"references": {"a": []}}, {"references": {"a": ["x"]}}, {"threshold": None}):
        with pytest.raises((ValueError, TypeError)):
            read({"references": {"a": [1.0]}, "threshold": 1.0, "look_threshold": None, **change})


def test_names_come_from_rules():
    assert named_by([Path("x/part1_a.png")], r"part(\d)", "part") == ["1"]
    assert named_by([Path("x.png")], "", "view") == [""]
    with pytest.raises(BadConfig, match="there is no combination"):
        check_combination("mean")
