"""Updates a model with reviewed images, and compares the candidate with it on a challenge set."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from iadbe.acceptance import candidate
from iadbe.acceptance.accept import Paths, calibrated, inputs_at, scored
from iadbe.acceptance.challenge import Challenge, challenge_of
from iadbe.acceptance.gate import TOLERANCE, Gate
from iadbe.errors import BadConfig
from iadbe.evaluation.calibration import DEFAULT_OVERKILL, ThresholdRule
from iadbe.files.folder_names import is_bad, is_good
from iadbe.files.input_images import expand
from iadbe.running import calibration_images
from iadbe.running.calibration_images import ScoredSets
from iadbe.running.model_folder import FittedDetector


@dataclass(frozen=True)
class Update:
    """A candidate, and how it compares with the present model."""

    model: Path
    candidate: Path
    gate: Gate | None  # None: no challenge set was given
    notes: tuple[str, ...]


def update(
    model: str | os.PathLike[str],
    reviewed: str | os.PathLike[str],
    challenge: str | os.PathLike[str] | None = None,
    *,
    learnt: Paths = (),
    calibrate: Paths = (),
    overkill: float | None = None,
    tolerance: float = TOLERANCE,
    device: str = "auto",
) -> Update:
    """Make a candidate of a model and reviewed images, and compare both.

    The present model stays as it is; :func:`iadbe.acceptance.candidate.promote` puts the candidate into its place.

    Args:
        model: a model's folder or a run's
        reviewed: a folder with one of good images (``good``, ``OK`` …), from which the candidate learns; others in it
            are of defective ones
        challenge: such a folder, whose images neither model has learnt; defective ones by kind
        learnt: images that the model has learnt, for detectors that are fitted again
        calibrate: good images, for the candidate's thresholds; none: it keeps those of the present model
        overkill: share of good parts that these thresholds may reject
        tolerance: by which the candidate may be worse
        device: auto, cpu, cuda …

    Raises :class:`BadConfig` for folders that do not hold what they should.
    """
    if not 0 <= tolerance < 1:
        raise BadConfig(f"tolerance is a share from 0 up to below 1, such as 0.01, not {tolerance:g}.")
    folder, present = calibrated(model, device)
    goods, bads = _sides(Path(reviewed))
    notes: list[str] = []
    fitted = candidate.learn(folder, inputs_at(goods), inputs_at(learnt) if learnt else (), device, notes)
    if calibrate:
        own = present.calibration.overkill
        share = overkill or (own.value if own is not None and own.guaranteed else DEFAULT_OVERKILL)
        paths = [image.path for image in inputs_at(calibrate)]
        sets = ScoredSets(fitted, device, None, notes)
        defects = [path for some in bads.values() for path in some]
        found, kept = sets.calibrate(ThresholdRule(overkill=share), paths, defects)
        calibration_images.keep(candidate.candidate_of(folder), found, kept)
        fitted = replace(fitted, calibration=found)
    else:
        notes.append(
            "the candidate keeps the present thresholds, although its scores are others: give --calibrate, too."
        )
    gate = None
    if challenge is not None:
        sides = _sides(Path(challenge))
        if not sides[1]:
            raise BadConfig(f"{challenge} has no folder of defective images: a challenge set needs both.")
        judged = [_challenge(one, sides, device, notes) for one in (present, fitted)]
        gate = Gate(judged[0], judged[1], tolerance)
        candidate.keep_evidence(folder, gate.card())
    return Update(folder, candidate.candidate_of(folder), gate, tuple(dict.fromkeys(notes)))


def _challenge(
    fitted: FittedDetector, sides: tuple[list[Path], dict[str, list[Path]]], device: str, notes: list[str]
) -> Challenge:
    good = list(scored(fitted, inputs_at(sides[0]), device, [], "challenge"))
    bad = [(n, r) for n, some in sides[1].items() for r in scored(fitted, inputs_at(some), device, notes, "challenge")]
    if any(fitted.was_trained_on(result.key) for result in good):
        raise BadConfig("the challenge set holds images that the model has learnt: the comparison would flatter it.")
    return challenge_of(good, bad)


def _sides(folder: Path) -> tuple[list[Path], dict[str, list[Path]]]:
    """Return the good images of a folder, and the defective ones by the name of their folder."""
    if not folder.is_dir():
        raise BadConfig(f"there is no folder {folder}.")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    good = [name for name in names if is_good(name, names)]
    if len(good) != 1:
        found = "none" if not good else " and ".join(good)
        raise BadConfig(f"{folder} must hold one folder of good images, named good, OK or alike; there is {found}.")
    bad: dict[str, list[Path]] = {}
    for name in names:
        if name != good[0]:
            inner = folder / name
            kinds = sorted(p for p in inner.iterdir() if p.is_dir()) if is_bad(name, names) else []
            for kind in kinds or [inner]:
                bad[kind.name] = list(expand([kind]))
    return list(expand([folder / good[0]])), bad
