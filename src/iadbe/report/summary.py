"""The summary of a benchmark in one sentence: which detector is best, by how much, at what cost, and how certain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iadbe.evaluation.confidence import CategoryScores, Interval, differ_significantly
from iadbe.results.builder import entry_interval, entry_samples, same_machine, sorted_entries
from iadbe.results.comparison import Comparison
from iadbe.results.entry import Entry, fastest
from iadbe.results.names import grouped
from iadbe.results.style import Style, label, lower_is_better

IMAGE = "image_auroc"
MANY = 4  # names listed in a sentence


@dataclass(frozen=True, slots=True)
class RankedDetector:
    """A detector's place in the ranking."""

    entry: Entry
    value: float  # nan: no value
    ranked: bool  # it has every category, and its training was not cut short
    interval: Interval | None = None  # of the image AUROC
    tied: bool = False  # no significant difference to the leader; the leader is tied with itself


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a comparison."""

    sentence: str
    metric: str
    ranking: tuple[RankedDetector, ...]  # best first
    images: int  # test images behind the intervals

    @property
    def leader(self) -> RankedDetector | None:
        """The best detector among those that have every category."""
        return next((s for s in self.ranking if s.ranked), None)


def summarise(comparison: Comparison, style: Style | None = None) -> Summary:
    """Summarise one comparison, once. Intervals need the runs' scores, so runs from the store, not from the index."""
    key = ("summary", style or Style())
    if key not in comparison.cache:
        comparison.cache[key] = _summary(comparison, key[1])
    found: Summary = comparison.cache[key]
    return found


def _summary(comparison: Comparison, style: Style) -> Summary:
    metric = IMAGE if comparison.categories(IMAGE) or not comparison.metrics else comparison.metrics[0]
    entries = sorted_entries(comparison, metric)
    means = {e.name: comparison.mean(e, metric) for e in entries}
    intervals = {e.name: entry_interval(comparison, e, metric) if metric == IMAGE else None for e in entries}
    leader = next((e for e in entries if means[e.name].ranked), None)
    first = None if leader is None or metric != IMAGE else entry_samples(comparison, leader, metric)
    ranking = []
    for entry in entries:
        mean, tied = means[entry.name], entry is leader
        if mean.ranked and first is not None and not tied:
            own = entry_samples(comparison, entry, metric)
            tied = own is not None and not differ_significantly(first, own)
        ranking.append(RankedDetector(entry, mean.value, mean.ranked, intervals[entry.name], tied))
    images = len({i for e in entries for found in image_cases(e).values() for c in found for i in c.ids})
    return Summary(_sentence(comparison, metric, ranking, images, style), metric, tuple(ranking), images)


def image_cases(entry: Entry) -> dict[str, list[CategoryScores]]:
    """Return a detector's scores of each category's test images after the last step."""
    return entry.cases


def _sentence(comparison: Comparison, metric: str, ranking: Sequence[RankedDetector], images: int, style: Style) -> str:
    ranked = [s for s in ranking if s.ranked]
    if not ranked:
        return _no_result(comparison, ranking)
    leader, others = ranked[0], ranked[1:]
    name, what, value = leader.entry.name, label(metric), style.share(leader.value)
    costs = {s.entry.name: s.entry.cost("latency_ms") for s in ranked} if same_machine(comparison) else {}
    times = {n: style.cost(ms) for n, ms in costs.items() if math.isfinite(ms)}
    at = f" at {times[name]} ms per image" if name in times else ""
    more = _unfinished(ranking)
    if not others:
        between = "" if leader.interval is None else f" (95 % interval {_range(leader.interval, style)})"
        return f"{name} reaches an {what} of {value}{between}{at}.{more}"
    if level := [s for s in others if s.tied]:
        rivals = _joined([f"{s.entry.name} ({style.share(s.value)})" for s in level])
        quick = _fastest([leader, *level], times)
        on = f"on these {images} images"
        lead = f"{name} leads with an {what} of {value}, but the difference from {rivals}"
        return f"{lead} is not significant {on}{quick}.{more}"
    second = others[0]
    margin = style.share(abs(leader.value - second.value))
    gap = f"{margin} {'below' if lower_is_better(metric) else 'above'}" if float(margin) else "hardly better than"
    also = f" ({second.entry.name}: {times[second.entry.name]} ms)" if at and second.entry.name in times else ""
    cost = f",{at}{also}" if at else ""
    caveat = "" if leader.interval else "; without image scores there is no test of significance"
    return f"{name} finds the defects best: {what} {value}, {gap} {second.entry.name}{cost}{caveat}.{more}"


def _no_result(comparison: Comparison, ranking: Sequence[RankedDetector]) -> str:
    failed = sum(len(e.failed) for e in comparison.entries)
    if not any(e.runs for e in comparison.entries):
        return f"There is no result yet: all {failed} runs failed."
    if not any(math.isfinite(s.value) for s in ranking):
        return "There is no result: no metric is defined, because the test images are all good or all defective."
    if texts := _unfinished(ranking):
        return f"There is no result yet: no detector has finished its training.{texts}"
    return "There is no result yet: no detector has a value in every category."


def _fastest(tied: Sequence[RankedDetector], times: Mapping[str, str]) -> str:
    """Name the fastest of detectors, if its latency does not overlap another's."""
    found = fastest([s.entry for s in tied]) if all(s.entry.name in times for s in tied) else None
    if found is None:
        return ""
    also = "is also" if found is tied[0].entry else "is"
    return f"; {found.name} {also} the fastest of them, at {times[found.name]} ms per image"


def _unfinished(ranking: Sequence[RankedDetector]) -> str:
    """Name the detectors that are not ranked because their training was cut short."""
    texts = [
        f"{s.entry.name} ({grouped(s.entry.steps[0])} of {grouped(s.entry.steps[1])} training steps)"
        for s in ranking
        if s.entry.unfinished and s.entry.steps
    ]
    return f" Unfinished, so not ranked: {_joined(texts)}." if texts else ""


def _range(found: Interval, style: Style) -> str:
    return f"{style.share(found.low)} to {style.share(found.high)}"


def _joined(names: Sequence[str]) -> str:
    if len(names) > MANY:
        names = [*names[: MANY - 1], f"{len(names) - MANY + 1} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
