import numpy as np

from iadbe.cli import main
from iadbe.features import FeatureStore


def test_size_and_clearing(tmp_path, capsys):
    FeatureStore(tmp_path).put("w", 2, "k", np.ones((3, 4, 4), np.float32))
    assert main(["features", "--features", str(tmp_path)]) == 0
    assert "1 row" in capsys.readouterr().out
    assert main(["features", "clear", "--features", str(tmp_path)]) != 0, "not without a yes"
    assert FeatureStore(tmp_path).rows() == 1
    assert main(["features", "clear", "--yes", "--features", str(tmp_path)]) == 0
    assert FeatureStore(tmp_path).rows() == 0
