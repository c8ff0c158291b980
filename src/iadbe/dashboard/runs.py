"""The page of all runs, sorted, filtered and paged by the server, so that large stores stay fast."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.layout import page
from iadbe.results.style import label, lower_is_better
from iadbe.web.leaderboard import Names
from iadbe.web.number_ranges import whole_number
from iadbe.web.runs import runs as listed
from iadbe.web.state import Server

router = APIRouter()
PAGE_SIZE = 50  # runs on one page
METRICS = 3  # metric columns by default
DEFAULT_METRICS = ("image_auroc", "pixel_auroc", "pixel_aupro")
PLAIN = (
    ("detector", "Detector"), ("dataset", "Data set"), ("task", "Category"), ("setting", "Setting"), ("seed", "Seed"),
)  # fmt: skip
COSTS = (("fit_seconds", "Fit, s"), ("latency_ms", "ms"), ("date", "Date"))
FILTERS = (("dataset", "Data set"), ("detector", "Detector"), ("setting", "Setting"), ("category", "Category"))


@router.get("/runs")
def runs(
    server: Server,
    dataset: Names = [],  # noqa: B006
    setting: Names = [],  # noqa: B006
    protocol: Names = [],  # noqa: B006
    detector: Names = [],  # noqa: B006
    category: Names = [],  # noqa: B006
    seed: Names = [],  # noqa: B006
    state: Literal["all", "well", "failed"] = "all",
    find: Annotated[str, Query(max_length=200)] = "",
    sort: Annotated[str, Query(max_length=200)] = "-date",
    metric: Names = [],  # noqa: B006
    number: Annotated[int, Query(alias="page", ge=1, le=10**6)] = 1,
) -> HTMLResponse:
    """Render one page of the list."""
    where = {"dataset": dataset, "setting": setting, "protocol": protocol, "detector": detector, "category": category}
    where = {name: [v for v in values if v] for name, values in where.items()}  # a form sends empty fields, too
    seeds = [n for s in seed if (n := whole_number(s)) is not None]
    found = listed(
        server, **where, seed=seeds, state=state, find=find, sort=sort, limit=PAGE_SIZE, offset=(number - 1) * PAGE_SIZE
    )
    choices = server.run_cache.choices()
    have = choices["metric"]
    shown = [m for m in metric if m in have] or [m for m in DEFAULT_METRICS if m in have][:METRICS] or have[:METRICS]
    view: dict[str, Any] = {**where, "seed": seeds, "find": find, "metric": [m for m in metric if m]}
    view |= {"state": "" if state == "all" else state, "sort": "" if sort == "-date" else sort}

    def address(**more: Any) -> str:
        return "/runs?" + urlencode({k: v for k, v in (view | more).items() if v}, doseq=True)

    return page(
        "runs", server, title="Runs", at="/runs", runs=found["runs"], total=found["total"], number=number,
        page_size=PAGE_SIZE,
        choices=choices, view=view, address=address, filters=FILTERS, plain=PLAIN, costs=COSTS, sort=sort, state=state,
        metrics=[(m, label(m), lower_is_better(m)) for m in shown], every=[(m, label(m)) for m in have],
        stored=len(server.run_cache.now().runs),
    )  # fmt: skip
