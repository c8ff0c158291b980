"""Score images with a model: a table, JSON lines or CSV; with --out also heat maps, masks and overlays.

MODEL is a model's folder, a run's folder, or the beginning of a run's id. INPUT is a file, a folder (searched
through) or a pattern such as 'parts/*.png'.

The verdict follows from the raw score and the threshold that `iadbe calibrate` (or else training) has put into the
model, or that --threshold gives. The scale for people runs from 0 to 1, with 0.5 at the model's own threshold and, in
general, 0.1 at a usual good part; it was fixed with that threshold and never depends on the images that are scored.
Columns of CSV and keys of JSON lines: path, score (raw), scaled (on that scale), defective, threshold, error; what
there is not is empty, or null.

    iadbe predict runs/padim-toy-cloth-vanilla-s0-0123456789ab parts/ --out heat --format csv > scores.csv
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonargparse

from iadbe.cli import UsageError
from iadbe.cli.legacy import model_first
from iadbe.cli.options import STORE, add_trust, parse
from iadbe.errors import BadConfig
from iadbe.registry import names

if TYPE_CHECKING:
    from iadbe.api import ImageResult
    from iadbe.evaluation.calibration import Calibration

FORMATS = ("table", "jsonl", "csv")
COLUMNS = ("path", "score", "scaled", "defective", "threshold", "error")


def run(arguments: Sequence[str]) -> int:
    """Predict; exit code 1 if an image could not be scored."""
    form = "MODEL INPUT… [options]"
    request = parse("predict", __doc__ or "", _inputs_last(model_first(arguments)), _add, form=form)
    values = request.values
    if values["format"] not in FORMATS:
        raise UsageError(f"--format is one of {', '.join(FORMATS)}, not {values['format']!r}.")
    if not values["model_folder"]:
        raise UsageError("which model? Give the folder that `iadbe train` made, or its run's id, and then the images.")
    if not values["inputs"]:
        raise UsageError("which images? Give files, folders or patterns after the model.")
    folder = model_folder(values["model_folder"], values["store"])
    _check_inputs(values["inputs"])
    from iadbe import api

    for note in request.notes:
        print(f"note: {note}", file=sys.stderr)
    model = api.load(folder, values["device"], values["engine"])
    paths = api.expand(values["inputs"])
    findings = api.predict(model, paths, threshold=values["threshold"], device=values["device"])
    drawn: set[Path] = set()
    if values["out"]:
        pixel = values["pixel_threshold"]
        limit = model.calibration.pixel_threshold if pixel is None else pixel
        findings = _drawn(findings, named(paths), Path(values["out"]).expanduser(), limit, drawn)
    failed = _printed(findings, values["format"])
    if values["format"] == "table":
        print("\n" + "\n".join(_threshold(values["threshold"], model.calibration)))
        if values["out"]:
            none = f"there are no heat maps: {model.name} does not say where defects are"
            print(f"{len(drawn)} heat maps are in {values['out']}" if drawn else none)
    return 1 if failed else 0


def _threshold(given: float | None, calibration: Calibration) -> list[str]:
    """Return the lines on the threshold and the scale."""
    own = calibration.threshold
    if given is None and own is None:
        return ["no threshold: give one with --threshold"]
    if given is not None:
        lines = [f"threshold {given:.4g}: given"]
    else:
        lines = [f"threshold {own:.4g}: {calibration.how}", *(f"  {line}" for line in calibration.promises())]
    return [*lines, calibration.scale()] if calibration.width is not None else lines


def model_folder(text: str, store: str) -> Path:
    """Return the folder that a path, or the beginning of a run's id, means."""
    path = Path(text).expanduser()
    if path.exists() or path.suffix in (".ckpt", ".pt", ".pth", ".onnx"):
        return path
    if "/" in text or "\\" in text:
        raise BadConfig(f"there is no folder {path.absolute()}. Give the folder that `iadbe train` made.")
    from iadbe.running.store import Store

    return Store(store).find(text)


def _inputs_last(tokens: list[str]) -> list[str]:
    """Read `--data INPUT`, as anomalib-based tools write it."""
    out: list[str] = []
    inputs: list[str] = []
    rest = list(tokens)
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if option in ("--data", "--data.path", "--data.root", "--input"):
            inputs.append(value if equals else rest.pop(0) if rest else "")
        else:
            out.append(option + equals + value)
    return [*out, *inputs]


