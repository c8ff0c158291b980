import math

import pytest

import fake_results
from iadbe.running.store import Store
from iadbe.seeds import run_id
from iadbe.types import Score
from iadbe.web.comparisons import mcnemar


def test_mcnemar_is_a_binomial_test():
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(0, 6) == pytest.approx(2 / 64)
    assert mcnemar(8, 1) == pytest.approx(2 * (1 + 9) / 512)
    assert mcnemar(1, 8) == mcnemar(8, 1)


@pytest.fixture
def apart(serve, tmp_path):
    """Two runs: the first has one defect wrong, the second is the first turned round on half of the defects."""
    store, ids = Store(tmp_path / "runs"), []
    made = fake_results.scores(shift=8.0, good=20, bad=20)
    one = [s._replace(score=-9.0) if s.sample.endswith("crack/0") else s for s in made]
    two = [s._replace(score=-9.0) if s.defect == "stain" else s for s in made]
    for detector, scores in (("padim", one), ("dfm", two)):
        run = fake_results.result(detector, scores=scores)
        store.save(run)
        ids.append(run_id(run.spec))
    return serve(store), ids


def test_samples_and_pairs_are_compared(apart):
    here, ids = apart
    response = here.get("/api/v1/comparisons", params={"run": ids}).json()
    assert [r["detector"] for r in response["runs"]] == ["padim", "dfm"]
    assert len(response["samples"]) == 40
    first = response["samples"][0]
    assert not first["agreed"]  # those that they disagree on are first
    (one,) = response["disagreements"]
    said = [s["verdicts"] for s in response["samples"]]
    right = [[v in ("caught", "passed") for v in pair] for pair in said]
    assert one["only_first"] == sum(a and not b for a, b in right) >= 10
    assert one["only_second"] == sum(b and not a for a, b in right)
    assert one["p"] == pytest.approx(mcnemar(one["only_first"], one["only_second"]))
    lost = [s for s in response["samples"] if s["verdicts"] == ["missed", "caught"]]
    assert [s["sample"] for s in lost] in ([], ["bottle/crack/0"])


def test_differences_use_the_shared_images(apart):
    here, ids = apart
    (one,) = here.get("/api/v1/comparisons", params={"run": ids}).json()["differences"]
    assert one["metric"] == "image_auroc"
    assert one["value"] == pytest.approx(0.95 - 0.5)  # one of 20 defects lies below all good ones, and then half
    assert one["low"] < one["value"] < one["high"]
    assert one["significant"]
    (turned,) = here.get("/api/v1/comparisons", params={"run": ids[::-1]}).json()["differences"]
    assert turned["value"] == pytest.approx(-one["value"])
    assert turned["low"] == pytest.approx(-one["high"])


def test_runs_without_a_common_image(serve, tmp_path):
    store = Store(tmp_path / "runs")
    runs = [fake_results.result("padim", task, scores=fake_results.scores(task)) for task in ("bottle", "cable")]
    scores = (Score(0, "bottle", "x", "bottle", "good", math.inf),)
    runs.append(fake_results.result("dfm", scores=scores))
    for run in runs:
        store.save(run)
    here = serve(store)
    for pair in (runs[:2], runs[::2]):
        response = here.get("/api/v1/comparisons", params={"run": [run_id(r.spec) for r in pair]}).json()
        assert response["samples"] == []
        assert response["differences"] == []
        assert response["numbers"][0]["values"] == [0.9, 0.9]


@pytest.mark.parametrize(("count", "status"), [(0, 422), (1, 400), (7, 422)])
def test_two_to_six_runs_can_be_compared(client, ids, count, status):
    every = sorted(ids.all)
    assert client.get("/api/v1/comparisons", params={"run": every[:count]}).status_code == status


def test_a_failed_run_has_no_numbers(client, ids):
    pair = [ids.of("padim", "bottle"), ids.of("stfpm", "bottle")]
    response = client.get("/api/v1/comparisons", params={"run": pair}).json()
    assert all(n["values"][1] is None for n in response["numbers"])
    assert response["samples"] == []


def test_dependent_images_are_drawn_together(serve, tmp_path):
    store, widths = Store(tmp_path / "runs"), []
    made = fake_results.scores(shift=1.0, good=24, bad=24)
    for grouped in (False, True):
        ids = []
        for detector, sign in (("padim", 1.0), ("dfm", -1.0)):
            scores = [
                s._replace(score=sign * s.score, group=f"{s.defect} {int(s.sample.split('/')[-1]) // 8}" * grouped)
                for s in made
            ]
            run = fake_results.result(detector, scores=scores, seed=int(grouped))
            store.save(run)
            ids.append(run_id(run.spec))
        response = serve(store).get("/api/v1/comparisons", params={"run": ids}).json()
        assert "group" not in response["samples"][0]
        (one,) = response["differences"]
        widths.append(one["high"] - one["low"])
    assert widths[0] != widths[1]
