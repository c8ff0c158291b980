from fake_results import result, spec
from iadbe.cli import estimate
from iadbe.running.store import Store


def took(seconds, detector="padim", task="bottle", **more):
    return result(detector, task, seconds={"total": seconds}, **more)


def test_the_runs_most_like_it_count():
    stored = [took(10.0), took(20.0, seed=1), took(90.0, task="cable"), took(5.0, protocol="uniform@64")]
    stored += [took(1000.0, error="failed"), took(7.0, "dfm", dataset="toy")]
    asked = [spec("padim", seed=2), spec("padim", "nut"), spec("padim", protocol="paper"), spec("dfm"), spec("stfpm")]
    assert estimate.seconds_of(asked, stored) == [15.0, 20.0, 15.0, 7.0, None]


def test_a_fit_takes_no_longer_than_its_budget():
    stored = [result("padim", seconds={"total": 900.0, "fit": 880.0})]
    protocols = ("uniform", "uniform+60s", "uniform+60cpu-s", "uniform+1h")
    found = estimate.seconds_of([spec("padim", protocol=protocol) for protocol in protocols], stored)
    assert found == [900.0, 80.0, 80.0, 900.0]


def test_the_mean_is_that_of_the_runs_to_do(tmp_path):
    store = Store(tmp_path)
    assert estimate.mean_seconds([spec("padim")], store) is None
    store.save(took(30.0))
    store.save(took(50.0, "dfm"))
    asked = [spec("padim"), spec("padim", "nut"), spec("dfm", "nut"), spec("stfpm")]
    assert estimate.mean_seconds(asked, store) == 40.0


def test_every_run_has_a_line_and_the_whole_an_estimate(tmp_path):
    store = Store(tmp_path)
    assert estimate.lines([spec("padim")], store)[-1].startswith("how long it takes is not known")
    store.save(took(30.0))
    lines = estimate.lines([spec("padim"), spec("padim", "nut"), spec("dfm")], store)
    assert [line.rpartition("seed 0")[2].strip() for line in lines[:3]] == ["done", "about 30 s", ""]
    assert lines[3] == "about 30 s for 1 run; of 1 nothing is known"
