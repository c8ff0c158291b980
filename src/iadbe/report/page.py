"""The report: one HTML file with summary, evidence and images that needs no network and no other file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from iadbe import __version__, system
from iadbe.errors import BadConfig
from iadbe.report import charts, colormap, gallery, thresholds
from iadbe.report.summary import RankedDetector, Summary, image_cases, summarise
from iadbe.results.builder import MAD_NOTE, ranks_of, same_machine
from iadbe.results.comparison import Comparison, compare
from iadbe.results.entry import MAD, Entry
from iadbe.results.index import RunIndex, RunQuery, with_scores
from iadbe.results.names import data_title, foreign_note
from iadbe.results.published import DEFAULT
from iadbe.results.ranking import by_category_of, ranking_of
from iadbe.results.significance import LEVEL, Ranks
from iadbe.results.style import Style, label, lower_is_better, number
from iadbe.results.table import MISSING, Table
from iadbe.running.store import Store
from iadbe.types import RunResult

if TYPE_CHECKING:
    from jinja2 import Environment

PAGES = Path(__file__).parent
TEMPLATE = "report.html.jinja"
IMAGES = 6  # of each category
REASONS = 200  # failures listed


class CategoryCell(NamedTuple):
    """One cell of the table by category."""

    text: str
    share: float | None  # 0 to 1 of the colour; None: no value, or one that is not comparable
    best: bool
    partial: bool  # a mean over fewer categories


@dataclass(frozen=True, slots=True)
class CategoryTable:
    """One metric, detectors by categories."""

    metric: str
    label: str
    categories: tuple[str, ...]
    rows: tuple[tuple[str, tuple[CategoryCell, ...]], ...]
    low: str
    high: str
    note: str = ""  # what the metric is


@dataclass(frozen=True, slots=True)
class Bar:
    """A detector's confidence interval, in percent of the axis."""

    name: str
    text: str
    range_text: str
    at: float
    left: float
    width: float
    tied: bool


@dataclass(frozen=True, slots=True)
class Section:
    """The content of one comparison's section."""

    id: str
    title: str
    name: str  # of the data
    answer: Summary
    cards: tuple[tuple[str, str, str], ...]  # heading, value, remark
    ranking: Table
    heat: tuple[CategoryTable, ...]
    bars: tuple[Bar, ...]
    axis: tuple[charts.Tick, ...]
    scatter: charts.Scatter | None
    ranks: charts.RankDiagram | None
    ranks_note: str
    partial: tuple[str, ...]  # detectors that lack categories: not in bars and scatter
    unfinished: tuple[str, ...]  # detectors whose training was cut short: neither
    histograms: tuple[tuple[str, tuple[tuple[str, charts.Histogram | None], ...]], ...]
    images: tuple[gallery.CategoryImages, ...]
    thresholds: Table | None  # of calibrated models
    published: Table | None


def write(
    store: Store,
    what: RunQuery | Sequence[RunResult] | None,
    path: str | Path,
    *,
    skipped: Sequence[str] = (),
    title: str = "",
    style: Style | None = None,
    url: str = "",
) -> Path:
    """Write the report of the runs of ``what`` (None: all of the store) and return its path.

    ``skipped`` are sentences on what was skipped; ``url`` is the index's database, the store's own if empty.
    """
    unread: tuple[str, ...] = ()
    which = what if isinstance(what, RunQuery) else RunQuery()
    if what is None or isinstance(what, RunQuery):
        with RunIndex(store, url) as index:
            what, unread = index.results(which), index.damaged
    if not what:
        raise BadConfig(f"there are no runs in {store.root} to report on. Run `iadbe benchmark` first.")
    results, damaged = with_scores(store, what)
    results = [which.restrict(r) for r in results]
    text = render(store, results, skipped=[*unread, *damaged, *skipped], title=title, style=style or Style())
    path = system.user_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def render(store: Store, results: Sequence[RunResult], *, skipped: Sequence[str], title: str, style: Style) -> str:
    """Return the report's HTML."""
    sections = [_section(store, c, i, style) for i, c in enumerate(compare(results))]
    failures = [(r.spec, data_title(r), r.error) for r in results if r.error]
    return (
        _pages()
        .get_template(TEMPLATE)
        .render(
            title=title or _title(sections),
            sections=sections,
            failures=failures[:REASONS],
            more_failures=max(0, len(failures) - REASONS),
            skipped=skipped,
            machines=machines(results),
            commands=sorted({str(r.environment.get("command", "")) for r in results} - {""}),
            date=max((str(r.environment.get("date", "")) for r in results), default="")[:10],
            runs=len(results),
            version=__version__,
            legend=colormap.css(),
            missing=MISSING,
        )
    )


