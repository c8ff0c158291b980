"""Images that somebody brings, or takes with a camera, scored by a model of the store."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.frame import page
from iadbe.report import colormap
from iadbe.web import models
from iadbe.web.house import Here

router = APIRouter()
MOST = 300  # models to choose from; any other is reached from its run
STOPS = 9  # of the legend's colours


@router.get("/inspect")
def inspect(house: Here, model: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """Show the models, and the place where images go."""
    found = models.newest(house, MOST, model)
    known = next((m for m in found if m["id"] == model), None)
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        groups.setdefault(f"{one['dataset']} · {one['task']}", []).append(
            {**one, "auroc": one["values"].get("image_auroc")}
        )
    limits = {"images": house.rules.images, "bytes": house.rules.image, "body": house.rules.predict_body}
    return page(
        "inspect", house, title="Inspect", at="/inspect", groups=dict(sorted(groups.items())), count=len(found),
        chosen=(known or (found[0] if found else {"id": ""}))["id"], missing=model if model and known is None else "",
        models={m["id"]: m for m in found}, limits=limits, colours=_colours(),
    )  # fmt: skip


def _colours() -> list[tuple[float, str]]:
    """Return (place from 0 to 1, colour) for a legend of heat."""
    scale = colormap.scale()
    return [(n / (STOPS - 1), "#{:02x}{:02x}{:02x}".format(*scale[n * 255 // (STOPS - 1)])) for n in range(STOPS)]
