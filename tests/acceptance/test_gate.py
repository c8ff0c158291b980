"""Whether an updated model may take the place of the present one."""

from pathlib import Path

import pytest
from scipy.stats import binomtest

from iadbe.acceptance.challenge import challenge_of
from iadbe.acceptance.gate import Gate, mcnemar
from iadbe.running.inference import ImageResult


def _challenge(good, bad):
    def result(name, score):
        return ImageResult(Path(name), score, threshold=5.0, key=name)

    goods = [result(f"good {n}", s) for n, s in enumerate(good)]
    return challenge_of(goods, [("dent", result(f"bad {n}", s)) for n, s in enumerate(bad)])


GOOD, BAD = (1, 2, 3, 4, 5.5), (4.5, 6, 7, 8)


def test_the_same_model_passes():
    gate = Gate(_challenge(GOOD, BAD), _challenge(GOOD, BAD))
    assert gate.passes
    assert gate.difference == 0
    assert gate.interval == (0, 0)
    assert gate.changed("escape") == gate.changed("overkill") == (0, 0, 1.0)
    assert gate.sentence().startswith("Promote")


@pytest.mark.parametrize(
    ("good", "bad", "word"),
    [
        ((1, 2, 3, 4, 5.5), (4.5, 4.9, 7, 8), "escape is 50 % instead of 25 %"),
        ((1, 2, 3, 5.2, 5.5), (4.5, 6, 7, 8), "overkill is 40 % instead of 20 %"),
        ((1, 2, 3, 4, 5.5), (0.5, 6, 7, 8), "AUROC is lower"),
    ],
)
def test_what_is_worse_does_not_pass(good, bad, word):
    gate = Gate(_challenge(GOOD, BAD), _challenge(good, bad))
    assert not gate.passes
    assert word in gate.sentence()
    assert Gate(gate.present, gate.candidate, tolerance=0.3).passes


def test_what_is_better_passes():
    gate = Gate(_challenge(GOOD, BAD), _challenge((1, 2, 3, 4, 4.2), (5, 6, 7, 8)))
    assert gate.passes
    assert gate.changed("escape") == (1, 0, 1.0)
    assert gate.changed("overkill") == (1, 0, 1.0)
    low, high = gate.interval
    assert 0 <= low <= gate.difference <= high


def test_the_evidence_is_plain():
    card = Gate(_challenge(GOOD, BAD), _challenge(GOOD, (0.5, 6, 7, 8))).card()
    assert card["passes"] is False
    assert card["images"] == {"good": 5, "bad": 4}
    assert card["auroc"]["candidate"] < card["auroc"]["present"]
    assert card["escape"]["worse"] == 0  # it escaped before, too


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (3, 0), (5, 2), (4, 4), (1, 9)])
def test_mcnemar_is_the_exact_test(better, worse):
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar(better, worse) == pytest.approx(expected)
