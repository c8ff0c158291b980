"""The pages of the data: data roots and data_api datasets, with counts, data checks and images."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.docstrings import sections
from iadbe.dashboard.layout import page
from iadbe.types import UNLABELLED
from iadbe.web import data as data_api
from iadbe.web import samples
from iadbe.web.state import Server

router = APIRouter()
Text = Annotated[str, Query(max_length=200)]
PAGE = 24  # images at a time
CHECK_AT_ONCE = 1500  # up to this many images are checked without being asked


@router.get("/data")
def data(server: Server) -> HTMLResponse:
    """Render the list of data roots and data_api datasets."""
    entries = [{**e, **_sums(e)} for e in data_api.datasets(server)]
    return page(
        "data", server, title="Data", at="/data", usable=[e for e in entries if e["usable"]],
        others=[e for e in entries if not e["usable"]], upload=server.policy.upload,
    )  # fmt: skip


@router.get("/data/{name}")
def dataset(
    server: Server,
    name: Annotated[str, Path(max_length=80)],
    category: Text = "",
    split: Text = "",
    defect: Text = "",
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> HTMLResponse:
    """Render the page of one dataset."""
    found = data_api.dataset(server, name)
    listed: dict[str, Any] = {"total": 0, "samples": [], "kinds": []}
    if found["usable"]:
        listed = samples.samples(server, name, category, split, defect, PAGE, offset)
    whole = sum(k["count"] for k in listed["kinds"])
    chosen = {"category": category, "split": split, "defect": defect}
    return page(
        "dataset", server, title=name, at="/data", found={**found, **_sums(found)}, sections=sections(found["doc"]),
        categories=_categories(listed["kinds"]), samples=listed["samples"], total=listed["total"], whole=whole,
        defects=sorted({k["defect"] for k in listed["kinds"]} - {"good"}), chosen=chosen, offset=offset, page=PAGE,
        filters={k: v for k, v in chosen.items() if v}, check_at_once=whole <= CHECK_AT_ONCE,
    )  # fmt: skip


def _categories(kinds: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return by category the number of images for training and testing, unlabelled ones apart, and of each defect."""
    found: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        entry = found.setdefault(
            kind["category"], {"train": 0, "val": 0, "good": 0, "bad": 0, "unlabelled": 0, "defects": {}}
        )
        if kind["split"] != "test":
            entry[kind["split"]] += kind["count"]
        elif kind["defect"] in ("good", UNLABELLED):
            entry[kind["defect"]] += kind["count"]
        else:
            entry["bad"] += kind["count"]
            entry["defects"][kind["defect"]] = kind["count"]
    return dict(sorted(found.items()))


def _sums(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the number of images and categories: counted, or as published for data that is not here."""
    counts, about = entry.get("counts") or {}, entry["about"]
    if counts:
        return {"images": sum(sum(c.values()) for c in counts.values()), "category_count": len(entry["categories"])}
    published = about.get("counts") or {}
    total = sum(about.get("total") or ()) or sum(sum(c) for c in published.values())
    return {"images": total, "category_count": len(published)}
