"""Let a model learn from reviewed parts, compare the candidate with it, and put the better one into its place.

MODEL is a model's folder, a run's folder, or the beginning of a run's id. --reviewed is a folder with one of good
images (good, OK …), from which the candidate learns: memory banks and statistics are merged with those of the new
images; other detectors are fitted again, to the images of --learnt and the new ones. The model itself stays as it is.

    iadbe update runs/padim-toy-cloth-vanilla-s0-0123456789ab --reviewed reviewed --challenge challenge --promote

--challenge is a folder of good and defective images that is never learnt from. Both models judge it, each by its own
thresholds; the candidate passes if neither its AUROC is lower nor its escape or overkill higher by more than
--tolerance. --promote then puts it into the model's place, which is kept beside it; --roll-back goes back.

Exit code 1: the candidate is worse.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jsonargparse

from iadbe.cli import UsageError
from iadbe.cli.model_path import model_folder
from iadbe.cli.options import STORE, add_trust, parse

if TYPE_CHECKING:
    from iadbe.acceptance.gate import Gate


def run(arguments: Sequence[str]) -> int:
    """Update, promote or roll back; exit code 1 where the candidate is worse."""
    request = parse("update", __doc__ or "", arguments, _add, form="MODEL [--reviewed DIR] [options]")
    values = request.values
    if not values["model"]:
        raise UsageError("which model? Give the folder that `iadbe train` made, or its run's id.")
    if not (values["reviewed"] or values["promote"] or values["roll_back"]):
        raise UsageError("what is to be done? Give reviewed images with --reviewed, or --promote, or --roll-back.")
    if values["roll_back"] and (values["promote"] or values["reviewed"]):
        raise UsageError("--roll-back stands alone.")
    from iadbe.acceptance import candidate
    from iadbe.acceptance.update import update
    from iadbe.running.model_folder import resolve_folder

    given = model_folder(values["model"], values["store"])
    candidate.recover(given)
    candidate.recover(given / "model")
    folder = resolve_folder(given)
    if values["roll_back"]:
        print(f"{folder} is the former model again; the one that it replaces is {candidate.roll_back(folder)}")
        return 0
    gate = None
    if values["reviewed"]:
        how = {name: values[name] for name in ("overkill", "tolerance", "device")}
        found = update(
            folder, values["reviewed"], values["challenge"] or None, learnt=values["learnt"] or (),
            calibrate=values["calibrate"] or (), **how,
        )  # fmt: skip
        for note in found.notes:
            print(f"note: {note}", file=sys.stderr)
        gate = found.gate
        if values["json"]:
            print(json.dumps({"candidate": str(found.candidate), "gate": gate and gate.card()}, indent=1))
        else:
            print("\n".join([f"candidate {found.candidate}", *(_lines(gate) if gate else ())]))
    if values["promote"] and (gate is None or gate.passes or values["force"]):
        kept = candidate.promote(folder, force=values["force"])
        print(f"{folder} is the candidate now; the model before it is {kept} (--roll-back)", file=sys.stderr)
    return 0 if gate is None or gate.passes else 1


def _lines(gate: Gate) -> list[str]:
    old, new = gate.present, gate.candidate
    interval = gate.interval
    between = "" if interval is None else f" (95 % interval {interval.low:+.4f} to {interval.high:+.4f})"
    lines = [
        f"{len(old.good)} good and {len(old.bad)} defective images of the challenge set",
        f"{'':<9} {'present':>9} {'candidate':>9}",
        f"{'AUROC':<9} {old.auroc:>9.4f} {new.auroc:>9.4f}  {gate.difference:+.4f}{between}",
    ]
    for name in ("escape", "overkill"):
        better, worse, p = gate.changed(name)
        shares = f"{getattr(old, name).value:>9.2%} {getattr(new, name).value:>9.2%}"
        lines.append(f"{name:<9} {shares}  {better} better, {worse} worse (p = {p:.2g})")
    return [*lines, gate.sentence()]


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("model", type=str, nargs="?", default="", metavar="MODEL", help="folder, or run id")
    parser.add_argument("--reviewed", type=str, default="", metavar="DIR", help="reviewed images, good and defective")
    parser.add_argument("--challenge", type=str, default="", metavar="DIR", help="what both are compared on")
    parser.add_argument("--learnt", type=str, nargs="+", metavar="IMAGES", help="what it has learnt, to fit again")
    parser.add_argument("--calibrate", type=str, nargs="+", metavar="IMAGES", help="good ones for new thresholds")
    parser.add_argument("--overkill", type=float, metavar="X", help="of these thresholds (default: as it was)")
    parser.add_argument("--tolerance", type=float, default=0.01, metavar="X", help="by which it may be worse")
    parser.add_argument("--promote", action="store_true", help="put the candidate into the model's place if it passes")
    parser.add_argument("--roll-back", action="store_true", help="put the former model back")
    parser.add_argument("--force", action="store_true", help="promote a candidate that is worse, or was not compared")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps …")
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR", help="where run ids are looked up")
    add_trust(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
