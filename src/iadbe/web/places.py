"""The data that a server may use: folders that its operator names, and archives that its users upload.

A request never names a folder. It names a place, and the place knows the folder.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from iadbe import registry
from iadbe.data import resolve
from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData, UnknownName, did_you_mean
from iadbe.files.image_io import is_image
from iadbe.files.unpacking import unpack
from iadbe.running.store import Store
from iadbe.types import Sample
from iadbe.web import content
from iadbe.web.rules import Rules

FOLDER = ".uploads"  # in the store
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{1,39}")
DRAWN = ("toy", "elpv")  # datasets that need no folder
KEPT = 16  # indices of data in memory
GROWTH = 4  # times an upload's allowed size that it may unpack to
JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, slots=True)
class Place:
    """Data under a name."""

    name: str
    folder: Path
    dataset: str  # the reader
    params: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    uploaded: float | None = None  # seconds since 1970
    categories: tuple[str, ...] = ()
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # category -> train, test good, test defective


class Places:
    """All that there is."""

    def __init__(self, store: Store, given: Mapping[str, Path] | None = None) -> None:
        self.root = store.root / FOLDER
        self._given = dict(given or {})
        self._known: dict[str, Place] = {}
        self._read: OrderedDict[tuple[str, float | None], tuple[Dataset, tuple[Sample, ...]]] = OrderedDict()
        self._reading = threading.Lock()
        self._lock = threading.Lock()
        for name in self._given:
            _check_name(name)

    def all(self) -> list[Place]:
        """Return every place that can be read, by name."""
        found = {name: self._opened(name) for name in self._given}
        if self.root.is_dir():
            for file in self.root.glob("*/place.json"):
                if NAME.fullmatch(file.parent.name) and file.parent.name not in found:
                    found[file.parent.name] = self._uploaded(file.parent.name)
        return [place for _, place in sorted(found.items()) if place is not None]

    def get(self, name: str) -> Place:
        """Return one place; the name is looked up, never joined to a path unseen."""
        known = {place.name: place for place in self.all()}
        if name not in known:
            raise UnknownName(f"there is no data {name!r} here.{did_you_mean(name, known)}")
        return known[name]

    def made(self, name: str) -> Dataset:
        """Return the data of a name as it is now."""
        if name in DRAWN:
            return resolve.make(name, {})
        place = self.get(name)
        return resolve.make(place.dataset, {**place.params, "root": str(place.folder)})

    def opened(self, name: str) -> tuple[Dataset, tuple[Sample, ...]]:
        """Return the data of a name with its index, which is read once."""
        key = (name, None if name in DRAWN else self.get(name).uploaded)
        with self._reading:
            if key not in self._read:
                dataset = self.made(name)
                self._read[key] = (dataset, dataset.samples())
                while len(self._read) > KEPT:
                    self._read.popitem(last=False)
            self._read.move_to_end(key)
            return self._read[key]

    def upload(self, name: str, archive: Path, rules: Rules) -> Place:
        """Unpack an archive of images and keep it; whatever is wrong with it leaves nothing behind."""
        _check_name(name)
        if name in {place.name for place in self.all()}:
            raise BadConfig(f"there is data named {name!r} already. Choose another name.")
        self.root.mkdir(parents=True, exist_ok=True)
        part = self.root / f".part-{secrets.token_hex(6)}"
        try:
            _check_archive(name, archive, rules)
            unpack(archive, part / "data")
            notes = _only_images(part / "data", rules)
            found = resolve.find(str(_top(part / "data")))
            relative = Path(found.params["root"]).relative_to(part).as_posix()
            params = {k: v for k, v in found.params.items() if k != "root"}
            place = _looked_at(Place(name, part / relative, found.name, params))
            about = {**asdict(place), "folder": relative, "notes": notes, "uploaded": round(time.time())}
            (part / "place.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            part.rename(self.root / name)
        except BadData as error:
            raise BadData(str(error).replace(str(part / "data"), "the archive").replace(str(archive), name)) from error
        except FileExistsError as error:
            raise BadConfig(f"there is data named {name!r} already. Choose another name.") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return self.get(name)

    def remove(self, name: str) -> None:
        """Remove what was uploaded; what the operator has named is his."""
        if self.get(name).uploaded is None:
            raise BadConfig(f"{name} was not uploaded: only the one who started the server can take it away.")
        gone = self.root / f".part-{secrets.token_hex(6)}"
        (self.root / name).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _opened(self, name: str) -> Place | None:
        """Look at a folder of the operator's, once."""
        with self._lock:
            if name not in self._known:
                folder = self._given[name]
                if not folder.exists():  # a disk that is not there now may come back
                    return None
                found = resolve.find(str(folder))
                params = {k: v for k, v in found.params.items() if k != "root"}
                place = Place(name, Path(found.params.get("root", folder)), found.name, params, found.notes)
                self._known[name] = _looked_at(place)
            return self._known[name]

    def _uploaded(self, name: str) -> Place | None:
        try:
            about = json.loads((self.root / name / "place.json").read_text(encoding="utf-8"))
            about |= {"name": name, "folder": self.root / name / about["folder"]}
            return Place(**{**about, "notes": tuple(about["notes"]), "categories": tuple(about["categories"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None  # half removed


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise BadConfig(f"{name!r} cannot name data: take 2 to 40 small letters, digits, - and _.")
    if name in registry.names("datasets") and name in DRAWN:
        raise BadConfig(f"{name!r} is a dataset that needs no folder. Choose another name.")


def _check_archive(name: str, archive: Path, rules: Rules) -> None:
    """Refuse what is no zip, or would become too much, before anything is unpacked."""
    if not zipfile.is_zipfile(archive):
        raise BadData(f"{name} is no zip archive.")
    try:
        with zipfile.ZipFile(archive) as zipped:
            entries = zipped.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BadData(f"{name} is no whole zip archive: {error}.") from error
    if len(entries) > 2 * rules.upload_files:
        raise BadData(f"{name} holds {len(entries)} entries; {rules.upload_files} files are allowed.")
    if (size := sum(entry.file_size for entry in entries)) > GROWTH * rules.upload:
        raise BadData(f"{name} would unpack to {size / 1e9:.1f} GB: it looks like an archive bomb.")


def _only_images(folder: Path, rules: Rules) -> tuple[str, ...]:
    """Remove what is no image by its name, and say so; refuse what is none by its content, or too much."""
    images, others = 0, []
    for path in [p for p in sorted(folder.rglob("*")) if p.is_file()]:
        name = path.relative_to(folder).as_posix()
        junk = path.name.startswith(".") or bool(set(name.split("/")) & set(JUNK))
        if is_image(path) and not junk:
            content.check(path, rules, name)
            images += 1
            continue
        if not junk:
            others.append(name)
        path.unlink()
    if not images:
        raise BadData("the archive holds no images.")
    if images > rules.upload_files:
        raise BadData(f"the archive holds {images} images; {rules.upload_files} are allowed.")
    shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    return (f"left out, for they are no images: {shown}.",) if others else ()


def _top(folder: Path) -> Path:
    """Go down to where there is more than one folder: archives often hold one folder with everything in it."""
    while True:
        inside = [p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in JUNK]
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]


def _looked_at(place: Place) -> Place:
    """Count what is there; reads names only."""
    dataset = resolve.make(place.dataset, {**place.params, "root": str(place.folder)})
    counts = counted(dataset.categories, dataset.samples())
    made = asdict(place) | {"folder": place.folder, "categories": tuple(dataset.categories), "counts": counts}
    return Place(**{**made, "notes": tuple(place.notes)})


def counted(categories: Iterable[str], samples: Iterable[Sample]) -> dict[str, dict[str, int]]:
    """Return by category how many images there are to train on, and good and defective ones to test."""
    counts = {c: {"train": 0, "test_good": 0, "test_defective": 0} for c in categories}
    for sample in samples:
        kind = "train" if sample.split == "train" else "test_defective" if sample.is_anomaly else "test_good"
        counts.setdefault(sample.category, {"train": 0, "test_good": 0, "test_defective": 0})[kind] += 1
    return counts
