"""Laws that every setting keeps, whatever its name, and that every detector that meets its demands can run in it."""

import math
from random import Random

import pytest

from iadbe.data.transforms import without_transform
from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.parameters import complete, needs_with
from iadbe.registry import card, load, names
from iadbe.running import plan
from iadbe.running.run import REFIT_NOTE, run
from iadbe.types import Options, TrainingLabel

TOY = Toy()
INDEX = Index(TOY.samples())
VARIANTS = {  # parameters that a setting is tried with besides its defaults
    "few_shot": [{"augment": ["rotation", "flip"]}, {"others": True}],
    "semi": [{"hard": True}],
    "noisy": [{"of": "all"}],
    "federated": [{"split": "dirichlet", "joint": True}, {"aggregate": "median"}],
    "continual": [{"shuffle": True}],
}
BOTH = {  # where the definition itself says that test images are learnt from
    "semi": [{"overlap": True}],
    "noisy": [{"overlap": True}],
    "zero_shot": [{"transductive": True}],
}
TRIED = [(name, params) for name in names("settings") for params in [{}, *VARIANTS.get(name, [])]]
EVERY = [*TRIED, *((name, params) for name, variants in BOTH.items() for params in variants)]


def label(value):
    return value if isinstance(value, str) else "-".join(map(str, value)) or "default"


def made(name, params):
    return load("settings", name)(**{k: tuple(v) if isinstance(v, list) else v for k, v in params.items()})


@pytest.fixture(params=TRIED, ids=lambda pair: "-".join(map(label, pair)))
def setting(request):
    return made(*request.param)


def layouts(setting, seed=0):
    return [(task, setting.steps(task, INDEX, Random(seed))) for task in setting.tasks(TOY.categories)]


def test_no_training_sample_is_tested(setting):
    """Nor is an altered copy of one."""
    for _, steps in layouts(setting):
        shown = {without_transform(e.sample).id for s in steps for shard in s.shards for e in shard}
        tested = {without_transform(x).id for s in steps for test in s.tests.values() for x in test}
        assert not shown & tested


def test_every_test_has_both_classes(setting):
    for _, steps in layouts(setting):
        assert steps[-1].tests
        for step in steps:
            for test in step.tests.values():
                assert {x.is_anomaly for x in test} == {True, False}


@pytest.mark.parametrize(("name", "params"), EVERY, ids=label)
def test_same_seed_same_layout_and_other_seed_no_error(name, params):
    """Whatever was laid out before, and whatever the global random state is."""
    import random

    first = layouts(made(name, params), 3)
    setting = made(name, params)
    layouts(setting, 4)
    random.seed(8)
    assert layouts(setting, 3) == first


def test_a_task_does_not_depend_on_the_tasks_before_it(setting):
    """open-iad lowered its numbers for all categories after a small one."""
    backwards = [(t, setting.steps(t, INDEX, Random(0))) for t in reversed(setting.tasks(TOY.categories))]
    assert backwards[::-1] == layouts(setting)


@pytest.mark.parametrize(("name", "params"), EVERY, ids=label)
def test_shards_are_disjoint_and_hold_nothing_twice(name, params):
    for _, steps in layouts(made(name, params)):
        for step in steps:
            ids = [e.sample.id for shard in step.shards for e in shard]
            assert len(ids) == len(set(ids))


def test_no_image_is_tested_twice_in_one_test(setting):
    for _, steps in layouts(setting):
        for step in steps:
            for test in step.tests.values():
                assert len({x.id for x in test}) == len(test)


def test_labels_are_true(setting):
    """Only the noisy setting may label wrongly."""
    if type(setting).__name__ == "Noisy":
        pytest.skip("wrong labels are the purpose of this setting")
    for _, steps in layouts(setting):
        for step in steps:
            for shard in step.shards:
                assert all((e.label is not TrainingLabel.NORMAL) == e.sample.is_anomaly for e in shard)


def test_the_index_is_left_as_it_was(setting):
    before = INDEX.samples
    layouts(setting)
    assert INDEX.samples == before


def test_only_wanted_categories_are_tasks(setting):
    for task in setting.tasks(["metal", "board"], TOY.categories):
        shown = {e.sample.category for s in setting.steps(task, INDEX, Random(0)) for e in s.shards[:1] for e in e}
        if not getattr(setting, "others", False):
            assert shown <= {"metal", "board"}


@pytest.mark.parametrize("name", names("settings"))
def test_the_card_states_what_the_class_says(name):
    kind = load("settings", name)
    assert card("settings", name).get("demands") == kind.demands
    assert card("settings", name).get("gives") == kind.gives
    assert kind().demanded() == kind.demands
    assert card("settings", name).summary.endswith(".")


