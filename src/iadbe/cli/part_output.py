"""Prints one verdict for each part of which there are several images: a table, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import IO, Any

from iadbe.errors import number_of
from iadbe.evaluation.calibration import IMAGES, Calibration
from iadbe.results.table import csv_cell
from iadbe.runtime.parts import Part, ViewScore, named_by, parts_of
from iadbe.runtime.result_row import part_row
from iadbe.runtime.scored_image import ScoredImage
from iadbe.runtime.verdict import REJECT

COLUMNS = ("part", "images", "score", "scaled", "defective", "threshold", "error", "verdict", "highest")


def print_parts(
    results: Iterable[tuple[ScoredImage, Mapping[str, Any]]],
    rules: tuple[str, str],
    calibration: Calibration,
    form: str,
    file: IO[str],
    *,
    combine: bool,
) -> int:
    """Print parts after all images are scored; return how many images could not be scored.

    Args:
        results: of images, each with its row as JSON lines have it
        rules: by which paths name parts, and views of parts
        calibration: of the model
        form: table, jsonl or csv
        file: where to print
        combine: whether the model's combination of views decides, where it has one
    """
    views: list[ViewScore] = []
    rows: dict[str, Mapping[str, Any]] = {}
    limit = calibration.threshold
    for found, row in results:
        views.append(ViewScore(found.path, found.score, found.scaled, found.verdict, found.error))
        rows[found.path.as_posix()] = row
        limit = found.threshold if found.threshold is not None else limit
    names = named_by([view.path for view in views], rules[1], "view")
    named = [
        ViewScore(one.path, one.score, one.scaled, one.verdict, one.error, name)
        for one, name in zip(views, names, strict=True)
    ]
    combination = calibration.combination if combine else None
    parts = parts_of(named, rules[0], limit, combination)
    {"table": _table, "jsonl": _json_lines, "csv": _csv}[form](parts, rows, file)
    if combine and calibration.good and calibration.unit == IMAGES:
        text = "the guarantee of this model is on single images; `iadbe calibrate --part` gives one on parts"
        print(f"note: {text}", file=sys.stderr)
    return sum(bool(view.error) for view in views)


def _table(parts: Iterable[Part], rows: Mapping[str, Mapping[str, Any]], file: IO[str]) -> None:
    counts: Counter[str] = Counter()
    for part in parts:
        verdict = "DEFECT" if part.verdict == REJECT else part.verdict
        counts[part.verdict or "without a verdict"] += 1
        scaled = "" if part.scaled is None else f"{part.scaled:.3f}"
        number = number_of(len(part.images), "image")
        end = (
            f"{part.name}: {part.error}" if part.error else f"{part.name}  ({number}, highest {part.highest.path.name})"
        )
        score = "failed" if math.isnan(part.score) else f"{part.score:.5g}"
        file.write(f"{score:>12}  {verdict:<9}  {scaled:<5}  {end}\n")
    text = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    file.write(f"\n{number_of(counts.total(), 'part')}: {text}\n")


def _json_lines(parts: Iterable[Part], rows: Mapping[str, Mapping[str, Any]], file: IO[str]) -> None:
    for part in parts:
        images = [rows[image.path.as_posix()] for image in part.images]
        file.write(json.dumps({**part_row(part), "images": images}) + "\n")


def _csv(parts: Iterable[Part], rows: Mapping[str, Mapping[str, Any]], file: IO[str]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for part in parts:
        row = {**part_row(part), "images": len(part.images)}
        writer.writerow([csv_cell(v) if isinstance(v, str) else "" if v is None else v for v in map(row.get, COLUMNS)])
