"""Runs on disk. A run's folder is the truth; any index over the folders can be thrown away and made anew.

    <root>/<run>/result.json       spec and outcome: portable, can be committed to git
                 scores.csv        the image score of every test image
                 curves.json       the PRO curve of each test, where a metric computed it
                 losses.csv        of a detector that trains
                 maps/…npz         (on request) the pixel scores
                 images/…png     a few test images with heat map, for the report
                 model/            (on request) the fitted detector: detector.json, weights.safetensors
                 exports/…/        (on request) the detector as files that run without torch: see iadbe.jobs.exports
    <root>/.logs/<run>.log         output of the run
    <root>/.checkpoints/<run>/     of a run that is not finished: where its training goes on
    <root>/data.json               digests of data: see iadbe.running.data_digests
    <root>/index.sqlite            index of the folders, made by `iadbe results rebuild`

A folder is filled under a temporary name, flushed to disk and renamed: it is complete or absent. The temporary name
holds the process that fills it, so that only the leftovers of dead processes are removed.
"""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from iadbe import system
from iadbe.errors import BadConfig, BadData, NoSpace, is_of_machine
from iadbe.parameters import current_names
from iadbe.running import result_fields
from iadbe.seeds import run_id
from iadbe.types import Row, RunResult, RunSpec, Score

FORMAT = 1  # of result.json
ADDED = {"steps", "latency_range_ms", "images", "data_name"}  # fields that result.json of earlier versions lacks
SPECIAL = {"spec", "rows", "scores", "notes", "latency_ms", "latency_range_ms", "transient"}
PLAIN = tuple(f.name for f in fields(RunResult) if f.name not in SPECIAL)  # fields that are stored as they are
RESULT = "result.json"
SCORES = "scores.csv"
SCORES_HEAD = 100  # bytes: the first line of scores.csv is shorter
STAGING = ".part"
CHECKPOINTS = ".checkpoints"
ABANDONED_SECONDS = 7 * 24 * 3600  # after which another machine's half-written run is removed
FORGOTTEN_SECONDS = 30 * 24 * 3600  # after which the checkpoints of a run that nobody repeats are removed


