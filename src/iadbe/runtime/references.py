"""Reference images of an exported file, with what torch computed for them: NAME.reference.npz beside the file.

`iadbe verify` scores the same images with the file, on the machine on which it will run, and compares. The archive
holds plain arrays only; reading it never unpickles anything. Maps are kept at every n-th row and column, so that an
archive stays small.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from iadbe import system
from iadbe.errors import BadConfig, BadData
from iadbe.runtime.file_parts import parts_of, sha256_of
from iadbe.runtime.inspector import VERDICTS, Inspection

COUNT = 16  # images
LONGEST = 1024  # pixels of the longer side of a kept image; larger ones are made smaller
MAP_SIDE = 128  # rows and columns of a kept map, at most twice as many
FORMAT = 1
LARGEST = 2**31  # bytes of all arrays of an archive


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """Images (H, W, 3) uint8 with torch's results; maps hold every ``strides[i]``-th row and column."""

    images: tuple[np.ndarray, ...] = field(repr=False)
    expected: tuple[Inspection, ...] = field(repr=False)
    strides: tuple[int, ...] = field(repr=False)
    native: tuple[int, int]  # height and width of the first image before it was made smaller
    source: str  # what the images are: "training images", "given images", "drawn patterns"
    tolerance: float  # relative difference of scores and maps up to which file and torch agree
    map_scale: float = 0.0  # map value shown as 1; differences of maps are relative to it, or to a larger value there

    def write(self, file: Path, model: Path) -> Path:
        """Write the archive that belongs to an exported file ``model``, whole or not at all."""
        about: dict[str, Any] = {
            "format": FORMAT,
            "source": self.source,
            "native": self.native,
            "tolerance": self.tolerance,
        }
        about |= {"map_scale": self.map_scale, "model": digest(model)}
        arrays: dict[str, np.ndarray] = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
        codes = {text: code for code, text in VERDICTS.items()}
        found = self.expected
        arrays["score"] = np.array([one.score for one in found], np.float64)
        arrays["probability"] = np.array([_or_nan(one.probability) for one in found], np.float64)
        arrays["verdict"] = np.array([codes[one.verdict] for one in found], np.int64)
        arrays["stride"] = np.array(self.strides, np.int64)
        for number, (image, one) in enumerate(zip(self.images, found, strict=True)):
            arrays[f"image_{number}"] = image
            if one.anomaly_map is not None:
                arrays[f"map_{number}"] = one.anomaly_map
        with system.replacing(file) as part:
            np.savez_compressed(part, allow_pickle=False, **arrays)
        return file


def beside(model: Path) -> Path:
    """Return where the reference images of an exported file are kept."""
    return model.with_name(f"{model.stem}.reference.npz")


def digest(model: Path) -> str:
    """Return the SHA-256 of an exported file: of both files of OpenVINO's pair."""
    found = hashlib.sha256()
    for part in parts_of(model):
        found.update(bytes.fromhex(sha256_of(part)))
    return found.hexdigest()


def read(file: Path) -> tuple[References, str]:
    """Return the reference images of an archive, and the digest of the file that they belong to.

    Raises:
        BadConfig: if there is no such file
        BadData: for an archive that is damaged, too large, or not of this kind
    """
    if not file.is_file():
        raise BadConfig(f"there are no reference images at {file}. `iadbe export` keeps them there, or give --images.")
    try:
        with zipfile.ZipFile(file) as opened:
            if sum(info.file_size for info in opened.infolist()) > LARGEST:
                raise BadData(f"{file} holds more than {LARGEST // 2**30} GiB: it is no archive of reference images.")
        with np.load(file, allow_pickle=False) as arrays:
            return _read(arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        why = " ".join(str(error).split())[:160]
        raise BadData(f"{file} is damaged, or no archive of reference images: {why}") from error


def _read(arrays: Any) -> tuple[References, str]:
    about = json.loads(arrays["about"].tobytes())
    if about["format"] != FORMAT:
        raise ValueError(f"its format is {about['format']!r}, this version reads {FORMAT}")
    score, probability = arrays["score"], arrays["probability"]
    verdict, stride = arrays["verdict"], arrays["stride"]
    images, expected = [], []
    for number in range(len(score)):
        image = arrays[f"image_{number}"]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or stride[number] < 1:
            raise ValueError(f"image {number} is not (H, W, 3) of uint8")
        map_ = arrays.get(f"map_{number}")
        if map_ is not None and map_.shape != image[:: stride[number], :: stride[number], 0].shape:
            raise ValueError(f"map {number} does not fit its image")
        scaled = float(probability[number])
        shown = None if np.isnan(scaled) else scaled
        images.append(image)
        expected.append(Inspection(float(score[number]), shown, VERDICTS[int(verdict[number])], map_))
    native = int(about["native"][0]), int(about["native"][1])
    tolerance, scale = float(about["tolerance"]), float(about["map_scale"])
    strides = tuple(map(int, stride))
    made = References(tuple(images), tuple(expected), strides, native, str(about["source"]), tolerance, scale)
    return made, str(about["model"])


def kept_size(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) uint8 as it is kept: made smaller if a side is longer than :data:`LONGEST`."""
    longest = max(image.shape[:2])
    if longest <= LONGEST:
        return image
    height, width = (max(8, round(side * LONGEST / longest)) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def stride_of(image: np.ndarray) -> int:
    """Return at every which row and column the map of an image is kept."""
    return max(1, max(image.shape[:2]) // MAP_SIDE)


def chosen(images: Sequence[np.ndarray], count: int = COUNT) -> list[np.ndarray]:
    """Return at most ``count`` images, evenly spaced."""
    places = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int))
    return [images[place] for place in places]


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
