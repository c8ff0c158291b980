"""Registration of images to a reference, so that a part that lies turned or shifted is scored in one frame.

The reference is the mean of normal training images that were registered to one of them. An image is registered by a
rotation, a translation and a change of scale within limits: first by normalised cross-correlation (Lewis, "Fast
Normalized Cross-Correlation", 1995) over a grid of rotations and scales at a low resolution, then by the enhanced
correlation coefficient (Evangelidis and Psarakis, "Parametric Image Alignment Using Enhanced Correlation Coefficient
Maximization", PAMI 2008). Both are OpenCV's.

Parts that look alike in all directions, such as bottles from above, have no rotation that could be found to a degree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from iadbe.errors import BadData, Missing
from iadbe.protocol import Limits

if TYPE_CHECKING:
    from types import ModuleType

FINE, COARSE = 256, 64  # shorter side, in pixels, of the images that are compared
TURN = 3.0  # degrees between the rotations of the coarse search
INNER = 0.1  # share of each side that the coarse search leaves out, because it may be outside of a shifted image
CANDIDATES = 4  # of the coarse search, that are refined
SAMPLED = 16  # training images that a reference is the mean of
NEAR = 1 / 32  # share of the image's shorter side: pixels so near to it that its mirrored border may stand for them
MARGIN = 1 / 16  # likewise: what lies within it of a border to what the image does not show does not count
SPREAD = 6.0  # the lowest correlation that counts, in median absolute deviations below the median of good images


class Pose(NamedTuple):
    """Where a part lies in an image, relative to the reference."""

    matrix: np.ndarray  # (2, 3) float64: from pixels (x, y) of the reference to those of the image, centres at integers
    correlation: float  # of the registered image and the reference, from -1 to 1
    found: bool  # whether the correlation is as high as that of good images, within the limits

    @property
    def rotation(self) -> float:
        """Degrees by which the part is turned, clockwise on the screen."""
        return math.degrees(math.atan2(self.matrix[1, 0], self.matrix[0, 0]))

    def resized(self, size: tuple[int, int], other: tuple[int, int]) -> Pose:
        """Return the pose in an image of ``size`` (H, W) that is resized to ``other``."""
        return self._replace(matrix=_rescaled(self.matrix, size, size, other))

    @property
    def scale(self) -> float:
        """Size of the part relative to the reference."""
        return math.sqrt(abs(float(np.linalg.det(self.matrix[:, :2]))))


NOWHERE = Pose(np.eye(2, 3), -1.0, False)


@dataclass(frozen=True, slots=True)
class Template:
    """The reference: what images are registered to, and how well they have to fit."""

    pixels: np.ndarray  # (h, w) float32: grey, the shorter side FINE pixels
    size: tuple[int, int]  # height and width of the reference frame, in pixels
    limits: Limits = field(default_factory=Limits)
    floor: float = 0.0  # the lowest correlation of a part that was found

    @classmethod
    def learn(cls, images: Sequence[np.ndarray], limits: Limits | None = None) -> Template:
        """Return the mean of normal images (H, W, 3) uint8, each registered to the first, and then to their mean.

        Its frame is the middle of theirs: in that of an image whose part lies apart, most others would lack a side.

        Raises :class:`BadData` without an image, :class:`Missing` without OpenCV.
        """
        if not len(images):
            raise BadData("a reference needs at least one normal image.")
        limits = limits or Limits()
        size = images[0].shape[:2]
        first = cls(_grey(images[0], _working_size(size)), size, limits)
        poses = _centred([first.register(image) for image in images], images, size)
        # twice: the mean of the first round is a better reference than any one image
        template = first
        for _ in range(2):
            mean = np.mean(
                [_grey(warped(i, p, size), first.pixels.shape) for i, p in zip(images, poses, strict=True)], 0
            )
            template = cls(mean.astype(np.float32), size, limits)
            poses = [template.register(image) for image in images]
        return cls(template.pixels, size, limits, _floor([pose.correlation for pose in poses]))

    def register(self, image: np.ndarray) -> Pose:
        """Return where the part lies in an image (H, W, 3) uint8 of any size."""
        cv2 = _opencv()
        height, width = self.pixels.shape
        grey = _grey(image, self.pixels.shape)
        refined = [_rigid(cv2, self.pixels, grey, start) for start in self._candidates(cv2, grey)]
        best = max((pose for pose in refined if pose is not None), key=_correlation, default=NOWHERE)
        if self.limits.scale and best is not NOWHERE:
            best = max(best, _refined_scale(cv2, self.pixels, grey, best, self.limits.scale), key=_correlation)
        found = bool(self._inside(best, height, width) and best.correlation >= self.floor)  # no NumPy's: `is False`
        scaled = _rescaled(best.matrix, self.pixels.shape, self.size, image.shape[:2])
        return Pose(scaled, best.correlation, found)

    def _inside(self, pose: Pose, height: int, width: int) -> bool:
        """Return whether a pose in working pixels keeps the limits, with a tenth of them for the refinement."""
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        shift = np.abs(pose.matrix @ [*centre, 1] - centre).max() / min(height, width)
        limits = self.limits
        return (
            abs(pose.rotation) <= limits.rotation * 1.1 + 0.5
            and shift <= limits.shift * 1.1 + 0.005
            and abs(pose.scale - 1) <= limits.scale * 1.1 + 0.005
        )

    def _candidates(self, cv2: ModuleType, grey: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the most likely matrices (2, 3) in working pixels, best first, no two of them alike."""
        shape = self.pixels.shape
        factor = COARSE / min(shape)
        small = (round(shape[1] * factor), round(shape[0] * factor))
        reference = cv2.resize(self.pixels, small, interpolation=cv2.INTER_AREA)
        coarse = cv2.resize(grey, small, interpolation=cv2.INTER_AREA)
        height, width = reference.shape
        inner, reach = round(INNER * min(small)), round(self.limits.shift * min(small))
        target = reference[inner : height - inner, inner : width - inner]
        found = []
        for turn, scale in self._grid():
            turned = _warp(cv2, coarse, _similarity(shape=reference.shape, degrees=turn, scale=scale))
            turned = cv2.copyMakeBorder(turned, *(reach,) * 4, cv2.BORDER_REPLICATE)
            searched = turned[inner : height + 2 * reach - inner, inner : width + 2 * reach - inner]
            _, value, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(searched, target, cv2.TM_CCOEFF_NORMED))
            found.append((value, turn, scale, (x - reach) / factor, (y - reach) / factor))
        found.sort(reverse=True)
        taken: list[tuple[float, float]] = []
        for _, turn, scale, x, y in found:
            if all(abs(turn - t) > TURN * 1.5 or scale != s for t, s in taken):
                taken.append((turn, scale))
                yield _similarity(shape=shape, degrees=turn, scale=scale, shift=(x, y))
            if len(taken) == CANDIDATES:
                return

    def _grid(self) -> list[tuple[float, float]]:
        """Return the rotations in degrees and the scales of the coarse search."""
        turns = math.ceil(self.limits.rotation / TURN)
        scales = (1.0,) if not self.limits.scale else (1 - self.limits.scale, 1.0, 1 + self.limits.scale)
        step = self.limits.rotation / turns if turns else 0.0
        return [(step * turn, scale) for scale in scales for turn in range(-turns, turns + 1)]


