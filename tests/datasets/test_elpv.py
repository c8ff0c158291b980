import importlib.util
from collections import Counter

import pytest

from dataset_trees import elpv
from iadbe.datasets.elpv import ELPV
from iadbe.errors import BadConfig, BadData, Missing


def test_probabilities_become_kinds_of_defects(tmp_path):
    root = elpv(tmp_path)
    found = Counter((s.category, s.defect) for s in ELPV(**root).samples())
    assert found == {
        ("poly", "good"): 15, ("poly", "probably_defective"): 5, ("mono", "good"): 15, ("mono", "defective"): 5,
    }  # fmt: skip
    strict = Counter(s.defect for s in ELPV(**root, threshold=0.3).samples())
    assert strict == {"good": 25, "possibly_defective": 5, "probably_defective": 5, "defective": 5}


def test_a_seeded_share_of_each_category_is_trained_on(tmp_path):
    root = elpv(tmp_path)
    train = Counter(s.category for s in ELPV(**root).samples() if s.split == "train")
    assert train == {"mono": 12, "poly": 12}
    assert ELPV(**root, seed=1).samples() != ELPV(**root).samples()


def test_without_the_package_the_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Missing, match=r"pip install 'iadbe\[elpv\]'"):
        ELPV()


def test_what_cannot_be_used_is_reported(tmp_path):
    with pytest.raises(BadData, match=r"no labels\.csv"):
        ELPV(str(tmp_path))
    (tmp_path / "labels.csv").write_text("images/a.png 0.0 mono\nimages/b.png mono\n")
    with pytest.raises(BadData, match=r"labels.csv, line 2"):
        ELPV(str(tmp_path)).samples()
    with pytest.raises(BadConfig, match="threshold is 0"):
        ELPV(str(tmp_path), threshold=0)


def test_the_real_cells_come_with_the_package():
    if importlib.util.find_spec("elpv_dataset") is None:
        pytest.skip("the package elpv-dataset is not installed")
    dataset = ELPV()
    samples = dataset.samples()
    assert Counter(s.split for s in samples if not s.is_anomaly) == {"train": 1442, "test": 361}
    assert dataset.image(samples[0]).shape == (300, 300, 3)
    assert dataset.mask(samples[0]) is None


def test_all_lines_that_cannot_be_read_are_named_and_may_be_left_out(tmp_path):
    elpv(tmp_path)
    file = tmp_path / "labels.csv"
    lines = file.read_text().splitlines()
    path, _, kind = lines[1].split()
    lines[0], lines[1], lines[3] = "images/cell0001.png mono", f"{path} nan {kind}", f"{lines[3]} more"
    lines.append(f"{path} 1.5 {kind}")
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(BadData) as error:
        ELPV(str(tmp_path)).samples()
    assert all(f"line {number} (" in str(error.value) for number in (1, 2, 4, len(lines)))
    assert str(error.value).startswith("4 lines cannot be read: ")
    assert len(ELPV(str(tmp_path), bad_labels="drop").samples()) == len(lines) - 4
    file.write_text("images/cell0001.png mono\n")
    with pytest.raises(BadData, match="has no line that can be used"):
        ELPV(str(tmp_path), bad_labels="drop").samples()
