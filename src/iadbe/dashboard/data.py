"""The data: what new runs may use, with counts, images and what a look at them found; and the sets that are known."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.frame import page
from iadbe.dashboard.prose import parts
from iadbe.web import data as known
from iadbe.web import samples
from iadbe.web.house import Here

router = APIRouter()
Text = Annotated[str, Query(max_length=200)]
PAGE = 24  # images at a time
FEW = 1500  # images that are looked at without being asked


@router.get("/data")
def data(house: Here) -> HTMLResponse:
    """List the data that may be used, and the datasets that are only known."""
    entries = [{**e, **_sums(e)} for e in known.datasets(house)]
    return page(
        "data", house, title="Data", at="/data", usable=[e for e in entries if e["usable"]],
        others=[e for e in entries if not e["usable"]], upload=house.rules.upload,
    )  # fmt: skip


@router.get("/data/{name}")
def dataset(
    house: Here,
    name: Annotated[str, Path(max_length=80)],
    category: Text = "",
    split: Text = "",
    defect: Text = "",
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> HTMLResponse:
    """Show one of them."""
    found = known.dataset(house, name)
    listed: dict[str, Any] = {"total": 0, "samples": [], "kinds": []}
    if found["usable"]:
        listed = samples.samples(house, name, category, split, defect, PAGE, offset)
    whole = sum(k["count"] for k in listed["kinds"])
    chosen = {"category": category, "split": split, "defect": defect}
    return page(
        "dataset", house, title=name, at="/data", found={**found, **_sums(found)}, parts=parts(found["doc"]),
        categories=_categories(listed["kinds"]), samples=listed["samples"], total=listed["total"], whole=whole,
        defects=sorted({k["defect"] for k in listed["kinds"]} - {"good"}), chosen=chosen, offset=offset, page=PAGE,
        narrowed={k: v for k, v in chosen.items() if v}, at_once=whole <= FEW,
    )  # fmt: skip


def _categories(kinds: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return by category how many images there are, and of which defects."""
    found: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        entry = found.setdefault(kind["category"], {"train": 0, "val": 0, "good": 0, "bad": 0, "defects": {}})
        if kind["split"] != "test":
            entry[kind["split"]] += kind["count"]
        elif kind["defect"] == "good":
            entry["good"] += kind["count"]
        else:
            entry["bad"] += kind["count"]
            entry["defects"][kind["defect"]] = kind["count"]
    return dict(sorted(found.items()))


def _sums(entry: dict[str, Any]) -> dict[str, Any]:
    """Return how many images and categories some data has: counted, or as published where it is not here."""
    counts, about = entry.get("counts") or {}, entry["about"]
    if counts:
        return {"images": sum(sum(c.values()) for c in counts.values()), "parts": len(entry["categories"])}
    published = about.get("counts") or {}
    total = sum(about.get("total") or ()) or sum(sum(c) for c in published.values())
    return {"images": total, "parts": len(published)}
