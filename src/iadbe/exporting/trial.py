"""On what a file of lower precision is tried, and what it may cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from iadbe.exporting.precision_cost import TOLERANCE
from iadbe.files.input_images import inputs_of
from iadbe.running.model_folder import FittedDetector


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Test images (H, W, 3) uint8 of good and of defective parts; without any, the file is tried on good images."""

    good: Sequence[np.ndarray] = ()
    bad: Sequence[np.ndarray] = ()
    tolerance: float = TOLERANCE  # of the correlation's distance from 1, the share of other verdicts, the AUROC's loss
    force: bool = False  # keep a file that costs more

    @classmethod
    def of(
        cls, fitted: FittedDetector, good: Any = (), bad: Any = (), tolerance: float = TOLERANCE, force: bool = False
    ) -> Self:
        """Read images that are given as :func:`iadbe.predict` takes them."""
        goods, bads = ([i.read(fitted.intensity)[0] for i in inputs_of(some)] if some else [] for some in (good, bad))
        return cls(goods, bads, tolerance, force)
