import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from iadbe.metrics.auroc import AUROC


def draw(seed, levels):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(20, 200)),) if seed % 2 else (4, 11, 13)
    truth = rng.random(shape) < rng.uniform(0.05, 0.9)
    truth.flat[:2] = [True, False]
    score = rng.normal(size=shape) + rng.uniform(-1, 3) * truth
    return truth, np.round(score * levels) / levels if levels else score


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("seed", range(16))
def test_equals_scikit_learn(seed, levels):
    truth, score = draw(seed, levels)
    assert AUROC()(truth, score) == pytest.approx(roc_auc_score(truth.ravel(), score.ravel()), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_share_of_concordant_pairs(seed):
    truth, score = draw(seed, 2)
    gap = score[truth][:, None] - score[~truth]
    assert AUROC()(truth, score) == pytest.approx(np.mean(gap > 0) + 0.5 * np.mean(gap == 0), abs=1e-12)


def test_known_values():
    truth = np.array([False, False, True, True])
    assert AUROC()(truth, np.array([0.1, 0.4, 0.35, 0.8])) == 0.75
    assert AUROC()(truth, np.array([0.1, 0.4, 0.4, 0.8])) == 0.875
    assert AUROC()(truth, np.ones(4)) == 0.5
    assert AUROC()(truth, np.array([4.0, 3.0, 2.0, 1.0])) == 0.0  # never flipped to 1


def test_separable_scores_from_20_to_40_give_one():
    score = np.linspace(20, 40, 1001, dtype=np.float32)
    assert AUROC()(score > 30, score) == 1.0