def _check_inputs(inputs: Sequence[str]) -> None:
    """Raise :class:`BadConfig` where data is named instead of images."""
    for text in inputs:
        if text.startswith("anomalib.") or (text in names("datasets") and not Path(text).exists()):
            raise BadConfig(
                f"{text} is data, and predict takes images: files, folders or patterns. "
                f"Its test split is for `iadbe test MODEL --data {text}`."
            )


def _printed(findings: Iterable[ImageResult], form: str) -> int:
    """Print results as they come; return how many images could not be scored."""
    failed = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if form == "csv":
        writer.writerow(COLUMNS)
    noted: list[str] = []
    for found in findings:
        failed += bool(found.error)
        noted += [f"note: {found.path}: {found.note}"] if found.note else []
        row = _row(found)
        if form == "jsonl":
            print(json.dumps(row), flush=True)
        elif form == "csv":
            writer.writerow(["" if row[c] is None else row[c] for c in COLUMNS])
            sys.stdout.flush()
        elif found.error:
            print(f"{'failed':>12}  {'':<6}  {'':<5}  {found.path}: {found.error}", flush=True)
        else:
            verdict = {None: "", True: "DEFECT", False: "good"}[found.defective]
            scaled = "" if found.scaled is None else f"{found.scaled:.3f}"
            print(f"{found.score:12.5g}  {verdict:<6}  {scaled:<5}  {found.path}", flush=True)
    for line in noted[:3] + ([f"note: the same or similar for {len(noted) - 3} other images"] if noted[3:] else []):
        print(line, file=sys.stderr)
    return failed


def _row(found: ImageResult) -> dict[str, Any]:
    score = None if math.isnan(found.score) else found.score
    return {
        "path": str(found.path), "score": score, "scaled": found.scaled, "defective": found.defective,
        "threshold": found.threshold, "error": found.error or None,
    }  # fmt: skip


def _drawn(
    findings: Iterable[ImageResult], names: Mapping[Path, str], folder: Path, limit: float | None, drawn: set[Path]
) -> Iterator[ImageResult]:
    """Write <name>_heat.png, <name>_overlay.png and, with a limit for pixels, <name>_mask.png for each image."""
    from iadbe.files import image_io
    from iadbe.report import colormap

    for found in findings:
        if found.heat is not None and found.map is not None:
            drawn.add(found.path)
            name = names[found.path]
            image_io.write(folder / f"{name}_heat.png", colormap.colours(found.heat))
            image_io.write(
                folder / f"{name}_overlay.png",
                colormap.overlay(image_io.read_rgb(found.path, found.intensity), found.heat),
            )
            if limit is not None:
                image_io.write(folder / f"{name}_mask.png", (found.map >= limit).astype("uint8") * 255)
        yield found


def named(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each image's results: its stem, with its folder's name where several have it."""
    stems = Counter(path.stem for path in paths)
    names: dict[str, Path] = {}
    for path in paths:
        first = path.stem if stems[path.stem] == 1 else f"{path.absolute().parent.name}_{path.stem}"
        free = (first if n == 1 else f"{first}_{n}" for n in count(1))
        names[next(name for name in free if name not in names)] = path
    return {path: name for name, path in names.items()}


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("model_folder", type=str, nargs="?", default="", metavar="MODEL", help="folder, or run id")
    parser.add_argument("inputs", type=str, nargs="*", metavar="INPUT", help="file, folder or pattern")
    parser.add_argument("--out", type=str, default="", metavar="DIR", help="write heat maps and overlays here")
    parser.add_argument("--format", type=str, default="table", metavar="FORM", help="table, jsonl or csv")
    parser.add_argument("--threshold", type=float, metavar="X", help="score from which a part is defective")
    parser.add_argument("--pixel-threshold", type=float, metavar="X", help="map value from which a pixel is: for masks")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 …")
    parser.add_argument("--engine", type=str, default="torch", help="of backbones: torch, onnxruntime, openvino")
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR", help="where run ids are looked up")
    add_trust(parser)
