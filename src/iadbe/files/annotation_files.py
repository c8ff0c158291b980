"""Finds annotation files next to images that no reader uses: LabelMe, COCO and Pascal VOC."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iadbe.files import layout
from iadbe.types import Sample

READ = 20  # files looked into, in each folder
LARGEST = 64 * 2**20  # bytes of a file that is looked into
LABELME, COCO, VOC = "LabelMe", "COCO", "Pascal VOC"


@dataclass(frozen=True, slots=True)
class Annotations:
    """Annotation files of one kind."""

    kind: str
    count: int
    example: str  # path relative to the root

    @property
    def sentence(self) -> str:
        """Return what was found, and what to do."""
        files = "file holds" if self.count == 1 else "files hold"
        return (
            f"{self.count} {self.kind} {files} annotations that are not read (for example {self.example}). For pixel "
            "metrics, turn them into masks, NAME_mask.png, and name their folder with mask_dir."
        )


def find(root: Path, samples: Iterable[Sample]) -> tuple[Annotations, ...]:
    """Return the kinds of annotation files in the images' folders, in the folders above them and in ``root``."""
    folders = {"."}
    for sample in samples:
        parts = Path(sample.image).parent.parts
        folders |= {"/".join(parts[:n]) or "." for n in range(len(parts) + 1)}
    seen: dict[str, list[str]] = {}
    for folder in sorted(folders):
        names = [n for n in layout.files(root / folder) if n.lower().endswith((".json", ".xml"))]
        stems = {Path(name).stem for name in layout.images(root / folder)}
        for number, name in enumerate(names):
            path = name if folder == "." else f"{folder}/{name}"
            likely_kind = LABELME if name.lower().endswith(".json") else VOC  # the kind with one file for each image
            like_before = likely_kind in seen and Path(name).stem in stems
            kind = _kind(root / path) if number < READ else likely_kind if like_before else ""
            if kind:
                seen.setdefault(kind, []).append(path)
    return tuple(Annotations(kind, len(paths), paths[0]) for kind, paths in sorted(seen.items()))


def _kind(path: Path) -> str:
    """Return the kind of an annotation file, or "" for another file."""
    try:
        if path.stat().st_size > LARGEST:
            return ""
        text = layout.read_text(path)
    except (OSError, UnicodeDecodeError):
        return ""
    if path.suffix.lower() == ".xml":
        return VOC if "<annotation" in text[:2000] and "<object" in text else ""
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(content, dict):
        return ""
    if "shapes" in content and "imagePath" in content:
        return LABELME
    return COCO if {"images", "annotations", "categories"} <= set(content) else ""
