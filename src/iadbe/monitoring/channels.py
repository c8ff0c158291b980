"""The numbers of an image that are watched for drift: its score, and what light, focus and position do to it.

``brightness`` is the mean grey value in [0, 1]; ``sharpness`` the variance of the Laplacian over that of the grey
values, which the contrast does not change and blur lowers; ``x`` and ``y`` are the centre of the edges (the mean
position, weighted by the magnitude of the gradient) as shares of width and height. ``distance`` is the median of the
anomaly map: how far a usual patch of the image is from the training images, which a small defect does not move.
"""

from __future__ import annotations

import numpy as np

CHANNELS = {  # in words, for reports
    "score": "the scores",
    "distance": "the distance of usual patches from the training images",
    "brightness": "the light",
    "sharpness": "the focus",
    "x": "the position, horizontally",
    "y": "the position, vertically",
}
LARGEST = 512  # pixels of the longer side: of larger images blocks are averaged, which bounds the cost
STEP = 4  # every so many pixels of a map make its median: a sample of thousands will do


def of_pixels(pixels: np.ndarray) -> dict[str, float]:
    """Return brightness, sharpness and position of an image (H, W) or (H, W, 3) uint8; without edges the middle."""
    size = -(-max(pixels.shape[:2]) // LARGEST)
    height, width = pixels.shape[0] // size, pixels.shape[1] // size
    blocks = pixels[: height * size, : width * size].reshape(height, size, width, size, -1)
    grey = blocks.mean(axis=(1, 3, 4), dtype=np.float32) / np.float32(255)
    found = {"brightness": float(grey.mean()), "sharpness": 0.0, "x": 0.5, "y": 0.5}
    if min(grey.shape) < 3 or (variance := float(grey.var())) == 0:
        return found
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    edges = np.hypot(grey[2:, 1:-1] - grey[:-2, 1:-1], grey[1:-1, 2:] - grey[1:-1, :-2])
    found["sharpness"] = float(laplacian.var()) / variance
    if total := float(edges.sum()):
        height, width = edges.shape
        found["y"] = float(edges.sum(axis=1) @ (np.arange(height) + 1.5)) / total / grey.shape[0]
        found["x"] = float(edges.sum(axis=0) @ (np.arange(width) + 1.5)) / total / grey.shape[1]
    return found


def of_map(map_: np.ndarray | None) -> dict[str, float]:
    """Return the distance of a usual patch, the median of a map (H, W); empty without a map."""
    return {} if map_ is None else {"distance": float(np.median(map_[::STEP, ::STEP]))}
