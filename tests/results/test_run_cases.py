import numpy as np
import pytest

import fake_results
from iadbe.errors import BadData
from iadbe.evaluation.confidence import category_scores
from iadbe.results.run_cases import cases_of, merged, read_cases
from iadbe.running.store import Store
from iadbe.types import Score


def directly(scores):
    """The slow direct version: dictionaries of the last step's scores by test and image."""
    last, by_test = max(s.step for s in scores), {}
    for score in scores:
        if score.step == last:
            by_test.setdefault(score.test, {})[score.sample] = score
    return {
        test: category_scores(
            ((i, s.defect != "good", [s.score]) for i, s in table.items()), {i: s.group for i, s in table.items()}
        )
        for test, table in by_test.items()
    }


def same(found, expected):
    assert list(found) == list(expected)
    for test, case in found.items():
        other = expected[test]
        assert (case.ids, case.groups) == (other.ids, other.groups)
        assert case.truth.dtype == bool
        assert np.array_equal(case.truth, other.truth)
        assert np.array_equal(case.score, other.score)
    return True


def random_scores(rng, *, steps=1, tests=("bottle",), grouped=False):
    return tuple(
        Score(
            step, test, f"{test}/{i:03}", test, ("good", "crack", "stain")[rng.integers(3)], float(rng.normal()),
            f"part{i // 3}" if grouped and i % 2 else "",
        )
        for step in range(steps)
        for test in tests
        for i in rng.permutation(20)
    )  # fmt: skip


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("tests", [("bottle",), ("nut", "tile", "wood")])
@pytest.mark.parametrize("steps", [1, 3])
def test_memory_and_folder_give_what_the_scores_say(tmp_path, steps, tests, grouped):
    rng = np.random.default_rng(steps)
    store, scores = Store(tmp_path / "runs"), random_scores(rng, steps=steps, tests=tests, grouped=grouped)
    run = fake_results.result(scores=scores)
    folder = store.save(run).name
    expected = directly(scores)
    assert any(case.groups for case in expected.values()) == grouped
    assert same(cases_of(run), expected)
    assert same(read_cases(store, folder), expected)


def test_of_an_image_that_is_there_twice_the_last_score_counts():
    scores = (
        Score(0, "a", "x", "a", "good", 1.0),
        Score(0, "a", "y", "a", "hole", 2.0),
        Score(0, "a", "x", "a", "hole", 3.0),
    )
    (found,) = cases_of(fake_results.result(scores=scores)).values()
    assert found.ids == ("x", "y")
    assert found.score.tolist() == [[3.0, 2.0]]
    assert found.truth.tolist() == [True, True]


def test_runs_without_scores(tmp_path):
    store, run = Store(tmp_path / "runs"), fake_results.result()
    assert cases_of(run) == {}
    assert read_cases(store, store.save(run).name) == {}


def test_runs_on_the_same_images_share_their_ids(tmp_path):
    store = Store(tmp_path / "runs")
    folders = [
        store.save(fake_results.result(d, scores=fake_results.scores(shift=s))).name
        for d, s in (("padim", 1), ("dfm", 2))
    ]
    first, second = (read_cases(store, folder)["bottle"] for folder in folders)
    assert first.ids is second.ids
    assert first.truth is second.truth
    assert not np.array_equal(first.score, second.score)


@pytest.mark.parametrize(
    "text",
    [
        "", "step,test\n0,bottle\n", "step,test,sample,category,defect,score\n0,bottle,a,bottle,good\n",
        "step,test,sample,category,defect,score\n0,bottle,a,bottle,good,much\n",
        "step,test,sample,category,defect,score\nx,bottle,a,bottle,good,1\n",
    ],
)  # fmt: skip
def test_damaged_scores_are_refused(tmp_path, text):
    store = Store(tmp_path / "runs")
    folder = store.save(fake_results.result(scores=fake_results.scores()))
    (folder / "scores.csv").write_text(text)
    with pytest.raises(BadData, match="damaged"):
        read_cases(store, folder.name)
    with pytest.raises(BadData, match="damaged"):
        store.load(folder.name)
    (folder / "scores.csv").unlink()
    with pytest.raises(BadData):
        read_cases(store, folder.name)


def test_scores_of_one_seed_from_several_runs_are_joined():
    def case(**scores):
        made = tuple(Score(0, "a", i, "a", "good" if i < "m" else "hole", v) for i, v in scores.items())
        return cases_of(fake_results.result(scores=made))["a"]

    assert merged([case(a=1.0, z=2.0)]).score.tolist() == [[1.0, 2.0]]
    assert merged([case(a=1.0, z=2.0), case(a=3.0, z=4.0)]).score.tolist() == [[3.0, 4.0]]
    both = merged([case(a=1.0, z=2.0), case(b=5.0, z=6.0)])
    assert both.ids == ("a", "b", "z")
    assert both.score.tolist() == [[1.0, 5.0, 6.0]]
    assert both.truth.tolist() == [False, False, True]
    grouped = merged([case(a=1.0)._replace(groups=("group p",)), case(b=2.0)])
    assert grouped.groups == ("group p", "image b")
