import numpy as np
import pytest

from iadbe.cli import features
from iadbe.networks.feature_store import FeatureStore, using


@pytest.fixture
def store(elsewhere):
    made = FeatureStore(elsewhere / "store")
    made.put("w", 2, "k", np.ones((3, 4, 4), np.float32))
    return made


def test_size_and_clearing(iadbe, store):
    assert "1 row" in iadbe("features", "--features", store.root).out
    output = iadbe("features", "clear", "--features", store.root)
    assert (output.code, sum(rows for rows, _ in store.networks().values())) == (2, 1), "not without a yes"
    assert iadbe("features", "clear", "--yes", "--features", store.root).code == 0
    assert sum(rows for rows, _ in store.networks().values()) == 0


def test_hits_are_counted_over_all_uses_and_forgotten_with_the_rows(iadbe, store):
    for computed, stored in ((30, 0), (0, 30), (10, 50)):
        with using(store) as counters:
            counters.computed, counters.stored = computed, stored
    shown = iadbe("features", "--features", store.root).out
    assert "w: 1 rows" in shown
    assert "120 images looked up: 80 hits (67%), 40 went through a backbone" in shown
    assert iadbe("features", "clear", "--yes", "--features", store.root).code == 0
    assert "looked up" not in iadbe("features", "--features", store.root).out


def test_the_users_cache_is_meant_where_no_folder_is_named(iadbe, elsewhere):
    assert str(elsewhere / "cache/features") in iadbe("features").out


def test_a_folder_with_anything_else_in_it_is_left_alone(iadbe, store):
    (store.root / "thesis.tex").write_text("years of work")
    output = iadbe("features", "clear", "--yes", "--features", store.root)
    assert output.code == 1
    assert "thesis.tex" in output.err
    assert sum(rows for rows, _ in store.networks().values()) == 1


def test_an_answer_is_enough(iadbe, store, monkeypatch):
    monkeypatch.setattr(features, "_confirmed", lambda: True)
    assert iadbe("features", "clear", "--features", store.root).code == 0
    assert sum(rows for rows, _ in store.networks().values()) == 0


def test_mistakes_are_one_sentence(iadbe):
    assert "Did you mean clear" in iadbe("features", "cleer").err
    assert iadbe("features", "--features").code == 2
