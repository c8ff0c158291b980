r"""Measure a calibrated model on parts that it knows nothing of, as a report to sign.

MODEL is a model's folder, a run's folder, or the beginning of a run's id. --good and --bad are the challenge set:
files, folders (searched through) or patterns of good and of defective parts, none of which the model was trained or
calibrated on. The folder that a defective image lies in is its kind.

    iadbe accept runs/padim-toy-cloth-vanilla-s0-0123456789ab --good challenge/good --bad challenge/bad \
        --escape 0.02 --overkill 0.01 --report acceptance.html

It says how many defective parts are called good (escape) and how many good ones are rejected (overkill), by kind of
defect and with intervals. With --repeats, images of parts that were taken several times, and --part, which of them show
the same part, it says how much a score varies and on how many parts the verdict changes. And it draws spots of several
sizes and contrasts onto good parts and says which of them are found.

--report FILE.html is one page without other files; FILE.pdf needs pip install 'iadbe[pdf]'. Exit code 1: --escape or
--overkill is exceeded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import jsonargparse

from iadbe import system
from iadbe.cli import UsageError
from iadbe.cli.model_path import model_folder
from iadbe.cli.options import STORE, add_trust, parse

if TYPE_CHECKING:
    from iadbe.acceptance.accept import Acceptance

SUFFIXES = (".html", ".pdf")


def run(arguments: Sequence[str]) -> int:
    """Measure; exit code 1 where a limit is exceeded."""
    request = parse("accept", __doc__ or "", arguments, _add, form="MODEL --good IMAGES… --bad IMAGES… [options]")
    values = request.values
    if not values["model"]:
        raise UsageError("which model? Give the folder that `iadbe train` made, or its run's id.")
    if not (values["good"] and values["bad"]):
        raise UsageError("which images? Give good ones with --good and defective ones with --bad.")
    report = system.user_path(values["report"]) if values["report"] else None
    if report is not None and report.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--report ends in {' or '.join(SUFFIXES)}, not {report.name!r}.")
    from iadbe.acceptance.accept import accept

    names = ("good", "bad", "part", "drawn", "escape", "overkill", "device", "seed")
    folder = model_folder(values["model"], values["store"])
    found = accept(folder, repeats=values["repeats"] or (), **{name: values[name] for name in names})
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(card(found), indent=1) if values["json"] else "\n".join(_lines(found)))
    if report is not None:
        from iadbe.acceptance import page

        print(f"the report is in {page.write(found, report)}", file=sys.stderr)
    return 1 if found.passed is False else 0


def _lines(found: Acceptance) -> list[str]:
    it = found.challenge
    lines = [f"escape    {it.escape.text(len(it.bad), 'defective')}"]
    lines += [f"          {kind.name}: {kind.passed} of {kind.count}" for kind in it.kinds if kind.passed]
    lines += [f"overkill  {it.overkill.text(len(it.good), 'good')}", f"AUROC     {it.auroc:.4f}"]
    if (again := found.repeatability) is not None:
        zones = ", ".join(f"{again.zone(name)} {name}" for name in ("accept", "grey", "reject"))
        lines.append(f"repeats   {len(again.parts)} parts, {again.flips} of changing verdict ({zones})")
        lines.append(f"          standard deviation of a part's score {again.deviation:.3g}")
    if (curve := found.curve) is not None:
        for contrast in sorted({d.contrast for d in curve.detections}):
            one = curve.smallest(contrast)
            size = "none found" if one is None else f"from {one.diameter:.1%} of the shorter side ({one.pixels:.3g} px)"
            lines.append(
                f"{'spots' if contrast == curve.detections[0].contrast else '':<8}  contrast {contrast:.0%}: {size}"
            )
    if found.passed is not None:
        lines.append("passed" if found.passed else "FAILED")
    return lines


def card(found: Acceptance) -> dict[str, object]:
    """Return the figures as plain values."""
    it, again, curve = found.challenge, found.repeatability, found.curve
    interval = it.auroc_interval
    return {
        "model": str(found.folder),
        "passed": found.passed,
        "images": {"good": len(it.good), "bad": len(it.bad)},
        "escape": asdict(it.escape),
        "overkill": asdict(it.overkill),
        "look": asdict(it.look),
        "image_auroc": {"value": it.auroc, "interval": None if interval is None else [interval.low, interval.high]},
        "kinds": [{"kind": k.name, "images": k.count, "called_good": k.passed} for k in it.kinds],
        "repeatability": None if again is None else {
            "deviation": again.deviation, "flips": again.flips,
            "parts": [{**asdict(part), "zone": part.zone} for part in again.parts],
        },
        "drawn": [] if curve is None else [asdict(one) for one in curve.detections],
        "notes": list(found.notes),
    }  # fmt: skip


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("model", type=str, nargs="?", default="", metavar="MODEL", help="folder, or run id")
    parser.add_argument("--good", type=str, nargs="+", metavar="IMAGES", help="good parts of the challenge set")
    parser.add_argument("--bad", type=str, nargs="+", metavar="IMAGES", help="defective ones")
    parser.add_argument("--repeats", type=str, nargs="+", metavar="IMAGES", help="of parts, several of each")
    parser.add_argument(
        "--part", type=str, default="", metavar="RULE",
        help="which of them show one part: a regular expression on their paths, or FILE.csv:COLUMN",
    )  # fmt: skip
    parser.add_argument("--drawn", type=int, default=20, metavar="N", help="spots of each size and contrast; 0: none")
    parser.add_argument("--escape", type=float, metavar="X", help="largest share of defective parts called good")
    parser.add_argument("--overkill", type=float, metavar="X", help="largest share of good parts rejected")
    parser.add_argument("--report", type=str, default="", metavar="FILE", help="write a report: .html or .pdf")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the drawn spots")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps …")
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR", help="where run ids are looked up")
    add_trust(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