def _pages() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def rank_image(comparison: Comparison, metric: str) -> str:
    """Return the critical-difference diagram of a comparison as an SVG file's text.

    Raises :class:`BadConfig` where there are fewer than two detectors with every category, or than three categories.
    """
    found = ranks_of(comparison, metric)
    if found is None:
        raise BadConfig(
            f"there are no ranks in {comparison.title}: they need two detectors that have {label(metric)} in every "
            "category, and three categories."
        )
    image = _pages().get_template("ranks.svg.jinja")
    title = f"{label(metric)}: {comparison.title}"
    return image.render(plot=_diagram(found), sentence=found.sentence, title=title, missing=MISSING).strip() + "\n"


def _diagram(found: Ranks) -> charts.RankDiagram | None:
    return charts.rank_diagram(found.names, found.mean, found.groups, found.critical)


def machines(results: Sequence[RunResult]) -> list[tuple[int, dict[str, str]]]:
    """Return the environments with their number of runs, most used first."""
    found: dict[tuple[tuple[str, str], ...], int] = {}
    for result in results:
        about = {k: v for k, v in result.environment.items() if k not in ("date", "command", "packages")}
        about |= dict(result.environment.get("packages", {}))
        key = tuple((str(k), str(v)) for k, v in about.items())
        found[key] = found.get(key, 0) + 1
    return [(count, dict(key)) for key, count in sorted(found.items(), key=lambda item: -item[1])]


def _title(sections: Sequence[Section]) -> str:
    datasets = list(dict.fromkeys(s.name for s in sections))
    names = datasets[0] if len(datasets) == 1 else f"{', '.join(datasets[:-1])} and {datasets[-1]}"
    return f"Which detector finds the defects of {names}?"


def _section(store: Store, comparison: Comparison, position: int, style: Style) -> Section:
    answered = summarise(comparison, style)
    entries = [s.entry for s in answered.ranking]
    bars, axis = _bars(answered, style)
    chart = [(s.entry.name, s.entry.cost("latency_ms"), s.value) for s in answered.ranking if s.ranked]
    drawn = same_machine(comparison) and not lower_is_better(answered.metric)
    beside = ranking_of(comparison, style=style, reported=DEFAULT, costs=False, intervals=False)
    found = ranks_of(comparison, answered.metric)
    left_out = [s for s in answered.ranking if not s.ranked and math.isfinite(s.value)]
    return Section(
        id=f"part{position + 1}",
        title=comparison.title,
        name=comparison.name or comparison.dataset,
        answer=answered,
        cards=_cards(comparison, answered, style),
        ranking=ranking_of(comparison, style=style),
        heat=tuple(_heat(comparison, m, style) for m in comparison.metrics if comparison.categories(m)),
        bars=bars,
        axis=axis,
        scatter=charts.scatter(chart) if drawn else None,
        ranks=_diagram(found) if found is not None else None,
        ranks_note=f"By {label(answered.metric)}. {found.sentence}" if found is not None else "",
        partial=tuple(s.entry.name for s in left_out if not s.entry.unfinished),
        unfinished=tuple(s.entry.name for s in left_out if s.entry.unfinished),
        histograms=_histograms(store, entries),
        images=tuple(gallery.category_images(store, comparison, entries, IMAGES)),
        thresholds=thresholds.table(store, comparison.title, entries),
        published=beside if any("_reported" in c.name for c in beside.columns) else None,
    )


def _cards(comparison: Comparison, answered: Summary, style: Style) -> tuple[tuple[str, str, str], ...]:
    """Return the figures at the top: the best detector, its lead, its time, the number of runs."""
    cards = []
    if leader := answered.leader:
        between = leader.interval
        remark = f"95 % interval {style.share(between.low)} to {style.share(between.high)}" if between else ""
        cards.append((f"Best {label(answered.metric)}", style.share(leader.value), f"{leader.entry.name}. {remark}"))
        second = next((s for s in answered.ranking if s.ranked and s is not leader), None)
        if second is not None:
            gap = abs(leader.value - second.value)
            significance = _significance(comparison, answered, second)
            cards.append(("Lead", style.share(gap, signed=True), f"over {second.entry.name}{significance}"))
        milliseconds = leader.entry.cost("latency_ms")
        if math.isfinite(milliseconds):
            fit = leader.entry.cost("fit_seconds")
            fits = f", {style.cost(fit)} s to fit" if math.isfinite(fit) else ""
            cards.append(("Time per image", f"{style.cost(milliseconds)} ms", f"{leader.entry.name}{fits}"))
    well = sum(len(e.runs) for e in comparison.entries)
    failed = sum(len(e.failed) for e in comparison.entries)
    seeds = len({r.spec.seed for e in comparison.entries for r in e.runs})
    count = len({c for m in comparison.metrics for c in comparison.categories(m)})
    detectors = _count(len(comparison.entries), "detector")
    remark = f"{detectors}, {_count(count, 'category', 'categories')}, {_count(seeds, 'seed')}"
    cards.append(("Runs", f"{well}", remark + (f", {failed} failed" if failed else "")))
    return tuple(cards)


