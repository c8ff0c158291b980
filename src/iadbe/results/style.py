"""How metrics are labelled and numbers formatted in tables."""

from __future__ import annotations

from dataclasses import dataclass

from iadbe import registry
from iadbe.errors import IadbeError
from iadbe.evaluation.confidence import Interval
from iadbe.metric import KINDS
from iadbe.results.entry import MAD
from iadbe.results.table import Cell

NAMES = {"auroc": "AUROC", "ap": "AP", "f1max": "F1max", "aupro": "AUPRO", "spro": "sPRO", "segf1": "SegF1"}
NAMES |= {"aupimo": "AUPIMO", "iou_max": "IoU-max", "mf1": "mF1", "macc": "mAcc", "miou": "mIoU"}
NAMES |= {"overkill": "FPR (overkill) at escape", "escape": "FNR (escape) at overkill"}
NAMES |= {"map50": "mAP50", "map50_95": "mAP50-95", "mask_map50": "mask mAP50", "mask_map50_95": "mask mAP50-95"}
NAMES |= {"top1": "top-1 accuracy"}  # those of another tool, see Detector.own_measures
SHOWN_DEFAULTS = {"overkill": "0%", "escape": "5%"}  # parameters that are shown even if they are the defaults


@dataclass(frozen=True, slots=True)
class Style:
    """Number format: shares of 1 with three digits, or percent with one."""

    percent: bool = False
    digits: int | None = None

    def share(self, value: float, *, signed: bool = False) -> str:
        """Format a number in [0, 1], or a difference of two."""
        digits = self.digits if self.digits is not None else (1 if self.percent else 3)
        text = f"{value * (100 if self.percent else 1):{'+' if signed else ''}.{digits}f}"
        return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")

    def number(self, value: float, std: float | None, between: Interval | None) -> Cell:
        """Return the cell of a number in [0, 1], with standard deviation over seeds and interval where known."""
        text = self.share(value)
        if std is not None:
            text += f" ± {self.share(std)}"
        if between is None:
            return Cell(text, value, std)
        ends = f" ({self.share(between.low)}–{self.share(between.high)})"
        return Cell(text + ends, value, std, between.low, between.high)

    def cost(self, value: float) -> str:
        """Format milliseconds, seconds or megabytes with about three significant digits."""
        return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def number(text: str) -> float:
    """Return the value of a formatted number, so that ties are ties of what is shown."""
    return float(text.partition(" ")[0].replace("−", "-"))


def label(metric: str) -> str:
    """Return a row's name for tables: ``pixel_aupro@5%`` is pixel AUPRO@5%."""
    if metric == MAD:
        return "mAD"
    level, _, rest = metric.partition("_")
    plain, at, parameter = rest.partition("@")
    plain, *variants = plain.split(".") if ":" not in plain else [plain]
    if "held_out" in variants:
        return f"{level} {plain} (threshold from held-out, {parameter or SHOWN_DEFAULTS.get(plain, '')})"
    if plain in SHOWN_DEFAULTS:
        return f"{level} {NAMES[plain]} {parameter or SHOWN_DEFAULTS[plain]}"
    named = ["mean over defect types" if v == KINDS else v for v in variants]
    dialect = f" ({', '.join(named)})" if variants else ""
    return f"{level} {NAMES.get(plain, plain)}{at}{parameter}{dialect}" if rest else metric


def lower_is_better(metric: str) -> bool:
    """Return whether lower is better, by the metric's card; False for a metric that is not installed."""
    plain = metric.partition("_")[2].partition("@")[0]
    plain = plain if ":" in plain else plain.partition(".")[0]
    try:
        return not registry.card("metrics", plain).get("higher_is_better", True)
    except (IadbeError, ImportError, OSError):
        return False
