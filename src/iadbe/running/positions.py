"""Where the parts of a run's test images were found: a table in its folder, and a note on those that were not.

Columns: test, sample, found (1 or 0), correlation with the reference (from -1 to 1), rotation (degrees, clockwise),
x and y (pixels of the image: where the centre of the reference lies), scale (1: as large as in the reference).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from iadbe.data.aligned import AlignedDataset
from iadbe.dataset import Dataset
from iadbe.types import Sample

FILE = "positions.csv"
COLUMNS = ("test", "sample", "found", "correlation", "rotation", "x", "y", "scale")


def write(folder: Path, test: str, dataset: Dataset, samples: Sequence[Sample]) -> None:
    """Append the positions of a test's images, if they were registered."""
    if not isinstance(dataset, AlignedDataset):
        return
    file = folder / FILE
    with file.open("a", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        if opened.tell() == 0:
            writer.writerow(COLUMNS)
        for sample in samples:
            pose, template = dataset.pose(sample), dataset.template(sample)
            x, y = pose.matrix @ [(template.size[1] - 1) / 2, (template.size[0] - 1) / 2, 1]
            numbers = (pose.correlation, pose.rotation, x, y, pose.scale)
            writer.writerow((test, sample.id, int(pose.found), *(f"{number:.5g}" for number in numbers)))


def notes(dataset: Dataset, samples: Sequence[Sample]) -> list[str]:
    """Return a sentence on the images whose part was not found; nothing where images were not registered."""
    lost = sum(not dataset.pose(s).found for s in samples) if isinstance(dataset, AlignedDataset) else 0
    if not lost:
        return []
    return [f"the position was not found in {lost} of {len(samples)} images; they are scored where they lie."]
