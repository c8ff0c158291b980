import numpy as np
import pytest
from PIL import Image

from dataset_trees import draw, draw_points
from iadbe.errors import BadData, Missing
from iadbe.files import depth


def test_z_is_taken_and_what_was_not_measured_is_no_number(tmp_path):
    draw_points(tmp_path / "a.tiff")
    z = depth.read(tmp_path / "a.tiff")
    rows, columns = np.mgrid[0:20, 0:28]
    assert z.dtype == np.float32
    assert np.isnan(z[0]).all()
    assert np.allclose(z[1:], (rows + columns / 10)[1:])


def test_planes_and_points_that_are_not_finite_are_understood(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    points = np.ones((3, 5, 6), np.float32)
    points[2] = 7
    points[0, 1, 2] = np.inf
    tifffile.imwrite(tmp_path / "a.tif", points, photometric="rgb", planarconfig="separate")
    z = depth.read(tmp_path / "a.tif")
    assert z.shape == (5, 6)
    assert np.argwhere(np.isnan(z)).tolist() == [[1, 2]]
    assert np.nanmax(z) == 7


def test_points_hold_all_three_and_their_z_is_the_depth(tmp_path):
    draw_points(tmp_path / "a.tiff")
    points = depth.read_points(tmp_path / "a.tiff")
    rows, columns = np.mgrid[0:20, 0:28]
    assert points.dtype == np.float32
    assert np.isnan(points[0]).all()
    assert np.array_equal(points[1:, :, 0], columns[1:])
    assert np.array_equal(points[1:, :, 1], rows[1:])
    assert np.array_equal(points[:, :, 2], depth.read(tmp_path / "a.tiff"), equal_nan=True)
    depth.write_points(tmp_path / "b" / "c.tiff", points)
    assert np.array_equal(depth.read_points(tmp_path / "b" / "c.tiff"), points, equal_nan=True)


def test_an_image_of_levels_has_no_points(tmp_path):
    Image.fromarray(np.ones((4, 5), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(BadData, match="one number per pixel"):
        depth.read_points(tmp_path / "a.png")


def test_depth_is_projected_back_along_the_rays_of_the_camera():
    z = np.full((3, 4), 2.0, np.float32)
    z[1, 2] = np.nan
    points = depth.back_projected(z, focal_length=0.5)  # 2 pixels
    assert points.dtype == np.float32
    assert points[0, :, 0].tolist() == [-1.5, -0.5, 0.5, 1.5]  # (column + 0.5 - 2) * z / 2
    assert points[:, 0, 1].tolist() == [-1, 0, 1]
    assert np.isnan(points[1, 2]).all()
    assert np.array_equal(points[:, :, 2], z, equal_nan=True)


def test_sixteen_bits_are_kept(tmp_path):
    levels = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert np.array_equal(depth.read(tmp_path / "a.png"), levels.astype(np.float32))


def test_what_is_no_depth_is_reported(tmp_path):
    with pytest.raises(BadData, match=r"a\.png holds 20x28x4 numbers"):
        depth.read(draw(tmp_path / "a.png", mode="RGBA"))
    (tmp_path / "b.tiff").write_bytes(b"no image")
    for name in ("b.tiff", "none.tiff", "none.png"):
        with pytest.raises(BadData, match=name.replace(".", r"\.")):
            depth.read(tmp_path / name)


def test_the_missing_package_is_named(tmp_path, monkeypatch):
    draw_points(tmp_path / "a.tiff")
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(Missing, match=r"pip install 'iadbe\[depth\]'"):
        depth.read(tmp_path / "a.tiff")