def _significance(comparison: Comparison, answered: Summary, second: RankedDetector) -> str:
    """Return whether the leader's margin is significant on these images, and over categories where that is tested."""
    leader = answered.leader
    if leader is None or leader.interval is None:
        return ""
    if second.tied:
        return ": not significant on these images"
    found = ranks_of(comparison, answered.metric)
    names = found.names if found is not None else ()
    if found is not None and {leader.entry.name, second.entry.name} <= set(names):
        p = found.p[names.index(leader.entry.name)][names.index(second.entry.name)]
        over = "and" if p <= LEVEL else "but not"
        return f": significant on these images, {over} over categories"
    return ": significant on these images"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _heat(comparison: Comparison, metric: str, style: Style) -> CategoryTable:
    table = by_category_of(comparison, metric, style, intervals=False)  # a cell of this table holds one number
    values = [number(c.text) for row in table.rows for c in row[1:] if c.value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    rows = []
    for name, *cells in table.rows:
        shares = [None if c.value is None or c.marks else (number(c.text) - low) / ((high - low) or 1) for c in cells]
        if lower_is_better(metric):
            shares = [None if s is None else 1 - s for s in shares]
        pairs = zip(cells, shares, strict=True)
        rows.append((name.text, tuple(CategoryCell(c.text, s, c.best, bool(c.marks)) for c, s in pairs)))
    names = tuple(c.label for c in table.columns[1:])
    foreign = dict.fromkeys(foreign_note(e.detector) for e in comparison.entries)
    note = " ".join(filter(None, (MAD_NOTE if metric == MAD else "", *foreign)))
    return CategoryTable(metric, label(metric), names, tuple(rows), f"{low:g}", f"{high:g}", note)


def _bars(answered: Summary, style: Style) -> tuple[tuple[Bar, ...], tuple[charts.Tick, ...]]:
    """Lay out the intervals of all detectors on one axis."""
    shown = [s for s in answered.ranking if s.interval is not None and s.ranked]
    if not shown:
        return (), ()
    low = min(min(s.interval.low, s.value) for s in shown if s.interval)
    high = max(max(s.interval.high, s.value) for s in shown if s.interval)
    low, high = (low - 0.005, high + 0.005) if high - low < 0.01 else (low, high)
    low, high = max(0.0, low - 0.04 * (high - low)), min(1.0, high + 0.04 * (high - low))

    def at(value: float) -> float:
        return round((value - low) / (high - low) * 100, 2)

    bars = []
    for s in shown:
        if s.interval is not None:
            text = f"{style.share(s.interval.low)} to {style.share(s.interval.high)}"
            width = round(at(s.interval.high) - at(s.interval.low), 2)
            name = s.entry.name
            bars.append(Bar(name, style.share(s.value), text, at(s.value), at(s.interval.low), width, s.tied))
    ticks = [charts.Tick(at(v), style.share(v)) for v in charts.round_steps(low, high, 4)]
    return tuple(bars), tuple(ticks)


def _histograms(
    store: Store, entries: Sequence[Entry]
) -> tuple[tuple[str, tuple[tuple[str, charts.Histogram | None], ...]], ...]:
    """Return, by category, each detector's scores (of its first seed) as a histogram."""
    cases = {e.name: image_cases(e) for e in entries}
    kept = {e.name: thresholds.by_category(store, e) for e in entries}
    names = sorted({c for found in cases.values() for c in found})
    rows = []
    for name in names:
        row = []
        for entry in entries:
            made = None
            if found := cases[entry.name].get(name):
                truth, score = found[0].truth, found[0].score[0]
                own = kept[entry.name].get(name)
                at = gallery.best_threshold(truth, score) if own is None else own.threshold
                made = charts.histogram(score[~truth], score[truth], at, calibrated=own is not None)
            row.append((entry.name, made))
        rows.append((name, tuple(row)))
    return tuple(rows)
