"""The shelf of detectors, and what is known of each: paper, parameters, and its results everywhere."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.frame import page
from iadbe.dashboard.prose import parts
from iadbe.results.style import label
from iadbe.web import catalogue
from iadbe.web.house import Here

router = APIRouter()
Text = Annotated[str, Query(max_length=200)]
SHOWN = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_aupro")
# what the words of a detector's card mean to somebody who has to choose one
CAN = {
    "localise": "shows where the defect is",
    "merge": "copies that learnt apart become one (federated)",
    "continue": "goes on learning (continual, federated, transfer)",
    "meta-learning": "learns from other categories first",
    "transductive": "judges the test images by one another",
    "zero-shot": "needs no training image",
    "supervised": "learns from known defects",
}


@router.get("/detectors")
def detectors(house: Here, kind: Text = "", find: Text = "") -> HTMLResponse:
    """List the detectors: all, those of one kind, or those whose words hold a text."""
    every = catalogue.detectors(house)
    kinds = sorted({d["about"].get("kind") or "other" for d in every}, key=str.lower)
    found = [d for d in every if kind in ("", d["about"].get("kind") or "other") and find.lower() in _words(d)]
    return page(
        "detectors", house, title="Detectors", at="/detectors", detectors=found, kinds=kinds, kind=kind, find=find,
        can=CAN, count=len(every),
    )  # fmt: skip


@router.get("/detectors/{name}")
def detector(house: Here, name: Annotated[str, Path(max_length=80)]) -> HTMLResponse:
    """Show one detector."""
    found = catalogue.detector(house, name, results=True)
    about = found["about"]
    papers = about.get("paper_params") or {}
    parameters = [
        {"name": n, **p, "paper": papers.get(n), "default": p.get("default")}
        for n, p in found["form"]["properties"].items()
    ]
    have = {m for r in found["results"] for m in r["values"]}
    return page(
        "detector", house, title=name, at="/detectors", found=found, about=about, parts=parts(found["doc"]),
        parameters=parameters, papers=papers, can=CAN, metrics=[(m, label(m)) for m in SHOWN if m in have],
        results=sorted(found["results"], key=lambda r: (r["dataset"], r["setting"], r["protocol"])), said=said,
    )  # fmt: skip


def said(value: Any) -> str:
    """Write a parameter's value as it is given on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(map(said, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _words(entry: dict[str, Any]) -> str:
    about = entry["about"]
    return " ".join(map(str, (entry["name"], entry["summary"], about.get("paper"), about.get("kind")))).lower()
