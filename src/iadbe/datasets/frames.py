"""Videos or folders of frames: ``train/good/CLIP`` and ``test/KIND/CLIP``.

Differs:
    * A clip is a video or a folder of frames in natural order of their names. Frames are numbered from 0.
    * A clip is in one split only, because neighbouring frames are near-copies. Where there is no normal clip to test,
      the end of each training clip is held out, in one piece.
    * Defective frames of a clip below ``test/KIND`` are those with a mask in ``ground_truth/KIND/CLIP`` (for a video,
      the mask's name is the frame's number); without that folder, those in ``labels.csv``, lines
      ``KIND/CLIP,FIRST,LAST``; without such lines, all.
    * Every ``every``-th frame is read. Frames of a video are decoded on access.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData
from iadbe.files import layout
from iadbe.files.bad_labels import BadLabels
from iadbe.files.folder_names import is_good
from iadbe.files.layout import LayoutMatch
from iadbe.files.video import EXTENSIONS, Video, is_video
from iadbe.types import Sample

LABELS = "labels.csv"
NOT_CLIPS = ("rgb", "xyz", "gt", "ground_truth")  # image folders of other layouts


class _Frame(NamedTuple):
    """One frame of a clip."""

    number: int  # from 0, in the order of showing
    path: str  # the image's, or ``VIDEO#NUMBER``
    stem: str  # of its mask


class Frames(Dataset):
    """One category; the kind of a defect is the name of its folder of clips."""

    title: ClassVar[str] = "videos or folders of frames"
    licence: ClassVar[str] = "yours"
    added: ClassVar[dict[str, Any]] = {"bad_labels": "error"}
    layout_description: ClassVar[str] = "a video, or train/good/CLIP with test/KIND/CLIP (videos or folders of frames)"

    def __init__(
        self,
        root: str = "",
        train: tuple[str, ...] | str = "train/good",
        test: str = "test",
        masks: str = "ground_truth",
        normal_split_ratio: float = 0.2,
        every: int = 1,
        name: str = "",
        bad_labels: Literal["error", "drop"] = "error",
    ) -> None:
        """Index a folder.

        Args:
            root: folder of the clips
            train: folder or folders of normal clips, or the clips themselves
            test: folder with one subfolder of clips per kind of defect, and one named good
            masks: folder of KIND/CLIP with the masks of frames
            normal_split_ratio: share of each training clip, at its end, to test where there is no normal test clip
            every: read every n-th frame
            name: the category's name; by default the folder's
            bad_labels: raise an error that names all lines of labels.csv that cannot be used, or drop their clips
        """
        super().__init__(root)
        self.normal_split_ratio = layout.check_share("frames.normal_split_ratio", normal_split_ratio)
        self._bad_labels = BadLabels(bad_labels, "frames.bad_labels")
        if every < 1:
            raise BadConfig(f"frames.every is {every}, but it must be at least 1.")
        self.every, self.masks = every, _slashes(masks)
        self.name = name or Path(os.path.abspath(self.root)).name
        folders = [_slashes(folder) for folder in ((train,) if isinstance(train, str) else train)]
        self._train = [clip for folder in folders for clip in _clips(self.root, folder)]
        if not self._train:
            raise BadData(
                f"found no clip in {', '.join(str(self.root / f) for f in folders)}: looked for videos "
                f"({', '.join(EXTENSIONS)}) and folders of frames. {self.root} holds {layout.contents(self.root)}."
            )
        test = _slashes(test)
        kinds = {kind: f"{test}/{kind}" for kind in layout.subfolders(self.root / test)}
        self._tests = {kind: found for kind, folder in kinds.items() if (found := _clips(self.root, folder))}
        self._videos: dict[str, Video] = {}

    @classmethod
    def recognise(cls, folder: Path) -> LayoutMatch | None:
        """Match a folder in this layout, or a video."""
        if folder.is_file():
            return LayoutMatch("a video of normal parts", {"train": folder.name}) if is_video(folder) else None
        clips = _clips(folder, "train/good")
        if not clips and any(is_video(folder / name) for name in layout.files(folder)):
            return LayoutMatch("a folder of videos of normal parts", {"train": "."})
        if not clips or clips == ["train/good"] or any(Path(clip).name in NOT_CLIPS for clip in clips):
            return None
        tested = any(_clips(folder, f"test/{kind}") for kind in layout.subfolders(folder / "test"))
        certain = tested or any(is_video(Path(clip)) for clip in clips)
        return LayoutMatch(f"videos or folders of frames ({len(clips)} normal training clips)", fallback=not certain)

    @property
    def categories(self) -> tuple[str, ...]:
        """The one category."""
        return (self.name,)

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index, clip by clip in the order of frames. Reads no pixels, but counts a video's frames."""
        return self._samples

    def image(self, sample: Sample) -> np.ndarray:
        """Return a frame as (H, W, 3) uint8 RGB. Raises :class:`BadData` naming the file."""
        clip, mark, number = sample.image.rpartition("#")
        if not mark or (self.root / sample.image).exists():
            return super().image(sample)
        return self._video(clip).frame(int(number))

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        found: list[Sample] = []
        hold_out = not any(is_good(kind) for kind in self._tests)
        for clip in self._train:
            frames = self._frames(clip)
            last = len(frames)
            if hold_out and self.normal_split_ratio and last > 1:
                last -= min(max(1, round(self.normal_split_ratio * last)), last - 1)
            found += [self._sample(f, "train" if i < last else "test", "good") for i, f in enumerate(frames)]
        for kind, clips in self._tests.items():
            defect = "good" if is_good(kind) else kind
            for clip in clips:
                found += self._tested(defect, clip, f"{kind}/{Path(clip).stem}")
        return tuple(found)

    def _tested(self, kind: str, clip: str, name: str) -> Iterator[Sample]:
        """Yield the frames of a clip to test; ``name`` is KIND/CLIP."""
        masks = layout.masks_by_stem(self.root / self.masks / name)
        labels, left_out = self._labels
        if name in left_out:
            return
        ranges = labels.get(name, [])
        for frame in self._frames(clip):
            mask = f"{self.masks}/{name}/{masks[frame.stem]}" if frame.stem in masks else None
            listed = any(first <= frame.number <= last for first, last in ranges)
            bad = kind != "good" and (mask is not None if masks else listed if ranges else True)
            yield self._sample(frame, "test", kind if bad else "good", mask if bad else None)

    def _sample(self, frame: _Frame, split: str, kind: str, mask: str | None = None) -> Sample:
        clip = frame.path.partition("#")[0] if "#" in frame.path else frame.path.rpartition("/")[0]
        return Sample(f"{self.name}/{frame.path}", self.name, split, kind, frame.path, mask, group=clip)

    def _frames(self, clip: str) -> list[_Frame]:
        """Return the frames of a clip that are taken."""
        if is_video(Path(clip)):
            return [_Frame(i, f"{clip}#{i:06d}", f"{i:06d}") for i in range(0, len(self._video(clip)), self.every)]
        names = layout.natural_order(layout.images(self.root / clip))
        return [_Frame(i, f"{clip}/{n}", Path(n).stem) for i, n in enumerate(names)][:: self.every]

    def _video(self, clip: str) -> Video:
        return self._videos.setdefault(clip, Video(self.root / clip))

    @cached_property
    def _labels(self) -> tuple[dict[str, list[tuple[int, int]]], set[str]]:
        """Defective frames, KIND/CLIP -> (first, last), last included; and the clips whose lines cannot be used."""
        file = self.root / LABELS
        found: dict[str, list[tuple[int, int]]] = {}
        left_out: set[str] = set()
        known = {f"{kind}/{Path(clip).stem}" for kind, clips in self._tests.items() for clip in clips}
        for number, row in enumerate(layout.read_table(file) if file.is_file() else [], start=1):
            names_columns = number == 1 and not any(c.isdigit() for cell in row[1:] for c in cell)
            if names_columns or not any(cell.strip() for cell in row):
                continue
            clip, span = os.path.splitext(_slashes(row[0].strip()))[0], _span(row)
            with self._bad_labels.collected():
                if span is None:
                    raise BadData(f"{file}, line {number} ({','.join(row)!r}) is not `KIND/CLIP,FIRST,LAST`.")
                if clip not in known:
                    raise BadData(f"{file}, line {number} names {clip}, which is no clip below {self.root}.")
                found.setdefault(clip, []).append(span)
                continue
            left_out.add(clip)
        self._bad_labels.check("lines")
        return found, left_out

    def digest(self, categories: Collection[str] = ()) -> str:
        """Return 16 hex digits of the index; the size of a video stands for its frames."""
        return self._with_videos(super().digest(categories))

    def whole_digest(self) -> str:
        """Return the digest of version 0.1, of paths below ``root``."""
        return self._with_videos(super().whole_digest())

    def _with_videos(self, digest: str) -> str:
        clips = {s.image.partition("#")[0] for s in self._samples}
        sizes = [f"{clip}|{(self.root / clip).stat().st_size}" for clip in sorted(clips) if is_video(Path(clip))]
        return hashlib.sha256("\n".join([digest, *sizes]).encode()).hexdigest()[:16]


def _clips(root: Path, folder: str) -> list[str]:
    """Return the clips in a folder, or the one that it is, relative to ``root``."""
    place = root / folder
    if is_video(place) and place.is_file():
        return [folder]
    if not place.is_dir():
        return []
    if layout.images(place):
        return [folder]
    videos = [name for name in layout.files(place) if is_video(Path(name))]
    folders = [name for name in layout.subfolders(place) if layout.images(place / name)]
    return [(PurePosixPath(folder) / name).as_posix() for name in layout.natural_order([*videos, *folders])]


def _slashes(path: str) -> str:
    """Return a path as stored: with forward slashes, which a user of Windows may have typed as backslashes."""
    return PurePosixPath(path.replace("\\", "/")).as_posix()


def _span(row: list[str]) -> tuple[int, int] | None:
    """Return the first and the last frame of a line KIND/CLIP,FIRST,LAST; None where it has none."""
    try:
        first, last = map(int, row[1:])
    except ValueError:
        return None
    return (first, last) if 0 <= first <= last else None
