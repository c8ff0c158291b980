"""The page that compares two to six runs."""

from __future__ import annotations

import math
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.layout import page
from iadbe.results.builder import ran_alike, steps_cell
from iadbe.results.entry import Entry, fastest
from iadbe.results.names import format_value
from iadbe.results.style import Style
from iadbe.web.comparisons import MAX_RUNS, comparison
from iadbe.web.runs import row_of
from iadbe.web.runs import runs as listed
from iadbe.web.state import Server, ServerState

router = APIRouter()
SUGGESTED = 40  # runs suggested for the comparison
COSTS = (
    ("fit_seconds", "Seconds to fit", 1),
    ("latency_ms", "Milliseconds per image", 1),
    ("peak_bytes", "Peak memory, MB", 2**20),
    ("model_bytes", "Model size, MB", 2**20),
)


@router.get("/compare")
def compare(
    server: Server,
    run: Annotated[list[str], Query(max_length=MAX_RUNS)] = [],  # noqa: B006
    find: Annotated[str, Query(max_length=200)] = "",
) -> HTMLResponse:
    """Render the comparison, and suggest other runs on the same data."""
    names = list(dict.fromkeys(run))
    chosen = [server.run_cache.run(name) for name in names]
    rows = [row_of(s, server.store.root / s.folder) for s in chosen]
    results = [s.result for s in chosen]
    entries = [Entry(str(n), r.spec.detector, r.spec.detector_params, (r,), ()) for n, r in enumerate(results)]
    suggested = [] if len(names) >= MAX_RUNS else _suggested(server, rows, find)
    result: dict[str, Any] | None = comparison(server, names) if len(names) > 1 else None

    def address(*, add: str = "", without: str = "") -> str:
        kept = [row["id"] for row in rows if row["id"] != without]
        return "/compare?" + urlencode([("run", name) for name in (*kept, *([add] if add else []))])

    return page(
        "compare", server, title="Compare", at="/compare", rows=rows, result=result, suggested=suggested, find=find,
        address=address, differing=_differing([s.result.spec for s in chosen]), costs=_costs(rows, entries),
        names=_names(rows), metrics=_metrics(result, entries), share=Style().share, most=MAX_RUNS,
        agreement=_agreement(result), view={"runs": [row["id"] for row in rows], "names": _names(rows)},
    )  # fmt: skip


def _suggested(server: ServerState, rows: list[dict[str, Any]], find: str) -> list[dict[str, Any]]:
    dataset, category = ([rows[0][n]] if rows else [] for n in ("dataset", "task"))
    found: list[dict[str, Any]] = listed(
        server, dataset=dataset, category=category, state="well", find=find, limit=SUGGESTED + MAX_RUNS
    )["runs"]
    taken = {row["id"] for row in rows}
    return [row for row in found if row["id"] not in taken][:SUGGESTED]


def _names(rows: list[dict[str, Any]]) -> list[str]:
    """Name each run by its detector, and where that is ambiguous, by the fields that differ."""
    plain = [row["detector"] for row in rows]
    keys = [k for k in ("task", "setting", "protocol", "seed") if len({row[k] for row in rows}) > 1]
    if len(set(plain)) == len(plain) and "task" not in keys:
        return plain
    more = [", ".join(f"{k} {row[k]}" for k in keys) for row in rows]
    full = [f"{name} ({text})" if text else name for name, text in zip(plain, more, strict=True)]
    if len(set(full)) == len(full):
        return full
    return [f"{name} {row['id'][:4]}" for name, row in zip(full, rows, strict=True)]


def _differing(specs: list[Any]) -> list[tuple[str, list[str]]]:
    """Return the parameters that differ between the runs."""
    params = [{f"{s.detector}.{k}": format_value(v) for k, v in s.detector_params.items()} for s in specs]
    if len({s.detector for s in specs}) == 1:
        keys = sorted({k for p in params for k in p if len({q.get(k) for q in params}) > 1})
        return [(k.partition(".")[2], [p.get(k, "—") for p in params]) for k in keys]
    return []


def _costs(rows: list[dict[str, Any]], entries: list[Entry]) -> list[tuple[str, list[str], set[int]]]:
    """Return the costs as text, and the positions of the lowest: none where machines differ, or ranges of latency do.

    Runs whose training is unfinished are never the best.
    """
    finished = _finished(entries)
    alike = ran_alike([run for entry in entries for run in entry.runs])
    quickest = fastest([entries[n] for n in sorted(finished) if math.isfinite(entries[n].cost("latency_ms"))])
    found: list[tuple[str, list[str], set[int]]] = []
    if any(entry.progress < 1 for entry in entries):
        found.append(("Training steps", [steps_cell(entry).text for entry in entries], set()))
    for key, text, unit in COSTS:
        values = [None if row[key] is None else row[key] / unit for row in rows]
        if any(v is not None for v in values):
            texts = ["—" if v is None else Style().cost(v) for v in values]
            comparable = alike and (key != "latency_ms" or quickest is not None)
            found.append((text, texts, _best(texts, finished, lower=True) if comparable else set()))
    return found


def _metrics(result: dict[str, Any] | None, entries: list[Entry]) -> list[tuple[str, list[str], set[int]]]:
    found, finished = [], _finished(entries)
    for one in result["numbers"] if result else ():
        texts = ["—" if v is None else Style().share(v) for v in one["values"]]
        found.append((one["label"], texts, _best(texts, finished, lower=one["lower_is_better"])))
    return found


def _finished(entries: list[Entry]) -> set[int]:
    return {n for n, entry in enumerate(entries) if not entry.unfinished}


def _best(texts: list[str], finished: set[int], *, lower: bool) -> set[int]:
    numbers = {n: float(text.replace("−", "-")) for n, text in enumerate(texts) if text != "—" and n in finished}
    if len(numbers) < 2:
        return set()
    best = (min if lower else max)(numbers.values())
    return {n for n, value in numbers.items() if value == best}


def _agreement(result: dict[str, Any] | None) -> dict[str, int]:
    samples = result["samples"] if result else []
    right = sum(s["agreed"] and s["verdicts"][0] in ("caught", "passed") for s in samples)
    apart = sum(not s["agreed"] for s in samples)
    return {"all": len(samples), "right": right, "apart": apart, "wrong": len(samples) - right - apart}
