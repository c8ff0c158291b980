"""Area under the per-region overlap curve (AUPRO) up to a false positive rate, divided by that rate.

Formula: PRO(t) is the mean over all defect regions of the share of the region's pixels with a score of at least t. The
curve of PRO over the pixels' false positive rate is integrated from 0 to ``limit``; a small region counts as much as a
large one.
Paper: Bergmann et al., "The MVTec Anomaly Detection Dataset: A Comprehensive Real-World Dataset for Unsupervised
Anomaly Detection".
Differs:

* Exact: every distinct score is a threshold. Papers often use 100 or 200 thresholds, which gives less, at a limit of
  5 % by points. The dialects reproduce that.
* Regions are 8-connected and pooled over all images. The false positive rate is over the clean pixels of all images.
* The curve is cut at the limit by linear interpolation, as in MVTec's own evaluation and anomalib from 2.6 on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

from iadbe.curves import dialects
from iadbe.curves.curve import Curve, area
from iadbe.errors import BadConfig
from iadbe.metric import EXACT, Metric, percent, share


class AUPRO(Metric):
    """In [0, 1], higher is better. Chance is half the limit."""

    paper: ClassVar[str] = "Bergmann et al., IJCV 129"
    year: ClassVar[int] = 2021
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"pixel"})
    higher_is_better: ClassVar[bool] = True
    dialects: ClassVar[dict[str, str]] = {
        "mvtec_3d": "MVTec 3D-AD's evaluation, M3DM, BTF, open-iad, IM-IAD: 100 thresholds at equal clean ranks",
        "dinomaly": "Dinomaly, MuSc, INP-Former: 200 thresholds of equal distance, rates kept are over their greatest",
        "ader": "ADer: as dinomaly, but rates scaled from the least to the greatest",
        "cflow": "CFLOW, DFR, RealNet: 1000 thresholds from the top; a region's holes count as found, not as area",
        "msflow": "MSFlow, UniNet: as ader, with 800 thresholds",
        "simplenet": "SimpleNet, GLASS: as dinomaly, but predictions are dilated by 5 x 5 for the overlap alone",
        "rd4ad": "RD4AD, RD++: as dinomaly on each defective image alone, then the mean; good images never count",
        "anomalib": "anomalib up to 2.5, DeSTSeg, SuperSimpleNet: one curve per region, resampled by index, averaged",
        "adeval": "ADEval, INP-Former's later code: 1000 bins of equal width",
        "adeval_50": "ADer's later tables: as adeval, with 50 bins",
        "orthoad": "OrthoAD: means over images, at 1000 thresholds from the image of the top score",
        "orthoad_paddle": "OrthoAD's port to Paddle: 500 thresholds, rate and overlap scaled to [0, 1] over those kept",
        "open_iad": "open-iad's PatchCore: maps scaled to [0, 1] and cut at 0.5, then as mvtec_3d",
        "four_connected": "scipy's default labelling: pixels that touch at a corner are of two regions",
    }

    def __init__(
        self,
        limit: float = 0.3,
        dialect: Literal[
            "exact", "mvtec_3d", "dinomaly", "ader", "cflow", "msflow", "simplenet", "rd4ad", "anomalib", "adeval",
            "adeval_50", "orthoad", "orthoad_paddle", "open_iad", "four_connected",
        ] = "exact",
    ) -> None:  # fmt: skip
        """Choose where the curve ends.

        Args:
            limit: the false positive rate up to which the curve is integrated, in (0, 1]; 0.05 is the strict one
            dialect: exact, or the name of the code to reproduce
        """
        if not 0.0 < limit <= 1.0:
            raise BadConfig(f"aupro.limit is {limit}, but a false positive rate lies above 0 and at most at 1.")
        self.limit = limit
        self.dialect = dialect

    @classmethod
    def at(cls, text: str, **more: str) -> AUPRO:
        """Make the metric of a row such as ``pixel_aupro@5%``."""
        try:
            return cls(share(text), **more)  # type: ignore[arg-type]
        except BadConfig as error:
            raise BadConfig(f"aupro@{text} is no limit: write a share above 0% and up to 100%, as aupro@5%.") from error

    @property
    def parameter(self) -> str:
        """The limit, unless it is the usual 30 %."""
        return "" if self.limit == 0.3 else percent(self.limit)

    def value(self, curve: Curve) -> float:
        """Return the area; nan where there are no defects or no clean pixels, or where a dialect has no answer."""
        if not curve.has_both:
            return float("nan")
        if self.dialect != EXACT:
            return DIALECT_FUNCTIONS[self.dialect](curve, self.limit)
        return area(curve.corners(curve.pro), self.limit)


DIALECT_FUNCTIONS: dict[str, Callable[[Curve, float], float]] = {
    "mvtec_3d": dialects.mvtec_3d,
    "dinomaly": dialects.equal_steps,
    "ader": partial(dialects.equal_steps, from_least=True),
    "cflow": dialects.cflow,
    "msflow": partial(dialects.equal_steps, steps=800, from_least=True),
    "simplenet": dialects.simplenet,
    "rd4ad": dialects.rd4ad,
    "anomalib": dialects.anomalib,
    "adeval": dialects.adeval_aupro,
    "adeval_50": partial(dialects.adeval_aupro, bins=50),
    "orthoad": dialects.orthoad_aupro,
    "orthoad_paddle": dialects.orthoad_paddle,
    "open_iad": lambda curve, limit: dialects.mvtec_3d(dialects.binarised_at_half(curve), limit),
    "four_connected": dialects.four_connected,
}
