"""The page that scores uploaded or camera images with a model of the store."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.layout import page
from iadbe.report import colormap
from iadbe.web import models
from iadbe.web.state import Server

router = APIRouter()
MAX_MODELS = 300  # models to choose from; any other can be opened from the page of its run
STOPS = 9  # colours of the legend's gradient


@router.get("/inspect")
def inspect(server: Server, model: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """Render the page, with the newest models to choose from."""
    found = models.newest(server, MAX_MODELS, model)
    known = next((m for m in found if m["id"] == model), None)
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        groups.setdefault(f"{one['dataset']} · {one['task']}", []).append(
            {**one, "auroc": one["values"].get("image_auroc")}
        )
    limits = {"images": server.policy.images, "bytes": server.policy.image, "body": server.policy.predict_body}
    return page(
        "inspect", server, title="Inspect", at="/inspect", groups=dict(sorted(groups.items())), count=len(found),
        chosen=(known or (found[0] if found else {"id": ""}))["id"], missing=model if model and known is None else "",
        models={m["id"]: m for m in found}, limits=limits, colours=_colours(),
    )  # fmt: skip


def _colours() -> list[tuple[float, str]]:
    """Return (position from 0 to 1, colour) of the heat map's gradient."""
    scale = colormap.scale()
    return [(n / (STOPS - 1), "#{:02x}{:02x}{:02x}".format(*scale[n * 255 // (STOPS - 1)])) for n in range(STOPS)]