class Store:
    """A folder of runs."""

    def __init__(self, root: str | Path) -> None:
        self.root = system.user_path(root).absolute()
        if self.root.exists() and not self.root.is_dir():
            raise BadConfig(f"{self.root} is a file. Give a folder for the results with --store DIR.")

    def has(self, spec: RunSpec) -> bool:
        """Return whether the run is done, well or not; what failed for lack of something on a machine is not."""
        folder = self.path(spec)
        return (folder / RESULT).is_file() and not _failed_for_lack(folder)

    def path(self, spec: RunSpec) -> Path:
        """Return the folder of a run, which need not exist."""
        return self.root / folder_name(spec)

    def log(self, spec: RunSpec) -> Path:
        """Return the log file of a run, which need not exist."""
        return self.root / ".logs" / f"{folder_name(spec)}.log"

    def checkpoints(self, spec: RunSpec) -> Path:
        """Return the folder for the checkpoints of a run's training, which need not exist."""
        return self.root / CHECKPOINTS / folder_name(spec)

    def forget_training(self, name: str) -> None:
        """Remove the checkpoints of the run whose folder is called ``name``, if there are any."""
        system.remove_tree(self.root / CHECKPOINTS / name)
        with suppress(OSError):
            (self.root / CHECKPOINTS).rmdir()  # unless other runs have some

    def staging(self, spec: RunSpec) -> Path:
        """Make a fresh folder to fill; :meth:`save` turns it into the run's folder."""
        folder = self.root / STAGING / f"{run_id(spec)}{_signature()}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise self._refused(error) from error
        return folder

    @property
    def is_read_only(self) -> bool:
        """Whether the folder exists and this process may not write to it."""
        return self.root.is_dir() and not system.is_writable(self.root)

    def check_writable(self) -> None:
        """Raise :class:`BadConfig` where nothing can be stored: no permission, a read-only disk, a file in the way."""
        probe = self.root / STAGING / f"probe{_signature()}"
        try:
            probe.mkdir(parents=True)
            (probe / "file").touch()
        except OSError as error:
            raise self._refused(error) from error
        finally:  # an interrupt, too, leaves nothing behind
            system.remove_tree(probe)

    def _refused(self, error: OSError) -> Exception:
        if full := NoSpace.of(error):
            return full
        why = (error.strerror or str(error)).lower()
        return BadConfig(f"results cannot be stored in {self.root}: {why}. Give another folder with --store DIR.")

    def save(self, result: RunResult, staging: Path | None = None) -> Path:
        """Write a run whole or not at all; an earlier folder of the same run is replaced."""
        staging = staging or self.staging(result.spec)
        try:
            _write(staging / RESULT, json.dumps(to_json(result), indent=1, sort_keys=True, allow_nan=False) + "\n")
            with (staging / SCORES).open("w", newline="", encoding="utf-8") as file:
                columns = Score._fields if any(s.group for s in result.scores) else Score._fields[:-1]
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows((*s[:5], repr(s.score), s.group)[: len(columns)] for s in result.scores)
                file.flush()
                os.fsync(file.fileno())
            target = self.path(result.spec)
            self.put(staging, target)
        except BaseException as error:  # an interrupt, too, leaves nothing behind
            system.remove_tree(staging)
            if full := NoSpace.of(error):
                raise full from error
            raise
        system.sync_folder(self.root)
        return target

    def put(self, staging: Path, target: Path) -> None:
        """Rename a full folder to its place, even where another process does the same at the same moment.

        A folder that is there already is replaced.
        """
        earlier: list[Path] = []
        while True:
            try:
                system.rename(staging, target)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            old = self.root / STAGING / f"old{_signature()}"
            with suppress(FileNotFoundError):  # the other process was quicker
                system.rename(target, old)
                earlier.append(old)
        for old in earlier:
            system.remove_tree(old)

    def remove(self, spec: RunSpec, *, training: bool = True) -> None:
        """Remove a run, so that it is done again; ``training``: from the start of its training, not a checkpoint."""
        if self.path(spec).exists():
            self.remove_folder(self.path(spec), training=training)

    def remove_folder(self, folder: Path, *, training: bool = True) -> None:
        """Remove the folder of a run, whole or not at all, its log and (``training``) its checkpoints."""
        gone = self.root / STAGING / f"old{_signature()}"
        try:
            gone.mkdir(parents=True)
            system.rename(folder, gone / "old")
        except OSError as error:
            system.remove_tree(gone)
            if full := NoSpace.of(error):
                raise full from error
            raise BadConfig(f"{folder} cannot be removed: {(error.strerror or str(error)).lower()}.") from error
        system.remove_tree(gone)
        with suppress(PermissionError):  # a run under way writes to it
            system.remove(self.root / ".logs" / f"{folder.name}.log")
        if training:
            self.forget_training(folder.name)

    def load(self, folder: str | Path) -> RunResult:
        """Read a run's folder."""
        path = self.root / folder
        try:
            raw = json.loads((path / RESULT).read_text(encoding="utf-8"))
            result_fields.check(raw)
            return from_json(raw, tuple(_read_scores(path / SCORES)))
        except FileNotFoundError as error:
            raise BadData(f"there is no run in {path}. See `iadbe results table`.") from error
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise BadData(f"{path / RESULT} is damaged ({error}). Remove its folder and run again.") from error

    def find(self, name: str) -> Path:
        """Return the folder of the run that ``name`` means: an id, the beginning of one, or a folder's name."""
        found = [f for f in self.folders() if f.name == name or f.name.rpartition("-")[2].startswith(name)]
        if len(found) != 1:
            what, match = (f"{len(found)} runs", "match") if found else ("no run", "matches")
            raise BadConfig(f"{what} in {self.root} {match} {name!r}. See `iadbe results table --runs`.")
        return found[0]

    def digests_of(self, dataset: str, task: str) -> frozenset[str]:
        """Return the digests of the data of the runs on a dataset's task."""
        found = set()
        for file in self.root.glob(f"*-{_words(dataset)}-{_words(task)}-*/{RESULT}"):
            with suppress(OSError, ValueError, LookupError, TypeError):
                spec = json.loads(file.read_text(encoding="utf-8"))["spec"]
                if (spec["dataset"], spec["task"]) == (dataset, task):
                    found.add(str(spec["data"]))
        return frozenset(found)

    def folders(self) -> Iterator[Path]:
        """Yield the folders of finished runs, by name."""
        if self.root.is_dir():
            yield from sorted(f.parent for f in self.root.glob(f"*/{RESULT}") if not f.parent.name.startswith("."))

    def __iter__(self) -> Iterator[RunResult]:
        for folder in self.folders():
            yield self.load(folder.name)

    def sweep(self) -> None:
        """Remove what dead processes left half written. Runs under way, on any machine, are not touched."""
        for folder in (self.root / STAGING).glob("*"):
            if _is_abandoned(folder):
                system.remove_tree(folder)
        for folder in (self.root / CHECKPOINTS).glob("*"):
            with suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > FORGOTTEN_SECONDS:
                    self.forget_training(folder.name)


