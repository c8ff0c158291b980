"""What all pages share: the frame with its navigation, how a template becomes an answer, and the files beside it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse

from iadbe import __version__
from iadbe.dashboard import assets, prose
from iadbe.web.house import House

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
STATIC = HERE / "static"
PAGES = (  # of the navigation, in its order
    ("/", "Leaderboard"),
    ("/runs", "Runs"),
    ("/compare", "Compare"),
    ("/data", "Data"),
    ("/detectors", "Detectors"),
    ("/new", "New run"),
    ("/jobs", "Jobs"),
    ("/inspect", "Inspect"),
    ("/training", "Training"),
    ("/docs", "API"),
)


def page(name: str, house: House, *, title: str, at: str = "", status: int = 200, **values: Any) -> HTMLResponse:
    """Fill the template of a page; ``at`` is the address of the entry of the navigation that it belongs to."""
    known = {
        "version": __version__,
        "store": house.store.root.name,
        "token": bool(house.rules.token),
        "pages": PAGES,
        "plotly": assets.address(),
    }
    text = _templates().get_template(f"{name}.html.jinja").render(**known, title=title, at=at, **values)
    return HTMLResponse(text, status)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["plain"] = prose.plain
    return made