def test_every_setting_is_planned_with_every_detector_that_meets_its_demands():
    """The whole cross product: a cell runs, in all of its tasks, or there is the reason why not."""
    data = [{"name": "toy", "count": 8, "categories": ["metal", "board"]}]
    opened, few = Toy(count=8), {"few_shot": {"k": 2}, "transfer": {"k": 2}, "noisy": {"ratio": 0.2}}
    for name, params in EVERY:
        params = {**few.get(name, {}), **params}
        tasks = set(made(name, params).tasks(["metal", "board"], TOY.categories))
        demanded = made(name, params).demanded()
        for detector in names("detectors"):
            own = card("detectors", detector)
            found = plan.expand({"detectors": [detector], "data": data, "settings": [{"name": name, **params}]})
            able = all(set(d.split(" or ")) & own.get("can") for d in demanded)
            fed = needs_with(own, complete(own, {})) <= opened.gives | load("settings", name).gives
            assert {r.task for r in found.runs} == (tasks if able and fed else set()), (name, params, detector)
            assert bool(found.skipped) == (not (able and fed))


REAL = {  # three detectors of different kinds for every setting: a bank, statistics, a trained one
    "padim": {"weights": "none", "dims": 8},
    "patchcore": {"weights": "none", "coreset": 0.02},
    "autoencoder": {"size": 32, "epochs": 2},
    "musc": {"weights": "none"},
    "regad": {"weights": "none", "epochs": 1},
    "softpatch": {"weights": "none", "coreset": 0.02},
    "winclip": {"model": "ViT-S-32-alt", "weights": "none", "windows": [3]},
    "dfkde": {"weights": "none"},
}
SMALL = {
    "few_shot": [{"k": 2, "augment": ["rotation"], "copies": 2}],
    "noisy": [{"ratio": 0.2}],
    "transfer": [{"k": 2, "source": "metal", "target": "board"}],
    "federated": [{"clients": 2, "rounds": 2, "aggregate": "fedprox"}],
    "shifted": [{"kinds": ["rotation", "noise"], "strengths": [3]}],
    "continual": [{}, {"order": ["board", "metal"]}],
}
ONE_TASK = {"vanilla", "few_shot", "semi", "supervised", "noisy", "zero_shot", "cross_category", "federated", "shifted"}
CELLS = [
    (n, p, d) for n in names("settings") for p in SMALL.get(n, [{}]) for d in ("padim", "patchcore", "autoencoder")
]
CELLS = [cell for cell in CELLS if cell[0] != "zero_shot"]
CELLS += [("zero_shot", {}, "winclip"), *(("zero_shot", {"transductive": True}, d) for d in ("musc", "softpatch"))]
CELLS += [("few_shot", {"k": 2, "others": True}, "regad")]
CELLS += [(name, SMALL[name][0], "dfkde") for name in ("continual", "transfer")]  # which does not learn on
CELLS += [(name, {"overlap": True}, "padim") for name in ("semi", "noisy")]


@pytest.mark.parametrize(("name", "params", "detector"), CELLS, ids=label)
def test_it_runs_for_real(name, params, detector):
    if detector == "winclip":
        pytest.importorskip("open_clip", reason="the extra clip is not installed")
    categories = ["metal"] if name in ONE_TASK else ["metal", "board"]
    localises = "localise" in card("detectors", detector).get("can")
    metrics = ["image_auroc", "pixel_auroc"] if localises else ["image_auroc"]
    grid = {
        "detectors": [{"name": detector, **REAL[detector]}],
        "data": [{"name": "toy", "count": 10, "categories": categories}],
        "settings": [{"name": name, **params}],
        "protocol": "uniform@32",
        "metrics": metrics,
    }
    (spec,) = plan.expand(grid).runs
    result = run(spec, Options(features="off", threads=1, device="cpu"))
    assert result.error == ""
    steps = made(name, params).steps(spec.task, Index(Toy(count=10).samples()), Random(0))
    wanted = {(number, test) for number, step in enumerate(steps) for test in step.tests}
    assert {(r.step, r.test) for r in result.rows} == wanted
    assert {r.metric for r in result.rows} == set(metrics)
    assert all(math.isfinite(r.value) for r in result.rows)
    assert len({round(s.score, 6) for s in result.scores}) > len(result.scores) / 2
    assert (REFIT_NOTE in result.notes) == (detector == "dfkde")


def test_every_setting_runs_for_real_with_three_detectors():
    assert {name: len({d for n, _, d in CELLS if n == name}) >= 3 for name in names("settings")} == dict.fromkeys(
        names("settings"), True
    )
