import numpy as np

from iadbe.running.inference import ImageResult


def test_maps_are_of_any_size():
    result = ImageResult(
        "x.png", 1.0, 0.5, size=(8, 4), view_map=np.array([[0, 1], [2, 3]], np.float32), scale=(0.0, 2.0)
    )
    assert result.map.shape == result.heat.shape == (8, 4)
    assert (result.map[0, 0], result.map[-1, -1]) == (0, 3)
    assert (result.heat.min(), result.heat.max()) == (0, 1)
    np.testing.assert_array_equal(result.heat_at(2, 2), [[0, 0.5], [1, 1]])
    assert result.defective is True
    bare = ImageResult("x.png", 1.0)
    assert (bare.map, bare.heat, bare.defective) == (None, None, None)
    assert repr(result) == "ImageResult(x.png: 1, defective)"
    assert repr(ImageResult("x.png", float("nan"), error="no")) == "ImageResult(x.png: no)"
