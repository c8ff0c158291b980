"""Depth maps: the z of a point cloud stored as a TIFF of x, y and z, or a single-channel image."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from iadbe.errors import BadData, Missing
from iadbe.files import decoding


def read(path: Path) -> np.ndarray:
    """Return (H, W) float32 in the file's unit, nan where nothing was measured: at (0, 0, 0) or non-finite values."""
    values = _read_tiff(path) if path.suffix.lower() in (".tif", ".tiff") else _read_image(path)
    if values.ndim == 3 and values.shape[0] == 3 != values.shape[2]:
        values = np.moveaxis(values, 0, 2)  # stored as three planes
    if values.ndim == 3 and values.shape[2] == 3:
        measured = np.isfinite(values).all(axis=2) & (values != 0).any(axis=2)
        values = np.where(measured, values[:, :, 2], np.nan)
    if values.ndim != 2:
        shape = "x".join(map(str, values.shape))
        raise BadData(f"{path} holds {shape} numbers, but depth is one per pixel, or x, y and z.")
    values = values.astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    return values


def _read_tiff(path: Path) -> np.ndarray:
    try:
        tifffile: Any = importlib.import_module("tifffile")  # Pillow reads no floating-point colours
    except ImportError as error:
        raise Missing(f"reading {path.name} needs the package tifffile: pip install 'iadbe[depth]'") from error
    try:
        return np.asarray(tifffile.imread(path))
    except Exception as error:  # a decoder fed with a broken file may raise anything at all
        raise _unreadable(path, error) from error


def _read_image(path: Path) -> np.ndarray:
    try:
        with decoding.open_image(path) as image:
            return np.asarray(image)
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> BadData:
    found = decoding.unreadable(path, error)
    return BadData(str(found).replace("cannot be read as an image", "cannot be read as depth"))
