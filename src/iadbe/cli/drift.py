"""Say whether the images of a model in use still resemble its calibration, and if not, what has moved.

MODEL is a model's folder, a run's folder, or the beginning of a run's id. It must have been calibrated with at least 20
good images. `iadbe predict` and `iadbe watch` then keep a small summary of each hour in its folder: how many images had
which score, how far usual patches are from the training images, brightness, sharpness, and the position of the edges.

    iadbe drift runs/padim-toy-cloth-vanilla-s0-0123456789ab

The guarantees of a calibration hold for parts made and photographed as those of the calibration. Here each image is
compared with all before it, those of the calibration included. Without a change there is at most one false alarm in
1 000 hours on average, no matter how often one looks, and the p-value holds at any time (docs/drift.md).

Exit code 1: the calibration's promise no longer holds. Look at what has moved, and calibrate again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jsonargparse

from iadbe.cli import UsageError
from iadbe.cli.model_path import model_folder
from iadbe.cli.options import STORE, parse

if TYPE_CHECKING:
    from iadbe.monitoring.findings import Findings

SHOWN = 8  # last hours that are listed


def run(arguments: Sequence[str]) -> int:
    """Report; exit code 1 where the images have changed."""
    request = parse("drift", __doc__ or "", arguments, _add, form="MODEL [options]")
    values = request.values
    if not values["model"]:
        raise UsageError("which model? Give the folder that `iadbe train` made, or its run's id.")
    from iadbe.watching.drift import drift

    found = drift(model_folder(values["model"], values["store"]), source=values["source"], running=values["running"])
    print(json.dumps(found.card(), indent=1) if values["json"] else "\n".join(_lines(found)))
    return 0 if found.alarm is None else 1


def _lines(found: Findings) -> list[str]:
    if not found.hours:
        return [found.sentence()]
    lines = [f"{'hour (UTC)':<13}  {'images':>7}  {'rejected':>8}  {'evidence':>9}"]
    pairs = list(zip(found.hours, found.statistics, strict=True))
    if len(pairs) > SHOWN:
        lines.append(f"… {len(pairs) - SHOWN} more")
    for hour, statistic in pairs[-SHOWN:]:
        lines.append(f"{hour.hour.replace('T', ' '):<13}  {hour.images:>7}  {hour.rejected:>8.1%}  {statistic:>9.3g}")
    lines += ["", f"{'channel':<11}  {'evidence':>9}  {'before':>9}  {'now':>9}"]
    lines += [f"{m.channel:<11}  {m.statistic:>9.3g}  {m.before:>9.4g}  {m.now:>9.4g}" for m in found.channels]
    return [*lines, "", found.sentence()]


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("model", type=str, nargs="?", default="", metavar="MODEL", help="folder, or run id")
    parser.add_argument("--source", type=str, default="", metavar="NAME", help="predict, watch or server alone")
    parser.add_argument("--running", action="store_true", help="count the hour that is not over, too")
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR", help="where run ids are looked up")
    parser.add_argument("--json", action="store_true", help="print JSON")
