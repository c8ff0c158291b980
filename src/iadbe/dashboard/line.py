"""The page of the line: calibrated models in use, and whether their calibration still holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from iadbe.dashboard.layout import page
from iadbe.monitoring.exchangeability import ALARM
from iadbe.web.drift import watched
from iadbe.web.state import Server

router = APIRouter()
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 160, 62, 26
TOP = 12
LOWEST, HIGHEST = 0.1, 1e6  # evidence, on a logarithmic axis


class Chart(NamedTuple):
    """The evidence by hour, in units of its view box."""

    path: str
    points: tuple[tuple[float, float, str], ...]
    ticks: tuple[tuple[float, str], ...]
    alarm: float  # height of the line of the alarm
    first: str  # hours at the ends of the axis
    last: str


@router.get("/line")
def line(server: Server) -> HTMLResponse:
    """Render the models in use."""
    found = watched(server)
    charts = {model["id"]: chart(model["hours"]) for model in found if model.get("hours")}
    size = (WIDTH, HEIGHT, LEFT, BOTTOM)
    return page("line", server, title="Line", at="/line", models=found, charts=charts, size=size, alarm=ALARM)


def chart(hours: Sequence[Mapping[str, Any]]) -> Chart:
    """Lay out the evidence of hours; what lies outside of the axis is drawn at its end."""

    def height(value: float) -> float:
        low, high = math.log10(LOWEST), math.log10(HIGHEST)
        share = (math.log10(min(max(value, LOWEST), HIGHEST)) - low) / (high - low)
        return round(TOP + (HEIGHT - BOTTOM - TOP) * (1 - share), 1)

    width = WIDTH - LEFT - 10
    points = tuple(
        (
            round(LEFT + width * (n + 0.5) / len(hours), 1),
            height(hour["evidence"]),
            f"{hour['hour'].replace('T', ' ')} h UTC: {hour['images']} images, {hour['rejected']:.1%} rejected, "
            f"evidence {hour['evidence']:.3g}",
        )
        for n, hour in enumerate(hours)
    )
    ticks = tuple((height(value), text) for value, text in ((1, "1"), (ALARM, "1 000"), (HIGHEST, "10⁶")))
    path = "M" + "L".join(f"{x} {y}" for x, y, _ in points)
    ends = (hours[0]["hour"].replace("T", " "), hours[-1]["hour"].replace("T", " "))
    return Chart(path, points, ticks, height(ALARM), *ends)
