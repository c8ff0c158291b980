"""Finds annotation files next to images that are not read: LabelMe, COCO, CVAT and Pascal VOC."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from iadbe.files import annotation_index, layout
from iadbe.files.annotation_index import LABELME, VOC
from iadbe.types import Sample

READ = 20  # files looked into, in each folder


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
        what = f"{self.count} {self.kind} {files} annotations that are not read (for example {self.example})."
        if self.kind == VOC:
            return (
                f"{what} For pixel metrics, turn them into masks, NAME_mask.png, and name their folder with mask_dir."
            )
        return f"{what} The reader `folder` reads them, as masks and kinds of defects, if they name its images."


def find(root: Path, samples: Iterable[Sample], known: Collection[str] = ()) -> tuple[Annotations, ...]:
    """Return the kinds of annotation files in the images' folders, in the folders above them and in ``root``.

    The files of ``known``, paths relative to ``root``, are left out: they are read.
    """
    folders = annotation_index.folders_of(s.image for s in samples)
    seen: dict[str, list[str]] = {}
    for folder in sorted(folders):
        names = [n for n in layout.files(root / folder) if n.lower().endswith((".json", ".xml"))]
        stems = {Path(name).stem for name in layout.images(root / folder)}
        for number, name in enumerate(names):
            path = name if folder == "." else f"{folder}/{name}"
            if path in known:
                continue
            likely_kind = LABELME if name.lower().endswith(".json") else VOC  # the kind with one file for each image
            like_before = likely_kind in seen and Path(name).stem in stems
            kind = annotation_index.inspect(root / path)[0] if number < READ else likely_kind if like_before else ""
            if kind:
                seen.setdefault(kind, []).append(path)
    return tuple(Annotations(kind, len(paths), paths[0]) for kind, paths in sorted(seen.items()))
