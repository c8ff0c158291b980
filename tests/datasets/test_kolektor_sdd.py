from collections import Counter

import pytest

from dataset_trees import draw, kolektor_sdd
from iadbe.datasets.kolektor_sdd import KolektorSDD
from iadbe.errors import BadConfig, BadData


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_masks_determine_the_label_and_commutators_stay_together(tmp_path):
    dataset = KolektorSDD(**kolektor_sdd(tmp_path), train_share=0.5)
    samples = dataset.samples()
    assert Counter(s.defect for s in samples) == {"good": 21, "defect": 3}
    assert {s.image for s in samples if s.is_anomaly} == {f"kos0{i}/Part3.jpg" for i in (1, 3, 5)}
    assert {s.mask for s in samples if s.is_anomaly} == {f"kos0{i}/Part3_label.bmp" for i in (1, 3, 5)}
    trained = {s.image.split("/")[0] for s in samples if s.split == "train"}
    assert len(trained) == 3
    assert not [s for s in samples if s.split == "test" and not s.is_anomaly and s.image.split("/")[0] in trained]


def test_seed_and_share_decide_the_split(tmp_path):
    given = kolektor_sdd(tmp_path)
    splits = {tuple(s.split for s in KolektorSDD(**given, train_share=0.5, seed=seed).samples()) for seed in range(5)}
    assert len(splits) > 1
    with pytest.raises(BadConfig, match=r"kolektor_sdd\.train_share is 1"):
        KolektorSDD(**given, train_share=1)


def test_a_part_without_a_mask_is_reported(tmp_path):
    given = kolektor_sdd(tmp_path)
    (tmp_path / "kos02/Part1_label.bmp").unlink()
    with pytest.raises(BadData, match=r"kos02/Part1\.jpg has no mask"):
        KolektorSDD(**given).samples()


def test_another_layout_is_refused_in_words(tmp_path):
    draw(tmp_path / "part.jpg")
    with pytest.raises(BadData, match=r"does not hold kos01/Part0\.jpg .* but part\.jpg"):
        KolektorSDD(str(tmp_path))
    assert KolektorSDD.recognise(tmp_path) is None
