"""Images as detectors see them: in a view, in batches, with a memory cache of decoded views."""

from __future__ import annotations

import hashlib
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from iadbe import system
from iadbe.data.view import View
from iadbe.dataset import Dataset
from iadbe.errors import BadData, BadDetector
from iadbe.files import region_files
from iadbe.types import Sample, TrainingImage, TrainingLabel

CACHE_BYTES = 512 * 2**20  # decoded views kept in memory, per process
LARGE_VIEW = 3 * 1024 * 1024  # bytes; of views from this size on a quarter is kept: only few would fit anyway
READ_PIXELS = 16 * 512 * 512  # of a batch that is read in order: 16 images of 512 x 512, 1 of 2 048 x 2 048
Augment = Callable[[Tensor, torch.Generator], Tensor]  # (B, 3, H, W) -> (B, 3, H, W)

__all__ = ["Batch", "Images", "View", "read_view"]  # a view is imported from here


class _Decoded(NamedTuple):
    """One image in a view."""

    pixels: np.ndarray  # (H, W, 3) uint8
    key: str  # digest of the pixels
    depth: np.ndarray | None = None  # (1 or 3, H, W) float32
    region: np.ndarray | None = None  # (H, W) bool; None: all pixels count


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of a detector: images, never labels or masks, so that predictions cannot use them."""

    image: Tensor  # (B, 3, H, W) float32 in [0, 1]; see Images.in_bytes for the exception
    id: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    depth: Tensor | None = None  # (B, 1, H, W) float32, nan where nothing was measured; only for detectors that need it
    points: Tensor | None = None  # (B, 3, H, W) float32: x, y and z, which is the depth; where the data have them
    keys: tuple[str, ...] | None = None  # digest of each image's pixels; None after augmentation
    region: Tensor | None = None  # (B, H, W) bool, which pixels count; None: all; None after augmentation

    def __len__(self) -> int:
        return len(self.image)

    def taken(self, rows: Tensor) -> Batch:
        """Return the images at some indices (n,), to be augmented: with their region, without ids, depth and keys."""
        return Batch(self.image[rows], region=None if self.region is None else self.region[rows])

    def cycled(self, count: int) -> Tensor:
        """Return the indices (count,) of its images in order, from the first again where there are fewer."""
        return torch.arange(count, device=self.image.device) % len(self)


class Truth(NamedTuple):
    """What the labels of training images say."""

    anomalous: Tensor  # (B,) bool
    mask: Tensor  # (B, 1, H, W) bool: the defects; none where it is not known
    known: Tensor  # (B,) bool: whether ``mask`` says where the defects are: for normal images, and with a mask


class Images:
    """Training or test images in a view, decoded on access, with depth if ``depth`` is True."""

    def __init__(
        self,
        dataset: Dataset,
        items: Sequence[TrainingImage],
        view: View,
        device: str | torch.device = "cpu",
        depth: bool = False,
    ) -> None:
        self.dataset = dataset
        self.items = tuple(items)
        self.view = view
        self.device = torch.device(device)
        self.depth = depth
        self._divided = True

    def __len__(self) -> int:
        return len(self.items)

    @property
    def labels(self) -> tuple[TrainingLabel, ...]:
        """The label of each training image, in order."""
        return tuple(e.label for e in self.items)

    @property
    def categories(self) -> tuple[str, ...]:
        """The distinct categories, sorted."""
        return tuple(sorted({e.sample.category for e in self.items}))

    def normal(self) -> Images:
        """Return only the images that are labelled normal."""
        return self.subset([i for i, label in enumerate(self.labels) if label is TrainingLabel.NORMAL])

    def anomalous(self) -> Images:
        """Return only the images that are labelled anomalous, with a mask or without."""
        return self.subset([i for i, label in enumerate(self.labels) if label is not TrainingLabel.NORMAL])

    def truth(self, batch: Batch) -> Truth:
        """Return labels and masks of the training images in a batch of these images, by their ids.

        A pixel of the view that a defect touches belongs to it. A mask of which the view shows nothing is not known.
        """
        items = {item.sample.id: item for item in self.items}
        own = [items[name] for name in batch.id]
        size = self.view.shape
        masks = [
            read_mask_view(self.dataset, sample, self.view) if label is TrainingLabel.MASKED else np.zeros(size, bool)
            for sample, label in own
        ]
        anomalous = torch.tensor([label is not TrainingLabel.NORMAL for _, label in own])
        mask = torch.from_numpy(np.stack(masks))[:, None]
        known = ~anomalous | mask.flatten(1).any(1)
        return Truth(*(part.to(batch.image.device) for part in (anomalous, mask, known)))

    def regions(self, every: int = 1) -> np.ndarray | None:
        """Return which pixels of each image count in the view, (N, H, W) bool; None where all of them do.

        Of the rows and columns each ``every``-th is taken.
        """
        read = (read_region_view(self.dataset, e.sample, self.view) for e in self.items)
        taken = [None if region is None else np.array(region[::every, ::every]) for region in read]
        height, width = self.view.shape
        return stacked_regions(taken, (-(-height // every), -(-width // every)))

    def subset(self, indices: Sequence[int]) -> Images:
        """Return the images at these positions."""
        chosen = Images(self.dataset, [self.items[i] for i in indices], self.view, self.device, self.depth)
        chosen._divided = self._divided
        return chosen

    def in_bytes(self) -> Images:
        """Return images whose batches are uint8 from 0 to 255, as they are decoded: a quarter of the memory.

        For detectors that divide an image into tiles before they compute with it.
        """
        whole = self.subset(range(len(self)))
        whole._divided = False
        return whole

    def split(self, share: float, rng: np.random.Generator) -> tuple[Images, Images]:
        """Return (rest, held out): a random ``share`` of the images is held out, at least one if there are two.

        Images of one group stay on one side.
        """
        order = rng.permutation(len(self))
        count = min(max(1, round(share * len(self))), len(self) - 1)
        groups = [self.items[i].sample.group_id for i in order]
        held = set(groups[:count])
        if len(set(groups)) < len(groups):  # dependent images: take whole groups while they fit
            held, taken = set(), 0
            for group in dict.fromkeys(groups):
                size = groups.count(group)
                if taken + size <= count or not held:
                    held, taken = held | {group}, taken + size
        elsewhere = [i for i, group in zip(order, groups, strict=True) if group not in held]
        return self.subset(sorted(elsewhere)), self.subset(sorted(set(order.tolist()) - set(elsewhere)))

    def batches(
        self, size: int = 16, rng: np.random.Generator | None = None, augment: Augment | None = None
    ) -> Iterator[Batch]:
        """Yield all images once, in order, or shuffled if ``rng`` is given; the next batch is prefetched.

        In order, fewer than ``size`` are read at a time where the view is large (:data:`READ_PIXELS`).
        Raises :class:`BadDetector` for ``augment`` with depth, because depth does not follow it.
        """
        if rng is None:
            height, width = self.view.shape
            fitting = max(1, min(size, READ_PIXELS // (height * width)))
            yield from self.read(_parts(np.arange(len(self)), fitting), augment)
        else:
            chunks, generator = self.drawn(size, rng)
            yield from self.read(chunks, augment, generator)

    def drawn(self, size: int, rng: np.random.Generator) -> tuple[list[np.ndarray], torch.Generator]:
        """Draw one epoch: the indices of each batch's images, shuffled, and the generator of the augmentation."""
        order = rng.permutation(len(self))
        return _parts(order, size), torch.Generator().manual_seed(int(rng.integers(2**31)))

    def read(
        self, chunks: Sequence[np.ndarray], augment: Augment | None = None, generator: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """Yield a batch for each of ``chunks``, the indices of its images; the next batch is prefetched."""
        if self.depth and augment is not None:
            raise BadDetector("depth does not follow an augmentation. Augment image and depth of a batch together.")
        generator = generator or torch.Generator()
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as readers:
            ahead = self._read(readers, chunks[0]) if chunks else []
            for number, chunk in enumerate(chunks):
                read = [future.result() for future in ahead]
                ahead = self._read(readers, chunks[number + 1]) if number + 1 < len(chunks) else []
                yield self._batch(chunk, read, augment, generator)
                del read
                if 3 * math.prod(self.view.shape) >= LARGE_VIEW:
                    system.return_memory()

    def _read(self, readers: ThreadPoolExecutor, indices: np.ndarray) -> list[Future[_Decoded]]:
        return [readers.submit(self._decode, self.items[i].sample) for i in indices]

    def _decode(self, sample: Sample) -> _Decoded:
        pixels, key = read_view(self.dataset, sample, self.view)
        depth = read_depth_view(self.dataset, sample, self.view) if self.depth else None
        return _Decoded(pixels, key, depth, read_region_view(self.dataset, sample, self.view))

    def _batch(
        self, indices: np.ndarray, read: list[_Decoded], augment: Augment | None, generator: torch.Generator
    ) -> Batch:
        # one large image is not copied
        stacked = read[0].pixels[None] if len(read) == 1 else np.stack([one.pixels for one in read])  # (B, H, W, 3)
        image = torch.from_numpy(stacked).to(self.device).permute(0, 3, 1, 2)
        if self._divided:  # written at once, because a large image in two layouts takes much memory
            image = torch.empty(image.shape, device=self.device).copy_(image).div_(255)
        if augment is not None:
            image = augment(image, generator)
        samples = [self.items[i].sample for i in indices]
        names = tuple(s.id for s in samples), tuple(s.category for s in samples)
        depth, points = self._depth([one.depth for one in read if one.depth is not None])
        if augment is not None:
            return Batch(image, *names, depth, points)
        region = stacked_regions([one.region for one in read], self.view.shape)
        shown = None if region is None else torch.from_numpy(region).to(self.device)
        return Batch(image, *names, depth, points, tuple(one.key for one in read), shown)

    def _depth(self, read: list[np.ndarray]) -> tuple[Tensor | None, Tensor | None]:
        """Return depth (B, 1, H, W) and points (B, 3, H, W) of images, each read as one plane, z, or three."""
        if not read:
            return None, None
        known = [planes for planes in read if len(planes) == 3]
        depth = torch.from_numpy(np.stack([planes[-1:] for planes in read])).to(self.device)
        if not known:
            return depth, None
        empty = np.full_like(known[0], np.nan)
        points = np.stack([planes if len(planes) == 3 else empty for planes in read])
        return depth, torch.from_numpy(points).to(self.device)


def _parts(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[i : i + size] for i in range(0, len(order), size)]


class _Cache:
    """Decoded views of one dataset, least recently used evicted first; thread-safe."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.views: OrderedDict[tuple[str, View], tuple[np.ndarray, str]] = OrderedDict()
        self.sizes: dict[str, tuple[int, int]] = {}  # of the images themselves, by id
        self.bytes = 0

    def get(self, name: tuple[str, View]) -> tuple[np.ndarray, str] | None:
        with self.lock:
            if (hit := self.views.get(name)) is not None:
                self.views.move_to_end(name)
            return hit

    def put(self, name: tuple[str, View], entry: tuple[np.ndarray, str]) -> None:
        with self.lock:
            if name in self.views:
                return
            self.views[name] = entry
            self.bytes += entry[0].nbytes
            most = CACHE_BYTES // 4 if entry[0].nbytes >= LARGE_VIEW else CACHE_BYTES
            while self.bytes > most and len(self.views) > 1:
                self.bytes -= self.views.popitem(last=False)[1][0].nbytes


_caches: WeakKeyDictionary[Dataset, _Cache] = WeakKeyDictionary()


def read_view(dataset: Dataset, sample: Sample, view: View) -> tuple[np.ndarray, str]:
    """Return an image in a view, (H, W, 3) uint8, and the digest of its pixels; cached in memory.

    Pixels outside of the image's region have the mean colour of those inside, so that no detector sees them.
    """
    cache = _caches.setdefault(dataset, _Cache())
    name = (sample.id, view)
    if (hit := cache.get(name)) is not None:
        return hit
    image = dataset.image(sample)
    if not dataset.filled and (region := dataset.region(sample)) is not None:
        image = region_files.filled(image, region)
    cache.sizes[sample.id] = (image.shape[0], image.shape[1])
    pixels = np.array(view(image))  # a copy, because a crop shares memory with the whole image
    key = pixel_digest(pixels)
    cache.put(name, (pixels, key))
    return pixels, key


def pixel_digest(pixels: np.ndarray) -> str:
    """Return the digest of an image in a view, (H, W, 3) uint8: the address of its features."""
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16)  # without a copy of a large image
    digest.update(repr(pixels.shape).encode())
    return digest.hexdigest()


def native_size(dataset: Dataset, sample: Sample) -> tuple[int, int]:
    """Return height and width of an image itself; it is decoded where no view of it has been read."""
    cache = _caches.setdefault(dataset, _Cache())
    if sample.id not in cache.sizes:
        height, width = dataset.image(sample).shape[:2]
        cache.sizes[sample.id] = (height, width)
    return cache.sizes[sample.id]


def read_region_view(dataset: Dataset, sample: Sample, view: View) -> np.ndarray | None:
    """Return which pixels of the view count, (H, W) bool; None where all do. Cached in memory.

    Padding never counts, and a pixel counts only where the nearest pixel of the image does (``Dataset.region``).
    Raises :class:`BadData` where no pixel of the view counts.
    """
    cache = _caches.setdefault(dataset, _Cache())
    name = (f"{sample.id} region", view)
    if (hit := cache.get(name)) is not None:
        return hit[0]
    own = dataset.region(sample)
    if own is not None:
        counts = view(own)  # nearest; padding is False
    elif view.fit != "pad" or (shown := view.content(*native_size(dataset, sample))) is None:
        return None
    else:
        counts = shown
    if not counts.any():
        raise BadData(f"no pixel of {sample.id} counts in the view {view}. Enlarge its region, or take another --fit.")
    if counts.all():
        return None
    cache.put(name, (np.array(counts), ""))
    return counts


def stacked_regions(regions: Sequence[np.ndarray | None], shape: tuple[int, int]) -> np.ndarray | None:
    """Return regions (H, W) of several images as (N, H, W) bool; None where all pixels of all of them count."""
    if all(region is None for region in regions):
        return None
    return np.stack([np.ones(shape, bool) if region is None else region for region in regions])


def read_mask_view(dataset: Dataset, sample: Sample, view: View) -> np.ndarray:
    """Return the pixels of the view that a defect touches, (H, W) bool; cached in memory."""
    cache = _caches.setdefault(dataset, _Cache())
    name = (f"{sample.id} mask", view)
    if (hit := cache.get(name)) is not None:
        return hit[0]
    mask = dataset.mask(sample)
    touched = np.zeros(view.shape, bool) if mask is None else mask_coverage(mask, view) > 0
    cache.put(name, (touched, ""))
    return touched


def mask_coverage(mask: np.ndarray, view: View) -> np.ndarray:
    """Return how much of each pixel of the view a mask (H, W) bool covers, from 0 to 255: (h, w) uint8."""
    grey = view(np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255)[:, :, 0]
    shown = view.content(*mask.shape)
    return grey if shown is None else np.where(shown, grey, 0).astype(np.uint8)  # what is mirrored there is no defect


def read_depth_view(dataset: Dataset, sample: Sample, view: View) -> np.ndarray:
    """Return x, y and z in a view, (3, H, W) float32, or z alone (1, H, W); cached.

    They are nan where there is none, and where pixels do not count.
    """
    cache = _caches.setdefault(dataset, _Cache())
    name = (f"{sample.id} depth", view)
    if (hit := cache.get(name)) is not None:
        return hit[0]
    points = dataset.points(sample)
    depth = dataset.depth(sample) if points is None else None
    if points is not None:
        shown = np.stack([view(np.ascontiguousarray(plane)) for plane in np.moveaxis(points, 2, 0)])
    else:
        shown = np.full((1, *view.shape), np.nan, np.float32) if depth is None else np.array(view(depth))[None]
    if (counts := read_region_view(dataset, sample, view)) is not None:
        shown = np.where(counts, shown, np.float32(np.nan))
    cache.put(name, (shown, ""))
    return shown