def _failed_for_lack(folder: Path) -> bool:
    """Return whether a run failed because of its machine; earlier versions stored that as a result."""
    try:
        if (folder / SCORES).stat().st_size > SCORES_HEAD:  # quick: a failed run has no scores
            return False
        return is_of_machine(json.loads((folder / RESULT).read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def images_index(folder: Path) -> Path:
    """Return the index of a run's kept images, which lie beside it; runs of version 0.1 call it pictures."""
    first = folder / "pictures" / "pictures.json"
    return first if first.is_file() else folder / "images" / "images.json"


def folder_name(spec: RunSpec) -> str:
    """Return a name that people can read and that ends in the run's id."""
    words = "-".join((spec.detector, spec.dataset, spec.task, spec.setting, f"s{spec.seed}"))
    name = f"{_words(words).strip('.')[:100]}-{run_id(spec)}"
    return f"_{name}" if system.name_problem(name, windows=True) else name  # a store may be read on any system


def _words(text: str) -> str:
    """Return a text as it stands in the name of a run's folder."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text)


def to_json(result: RunResult) -> dict[str, Any]:
    """Return the result as plain values: nan becomes null; scores have a file of their own; no local path."""
    raw = asdict(result)
    del raw["scores"], raw["transient"], raw["spec"]["place"]
    return {"format": FORMAT, "run": run_id(result.spec), **_plain(raw)}


def from_json(raw: Mapping[str, Any], scores: tuple[Score, ...] = ()) -> RunResult:
    """Make a result of what :func:`to_json` gave; what a file holds is checked before (:mod:`result_fields`)."""
    if raw["format"] != FORMAT:
        raise ValueError(f"format {raw['format']!r} is not known to this version")
    given = {**raw["spec"], "metrics": tuple(raw["spec"]["metrics"])}
    for axis in ("detector", "dataset", "setting"):
        given[f"{axis}_params"] = current_names(f"{axis}s", given[axis], given[f"{axis}_params"])
    spec = RunSpec(**given)
    rows = tuple([Row(r[0], r[1], r[2], math.nan if r[3] is None else r[3]) for r in raw["rows"]])
    rest = {k: raw[k] for k in PLAIN if k in raw or k not in ADDED}
    for name in ("seconds", "cpu_seconds"):
        rest[name] = {key: math.nan if value is None else value for key, value in rest[name].items()}
    rest["latency_range_ms"] = tuple(raw.get("latency_range_ms", ()))
    rest["transient"] = is_of_machine(raw["error"])
    latency = math.nan if raw["latency_ms"] is None else raw["latency_ms"]
    return RunResult(spec, rows, scores=scores, notes=tuple(raw["notes"]), latency_ms=latency, **rest)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def score_columns(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Return the columns of a run's file of scores as text, by name; empty where it has no row."""
    with open(path, newline="", encoding="utf-8") as file:
        head, *rows = filter(None, csv.reader(file))
    if set(map(len, rows)) - {len(head)}:
        raise ValueError("a row of its scores has another length")
    return dict(zip(head, zip(*rows, strict=True), strict=True)) if rows else {}


def _read_scores(path: Path) -> Iterator[Score]:
    columns = score_columns(path)
    if columns:
        step, score = map(int, columns["step"]), map(float, columns["score"])
        words = (columns[name] for name in ("test", "sample", "category", "defect"))
        group = columns.get("group") or ("",) * len(columns["step"])
        yield from map(Score, step, *words, score, group)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _signature() -> str:
    """Return ``.MACHINE.PROCESS.START.ANY``: the process that fills a folder, as a unique name."""
    return f".{_machine()}.{os.getpid()}.{process_start(os.getpid())}.{uuid.uuid4().hex[:8]}"


def _machine() -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", socket.gethostname())


def process_start(pid: int) -> int | None:
    """Return when a process was started, in seconds of the clock, or None if there is no such process."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time())
    except psutil.Error:
        return None


def is_alive(pid: int, start: int) -> bool:
    """Say whether the process with this number and time of its start still lives."""
    found = process_start(pid)
    return found is not None and abs(found - start) <= 2  # else another process has the number now; clocks are adjusted


def _is_abandoned(folder: Path) -> bool:
    """Say whether the process that made a folder with a :func:`signature` in its name lives no more."""
    parts = folder.name.rsplit(".", 4)
    try:
        machine, pid, start = parts[1], int(parts[2]), int(parts[3])
    except (IndexError, ValueError):  # not a name of ours: of an earlier version, perhaps
        return True
    if machine != _machine():
        with suppress(FileNotFoundError):
            return time.time() - folder.stat().st_mtime > ABANDONED_SECONDS
        return False
    return not is_alive(pid, start)
