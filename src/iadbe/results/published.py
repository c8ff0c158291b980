"""Published numbers next to ours: the number that a paper reports for a detector on a dataset.

The data are in ``reported/*.csv``, one file per publication. ``value`` is in [0, 1]; ``category`` is a category or
``mean``, over ``of`` categories; averages are recomputed where the cells are known. ``dialect`` says how the number was
computed. ``exact`` is the definition of our metric of the same name, and only such numbers are subtracted from ours;
for one of our rows in a dialect (``pixel_aupro.mvtec_3d``), those of that dialect. ``mean-of-kinds`` (MVTec LOCO) is
the mean of two numbers: structural defects against good images, and logical ones against good images.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from iadbe.errors import UnknownName, did_you_mean

FOLDER = Path(__file__).parent.parent / "reported"
MEAN = "mean"
EXACT = "exact"
DIALECT_NAMES = {  # in the data -> in our rows
    "mvtec3d-100": "mvtec_3d",
    "adeval": "adeval_50",
    "adeval-21": "ader",
    "mask-int": "whole",
    "mean-of-kinds": "kinds",
    "orthoad-macro": "orthoad",
    "orthoad-paddle": "orthoad_paddle.whole",
}
# the method's own paper or authors, else the best-known implementation, else what earlier benchmarks measured
DEFAULT = ("papers", "orthoad_paddle", "anomalib", "im_iad", "iadbe", "ader")


class Reported(NamedTuple):
    """One published number."""

    detector: str
    paper: str
    dataset: str
    category: str
    of: int  # number of categories in the mean
    metric: str
    dialect: str
    value: float
    setting: str  # "few_shot(k=4)"
    backbone: str  # as timm calls it; empty where it is not stated
    params: str  # "coreset=0.1"
    source: str


class Match(NamedTuple):
    """A published number for one of ours."""

    value: float
    comparable: bool  # computed as ours is, so that a difference is meaningful
    note: str  # one sentence: paper, model, source


@cache
def sources() -> tuple[str, ...]:
    """Return the names of all publications."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.csv")))


@cache
def read(source: str) -> tuple[Reported, ...]:
    """Return a publication's numbers in file order."""
    if source not in sources():
        hint = did_you_mean(source, sources())
        raise UnknownName(f"no published numbers are named {source!r}.{hint} There are: {', '.join(sources())}.")
    with (FOLDER / f"{source}.csv").open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    return tuple(Reported(**{**row, "of": int(row["of"]), "value": float(row["value"])}) for row in rows)


@cache
def _by_number(source: str) -> dict[tuple[str, str, str], list[Reported]]:
    """Return a publication's numbers by detector, dataset and metric, each in file order."""
    found: dict[tuple[str, str, str], list[Reported]] = {}
    for row in read(source):
        found.setdefault((row.detector, row.dataset, row.metric), []).append(row)
    return found


def find(
    detector: str,
    params: Mapping[str, Any],
    dataset: str,
    setting: str,
    metric: str,
    categories: Collection[str],
    names: Sequence[str] = DEFAULT,
) -> Match | None:
    """Return the published number for the mean over ``categories``, from the first of ``names`` that has one.

    Numbers with the same backbone and parameters come first. A mean over other categories is never returned; where
    each category's number is known, their mean is.
    """
    head, at, parameter = metric.partition("@")
    head, dot, variant = head.partition(".")
    wanted_dialect = variant if dot else EXACT
    for name in names:
        rows = list(_by_number(name).get((detector, dataset, head + at + parameter), ()))
        rows = [r for r in rows if DIALECT_NAMES.get(r.dialect, r.dialect) == wanted_dialect] if dot else rows
        rows = [r for r in rows if _agrees(r.setting, setting)]
        # the most specific setting, then the most similar detector; stable: a file's first numbers are its headline
        rows.sort(key=lambda r: (-r.setting.count("="), *_distance(r, params)))
        for row in rows:
            if (value := _mean(row, rows, set(categories))) is not None:
                like = DIALECT_NAMES.get(row.dialect, row.dialect) == wanted_dialect
                return Match(value, like, _sentence(row, params, comparable=like))
    return None


def _mean(row: Reported, rows: list[Reported], categories: set[str]) -> float | None:
    """Return the mean over ``categories`` from ``row``, or from it and its siblings."""
    if row.category == MEAN and row.of == len(categories) and row.of > 1:
        return row.value
    siblings = [r for r in rows if r[:2] + r[6:7] + r[9:11] == row[:2] + row[6:7] + row[9:11]]
    cells = {r.category: r.value for r in reversed(siblings) if r.category in categories}
    if row.category == MEAN and row.of == 1 == len(categories):
        return row.value  # a dataset of one category
    return fmean(cells.values()) if cells.keys() == categories else None


def _agrees(published: str, ours: str) -> bool:
    """Return whether all parameters that the publication states for its setting equal ours."""
    name, _, stated = published.rstrip(")").partition("(")
    own_name, _, own = ours.rstrip(")").partition("(")
    return name == own_name and set(filter(None, stated.split(", "))) <= set(own.split(", "))


def _distance(row: Reported, params: Mapping[str, Any]) -> tuple[bool, int]:
    own_backbone = str(params.get("backbone", "")).partition(".")[0]
    other = bool(row.backbone and own_backbone and row.backbone != own_backbone)
    stated = [p.partition("=")[::2] for p in filter(None, row.params.split(", "))]
    return other, sum(key in params and str(params[key]) != value for key, value in stated)


def _sentence(row: Reported, params: Mapping[str, Any], *, comparable: bool) -> str:
    with_ = ", ".join(filter(None, (row.backbone, row.params)))
    dialect = "" if comparable else f"; computed differently ({row.dialect}), so not subtracted"
    own = str(params.get("backbone", "")).partition(".")[0]
    ours = f", ours with {own}" if row.backbone and own and own != row.backbone else ""
    return f"{row.paper}{f', with {with_}' if with_ else ''}{ours}{dialect}. Source: {row.source}."
