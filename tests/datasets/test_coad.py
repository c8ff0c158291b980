import numpy as np

from dataset_trees import coad, mvtec_like
from iadbe.datasets.coad import COAD


def test_masks_are_jpeg_and_soft_values_are_no_defects(tmp_path):
    dataset = COAD(**coad(tmp_path))
    sample = next(s for s in dataset.samples() if s.is_anomaly)
    assert sample.mask == "A1/ground_truth/scratch/000_mask.jpg"
    expected = np.zeros((20, 28), bool)
    expected[4:8, 5:15] = True
    assert np.array_equal(dataset.mask(sample), expected)  # although the JPEG has values in between


def test_short_names_alone_do_not_make_it(tmp_path):
    mvtec_like(tmp_path, ("A1", "B1"))  # with masks as PNG
    assert COAD.recognise(tmp_path) is None
    mvtec_like(tmp_path / "jpeg", ("A1", "B1"), ends=".jpg")
    assert COAD.recognise(tmp_path / "jpeg").by_names
    assert COAD.recognise(tmp_path / "jpeg/B1").by_names
