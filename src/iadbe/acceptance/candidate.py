"""A candidate: a model that has learnt from further good images, beside the present one until it is promoted.

It lies beside the model's folder, as ``model.candidate``. When it takes the place of the model, that one is kept as
``model.1``, ``model.2`` and so on; the newest of them comes back by :func:`roll_back`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from iadbe import environment, system
from iadbe.data.images import Images, read_view
from iadbe.errors import BadConfig, BadData, number_of
from iadbe.evaluation.calibration import Calibration
from iadbe.files.input_images import InputImage
from iadbe.running import model_folder
from iadbe.running.inference import InputDataset
from iadbe.running.model_folder import FittedDetector
from iadbe.types import TrainingImage

ENDING = ".candidate"
EVIDENCE = "gate.json"
SEED = 0  # of what a detector draws when it learns


def candidate_of(model: Path) -> Path:
    """Return where the candidate of a model lies."""
    return model.with_name(model.name + ENDING)


def learn(
    model: Path, good: Sequence[InputImage], learnt: Sequence[InputImage], device: str, notes: list[str]
) -> FittedDetector:
    """Let a model learn from further good images, and save it as the candidate.

    Memory banks and statistics are merged with those of the new images. A detector that cannot do that is fitted again,
    to all images together.

    Args:
        model: the present model's folder
        good: further good images
        learnt: the images that the present model has learnt, for detectors that are fitted again
        device: auto, cpu, cuda …
        notes: what was left out and why, appended to

    Raises :class:`BadConfig` where nothing new is left, and for a detector whose former images are missing.
    """
    fitted = model_folder.load(model, str(environment.device(device)))
    where = environment.device(device)
    new = _training_images(fitted, good, where, notes, is_new=True)
    if not len(new):
        raise BadConfig("there is no good image that the model has not learnt already.")
    digests = set(_digests(new)) | {key for key in fitted.learnt or ()}
    rng = np.random.default_rng(SEED)
    if fitted.detector.keeps_what_it_learnt:
        fitted.detector.update(new, rng)
    else:
        former = _training_images(fitted, learnt, where, notes, is_new=False) if learnt else None
        if former is None or not len(former):
            raise BadConfig(
                f"{fitted.name} cannot learn from further images alone: it is fitted again, to all of them. Give the "
                "images that it has learnt, too, with --learnt."
            )
        if fitted.learnt is not None and (missing := len(fitted.learnt) - len(set(_digests(former)))) > 0:
            notes.append(f"{number_of(missing, 'image')} that the model has learnt are not among those of --learnt.")
        digests = {*_digests(former), *_digests(new)}
        both = [*_inputs_of(former, learnt), *_inputs_of(new, good)]
        fitted.detector.fit(_training_images(fitted, both, where, [], is_new=None), rng)
    fitted.detector.eval()
    how = f"{fitted.calibration.how} (of the model before {number_of(len(new), 'image')} more)"
    calibration = replace(fitted.calibration, how=how) if fitted.calibration.threshold is not None else Calibration()
    return _saved(model, fitted, calibration, digests)


def _saved(model: Path, fitted: FittedDetector, calibration: Calibration, digests: set[str]) -> FittedDetector:
    folder = candidate_of(model)
    system.remove_tree(folder)
    model_folder.save(
        folder, fitted.detector, fitted.name, fitted.params, calibration, fitted.about, digests, fitted.intensity,
        fitted.region, fitted.templates or None,
    )  # fmt: skip
    return replace(fitted, calibration=calibration, learnt=frozenset(key[: model_folder.DIGITS] for key in digests))


def _training_images(
    fitted: FittedDetector, images: Sequence[InputImage], device: Any, notes: list[str], is_new: bool | None
) -> Images:
    """Return images in the model's view: only those that it has not learnt, or has, or all of them (None)."""
    dataset = InputDataset(images, fitted.detector.view, fitted.intensity, fitted.region, fitted.templates)
    notes += [f"{error.rstrip('.')}: it is left out." for error in dataset.errors.values()]
    kept, known, seen = [], 0, set()
    for sample in dataset.samples():
        key = read_view(dataset, sample, dataset.shown)[1]
        if is_new is not None and fitted.was_trained_on(key) == is_new:
            known += 1
        elif key not in seen:
            kept.append(TrainingImage(sample))
        seen.add(key)
    if known:
        what = "has learnt them already" if is_new else "has not learnt them"
        notes.append(f"{number_of(known, 'image')} left out: the model {what}.")
    return Images(dataset, kept, dataset.shown, device)


