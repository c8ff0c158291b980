"""Where one starts: the detectors ranked on one dataset."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.frame import page
from iadbe.results import published
from iadbe.results.index import Which
from iadbe.web.house import Here
from iadbe.web.leaderboard import made

router = APIRouter()
SHOWN = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_aupro")


@router.get("/")
def leaderboard(house: Here, dataset: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """Show the leaderboard of one dataset, the one with the most runs by default."""
    now = house.library.now()
    counts: dict[str, int] = {}
    for shelved in now.runs.values():
        counts[shelved.result.spec.dataset] = counts.get(shelved.result.spec.dataset, 0) + 1
    chosen = dataset or max(sorted(counts), key=counts.__getitem__, default="")
    tables = []
    if chosen:
        which = Which((chosen,))
        have = {m for c in house.library.comparisons(which) for m in c.metrics}
        usual = tuple(m for m in SHOWN if m in have)
        tables = made(house, which, usual, reported=published.DEFAULT)
    jobs, _ = house.queue.listed(limit=5)
    return page(
        "leaderboard", house, title="Leaderboard", at="/", chosen=chosen, counts=counts, tables=tables, jobs=jobs,
        damaged=list(now.damaged.values()), runs=len(now.runs),
    )  # fmt: skip
