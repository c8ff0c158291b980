"""How long the runs of a grid will take, from what like runs in the store took."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, median

from iadbe.protocol import Protocol
from iadbe.running.store import Store
from iadbe.types import RunResult, RunSpec

# the alikeness of two runs, the closest first: what they have in common
LIKE = (
    ("detector", "dataset", "task", "setting", "protocol"),
    ("detector", "dataset", "setting", "protocol"),
    ("detector", "protocol"),
    ("detector",),
)


def seconds_of(specs: Sequence[RunSpec], stored: Iterable[RunResult]) -> list[float | None]:
    """Return the expected wall time of each run: the median of the runs most like it; None where there are none.

    A fit takes no longer than the run's own budget, whatever like runs were given.
    """
    known: dict[tuple[str, ...], list[tuple[float, float]]] = {}  # seconds of fit and of the rest
    for result in stored:
        if not result.error and (total := result.seconds.get("total")):
            fit = min(result.seconds.get("fit", 0.0), total)
            for fields in LIKE:
                known.setdefault(_key(result.spec, fields), []).append((fit, total - fit))
    found = []
    for spec in specs:
        like = next((known[key] for fields in LIKE if (key := _key(spec, fields)) in known), None)
        budget = Protocol.parse(spec.protocol).budget
        most = math.inf if budget is None else budget.seconds
        found.append(None if like is None else float(median(min(fit, most) + rest for fit, rest in like)))
    return found


def mean_seconds(specs: Sequence[RunSpec], store: Store) -> float | None:
    """Return the expected mean wall time of the runs that the store lacks; None where it has none that is like them."""
    missing = [spec for spec in specs if not store.has(spec)] or specs
    known = [seconds for seconds in seconds_of(missing, _stored(store)) if seconds is not None]
    return fmean(known) if known else None


def lines(specs: Sequence[RunSpec], store: Store) -> list[str]:
    """Return a line for each run, what it is and how long it may take, and a line on the whole."""
    from iadbe.cli.display import duration, title

    texts, remaining = [], []
    for spec, seconds in zip(specs, seconds_of(specs, _stored(store)), strict=True):
        if store.has(spec):
            texts.append(f"  {title(spec)}  done")
            continue
        remaining.append(seconds)
        texts.append(f"  {title(spec)}" + ("" if seconds is None else f"  about {duration(seconds)}"))
    times = [s for s in remaining if s is not None]
    if times:
        rest = f"; of {len(remaining) - len(times)} nothing is known" if len(times) < len(remaining) else ""
        what = "1 run" if len(times) == 1 else f"{len(times)} runs, one after the other"
        texts.append(f"about {duration(sum(times))} for {what}{rest}")
    elif remaining:
        texts.append("how long it takes is not known: the store has no run of these detectors")
    return texts


def _stored(store: Store) -> list[RunResult]:
    from iadbe.errors import IadbeError
    from iadbe.results.index import RunIndex

    if not store.root.is_dir():
        return []
    try:
        with RunIndex(store) as index:
            return index.results()
    except (IadbeError, OSError):  # a store that cannot be written has no index
        return []


def _key(spec: RunSpec, fields: tuple[str, ...]) -> tuple[str, ...]:
    return (str(len(fields)), *(str(getattr(spec, name)) for name in fields))