def _digests(images: Images) -> list[str]:
    return [read_view(images.dataset, item.sample, images.view)[1] for item in images.items]


def _inputs_of(images: Images, given: Sequence[InputImage]) -> list[InputImage]:
    names = {item.sample.id for item in images.items}
    return [image for image in given if str(image.path) in names]


def keep_evidence(model: Path, card: Mapping[str, Any]) -> None:
    """Write what the gate found beside the candidate, with the present model that it was compared with."""
    with system.replacing(candidate_of(model) / EVIDENCE) as part:
        part.write_text(json.dumps({**card, "present_model": _fingerprint(model)}, indent=1), encoding="utf-8")


def promote(model: Path, *, force: bool = False) -> Path:
    """Put the candidate into the model's place; return where that one is kept now.

    Raises :class:`BadConfig` without a candidate, and, unless ``force``, where it was not compared with this very model
    or was worse by more than the tolerance.
    """
    folder = candidate_of(model)
    if not folder.is_dir():
        raise BadConfig(f"{model} has no candidate. `iadbe update {model} --reviewed DIR --challenge DIR` makes one.")
    if not force:
        evidence = _evidence(folder)
        if evidence["present_model"] != _fingerprint(model):
            raise BadConfig("the model has changed since the candidate was compared with it. Run the comparison again.")
        if evidence["passes"] is not True:
            raise BadConfig(f"{evidence['sentence']} With --force it is promoted nevertheless.")
    kept = model.with_name(f"{model.name}.{max(_numbers(model), default=0) + 1}")
    system.rename(model, kept)
    system.rename(folder, model)
    return kept


def roll_back(model: Path) -> Path:
    """Put the newest former model into the model's place, which takes that one's; return the latter."""
    numbers = _numbers(model)
    if not numbers:
        raise BadConfig(f"{model} has no former model to go back to.")
    former = model.with_name(f"{model.name}.{max(numbers)}")
    aside = model.with_name(f"{model.name}.aside")
    system.rename(model, aside)
    system.rename(former, model)
    system.rename(aside, former)
    return former


def recover(model: Path) -> None:
    """Finish what a crash between two renames has left: without a model, what was to take its place does."""
    if model.exists():
        return
    aside, candidate = model.with_name(f"{model.name}.aside"), candidate_of(model)
    if candidate.is_dir() and _numbers(model) and not aside.is_dir():
        system.rename(candidate, model)
    elif aside.is_dir():
        system.rename(aside, model)


def _numbers(model: Path) -> list[int]:
    """Return the numbers of former models."""
    pattern = re.compile(re.escape(model.name) + r"\.(\d+)")
    found = (pattern.fullmatch(path.name) for path in model.parent.iterdir() if path.is_dir())
    return [int(match[1]) for match in found if match]


def _evidence(folder: Path) -> Mapping[str, Any]:
    try:
        raw = json.loads((folder / EVIDENCE).read_text(encoding="utf-8"))
        return {name: raw[name] for name in ("passes", "sentence", "present_model")}
    except FileNotFoundError as error:
        raise BadConfig("the candidate was not compared with the model: give a challenge set, or --force.") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BadData(f"{folder / EVIDENCE} is damaged ({error}). Run the comparison again.") from error


def _fingerprint(model: Path) -> str:
    """Return a digest of a model: of its tensors and its card."""
    digest = hashlib.sha256()
    for name in (model_folder.CARD, model_folder.TENSORS):
        digest.update((model / name).read_bytes())
    return digest.hexdigest()
