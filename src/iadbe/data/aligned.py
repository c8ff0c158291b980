"""A dataset whose images are registered to a reference before they come into a view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock

import numpy as np

from iadbe.data.alignment import SAMPLED, Pose, Template, counted, covered, warped
from iadbe.data.wrapped import WrappedDataset
from iadbe.dataset import Dataset, Defect, evenly_spaced
from iadbe.files import region_files
from iadbe.protocol import Limits
from iadbe.types import Sample


def align(dataset: Dataset, normal: Iterable[Sample], limits: Limits) -> AlignedDataset:
    """Return a dataset whose images are registered to the mean of some ``normal`` images of their category."""
    by_category: dict[str, list[Sample]] = {}
    for sample in normal:
        by_category.setdefault(sample.category, []).append(sample)
    templates = {}
    for category, samples in by_category.items():
        some = [dataset.image(sample) for sample in evenly_spaced(samples, SAMPLED)]
        templates[category] = Template.learn(some, limits)
    return AlignedDataset(dataset, templates)


def located(image: np.ndarray, templates: Iterable[Template]) -> tuple[Pose, Template]:
    """Return where the part lies in an image (H, W, 3) uint8, and the reference that fits best."""
    found = [(template.register(image), template) for template in templates]
    return max(found, key=lambda one: (one[0].found, one[0].correlation))


class AlignedDataset(WrappedDataset):
    """Images, masks, regions and depth in the frame of a reference. Pixels that an image does not show do not count.

    They mirror the image: an edge to a constant would itself be a structure.

    An image that fits no reference keeps its own place and size: it is not ``found``, which is told wherever its score
    is.
    """

    filled = True  # by the regions of the dataset; what the image does not show is mirrored

    def __init__(self, dataset: Dataset, templates: Mapping[str, Template]) -> None:
        """Wrap a dataset.

        Args:
            dataset: the dataset that reads the images
            templates: the reference of each category; images of a category without one are compared with all
        """
        super().__init__(dataset)
        self.templates = dict(templates)
        # by id of the samples that were asked for: pose, reference, and height and width of the image
        self._located: dict[str, tuple[Pose, Template, tuple[int, int]]] = {}
        self._lock = Lock()

    def pose(self, sample: Sample) -> Pose:
        """Return where the part lies in an image; computed once."""
        return self._known(sample)[0]

    def template(self, sample: Sample) -> Template:
        """Return the reference that an image was registered to."""
        return self._known(sample)[1]

    def _known(self, sample: Sample, image: np.ndarray | None = None) -> tuple[Pose, Template, tuple[int, int]]:
        """Return pose, reference and size of an image, which is read if it is not given."""
        with self._lock:
            if (known := self._located.get(sample.id)) is not None:
                return known
        own = self.templates.get(sample.category)
        pixels = self.dataset.image(sample) if image is None else image
        pose, template = located(pixels, self.templates.values() if own is None else [own])
        known = pose, template, (pixels.shape[0], pixels.shape[1])
        with self._lock:
            self._located[sample.id] = known
        return known

    def image(self, sample: Sample) -> np.ndarray:
        pixels = self.dataset.image(sample)
        pose, template, _ = self._known(sample, pixels)
        common = self.dataset.common_region(sample) if pose.found else None  # drawn in the frame of the reference
        own = self.dataset.region(sample) if common is None and not self.dataset.filled else None
        pixels = pixels if own is None else region_files.filled(pixels, own)
        pixels = warped(pixels, pose, template.size) if pose.found else pixels
        if common is None:
            return pixels
        return region_files.filled(pixels, region_files.fitted(common, template.size, "the region"))

    def mask(self, sample: Sample) -> np.ndarray | None:
        mask = self.dataset.mask(sample)
        return None if mask is None else self._moved(mask, sample)

    def region(self, sample: Sample) -> np.ndarray | None:
        """Return what the image shows of the region. One that holds for all images is drawn in the reference frame."""
        pose, template, size = self._known(sample)
        if not pose.found:
            return self.dataset.region(sample)
        counts = counted(pose, template.size, size)
        if (common := self.dataset.common_region(sample)) is not None:
            counts &= region_files.fitted(common, template.size, "the region")
        elif (own := self.dataset.region(sample)) is not None:
            counts &= warped(own, pose, template.size)
        return None if counts.all() else counts

    def image_size(self, sample: Sample) -> tuple[int, int]:
        pose, template, size = self._known(sample)
        return template.size if pose.found else size

    def defects(self, sample: Sample) -> tuple[Defect, ...]:
        moved = (d._replace(mask=self._moved(d.mask, sample)) for d in self.dataset.defects(sample))
        return tuple(d for d in moved if d.mask.any())

    def depth(self, sample: Sample) -> np.ndarray | None:
        depth = self.dataset.depth(sample)
        return None if depth is None else self._moved(depth, sample)

    def points(self, sample: Sample) -> np.ndarray | None:
        points = self.dataset.points(sample)
        if points is None:
            return None
        planes = (self._moved(np.ascontiguousarray(plane), sample) for plane in np.moveaxis(points, 2, 0))
        return np.stack(list(planes), 2)

    def _moved(self, plane: np.ndarray, sample: Sample) -> np.ndarray:
        """Return a mask or depth (H, W) in the reference frame; nothing is repeated outside of the image."""
        pose, template, size = self._known(sample)
        if not pose.found:
            return plane
        moved = warped(plane, pose, template.size)
        outside = ~covered(pose, template.size, size)
        moved[outside] = False if plane.dtype == bool else np.nan
        return moved
