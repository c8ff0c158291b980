"""The pages of the detectors: the list, and each with its paper, parameters and results."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.docstrings import sections
from iadbe.dashboard.layout import page
from iadbe.results.style import label
from iadbe.web import catalogue
from iadbe.web.state import Server

router = APIRouter()
Text = Annotated[str, Query(max_length=200)]
SHOWN = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_aupro")
# capabilities in a detector's card, explained
CAN = {
    "localise": "shows where the defect is",
    "merge": "copies that learnt apart become one (federated)",
    "continue": "goes on learning (continual, federated, transfer)",
    "continual": "remembers earlier tasks (continual)",
    "meta-learning": "learns from other categories first",
    "transductive": "judges the test images by one another",
    "zero-shot": "needs no training image",
    "supervised": "learns from known defects",
}


@router.get("/detectors")
def detectors(server: Server, kind: Text = "", find: Text = "") -> HTMLResponse:
    """Render the list of detectors: all, those of one kind, or those that contain a text."""
    every = catalogue.detectors(server)
    kinds = sorted({d["about"].get("kind") or "other" for d in every}, key=str.lower)
    found = [d for d in every if kind in ("", d["about"].get("kind") or "other") and find.lower() in _search_text(d)]
    return page(
        "detectors", server, title="Detectors", at="/detectors", detectors=found, kinds=kinds, kind=kind, find=find,
        can=CAN, count=len(every),
    )  # fmt: skip


@router.get("/detectors/{name}")
def detector(server: Server, name: Annotated[str, Path(max_length=80)]) -> HTMLResponse:
    """Render the page of one detector."""
    found = catalogue.detector(server, name, results=True)
    about = found["about"]
    papers = about.get("paper_params") or {}
    parameters = [
        {"name": n, **p, "paper": papers.get(n), "default": p.get("default")}
        for n, p in found["form"]["properties"].items()
    ]
    have = {m for r in found["results"] for m in r["values"]}
    return page(
        "detector", server, title=name, at="/detectors", found=found, about=about, sections=sections(found["doc"]),
        parameters=parameters, papers=papers, can=CAN, metrics=[(m, label(m)) for m in SHOWN if m in have],
        results=sorted(found["results"], key=lambda r: (r["dataset"], r["setting"], r["protocol"])),
        format_value=format_value,
    )  # fmt: skip


def format_value(value: Any) -> str:
    """Format a parameter's value as on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(map(format_value, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _search_text(entry: dict[str, Any]) -> str:
    about = entry["about"]
    return " ".join(map(str, (entry["name"], entry["summary"], about.get("paper"), about.get("kind")))).lower()
