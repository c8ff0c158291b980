import dataclasses
import json

import numpy as np
import pytest

from fake_results import result, save
from iadbe.evaluation.calibration import Calibration, ImageScores, ThresholdRule
from iadbe.report import page, thresholds
from iadbe.report.gallery import category_images
from iadbe.results.comparison import compare
from iadbe.running.store import Store

GOOD = ImageScores(np.linspace(-2, 2, 99, dtype=np.float32))
BAD = ImageScores(np.array([1, 6, 7, 8], np.float32))


def calibrate(store, run, calibration):
    folder = store.path(run.spec) / "model"
    folder.mkdir()
    (folder / "detector.json").write_text(json.dumps({"calibration": dataclasses.asdict(calibration)}))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def test_only_what_calibrate_has_made_counts(store):
    runs = [save(store, name) for name in ("padim", "dfm", "spade", "cfa", "stfpm")]
    made = ThresholdRule(0.05).calibrate(GOOD, BAD)
    calibrate(store, runs[0], made)
    calibrate(store, runs[1], Calibration("best F1", 1.5, None, 0.0, 2.0))  # by training
    calibrate(store, runs[2], Calibration())
    (store.path(runs[2].spec) / "model/detector.json").write_text("{")
    calibrate(store, runs[3], Calibration())
    (store.path(runs[3].spec) / "model/detector.json").write_text("[1]")
    assert [thresholds.calibration_of(store.path(run.spec)) for run in runs] == [made, None, None, None, None]


def test_the_table_has_a_row_for_each_calibrated_model(store):
    runs = [save(store, "padim", seed=0), save(store, "padim", seed=1), save(store, "dfm")]
    (comparison,) = compare(runs)
    assert thresholds.table(store, "x", comparison.entries) is None
    calibrate(store, runs[1], ThresholdRule(0.05).calibrate(GOOD, BAD))
    calibrate(store, runs[2], ThresholdRule(escape=0.25).calibrate(GOOD, BAD))
    dfm, padim = thresholds.table(store, "x", comparison.entries).rows
    assert [c.text for c in padim[:3]] == ["padim", "bottle", "1"]
    assert [c.text for c in padim[4:]] == ["≤ 5 % (≤ 9.01 %)", "25 % (0.631 %–80.6 %)", padim[6].text]
    assert padim[4].high == pytest.approx(0.0901, abs=1e-4)
    assert [c.text for c in dfm[4:6]] == ["0 % (0 %–3.66 %)", "25 % (0.631 %–80.6 %)"]


def test_of_several_seeds_the_first_one_counts_where_it_is_calibrated(store):
    runs = [save(store, "padim", seed=0), save(store, "padim", seed=1)]
    (comparison,) = compare(runs)
    calibrate(store, runs[1], ThresholdRule(0.05).calibrate(GOOD, BAD))
    assert thresholds.by_category(store, comparison.entries[0]) == {}
    calibrate(store, runs[0], ThresholdRule(0.1).calibrate(GOOD, BAD))
    assert thresholds.by_category(store, comparison.entries[0]) == {"bottle": ThresholdRule(0.1).calibrate(GOOD, BAD)}


def test_the_report_shows_it_and_its_verdicts_follow(store, tmp_path):
    run = save(store, "padim")
    (comparison,) = compare([run])
    path = tmp_path / "report.html"
    before = page.write(store, None, path).read_text()
    assert "Thresholds</h2>" not in before
    assert 'class="cut"' in before
    calibrate(
        store, run, ThresholdRule(0.05).calibrate(ImageScores(GOOD.score + 100), BAD)
    )  # far above all scores of the test
    after = page.write(store, None, path).read_text()
    assert "Thresholds</h2>" in after
    assert "≤ 5 %" in after
    assert 'class="cut set"' in after
    (group,) = category_images(store, comparison, comparison.entries)
    assert {heat_map.verdict for e in group.rows for heat_map in e.heat_maps} == {"missed", "passed"}


def test_a_run_without_scores_is_named_by_its_task(store):
    run = result("padim", "bottle")
    store.save(run)
    calibrate(store, run, ThresholdRule(0.05).calibrate(GOOD, ImageScores(np.empty(0, np.float32))))
    (row,) = thresholds.table(store, "x", compare([run])[0].entries).rows
    assert (row[1].text, row[5].text) == ("bottle", "—")


def test_a_look_threshold_and_a_confidence_are_shown(store):
    runs = [save(store, "padim", seed=0), save(store, "dfm")]
    calibrate(store, runs[0], ThresholdRule(0.05, look=0.2, confidence=0.95).calibrate(GOOD, BAD))
    calibrate(store, runs[1], ThresholdRule(0.05).calibrate(GOOD, BAD))
    found = thresholds.table(store, "x", compare(runs)[0].entries)
    assert [c.name for c in found.columns][-2:] == ["look", "how"]
    dfm, padim = found.rows
    assert (len(dfm), dfm[6].text) == (len(found.columns), "—")
    assert padim[4].text == "≤ 4.7 % with 95 % confidence"
    assert padim[6].text.endswith("with 95 % confidence")
    assert padim[6].value < padim[3].value
