"""HTML pages that stand alone: made of one template, with the report's style sheet at hand."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from iadbe.errors import Missing

STYLES = Path(__file__).parent


def rendered(template: Path, what: str, **values: Any) -> str:
    """Return a template with its values; text in them is escaped.

    Args:
        template: its file; it may include ``report.css``
        what: what is made, for the sentence of :class:`Missing` that is raised without jinja2: "the certificate"
        values: names that the template uses
    """
    if find_spec("jinja2") is None:
        raise Missing(f"{what} is made by jinja2. Install it with: pip install jinja2")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader([template.parent, STYLES]), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return pages.get_template(template.name).render(values)
