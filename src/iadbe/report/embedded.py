"""Images inside an HTML page, as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

WIDTH = 160  # pixels of an embedded image
QUALITY = 78  # of its JPEG


def embedded(pixels: np.ndarray, width: int = WIDTH) -> str:
    """Return (H, W, 3) uint8 as a JPEG data URI, no wider than ``width``."""
    image = Image.fromarray(pixels)
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
