"""How a detector gets to see images: the view, the batches, and a cache of decoded views in memory."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadDetector
from iadbe.files import image_io
from iadbe.types import Sample, TrainingImage, TrainingLabel

CACHE_BYTES = 512 * 2**20  # decoded views kept in memory, per process
_Read = tuple[np.ndarray, str, np.ndarray | None]  # pixels, their digest, depth
Augment = Callable[[Tensor, torch.Generator], Tensor]  # (B, 3, H, W) -> (B, 3, H, W)


@dataclass(frozen=True, slots=True)
class View:
    """The geometry in which a detector sees an image. Normalisation is the backbone's own business.

    An image is resized to ``resize`` x ``resize``, its whole area in view, and then cropped to the central
    ``crop`` x ``crop`` if that is not 0. Masks and depth follow with nearest neighbours.
    """

    resize: int = 256
    crop: int = 0

    def __post_init__(self) -> None:
        if self.resize < 8 or not 0 <= self.crop <= self.resize:
            raise BadConfig(f"a view of resize {self.resize} and crop {self.crop} is not possible.")

    @property
    def size(self) -> int:
        """Height and width of what is seen, in pixels."""
        return self.crop or self.resize

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Show (H, W, 3) uint8, (H, W) bool or (H, W) float32 in this view."""
        pixels = image_io.resized(pixels, self.resize, self.resize)
        start = (self.resize - self.size) // 2
        return pixels[start : start + self.size, start : start + self.size]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a detector is shown: never a label, never a mask, so that it cannot cheat."""

    image: Tensor  # (B, 3, H, W) float32 in [0, 1]
    id: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    depth: Tensor | None = None  # (B, 1, H, W) float32, nan where it was not measured; only for who needs it
    keys: tuple[str, ...] | None = None  # digest of each image's pixels; None after augmentation

    def __len__(self) -> int:
        return len(self.image)


class Images:
    """Training or test images in a view, decoded when they are asked for; with their depth if that is wanted."""

    def __init__(
        self,
        dataset: Dataset,
        examples: Sequence[TrainingImage],
        view: View,
        device: str | torch.device = "cpu",
        depth: bool = False,
    ) -> None:
        self.dataset = dataset
        self.examples = tuple(examples)
        self.view = view
        self.device = torch.device(device)
        self.depth = depth

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def labels(self) -> tuple[TrainingLabel, ...]:
        """The label of each training image, in order."""
        return tuple(e.label for e in self.examples)

    @property
    def categories(self) -> tuple[str, ...]:
        """The distinct categories, sorted."""
        return tuple(sorted({e.sample.category for e in self.examples}))

    def normal(self) -> Images:
        """Return only the images that are told to be normal."""
        return self.subset([i for i, t in enumerate(self.labels) if t is TrainingLabel.NORMAL])

    def subset(self, which: Sequence[int]) -> Images:
        """Return the images at these positions."""
        return Images(self.dataset, [self.examples[i] for i in which], self.view, self.device, self.depth)

    def split(self, share: float, rng: np.random.Generator) -> tuple[Images, Images]:
        """Return (rest, held out): a random ``share`` of the images is held out, at least one if there are two."""
        order = rng.permutation(len(self))
        count = min(max(1, round(share * len(self))), len(self) - 1)
        return self.subset(sorted(order[count:])), self.subset(sorted(order[:count]))

    def batches(
        self, size: int = 16, rng: np.random.Generator | None = None, augment: Augment | None = None
    ) -> Iterator[Batch]:
        """Yield all images once, in order, or shuffled where ``rng`` is given; the next batch is read ahead.

        Raises :class:`BadDetector` where images with depth would be augmented, which depth could not follow.
        """
        if self.depth and augment is not None:
            raise BadDetector("depth does not follow an augmentation: alter batches after they were read.")
        order = np.arange(len(self)) if rng is None else rng.permutation(len(self))
        chunks = [order[i : i + size] for i in range(0, len(order), size)]
        generator = torch.Generator().manual_seed(int(rng.integers(2**31))) if rng is not None else torch.Generator()
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as readers:
            ahead = self._read(readers, chunks[0]) if chunks else []
            for number, chunk in enumerate(chunks):
                read = [future.result() for future in ahead]
                ahead = self._read(readers, chunks[number + 1]) if number + 1 < len(chunks) else []
                yield self._batch(chunk, read, augment, generator)

    def _read(self, readers: ThreadPoolExecutor, which: np.ndarray) -> list[Future[_Read]]:
        return [readers.submit(self._look, self.examples[i].sample) for i in which]

    def _look(self, sample: Sample) -> _Read:
        seen = decoded(self.dataset, sample, self.view)
        return *seen, measured(self.dataset, sample, self.view) if self.depth else None

    def _batch(
        self, which: np.ndarray, read: list[_Read], augment: Augment | None, generator: torch.Generator
    ) -> Batch:
        pixels = torch.from_numpy(np.stack([p for p, _, _ in read])).to(self.device)  # (B, H, W, 3)
        image = pixels.permute(0, 3, 1, 2).float().div_(255).contiguous()
        if augment is not None:
            image = augment(image, generator)
        samples = [self.examples[i].sample for i in which]
        keys = None if augment is not None else tuple(k for _, k, _ in read)
        planes = [d for _, _, d in read if d is not None]
        depth = torch.from_numpy(np.stack(planes)).unsqueeze(1).to(self.device) if planes else None
        return Batch(image, tuple(s.id for s in samples), tuple(s.category for s in samples), depth, keys)


class _Cache:
    """Views of one dataset, decoded; the ones unused for longest go first. Readers are threads."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.views: OrderedDict[tuple[str, View], tuple[np.ndarray, str]] = OrderedDict()
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
            while self.bytes > CACHE_BYTES and len(self.views) > 1:
                self.bytes -= self.views.popitem(last=False)[1][0].nbytes


_caches: WeakKeyDictionary[Dataset, _Cache] = WeakKeyDictionary()


def decoded(dataset: Dataset, sample: Sample, view: View) -> tuple[np.ndarray, str]:
    """Return an image in a view, (H, W, 3) uint8, and the digest of its pixels; from memory if it was seen."""
    cache = _caches.setdefault(dataset, _Cache())
    name = (sample.id, view)
    if (hit := cache.get(name)) is not None:
        return hit
    pixels = np.array(view(dataset.image(sample)))  # a copy: views may share memory with a larger image
    key = hashlib.blake2b(pixels.tobytes() + repr(pixels.shape).encode(), digest_size=16).hexdigest()
    cache.put(name, (pixels, key))
    return pixels, key


def measured(dataset: Dataset, sample: Sample, view: View) -> np.ndarray:
    """Return an image's depth in a view, (H, W) float32, nan where there is none; from memory if it was seen."""
    cache = _caches.setdefault(dataset, _Cache())
    name = (f"{sample.id} depth", view)
    if (hit := cache.get(name)) is not None:
        return hit[0]
    found = dataset.depth(sample)
    seen = np.full((view.size, view.size), np.nan, np.float32) if found is None else np.array(view(found))
    cache.put(name, (seen, ""))
    return seen
