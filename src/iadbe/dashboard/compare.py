"""Two to six runs side by side: where one sees what the other misses."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.frame import page
from iadbe.results.comparison import format_value
from iadbe.results.style import Style
from iadbe.web.comparisons import MOST, comparison
from iadbe.web.house import Here, House
from iadbe.web.runs import row_of
from iadbe.web.runs import runs as listed

router = APIRouter()
OFFERED = 40  # runs that may join
COSTS = (
    ("fit_seconds", "Seconds to fit", 1),
    ("latency_ms", "Milliseconds per image", 1),
    ("peak_bytes", "Peak memory, MB", 2**20),
    ("model_bytes", "Model size, MB", 2**20),
)


@router.get("/compare")
def compare(
    house: Here,
    run: Annotated[list[str], Query(max_length=MOST)] = [],  # noqa: B006
    find: Annotated[str, Query(max_length=200)] = "",
) -> HTMLResponse:
    """Show runs side by side, and offer others of the same data."""
    names = list(dict.fromkeys(run))
    chosen = [house.library.run(name) for name in names]
    rows = [row_of(s, house.store.root / s.folder) for s in chosen]
    offered = [] if len(names) >= MOST else _offered(house, rows, find)
    made: dict[str, Any] | None = comparison(house, names) if len(names) > 1 else None

    def address(*, add: str = "", without: str = "") -> str:
        kept = [row["id"] for row in rows if row["id"] != without]
        return "/compare?" + urlencode([("run", name) for name in (*kept, *([add] if add else []))])

    return page(
        "compare", house, title="Compare", at="/compare", rows=rows, made=made, offered=offered, find=find,
        address=address, differing=_differing([s.result.spec for s in chosen]), costs=_costs(rows), names=_names(rows),
        metrics=_metrics(made), share=Style().share, most=MOST, agreed=_agreed(made),
        view={"runs": [row["id"] for row in rows], "names": _names(rows)},
    )  # fmt: skip


def _offered(house: House, rows: list[dict[str, Any]], find: str) -> list[dict[str, Any]]:
    dataset, category = ([rows[0][n]] if rows else [] for n in ("dataset", "task"))
    found: list[dict[str, Any]] = listed(
        house, dataset=dataset, category=category, state="well", find=find, limit=OFFERED + MOST
    )["runs"]
    taken = {row["id"] for row in rows}
    return [row for row in found if row["id"] not in taken][:OFFERED]


def _names(rows: list[dict[str, Any]]) -> list[str]:
    """Name each run by its detector and by what tells it from others of the same detector."""
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
    """Return the parameters in which the runs differ."""
    params = [{f"{s.detector}.{k}": format_value(v) for k, v in s.detector_params.items()} for s in specs]
    if len({s.detector for s in specs}) == 1:
        keys = sorted({k for p in params for k in p if len({q.get(k) for q in params}) > 1})
        return [(k.partition(".")[2], [p.get(k, "—") for p in params]) for k in keys]
    return []


def _costs(rows: list[dict[str, Any]]) -> list[tuple[str, list[str], set[int]]]:
    found = []
    for key, text, unit in COSTS:
        values = [None if row[key] is None else row[key] / unit for row in rows]
        if any(v is not None for v in values):
            written = ["—" if v is None else Style().cost(v) for v in values]
            found.append((text, written, _best(written, lower=True)))
    return found


def _metrics(made: dict[str, Any] | None) -> list[tuple[str, list[str], set[int]]]:
    found = []
    for one in made["numbers"] if made else ():
        written = ["—" if v is None else Style().share(v) for v in one["values"]]
        found.append((one["label"], written, _best(written, lower=one["lower_is_better"])))
    return found


def _best(written: list[str], *, lower: bool) -> set[int]:
    numbers = {n: float(text.replace("−", "-")) for n, text in enumerate(written) if text != "—"}
    if len(numbers) < 2:
        return set()
    best = (min if lower else max)(numbers.values())
    return {n for n, value in numbers.items() if value == best}


def _agreed(made: dict[str, Any] | None) -> dict[str, int]:
    samples = made["samples"] if made else []
    right = sum(s["agreed"] and s["verdicts"][0] in ("caught", "passed") for s in samples)
    apart = sum(not s["agreed"] for s in samples)
    return {"all": len(samples), "right": right, "apart": apart, "wrong": len(samples) - right - apart}
