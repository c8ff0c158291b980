"""The exported files of a run's model: ``exports/<format>-<precision>/`` in the run's folder, which is removed with it.

Each folder is complete or absent. It holds the files that `iadbe export` writes, and ``export.json``, which says what
they are and of which model: where the model has been calibrated since, they are outdated.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from iadbe.errors import BadConfig, UnknownName
from iadbe.exporting import ENDINGS, PRECISIONS

FOLDER, DESCRIPTION = "exports", "export.json"
WEB = "web"
FORMATS = (*ENDINGS, WEB)
ONLY_FP32 = ("torch", WEB)  # formats that keep the model's own precision
ALLOWED = ("noncommercial", "own")  # what a user can say of licences: see iadbe.exporting.origins
CARD = "detector.json"  # of the model
NAME = re.compile(r"[a-z0-9]{1,16}-[a-z0-9]{1,16}")
KEY = "export"  # of a job's grid that is no grid


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What a job exports."""

    run: str  # its id
    to: str = "onnx"
    precision: str = "fp32"
    allow: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the folder."""
        return f"{self.to}-{self.precision}"

    def as_grid(self) -> dict[str, Any]:
        """Return what the queue keeps instead of a grid."""
        return {KEY: {**asdict(self), "allow": list(self.allow)}}


@dataclass(frozen=True, slots=True)
class StoredExport:
    """The exported files of a model, in a folder."""

    to: str
    precision: str
    file: str  # the name of the main one
    bytes: int  # of all files
    date: str
    deviation: str  # how far scores and maps are from torch; empty where no runtime could compare them
    holds: bool | None  # whether that is within the tolerance; None where it is not known
    allowed: tuple[str, ...]
    model: str  # sha256 of the model's card
    is_outdated: bool = False  # the model has changed since

    @property
    def name(self) -> str:
        """The name of the folder."""
        return f"{self.to}-{self.precision}"


def is_export(grid: Mapping[str, Any]) -> bool:
    """Return whether a job exports a model, instead of carrying out a grid."""
    return KEY in grid


def request_of(grid: Mapping[str, Any]) -> ExportRequest:
    """Return what a job exports. Raises :class:`BadConfig`."""
    try:
        given = dict(grid[KEY])
        found = ExportRequest(**{**given, "allow": tuple(given.get("allow") or ())})
    except (TypeError, ValueError, LookupError) as error:
        raise BadConfig(f"this job says nothing that can be exported: {error}.") from error
    check(found)
    return found


def check(request: ExportRequest) -> None:
    """Raise :class:`BadConfig` for a format, a precision or a word on licences that there is not."""
    known: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("format", request.to, FORMATS),
        ("precision", request.precision, PRECISIONS),
        *(("word on licences", word, ALLOWED) for word in request.allow),
    )
    for what, value, there in known:
        if value not in there:
            raise BadConfig(f"there is no {what} {value!r}. There are: {', '.join(there)}.")
    if request.to in ONLY_FP32 and request.precision != "fp32":
        raise BadConfig(f"{request.to} keeps the model's own precision, fp32: take onnx or openvino.")


def digest_of(model: Path) -> str:
    """Return the sha256 of a model's card, which changes when the model is calibrated."""
    return hashlib.sha256((model / CARD).read_bytes()).hexdigest()


def describe(folder: Path, stored: StoredExport) -> None:
    """Write ``export.json``."""
    kept = {key: value for key, value in asdict(stored).items() if key != "is_outdated"}
    (folder / DESCRIPTION).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def exports_of(run_folder: Path) -> list[StoredExport]:
    """Return the exported files of a run, by name; a damaged folder is left out."""
    found = []
    for file in sorted((run_folder / FOLDER).glob(f"*/{DESCRIPTION}")):
        try:
            stored = _read(file)
            is_outdated = stored.model != digest_of(run_folder / "model")
        except (OSError, ValueError, TypeError, AttributeError):
            continue
        if stored.name == file.parent.name:
            values = {f.name: getattr(stored, f.name) for f in fields(StoredExport)}
            found.append(StoredExport(**{**values, "is_outdated": is_outdated}))
    return found


def folder_of(run_folder: Path, name: str) -> Path:
    """Return the folder of exported files by its name. Raises :class:`UnknownName`."""
    folder = run_folder / FOLDER / name
    if not NAME.fullmatch(name) or folder.is_symlink() or not (folder / DESCRIPTION).is_file():
        raise UnknownName(f"this run has no exported files {name!r}.")
    return folder


def _read(file: Path) -> StoredExport:
    given = json.loads(file.read_text(encoding="utf-8"))
    wanted = {f.name for f in fields(StoredExport)} - {"is_outdated"}
    if set(given) != wanted:
        raise ValueError("other keys")
    texts = ("to", "precision", "file", "date", "deviation", "model")
    if not all(isinstance(given[key], str) for key in texts) or type(given["bytes"]) is not int:
        raise ValueError("values of other types")
    return StoredExport(**{**given, "allowed": tuple(map(str, given["allowed"]))})
