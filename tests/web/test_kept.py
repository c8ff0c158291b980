import gc

import fake_results
from iadbe.results.comparison import compare
from iadbe.web.kept import KeptValues


def comparison(value=0.9):
    (made,) = compare([fake_results.result("padim", "bottle", {"image_auroc": value})])
    return made


def test_a_value_is_made_once_for_a_comparison_and_a_question():
    kept, made, one = KeptValues(), [], comparison()
    for asked in ("a", "a", "b", "a", "b"):
        assert kept.get(one, asked, lambda asked=asked: made.append(asked) or asked) == asked
    assert made == ["a", "b"]


def test_an_equal_comparison_is_another_one():
    """Comparisons are told apart by identity: a run's notes or times may differ where its numbers do not."""
    kept = KeptValues()
    assert kept.get(comparison(), "a", lambda: 1) == 1
    assert kept.get(comparison(), "a", lambda: 2) == 2


def test_an_address_in_memory_that_is_used_again_gives_no_old_value():
    kept = KeptValues(most=3)
    for n in range(50):
        one = comparison(n / 100)
        assert kept.get(one, "mean", lambda one=one: one.mean(one.entries[0], "image_auroc").value) == n / 100
        del one
        gc.collect(0)


def test_the_least_recently_used_go_first():
    kept, made, one = KeptValues(most=2), [], comparison()
    for asked in ("a", "b", "a", "c", "a", "b"):
        kept.get(one, asked, lambda asked=asked: made.append(asked) or asked)
    assert made == ["a", "b", "c", "b"]


def test_a_falsy_value_is_kept_too():
    kept, made, one = KeptValues(), [], comparison()
    for _ in range(3):
        assert kept.get(one, "nothing", lambda: made.append(1)) is None
    assert made == [1]
