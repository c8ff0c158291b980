"""Data roots: the folders of data that requests may use, named by the operator or uploaded as archives.

A request names a data root, never a folder.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from iadbe import registry, system
from iadbe.data import intensity, resolve
from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData, UnknownName, did_you_mean
from iadbe.files.byte_sizes import format_bytes
from iadbe.files.image_io import is_image
from iadbe.files.unpacking import unpack
from iadbe.running.store import Store
from iadbe.types import Sample
from iadbe.web import sniff
from iadbe.web.drawn_regions import DrawnRegions
from iadbe.web.policy import Policy

FOLDER = ".uploads"  # folder of uploads in the store
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{1,39}")
WITHOUT_FOLDER = ("toy", "elpv")  # datasets that need no folder
MAX_INDICES = 16  # dataset indices in memory
MAX_GROWTH = 4  # an archive may unpack to this many times the upload limit
COUNTED = ("train", "val", "test_good", "test_defective", "test_unlabelled")  # kinds of images
JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, slots=True)
class DataRoot:
    """A folder of data under a name."""

    name: str
    folder: Path
    dataset: str  # registered name of the reader
    params: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    uploaded: float | None = None  # seconds since 1970
    categories: tuple[str, ...] = ()
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # category -> kind, one of COUNTED -> images


class DataRoots:
    """The data roots of a server."""

    def __init__(self, store: Store, given: Mapping[str, Path] | None = None) -> None:
        self.root = store.root / FOLDER
        self.regions = DrawnRegions(store.root)
        self._operator_folders = dict(given or {})
        self._roots: dict[str, DataRoot] = {}
        self._indices: OrderedDict[tuple[str, float | None, str], tuple[Dataset, tuple[Sample, ...]]] = OrderedDict()
        self._index_lock = threading.Lock()
        self._lock = threading.Lock()
        for name in self._operator_folders:
            _check_name(name)

    def all(self) -> list[DataRoot]:
        """Return all readable data roots, sorted by name."""
        found = {name: self._operator_root(name) for name in self._operator_folders}
        if self.root.is_dir():
            for file in self.root.glob("*/place.json"):
                if NAME.fullmatch(file.parent.name) and file.parent.name not in found:
                    found[file.parent.name] = self._uploaded_root(file.parent.name)
        return [root for _, root in sorted(found.items()) if root is not None]

    def get(self, name: str) -> DataRoot:
        """Return a data root. The name is looked up, and never joined to a path unchecked."""
        known = {root.name: root for root in self.all()}
        if name not in known:
            raise UnknownName(f"there is no data {name!r} on this server.{did_you_mean(name, known)}")
        return known[name]

    def dataset(self, name: str) -> Dataset:
        """Return the dataset of a data root in its current state, with the regions drawn on it."""
        if name in WITHOUT_FOLDER:
            made = resolve.make(name, {})
        else:
            root = self.get(name)
            made = resolve.make(root.dataset, {**root.params, "root": str(root.folder)})
        if files := self.regions.files(name, made.categories):
            made.set_region(**files)
        return made

    def region_files(self, name: str, choice: str) -> dict[str, str]:
        """Return the files of the regions drawn on a data root, by parameter (see :data:`drawn_regions.CHOICES`)."""
        categories = (
            self.dataset_and_samples(name)[0].categories if name in WITHOUT_FOLDER else self.get(name).categories
        )
        return self.regions.files(name, categories, choice)

    def dataset_and_samples(self, name: str) -> tuple[Dataset, tuple[Sample, ...]]:
        """Return the dataset of a data root with its samples, which are cached."""
        key = (name, None if name in WITHOUT_FOLDER else self.get(name).uploaded, self.regions.revision(name))
        with self._index_lock:
            if key not in self._indices:
                dataset = self.dataset(name)
                samples = dataset.samples()
                normal = (s for s in samples if s.split == "train" and not s.is_anomaly)
                dataset.intensity = intensity.learn(dataset, normal)  # deep images are displayed as detectors see them
                self._indices[key] = (dataset, samples)
                while len(self._indices) > MAX_INDICES:
                    self._indices.popitem(last=False)
            self._indices.move_to_end(key)
            return self._indices[key]

    def upload(self, name: str, archive: Path, policy: Policy) -> DataRoot:
        """Unpack an archive of images and store it. After an error nothing is left behind."""
        _check_name(name)
        if name in {root.name for root in self.all()}:
            raise BadConfig(f"there is data named {name!r} already. Choose another name.")
        self.root.mkdir(parents=True, exist_ok=True)
        part = self.root / f".part-{secrets.token_hex(6)}"
        try:
            _check_archive(name, archive, policy)
            unpack(archive, part / "data")
            notes = _only_images(part / "data", policy)
            found = resolve.find(str(_top(part / "data")))
            relative = Path(found.params["root"]).relative_to(part).as_posix()
            params = {k: v for k, v in found.params.items() if k != "root"}
            root = _with_counts(DataRoot(name, part / relative, found.name, params))
            about = {**asdict(root), "folder": relative, "notes": notes, "uploaded": round(time.time())}
            (part / "place.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            system.rename(part, self.root / name)
        except BadData as error:
            raise BadData(str(error).replace(str(part / "data"), "the archive").replace(str(archive), name)) from error
        except FileExistsError as error:
            raise BadConfig(f"there is data named {name!r} already. Choose another name.") from error
        finally:
            system.remove_tree(part)
        return self.get(name)

    def remove(self, name: str) -> None:
        """Remove uploaded data. Data named by the operator is never removed."""
        if self.get(name).uploaded is None:
            raise BadConfig(f"{name} was not uploaded. Only the server's operator can remove it.")
        gone = self.root / f".part-{secrets.token_hex(6)}"
        system.rename(self.root / name, gone)
        system.remove_tree(gone)
        self.regions.remove(name)

    def _operator_root(self, name: str) -> DataRoot | None:
        """Return a data root of the operator. Its folder is read once."""
        with self._lock:
            if name not in self._roots:
                folder = self._operator_folders[name]
                if not folder.exists():  # a drive that is not mounted now may be mounted later
                    return None
                found = resolve.find(str(folder))
                params = {k: v for k, v in found.params.items() if k != "root"}
                root = DataRoot(name, Path(found.params.get("root", folder)), found.name, params, found.notes)
                self._roots[name] = _with_counts(root)
            return self._roots[name]

    def _uploaded_root(self, name: str) -> DataRoot | None:
        try:
            about = json.loads((self.root / name / "place.json").read_text(encoding="utf-8"))
            about |= {"name": name, "folder": self.root / name / about["folder"]}
            return DataRoot(**{**about, "notes": tuple(about["notes"]), "categories": tuple(about["categories"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None  # partly removed


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise BadConfig(f"{name!r} cannot name data: use 2 to 40 lower case letters, digits, - and _.")
    if name in registry.names("datasets") and name in WITHOUT_FOLDER:
        raise BadConfig(f"{name!r} is a dataset that needs no folder. Choose another name.")


def _check_archive(name: str, archive: Path, policy: Policy) -> None:
    """Refuse other files than zips, and archives that would unpack to too much, before unpacking."""
    if not zipfile.is_zipfile(archive):
        raise BadData(f"{name} is not a zip archive.")
    try:
        with zipfile.ZipFile(archive) as zipped:
            entries = zipped.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BadData(f"{name} is not a complete zip archive: {error}.") from error
    if len(entries) > 2 * policy.upload_files:
        raise BadData(f"{name} holds {len(entries)} entries; {policy.upload_files} files are allowed.")
    if (size := sum(entry.file_size for entry in entries)) > MAX_GROWTH * policy.upload:
        raise BadData(f"{name} would unpack to {format_bytes(size)}: it looks like an archive bomb.")


def _only_images(folder: Path, policy: Policy) -> tuple[str, ...]:
    """Remove files that are not named as images and note them. Refuse invalid images, and too many of them."""
    images, others = 0, []
    for path in [p for p in sorted(folder.rglob("*")) if p.is_file()]:
        name = path.relative_to(folder).as_posix()
        junk = path.name.startswith(".") or bool(set(name.split("/")) & set(JUNK))
        if is_image(path) and not junk:
            sniff.check(path, policy, name)
            if (most := max(sniff.page_pixels(path, policy), default=0)) > policy.pixels:
                raise BadData(sniff.too_large(f"a page of {name}", f"{most / 1e6:.3g} million pixels", policy))
            images += 1
            continue
        if not junk:
            others.append(name)
        path.unlink()
    if not images:
        raise BadData("the archive holds no images.")
    if images > policy.upload_files:
        raise BadData(f"the archive holds {images} images; {policy.upload_files} are allowed.")
    shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    return (f"left out, because they are not images: {shown}.",) if others else ()


def _top(folder: Path) -> Path:
    """Descend into folders that contain nothing but one folder, as archives often do."""
    while True:
        inside = [p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in JUNK]
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]


def _with_counts(root: DataRoot) -> DataRoot:
    """Return the data root with its categories and counts. Reads file names only."""
    dataset = resolve.make(root.dataset, {**root.params, "root": str(root.folder)})
    counts = count_images(dataset.categories, dataset.samples())
    made = asdict(root) | {"folder": root.folder, "categories": tuple(dataset.categories), "counts": counts}
    return DataRoot(**{**made, "notes": tuple(root.notes)})


def count_images(categories: Iterable[str], samples: Iterable[Sample]) -> dict[str, dict[str, int]]:
    """Return the number of images by category and kind, which is one of :data:`COUNTED`."""
    counts = {c: dict.fromkeys(COUNTED, 0) for c in categories}
    for sample in samples:
        kind = sample.split
        if kind == "test":
            kind = "test_defective" if sample.is_anomaly else "test_good" if sample.is_labelled else "test_unlabelled"
        counts.setdefault(sample.category, dict.fromkeys(COUNTED, 0))[kind] += 1
    return counts
