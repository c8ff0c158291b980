"""Area under the saturated per-region overlap curve (AU-sPRO) up to a false positive rate, divided by that rate.

Formula: as AUPRO, with the overlap of a region min(found pixels / saturation, 1). Where a part is missing, no one can
say which of the possible places is the right one, so finding an area of its size is enough.
Paper: Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and
Localization", IJCV 130, 2022.
Differs:

* Exact: every distinct score is a threshold. The paper's evaluation refines its thresholds until neighbours on the
  curve are 0.01 apart. A clean pixel is one that no defect of its image claims, as there.
* Masks have the size of the view, and the saturation shrinks with the region.
* Where a dataset states no saturation, a region must be found whole and this is AUPRO.
"""

from __future__ import annotations

from typing import ClassVar

from iadbe.curves.curve import Curve, area
from iadbe.errors import BadConfig
from iadbe.metric import Metric, percent, share


class SPRO(Metric):
    """In [0, 1], higher is better. Chance is about half the limit."""

    paper: ClassVar[str] = "Bergmann et al., IJCV 130"
    year: ClassVar[int] = 2022
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"pixel"})
    higher_is_better: ClassVar[bool] = True
    needs: frozenset[str] = frozenset({"parts"})

    def __init__(self, limit: float = 0.05) -> None:
        """Choose where the curve ends.

        Args:
            limit: the false positive rate up to which the curve is integrated, in (0, 1]; the paper has 1 to 100 %
        """
        if not 0.0 < limit <= 1.0:
            raise BadConfig(f"spro.limit is {limit}, but a false positive rate lies above 0 and at most at 1.")
        self.limit = limit

    @classmethod
    def at(cls, text: str, **more: str) -> SPRO:
        """Make the metric of a row such as ``pixel_spro@1%``."""
        try:
            return cls(share(text))
        except BadConfig as error:
            raise BadConfig(f"spro@{text} is no limit: write a share above 0% and up to 100%, as spro@1%.") from error

    @property
    def parameter(self) -> str:
        """The limit, unless it is the headline's 5 %."""
        return "" if self.limit == 0.05 else percent(self.limit)

    def value(self, curve: Curve) -> float:
        """Return the area; nan where there are no defects or no clean pixels."""
        return area(curve.corners(curve.spro), self.limit) if curve.has_both else float("nan")
