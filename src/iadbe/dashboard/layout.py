"""Shared layout of the pages: navigation, template environment and static files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse

from iadbe import __version__
from iadbe.dashboard import assets, docstrings
from iadbe.results.names import foreign_note
from iadbe.web.state import ServerState

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
PAGES = (  # entries of the navigation
    ("/", "Leaderboard"),
    ("/runs", "Runs"),
    ("/compare", "Compare"),
    ("/data", "Data"),
    ("/detectors", "Detectors"),
    ("/new", "New run"),
    ("/jobs", "Jobs"),
    ("/inspect", "Inspect"),
    ("/line", "Line"),
    ("/training", "Training"),
    ("/docs", "API"),
)


def page(name: str, server: ServerState, *, title: str, at: str = "", status: int = 200, **values: Any) -> HTMLResponse:
    """Render the template of a page. ``at`` is the address of its entry in the navigation."""
    known = {
        "version": __version__,
        "store": server.store.root.name,
        "token": bool(server.policy.token),
        "read_only": server.read_only,
        "pages": PAGES,
        "plotly": assets.address(),
    }
    text = _templates().get_template(f"{name}.html.jinja").render(**known, title=title, at=at, **values)
    return HTMLResponse(text, status)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["plain"] = docstrings.plain
    made.globals["foreign"] = lambda name: foreign_note(name.partition("(")[0])  # of a detector's name in a table
    return made
