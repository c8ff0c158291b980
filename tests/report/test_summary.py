from dataclasses import replace

import numpy as np
import pytest

from fake_results import MACHINE, result, scores
from iadbe.evaluation.confidence import auroc
from iadbe.report.summary import image_cases, summarise
from iadbe.results.comparison import compare


def run(detector, shift, category="bottle", noise=0, **more):
    """Return a run whose image AUROC follows from its scores; ``noise`` shakes the scores that all share."""
    made = scores(category, shift=shift, good=40, bad=40)
    rng = np.random.default_rng([noise, 7])
    made = tuple(s._replace(score=s.score + (0.3 * rng.normal() if noise else 0)) for s in made)
    (cases,) = image_cases(compare([result(detector, category, scores=made)])[0].entries[0]).values()
    return result(detector, category, {"image_auroc": auroc(cases[0])}, scores=made, **more)


def ask(*results):
    (comparison,) = compare(results)
    return summarise(comparison)


def test_a_clear_winner_with_margin_and_cost():
    found = ask(run("patchcore", 2.5, latency_ms=38.0), run("padim", 0.5, latency_ms=12.0))
    first, second = (s.value for s in found.ranking)
    margin = f"{first - second:.3f}"
    assert found.sentence == (
        f"patchcore finds the defects best: image AUROC {first:.3f}, {margin} above padim, "
        "at 38.0 ms per image (padim: 12.0 ms)."
    )
    assert [s.tied for s in found.ranking] == [True, False]
    assert found.ranking[0].interval.low < first < found.ranking[0].interval.high
    assert found.leader.entry.name == "patchcore"


def test_a_difference_that_is_not_significant_is_reported_with_the_fastest():
    results = [
        run("patchcore", 1.5, latency_ms=38.0, latency_range_ms=(30.0, 50.0)),
        run("padim", 1.5, noise=1, latency_ms=12.0, latency_range_ms=(11.0, 14.0)),
        run("dfm", 0.1),
    ]
    found = ask(*results)
    assert "the difference from" in found.sentence
    assert "on these 80 images; padim is" in found.sentence
    assert "the fastest of them, at 12.0 ms per image." in found.sentence
    assert "dfm" not in found.sentence
    assert [s.tied for s in found.ranking] == [True, True, False]


def test_many_rivals_make_a_short_sentence():
    found = ask(*(run(f"d{i}", 1.5, noise=i) for i in range(9)))
    assert found.sentence.count("d") < 20
    assert "others" in found.sentence


def test_one_detector():
    assert ask(run("padim", 1.5)).sentence.startswith("padim reaches an image AUROC of 0.")
    assert "95 % interval 0." in ask(run("padim", 1.5)).sentence


def test_without_scores_there_is_no_test_of_significance():
    bare = [replace(r, scores=()) for r in (run("patchcore", 2.5), run("padim", 0.5))]
    found = ask(*bare)
    assert "without image scores there is no test of significance" in found.sentence
    assert found.ranking[0].interval is None


def test_a_detector_that_lacks_a_category_does_not_lead():
    found = ask(run("padim", 1.0), run("padim", 1.0, "cable"), run("patchcore", 3.0))
    assert found.leader.entry.name == "padim"
    assert found.sentence.startswith("padim reaches")


def test_times_of_different_machines_are_not_mentioned():
    results = [run("patchcore", 2.5), run("padim", 0.5, environment={**MACHINE, "device": "H200"})]
    assert "ms" not in ask(*results).sentence


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([result(error="boom"), result(task="cable", error="boom")], "all 2 runs failed"),
        ([result(values={"image_auroc": float("nan")})], "no metric is defined"),
        ([result(task="a"), result("padim", "b")], "no detector has a value in every category"),
    ],
)
def test_no_result(results, words):
    assert words in ask(*results).sentence


def test_seeds_are_averaged_and_other_images_kept_apart():
    same = [replace(run("padim", 1.0 + s), spec=result("padim", seed=s).spec) for s in range(2)]
    (cases,) = image_cases(compare(same)[0].entries[0]).values()
    assert cases[0].score.shape == (2, 80)
    fewer = replace(same[1], scores=same[1].scores[:-3])
    (cases,) = image_cases(compare([same[0], fewer])[0].entries[0]).values()
    assert [c.score.shape for c in cases] == [(1, 80), (1, 77)]


def test_only_the_last_step_counts():
    made = [s._replace(step=step) for step in (0, 1) for s in scores()]
    (cases,) = image_cases(compare([result(scores=made)])[0].entries[0]).values()
    assert cases[0].score.shape == (1, 50)


def test_where_latencies_overlap_none_is_called_the_fastest():
    results = [
        run("patchcore", 1.5, latency_ms=38.0, latency_range_ms=(13.0, 50.0)),
        run("padim", 1.5, noise=1, latency_ms=12.0, latency_range_ms=(11.0, 14.0)),
    ]
    assert "fastest" not in ask(*results).sentence


def test_unfinished_training_never_leads_and_is_named():
    early = run("fastflow", 3.0, steps={"done": 9, "planned": 4800})
    found = ask(early, run("padim", 1.0))
    assert found.leader.entry.name == "padim"
    assert found.sentence.startswith("padim reaches an image AUROC")
    assert found.sentence.endswith(" Unfinished, so not ranked: fastflow (9 of 4 800 training steps).")
    assert [s.tied for s in found.ranking] == [True, False]
    alone = ask(early).sentence
    assert alone.startswith("There is no result yet: no detector has finished its training.")
    assert "9 of 4 800" in alone
