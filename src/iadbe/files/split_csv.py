"""Reads a split from a CSV file: a line for each image, with its path and its split.

Columns, in any order and case; others are left alone:

* ``path`` (or image, file, filename): of the image, from the data folder
* ``split`` (or set, subset): train, val or test
* ``label``: a word for normal or defective, such as good, ok, 0, bad, ng, 1
* ``kind`` (or defect): of the defect
* ``group``: of dependent images
* ``mask``: path of the ground truth, from the data folder
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from iadbe.errors import BadData
from iadbe.files import layout
from iadbe.files.bad_labels import BadLabels
from iadbe.files.folder_names import is_bad, is_good

COLUMNS = {
    "path": ("path", "image", "file", "filename"),
    "split": ("split", "set", "subset"),
    "label": ("label",),
    "kind": ("kind", "defect"),
    "group": ("group",),
    "mask": ("mask",),
}
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
DEFECT = "defect"  # the kind where none is known


class Line(NamedTuple):
    """One image of the file."""

    path: str  # from the data folder, with forward slashes
    split: str  # "train", "val" or "test"
    label: bool | None = None  # whether it is defective; None: the file does not say
    kind: str = ""
    group: str = ""
    mask: str = ""


def read(root: Path, file: str, bad_labels: BadLabels | None = None) -> tuple[Line, ...]:
    """Return the lines of a file, which is named from ``root``. Raises :class:`BadData` naming the file and lines."""
    bad_labels = bad_labels or BadLabels("error", "split")
    path = root / file
    try:
        rows = layout.read_table(path)
    except (OSError, csv.Error) as error:
        raise BadData(f"{path} cannot be read as a split: {error}.") from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    columns = {key: header.index(n) for key, names in COLUMNS.items() for n in names[::-1] if n in header}
    if lacking := [key for key in ("path", "split") if key not in columns]:
        raise BadData(f"{path} has no column {' and no column '.join(lacking)}. It has: {', '.join(header)}.")
    lines, seen = [], set()
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        cells = {key: row[n].strip() if n < len(row) else "" for key, n in columns.items()}
        with bad_labels.collected():
            found = _line(cells, root, path, number)
            if found.path in seen:
                raise BadData(f"{path}, line {number} names {found.path} a second time.")
            seen.add(found.path)
            lines.append(found)
    bad_labels.check("lines")
    if not lines:
        raise BadData(f"{path} names no images.")
    return tuple(lines)


def _line(cells: dict[str, str], root: Path, file: Path, number: int) -> Line:
    where = f"{file}, line {number}"
    image, mask = (_inside(cells.get(key, ""), where) for key in ("path", "mask"))
    if not image or not (root / image).is_file():
        raise BadData(f"{where} names {image or 'no image'}, which is not in {root}.")
    if mask and not (root / mask).is_file():
        raise BadData(f"{where} names the mask {mask}, which is not in {root}.")
    split = SPLITS.get(cells["split"].lower())
    if split is None:
        raise BadData(f"{where} has the split {cells['split']!r}, not one of train, val, test.")
    kind, text = cells.get("kind", ""), cells.get("label", "")
    defective = _defective(text, kind, where)
    if defective and not kind and text and not is_bad(text) and text != "1":
        kind = text  # the label is the kind itself
    return Line(image, split, defective, "" if is_good(kind) else kind, cells.get("group", ""), mask)


def _defective(label: str, kind: str, where: str) -> bool | None:
    """Return whether a line is about a defective image; None where it does not say."""
    by_kind = None if not kind else not is_good(kind)
    if not label:
        return by_kind
    by_label = not (is_good(label) or label == "0")
    if by_kind is not None and by_kind != by_label:
        raise BadData(f"{where} contradicts itself: label {label!r}, kind {kind!r}.")
    return by_label


def _inside(text: str, where: str) -> str:
    """Return a path with forward slashes. Raises :class:`BadData` for one that leaves the data folder."""
    path = text.replace("\\", "/").removeprefix("./")
    if path.startswith("/") or ".." in path.split("/") or ":" in path.split("/")[0]:
        raise BadData(f"{where} names {text!r}: paths are from the data folder and stay in it.")
    return path
