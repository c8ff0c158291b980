"""Score images with a model: a table, JSON lines or CSV; with --out also heat maps, masks and overlays.

MODEL is a model's folder, a run's folder, the beginning of a run's id, or a file that `iadbe export` wrote. INPUT is a
file, a folder (searched through), a pattern such as 'parts/*.png', or a video, which is scored frame by frame. --data
NAME, or a YAML file that describes data, scores its test images.

The verdict follows from the raw score and the threshold that `iadbe calibrate` (or else training) has put into the
model, or that --threshold gives: good or reject (a DEFECT in the table), and with two thresholds also look (at it). The
displayed scale runs from 0 to 1, with 0.5 at the model's own threshold and, in
general, 0.1 at the median good part; it was fixed with that threshold and never depends on the images that are scored.
Columns of CSV and keys of JSON lines: path, score (raw), scaled (on that scale), defective (rejected), threshold,
error, position_found (of models that register images; where it is false, there is no verdict), verdict; what there is
not is empty, or null. JSON lines also have regions, those with the highest peaks first: their area in pixels, box (x,
y, width, height), peak (raw) and zone; of a model whose verdict follows from regions those that count, else all from
the threshold for pixels on.

With --part, several images of one part (views, lights, frames) give one verdict: RULE is a regular expression on their
paths, or FILE.csv:COLUMN. There is a line for each part then, with the highest score of its images and the worst of
their verdicts, or by the combination that `iadbe calibrate --combine` has put into the model (then --view says which
view an image is). JSON lines hold the images of each part.

--out DIR writes heat maps, overlays and masks there. --out FILE.csv or FILE.jsonl writes the scores to a file, always
in UTF-8.

    iadbe predict runs/padim-toy-cloth-vanilla-s0-0123456789ab parts/ --out scores.csv
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import jsonargparse

from iadbe import system
from iadbe.cli import UsageError, prediction_inputs
from iadbe.cli.legacy import model_first
from iadbe.cli.model_path import model_folder
from iadbe.cli.options import STORE, add_trust, parse
from iadbe.cli.part_output import print_parts
from iadbe.errors import number_of
from iadbe.results.table import csv_cell
from iadbe.runtime.result_row import COLUMNS, region_rows, row_of
from iadbe.runtime.verdict import REJECT
from iadbe.watching.scoring_model import load_model

if TYPE_CHECKING:
    from iadbe.api import ImageResult
    from iadbe.evaluation.calibration import Calibration
    from iadbe.runtime.prediction import FileResult

    Result = ImageResult | FileResult

FORMATS = ("table", "jsonl", "csv")
FILES = {".csv": "csv", ".jsonl": "jsonl"}  # endings of --out that mean a file of scores
# of files that are not written: a folder of such a name is a mistake
OTHER_FILES = (".json", ".tsv", ".txt", ".xlsx", ".xls", ".parquet", ".html", ".png", ".jpg", ".jpeg", ".tif", ".tiff")


def run(arguments: Sequence[str]) -> int:
    """Predict; exit code 1 if an image could not be scored."""
    tokens, data = prediction_inputs.take(arguments)
    if data.checkpoint:
        tokens = ["--ckpt_path", data.checkpoint, *tokens]
    request = parse("predict", __doc__ or "", model_first(tokens), _add, form="MODEL INPUT… [options]")
    values = request.values
    if values["format"] not in FORMATS:
        raise UsageError(f"--format is one of {', '.join(FORMATS)}, not {values['format']!r}.")
    if values["view"] and not values["part"]:
        raise UsageError("--view names views of parts: say with --part which images belong together.")
    if not values["model_folder"]:
        raise UsageError("which model? Give the folder that `iadbe train` made, or its run's id, and then the images.")
    folder = model_folder(values["model_folder"], values["store"])
    out = system.user_path(values["out"]) if values["out"] else None
    table = out if out is not None and out.suffix.lower() in FILES else None
    other = out is not None and table is None and out.suffix.lower() in OTHER_FILES and not out.is_dir()
    if out is not None and (other or (table is None and out.exists() and not out.is_dir())):
        what = "a file" if out.exists() else "the name of a file"
        raise UsageError(f"{out} is {what}. --out takes a folder, or a file that ends in {' or '.join(FILES)}.")
    if not (values["inputs"] or data.name or data.params or data.configured):
        raise UsageError("which images? Give files, folders or patterns after the model, or --data NAME.")
    for note in request.notes:
        print(f"note: {note}", file=sys.stderr)
    counted = not (values["no_history"] or data.name or data.configured)  # a test set says nothing of the line
    source = "predict" if counted else ""
    model = load_model(folder, values["engine"], values["device"], values["threshold"], source)
    if model.note:
        print(f"note: {model.note}", file=sys.stderr)
    images = prediction_inputs.images_of(values["inputs"], data)
    results = model.score(images)
    drawn: set[Path] = set()
    if out is not None and table is None:
        pixel = values["pixel_threshold"]
        limit = model.calibration.pixel_threshold if pixel is None else pixel
        results = _drawn(results, output_names([image.path for image in images]), out, limit, drawn)
    form = values["format"] if table is None else FILES[table.suffix.lower()]
    pixel = model.calibration.pixel_threshold if values["pixel_threshold"] is None else values["pixel_threshold"]
    with _opened(table) as file:
        if values["part"]:
            rows = ((found, {**row_of(found), "regions": region_rows(found, pixel)}) for found in results)
            rules, own = (values["part"], values["view"]), values["threshold"] is None
            failed = print_parts(rows, rules, model.calibration, form, file, combine=own)
        else:
            failed = _printed(results, form, file, pixel)
    if model.monitor is not None:
        model.monitor.flush()
        if model.monitor.problem:
            print(f"note: {model.monitor.problem}", file=sys.stderr)
    if table is not None:
        what = "the verdicts on the parts" if values["part"] else f"{len(images)} scores"
        print(f"{what} are in {table}")
    elif form == "table":
        print("\n" + "\n".join(_threshold(values["threshold"], model.calibration)))
        if out is not None:
            none = f"there are no heat maps: {model.name} does not say where defects are"
            print(f"{len(drawn)} heat maps are in {values['out']}" if drawn else none)
    return 1 if failed else 0


@contextmanager
def _opened(table: Path | None) -> Iterator[IO[str]]:
    """Open the file of scores in UTF-8, with names of files that are no text escaped; standard output without one."""
    if table is None:
        yield sys.stdout
        return
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        yield file


def _threshold(given: float | None, calibration: Calibration) -> list[str]:
    """Return the lines on the threshold and the scale."""
    own = calibration.threshold
    if given is None and own is None:
        return ["no threshold: give one with --threshold"]
    if given is not None:
        lines = [f"threshold {given:.4g}: given"]
    else:
        lines = calibration.thresholds()
    return [*lines, calibration.scale()] if calibration.width is not None else lines


def _csv_cell(value: Any) -> Any:
    return csv_cell(value) if isinstance(value, str) else value


def _printed(results: Iterable[Result], form: str, file: IO[str], pixel: float | None) -> int:
    """Print results as they come; return how many images could not be scored. ``pixel`` is the threshold for pixels."""
    failed = 0
    writer = csv.writer(file, lineterminator="\n")
    if form == "csv":
        writer.writerow(COLUMNS)
    noted: list[str] = []
    for result in results:
        failed += bool(result.error)
        noted += [f"note: {result.path}: {result.note}"] if result.note else []
        row = row_of(result)
        if form == "jsonl":
            file.write(json.dumps({**row, "regions": region_rows(result, pixel)}) + "\n")
        elif form == "csv":
            writer.writerow(["" if row[c] is None else _csv_cell(row[c]) for c in COLUMNS])
        elif result.error:
            file.write(f"{'failed':>12}  {'':<9}  {'':<5}  {result.path}: {result.error}\n")
        else:
            verdict = "DEFECT" if result.verdict == REJECT else result.verdict
            verdict = "not found" if result.position_found is False else verdict
            scaled = "" if result.scaled is None else f"{result.scaled:.3f}"
            file.write(f"{result.score:12.5g}  {verdict:<9}  {scaled:<5}  {result.path}\n")
        file.flush()
    rest = f"note: the same or similar for {number_of(len(noted) - 3, 'other image')}"
    for line in noted[:3] + [rest] * bool(noted[3:]):
        print(line, file=sys.stderr)
    return failed


def _drawn(
    results: Iterable[Result], names: Mapping[Path, str], folder: Path, limit: float | None, drawn: set[Path]
) -> Iterator[Result]:
    """Write <name>_heat.png, <name>_overlay.png and, with a limit for pixels, <name>_mask.png for each image."""
    from iadbe.report import map_images

    for result in results:
        if result.has_map and result.source is not None:
            drawn.add(result.path)
            map_images.write(result, folder / names[result.path], limit)
        yield result


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each image's results: its stem, with its folder's name where several have it."""
    plain = {path: "_".join([path.stem, *path.suffix.partition("#")[2:]]).rstrip("_") for path in paths}
    stems = Counter(stem.casefold() for stem in plain.values())
    names: dict[str, tuple[Path, str]] = {}
    for path, stem in plain.items():
        first = stem if stems[stem.casefold()] == 1 else f"{path.absolute().parent.name}_{stem}"
        free = (first if n == 1 else f"{first}_{n}" for n in count(1))
        name = next(name for name in free if name.casefold() not in names)  # many disks ignore case
        names[name.casefold()] = (path, name)
    return dict(names.values())


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("model_folder", type=str, nargs="?", default="", metavar="MODEL", help="folder, or run id")
    parser.add_argument("inputs", type=str, nargs="*", metavar="INPUT", help="file, folder or pattern")
    parser.add_argument("--out", type=str, default="", metavar="DIR|FILE", help="heat maps and overlays; or a CSV file")
    parser.add_argument("--format", type=str, default="table", metavar="FORM", help="table, jsonl or csv")
    parser.add_argument("--threshold", type=float, metavar="X", help="score from which a part is defective")
    parser.add_argument("--pixel-threshold", type=float, metavar="X", help="map value from which a pixel is: for masks")
    parser.add_argument("--part", type=str, default="", metavar="RULE", help="images of one part: one verdict for them")
    parser.add_argument("--view", type=str, default="", metavar="RULE", help="views of a part, where they are combined")
    parser.add_argument("--no-history", action="store_true", help="do not count these images for `iadbe drift`")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps …")
    parser.add_argument("--engine", type=str, default="torch", help="torch, onnxruntime, openvino")
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR", help="where run ids are looked up")
    add_trust(parser)
