"""Depth maps and organised point clouds: a TIFF of x, y and z for every pixel, or a single-channel image of depth."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from iadbe.errors import BadData, Missing
from iadbe.files import decoding


def read(path: Path) -> np.ndarray:
    """Return (H, W) float32 in the file's unit, nan where nothing was measured: at (0, 0, 0) or non-finite values."""
    values = _read(path)
    return values if values.ndim == 2 else np.ascontiguousarray(values[:, :, 2])


def read_points(path: Path) -> np.ndarray:
    """Return x, y and z as (H, W, 3) float32 in the file's unit, nan where nothing was measured."""
    values = _read(path)
    if values.ndim == 2:
        raise BadData(f"{path} holds one number per pixel, but points are x, y and z.")
    return values


def write_points(path: Path, points: np.ndarray) -> None:
    """Write (H, W, 3) float32 as a TIFF in the layout of MVTec 3D-AD: (0, 0, 0) where nothing was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _tifffile(path).imwrite(path, np.nan_to_num(points.astype(np.float32)), photometric="rgb")


def back_projected(z: np.ndarray, focal_length: float) -> np.ndarray:
    """Return the points (H, W, 3) float32 whose depth is ``z`` (H, W), seen by a pinhole camera.

    The principal point is the middle of the image; ``focal_length`` is in widths of the image.
    """
    height, width = z.shape
    across = (np.arange(width) + 0.5 - width / 2) / (focal_length * width)
    down = (np.arange(height) + 0.5 - height / 2) / (focal_length * width)
    return np.stack([z * across, z * down[:, None], z], axis=2).astype(np.float32)


def _read(path: Path) -> np.ndarray:
    """Return (H, W) or (H, W, 3) float32; nan, in all three, where nothing was measured."""
    values = _read_tiff(path) if path.suffix.lower() in (".tif", ".tiff") else _read_image(path)
    if values.ndim == 3 and values.shape[0] == 3 != values.shape[2]:
        values = np.moveaxis(values, 0, 2)  # stored as three planes
    if values.ndim != 2 and values.shape[2:] != (3,):
        shape = "x".join(map(str, values.shape))
        raise BadData(f"{path} holds {shape} numbers, but depth is one per pixel, or x, y and z.")
    values = values.astype(np.float32)
    measured = np.isfinite(values)
    if values.ndim == 3:
        measured = (measured.all(axis=2) & (values != 0).any(axis=2))[:, :, None]
    return np.where(measured, values, np.float32(np.nan))


def _read_tiff(path: Path) -> np.ndarray:
    tifffile = _tifffile(path)
    try:
        return np.asarray(tifffile.imread(path))
    except Exception as error:  # a decoder fed with a broken file may raise anything at all
        raise _unreadable(path, error) from error


def _tifffile(path: Path) -> Any:
    try:
        return importlib.import_module("tifffile")  # Pillow reads no floating-point colours
    except ImportError as error:
        raise Missing(f"reading {path.name} needs the package tifffile: pip install 'iadbe[depth]'") from error


def _read_image(path: Path) -> np.ndarray:
    try:
        with decoding.open_image(path) as image:
            return np.asarray(image)
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> BadData:
    found = decoding.unreadable(path, error)
    return BadData(str(found).replace("cannot be read as an image", "cannot be read as depth"))