def warped(image: np.ndarray, pose: Pose, size: tuple[int, int]) -> np.ndarray:
    """Return an image (H, W, 3) uint8, or (H, W) bool or float32, in the reference frame of ``size`` (h, w).

    What lies outside of the image mirrors it. Images are interpolated by cubic convolution, because linear
    interpolation blurs what detectors compare. Masks and depth are taken from the nearest pixel.
    """
    cv2 = _opencv()
    flag = cv2.INTER_CUBIC if image.ndim == 3 else cv2.INTER_NEAREST
    values = image.astype(np.uint8) if image.dtype == bool else image
    shown: np.ndarray = cv2.warpAffine(
        values, pose.matrix, size[::-1], flags=flag | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )
    return shown.astype(image.dtype)


def restored(map_: np.ndarray, pose: Pose, size: tuple[int, int], outside: float = 0.0) -> np.ndarray:
    """Return a map (h, w) float32 of the reference frame in the frame of the image, (H, W) of ``size``.

    ``outside`` is the value of pixels that the reference frame does not show.
    """
    cv2 = _opencv()
    shown: np.ndarray = cv2.warpAffine(
        map_, pose.matrix, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=outside
    )
    return shown


def covered(pose: Pose, size: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """Return which pixels of the reference frame, (h, w) bool of ``size``, the image of ``image_size`` shows."""
    return np.logical_and.reduce([beyond <= 0.5 for beyond in _beyond(pose, size, image_size)])


def counted(pose: Pose, size: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """Return which pixels of the reference frame count, (h, w) bool of ``size``.

    Parts never lie quite alike, so a few pixels beyond a side of the image count, mirrored. Where more is missing, what
    lies near that side does not count either: features there would see the mirrored image.
    """
    shorter = min(image_size)
    counts = np.ones(size, bool)
    for beyond in _beyond(pose, size, image_size):
        near = beyond <= max(0.5, NEAR * shorter)
        counts &= near if near.all() else beyond <= -MARGIN * shorter
    return counts


def _beyond(pose: Pose, size: tuple[int, int], image_size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield by how many pixels of the image those of the frame, (h, w) of ``size``, lie beyond each of its sides."""
    x, y = np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32)[:, None]
    for (along, down, start), side in zip(pose.matrix, image_size[::-1], strict=True):
        place = np.float32(along) * x + np.float32(down) * y + np.float32(start)
        yield -place
        yield place - (side - 1)


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise Missing("alignment needs OpenCV. Install it with: pip install 'iadbe[align]'") from error
    cv2.setNumThreads(1)  # a run keeps to its own number of threads, which OpenCV does not know
    return cv2


def _working_size(size: tuple[int, int]) -> tuple[int, int]:
    factor = FINE / min(size)
    return round(size[0] * factor), round(size[1] * factor)


def _grey(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the mean of the channels, resized to ``size`` (h, w): float32."""
    cv2 = _opencv()
    smaller = min(image.shape[:2]) > min(size)
    grey = image.mean(2, dtype=np.float32)
    resized: np.ndarray = cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return resized


def _similarity(
    shape: tuple[int, ...], degrees: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Return the matrix (2, 3) of a rotation and scale about the centre, after a shift in pixels."""
    angle = math.radians(degrees)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    return np.c_[linear, centre + linear @ (np.array(shift) - centre)]


def _warp(cv2: ModuleType, grey: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    shown: np.ndarray = cv2.warpAffine(
        grey, matrix, grey.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return shown


def _refined_scale(cv2: ModuleType, reference: np.ndarray, grey: np.ndarray, pose: Pose, limit: float) -> Pose:
    """Return the best pose of other scales up to 1 ± ``limit``, each refined from ``pose``."""
    from scipy.optimize import minimize_scalar

    poses = [NOWHERE]

    def loss(scale: float) -> float:
        poses.append(_rigid(cv2, reference, grey, pose.matrix, scale / pose.scale) or NOWHERE)
        return -poses[-1].correlation

    minimize_scalar(loss, bounds=(1 - limit, 1 + limit), method="bounded", options={"xatol": 1e-3, "maxiter": 15})
    return max(poses, key=_correlation)


def _correlation(pose: Pose) -> float:
    return pose.correlation


def _rigid(
    cv2: ModuleType, reference: np.ndarray, grey: np.ndarray, start: np.ndarray, factor: float = 1.0
) -> Pose | None:
    """Refine rotation and translation of a matrix whose scale is ``factor`` times that of ``start``."""
    own = math.sqrt(abs(float(np.linalg.det(start[:, :2])))) * factor
    # the image is scaled first, so that what is left is rigid
    across = _similarity(grey.shape, scale=own)
    rest = (np.vstack([np.linalg.inv(np.vstack([across, [0, 0, 1]]))]) @ np.vstack([start, [0, 0, 1]]))[:2]
    rest[:, :2] /= math.sqrt(abs(float(np.linalg.det(rest[:, :2]))))
    centre = np.array([(grey.shape[1] - 1) / 2, (grey.shape[0] - 1) / 2, 1.0])
    kept = np.linalg.inv(np.vstack([across, [0, 0, 1]]))[:2] @ [*(start @ centre), 1.0]
    rest[:, 2] += kept - rest @ centre  # the centre stays where it was
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-6)
    try:
        correlation, found = cv2.findTransformECC(
            reference, _warp(cv2, grey, across), rest.astype(np.float32), cv2.MOTION_EUCLIDEAN, stop, None, 5
        )
    except cv2.error:  # it does not converge, or nothing overlaps
        return None
    return Pose((np.vstack([across, [0, 0, 1]]) @ np.vstack([found, [0, 0, 1]]))[:2], float(correlation), True)


def _rescaled(
    matrix: np.ndarray, working: tuple[int, ...], reference: tuple[int, int], image: tuple[int, ...]
) -> np.ndarray:
    """Return a matrix between images of size ``working`` as one from ``reference`` to ``image``, their true sizes."""

    def to_working(size: Sequence[int]) -> np.ndarray:
        down, across = working[0] / size[0], working[1] / size[1]
        return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])

    whole = np.linalg.inv(to_working(image)) @ np.vstack([matrix, [0, 0, 1]]) @ to_working(reference)
    return np.asarray(whole[:2])


def _centred(poses: Sequence[Pose], images: Sequence[np.ndarray], size: tuple[int, int]) -> list[Pose]:
    """Return poses relative to a frame of ``size`` (h, w) whose centre and rotation are the medians of theirs."""
    found = [p.resized(i.shape[:2], size) for p, i in zip(poses, images, strict=True) if p.found]
    if not found:
        return list(poses)
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2, 1])
    linear = _similarity(size, float(np.median([pose.rotation for pose in found])))[:, :2]
    place = np.median([pose.matrix @ centre for pose in found], 0) - linear @ centre[:2]
    back = np.linalg.inv(np.vstack([np.c_[linear, place], [0, 0, 1]]))
    return [pose._replace(matrix=(np.vstack([pose.matrix, [0, 0, 1]]) @ back)[:2]) for pose in poses]


def _floor(correlations: Sequence[float]) -> float:
    """Return the lowest correlation that counts as found, from those of good images."""
    middle = float(np.median(correlations))
    spread = float(np.median(np.abs(np.asarray(correlations) - middle)))
    return max(0.0, min(middle - SPREAD * max(spread, 0.01), *correlations) - 0.01)
