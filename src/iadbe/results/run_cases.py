"""The image scores of one run after its last step, by test, as arrays.

They are read from a run's folder without its other files, so that intervals over thousands of runs take little time
and memory. The ids of images are shared among the runs on the same data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from iadbe.errors import BadData
from iadbe.evaluation.confidence import CategoryScores, category_scores
from iadbe.running.store import SCORES, Store, score_columns
from iadbe.types import RunResult, Score

RunCases = Mapping[str, CategoryScores]  # by test, with one row of scores
CaseSource = Callable[[RunResult], RunCases]
MAX_SHARED = 1024  # lists of ids


def cases_of(run: RunResult) -> RunCases:
    """Return the scores that a run holds in memory; empty where it holds none."""
    return _cases(dict(zip(Score._fields, zip(*run.scores, strict=True), strict=True))) if run.scores else {}


def read_cases(store: Store, folder: str) -> RunCases:
    """Read the scores of a run's folder. Raises :class:`BadData` where they are damaged."""
    path = f"{store.root}/{folder}/{SCORES}"
    try:
        columns: dict[str, Sequence[Any]] = dict(score_columns(path))
        if not columns:
            return {}
        steps = {text: int(text) for text in set(columns["step"])}
        columns |= {"step": [*map(steps.__getitem__, columns["step"])], "score": [*map(float, columns["score"])]}
        return _cases(columns)
    except (OSError, ValueError, LookupError) as error:
        raise BadData(f"{path} is damaged ({error}). Remove its folder and run again.") from error


def merged(parts: Sequence[CategoryScores]) -> CategoryScores:
    """Return the scores of one category and seed from several runs; of an image in both, the last score counts."""
    if all(p.ids == parts[0].ids for p in parts):
        return parts[-1]
    images, groups = {}, {}
    for part in parts:
        own = part.groups or ("",) * len(part.ids)
        for i, is_bad, score, group in zip(part.ids, part.truth, part.score[0], own, strict=True):
            images[i] = (i, bool(is_bad), [float(score)])
            groups[i] = group.removeprefix("group ") if group.startswith("group ") else ""
    return category_scores(images.values(), {i: g for i, g in groups.items() if g})


def _cases(columns: Mapping[str, Sequence[Any]]) -> RunCases:
    """Return the cases of :class:`Score`'s columns."""
    steps, tests = columns["step"], columns["test"]
    last = max(steps)
    if min(steps) == last and tests.count(tests[0]) == len(tests):  # nearly every run
        return {tests[0]: _case(columns)}
    chosen: dict[str, list[int]] = {}
    for at, (step, test) in enumerate(zip(steps, tests, strict=True)):
        if step == last:
            chosen.setdefault(test, []).append(at)
    names = ("sample", "defect", "score", "group")
    return {
        test: _case({n: [columns[n][at] for at in places] for n in names if n in columns})
        for test, places in chosen.items()
    }


def _case(columns: Mapping[str, Sequence[Any]]) -> CategoryScores:
    """Return the case of the images of one test."""
    samples = columns["sample"]
    at = dict(zip(samples, range(len(samples)), strict=True))  # of an image that is there twice, the last score counts
    ids = tuple(sorted(at))
    order = list(map(at.__getitem__, ids))
    defects = columns["defect"]
    is_bad = bytes([defects[p] != "good" for p in order])
    groups: tuple[str, ...] = ()
    if any(named := columns.get("group", ())):
        groups = tuple([f"group {named[p]}" if named[p] else f"image {samples[p]}" for p in order])
    score = np.array(columns["score"], dtype=np.float64)[None, order]
    ids, truth, groups = _shared(ids, is_bad, groups)
    return CategoryScores(ids, truth, score, groups)


@lru_cache(maxsize=MAX_SHARED)
def _shared(
    ids: tuple[str, ...], is_bad: bytes, groups: tuple[str, ...]
) -> tuple[tuple[str, ...], np.ndarray, tuple[str, ...]]:
    truth = np.frombuffer(is_bad, dtype=bool)  # read only
    return ids, truth, groups
