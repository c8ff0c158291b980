"""Score pictures with a model: a table, JSON lines or CSV; with --out also heat maps, masks and overlays.

MODEL is a model's folder, a run's folder, or the beginning of a run's id. INPUT is a file, a folder (searched
through) or a pattern such as 'parts/*.png'.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonargparse

from iadbe.cli import Usage
from iadbe.cli.options import STORE, parse
from iadbe.store import Store

if TYPE_CHECKING:
    from iadbe.api import Finding

FORMATS = ("table", "jsonl", "csv")
COLUMNS = ("path", "score", "defective", "threshold", "error")


def run(arguments: Sequence[str]) -> int:
    """Predict; exit code 1 if a picture could not be scored."""
    asked = parse("predict", __doc__ or "", _as_written_before(list(arguments)), _add)
    values = asked.values
    if values["format"] not in FORMATS:
        raise Usage(f"--format is one of {', '.join(FORMATS)}, not {values['format']!r}.")
    if not values["inputs"]:
        raise Usage("which pictures? Give files, folders or patterns after the model.")
    from iadbe import api

    model = api.load(model_folder(values["model_folder"], values["store"]), values["device"])
    findings = api.predict(model, values["inputs"], threshold=values["threshold"], device=values["device"])
    if values["out"]:
        findings = _drawn(findings, Path(values["out"]), values["pixel_threshold"])
    failed = _printed(findings, values["format"])
    limit = values["threshold"] if values["threshold"] is not None else model.calibration.threshold
    if values["format"] == "table":
        how = "given" if values["threshold"] is not None else model.calibration.how
        print(f"\nthreshold {limit:.4g}: {how}" if limit is not None else "\nno threshold: give one with --threshold")
        if values["out"]:
            print(f"pictures are in {values['out']}")
    return 1 if failed else 0


def model_folder(text: str, store: str) -> Path:
    """Return the folder that a path, or the beginning of a run's id, means."""
    path = Path(text).expanduser()
    return path if path.exists() or path.suffix or "/" in text else Store(store).find(text)


def _as_written_before(tokens: list[str]) -> list[str]:
    """Read `--ckpt_path MODEL --data INPUT`, as the earlier tools have it; the model folder knows its detector."""
    found: dict[str, str] = {}
    rest: list[str] = []
    position = 0
    while position < len(tokens):
        option, equals, value = tokens[position].partition("=")
        if option in ("--ckpt_path", "--data", "--model", "--data.path"):
            if not equals:
                position += 1
                value = tokens[position] if position < len(tokens) else ""
            found[option] = value
        else:
            rest.append(tokens[position])
        position += 1
    if "--model" in found and "--ckpt_path" not in found:
        raise Usage("predict needs a model folder made by `iadbe train`: iadbe predict MODEL INPUT.")
    inputs = [v for k, v in found.items() if k.startswith("--data")]
    return [*([found["--ckpt_path"]] if "--ckpt_path" in found else []), *inputs, *rest]


def _printed(findings: Iterable[Finding], form: str) -> int:
    """Print findings as they come; return how many pictures could not be scored."""
    failed = 0
    writer = csv.writer(sys.stdout)
    if form == "csv":
        writer.writerow(COLUMNS)
    for found in findings:
        failed += bool(found.error)
        row = _row(found)
        if form == "jsonl":
            print(json.dumps(row), flush=True)
        elif form == "csv":
            writer.writerow(["" if row[c] is None else row[c] for c in COLUMNS])
        elif found.error:
            print(f"{'failed':>12}  {'':<6}  {found.path}: {found.error}", flush=True)
        else:
            verdict = {None: "", True: "DEFECT", False: "good"}[found.defective]
            print(f"{found.score:12.5g}  {verdict:<6}  {found.path}", flush=True)
    return failed


def _row(found: Finding) -> dict[str, Any]:
    score = None if math.isnan(found.score) else found.score
    return {
        "path": str(found.path), "score": score, "defective": found.defective, "threshold": found.threshold,
        "error": found.error or None,
    }  # fmt: skip


def _drawn(findings: Iterable[Finding], folder: Path, pixel_threshold: float | None) -> Iterator[Finding]:
    """Write <name>_heat.png, <name>_overlay.png and, with a pixel threshold, <name>_mask.png for each finding."""
    from iadbe import heat, picture

    taken: set[str] = set()
    for found in findings:
        if found.heat is not None and found.map is not None:
            name = next(n for n in _names(found.path) if n not in taken)
            taken.add(name)
            picture.write(folder / f"{name}_heat.png", heat.coloured(found.heat))
            picture.write(folder / f"{name}_overlay.png", heat.overlaid(picture.read_rgb(found.path), found.heat))
            if pixel_threshold is not None:
                picture.write(folder / f"{name}_mask.png", (found.map >= pixel_threshold).astype("uint8") * 255)
        yield found


def _names(path: Path) -> Iterator[str]:
    """Yield names for a picture's results: its own, then with its folder, then with a number."""
    yield path.stem
    yield f"{path.parent.name}_{path.stem}"
    number = 2
    while True:
        yield f"{path.parent.name}_{path.stem}_{number}"
        number += 1


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("model_folder", type=str, metavar="MODEL")
    parser.add_argument("inputs", type=str, nargs="*", metavar="INPUT")
    parser.add_argument("--out", type=str, default="", metavar="DIR", help="write heat maps and overlays here")
    parser.add_argument("--format", type=str, default="table", help="table, jsonl or csv")
    parser.add_argument("--threshold", type=float, default=None, help="score from which a part is defective")
    parser.add_argument("--pixel-threshold", type=float, default=None, help="map value from which a pixel is; writes masks")
    parser.add_argument("--device", type=str, default="auto")
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR", help="where run ids are looked up")
