"""The acceptance report: one HTML page without scripts or other files, and the same as PDF."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iadbe import __version__, environment, registry, system
from iadbe.acceptance.accept import Acceptance
from iadbe.acceptance.drawn_defects import CONTRASTS, DIAMETERS, DetectionCurve
from iadbe.errors import Missing
from iadbe.evaluation.conformal import percent
from iadbe.files import image_io
from iadbe.report.embedded import embedded
from iadbe.report.single_page import rendered
from iadbe.running.inference import ImageResult, results_of

TEMPLATE = Path(__file__).with_name("page.html.jinja")
WIDTH, HEIGHT, LEFT, BOTTOM = 520, 230, 46, 34  # of the chart
SHOWN = 4  # of the hardest images of each side
SIDE = 360  # of an embedded image, in pixels
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "Install them with: pip install 'iadbe[pdf]' && playwright install chromium"
MARGINS: Any = dict.fromkeys(("top", "right", "bottom", "left"), "12mm")


class Series(NamedTuple):
    """One contrast in the chart of drawn defects."""

    contrast: str
    path: str
    points: tuple[tuple[float, float, float, float, str], ...]  # x, y, lower and upper end, text
    smallest: str


class Shown(NamedTuple):
    """One image of the report."""

    image: str  # data URI
    text: str


def write(found: Acceptance, file: Path) -> Path:
    """Write the report; a name that ends in .pdf gives a PDF. Whole or not at all.

    Raises :class:`Missing` without jinja2, and for a PDF without playwright or a browser.
    """
    text = html(found)
    file.parent.mkdir(parents=True, exist_ok=True)
    with system.replacing(file) as part:
        if file.suffix.lower() == ".pdf":
            _print(text, part)
        else:
            part.write_text(text, encoding="utf-8")
    return file


def _print(text: str, file: Path) -> None:
    """Print a page to a PDF, by Chromium: the one on this machine, or the one that playwright has installed."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise Missing(f"a PDF is printed by playwright and Chromium. {INSTALL}, or write .html.") from error
    own = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=own, chromium_sandbox=False)
            page = browser.new_context(java_script_enabled=False, offline=True).new_page()
            page.set_content(text)
            page.pdf(path=file, format="A4", print_background=True, margin=MARGINS)
            browser.close()
    except Error as error:
        why = str(error).strip().partition("\n")[0]
        raise Missing(
            f"Chromium, which prints the PDF, cannot be started ({why}). {INSTALL}, or write .html."
        ) from error


def html(found: Acceptance) -> str:
    """Return the report as HTML."""
    return rendered(
        TEMPLATE, "the report",
        it=found,
        title=registry.load("detectors", found.fitted.name).__name__,
        challenge=found.challenge,
        rates=_rates(found),
        origin=_origin(found),
        machine={"processor": system.processor(), **environment.versions(("torch", "numpy", "pillow"))},
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        series=_series(found.curve) if found.curve else (),
        ticks=[(_x(d), percent(d)) for d in DIAMETERS],
        chart=(WIDTH, HEIGHT, LEFT, BOTTOM),
        percent=percent,
        hardest={
            "good parts with the highest scores": _shown(found, found.challenge.good),
            "defective parts with the lowest scores": _shown(found, found.challenge.bad),
        },
        version=__version__,
    )  # fmt: skip


def _rates(found: Acceptance) -> list[tuple[str, str, str, bool | None]]:
    """Return name, measured share in words, limit in words, and whether it is kept."""
    it, limits = found.challenge, found.limits
    rows: list[tuple[str, str, str, bool | None]] = []
    sides = (
        ("escape: defective parts that are called good", "escape", it.escape, len(it.bad), "defective"),
        ("overkill: good parts that are rejected", "overkill", it.overkill, len(it.good), "good"),
    )
    for title, name, rate, count, what in sides:
        limit = limits.get(name)
        kept = None if limit is None else rate.value <= limit
        rows.append((title, rate.text(count, what), "" if limit is None else f"at most {percent(limit)}", kept))
    if found.fitted.calibration.look_threshold is not None:
        look = it.look.text(len(it.good), "good")
        rows.append(("good parts that are to be looked at or rejected", look, "", None))
    interval = it.auroc_interval
    between = "" if interval is None else f" (95 % interval {interval.low:.3f} to {interval.high:.3f})"
    rows.append(("image AUROC", f"{it.auroc:.4f}{between}", "", None))
    return rows


def _origin(found: Acceptance) -> dict[str, str]:
    about = found.fitted.about
    named = {
        "model": str(found.folder),
        "detector": found.fitted.name,
        "run": str(about.get("run", "")),
        "data": " ".join(str(about[key]) for key in ("dataset", "task") if key in about),
        "calibration": found.fitted.calibration.how,
        "written by": f"IADBE {__version__}",
    }
    return {name: text for name, text in named.items() if text}


def _x(diameter: float) -> float:
    low, high = np.log(DIAMETERS[0]), np.log(DIAMETERS[-1])
    return float(LEFT + 20 + (WIDTH - LEFT - 60) * (np.log(diameter) - low) / (high - low))


def _y(share: float) -> float:
    return 10 + (HEIGHT - BOTTOM - 10) * (1 - share)


def _series(curve: DetectionCurve) -> list[Series]:
    found = []
    for contrast in CONTRASTS:
        points = []
        for n, one in enumerate(curve.of(contrast)):
            text = f"{percent(one.rate.value)} found of {curve.images}, {one.pixels:.3g} pixels wide"
            x = _x(DIAMETERS[n]) + 3 * (CONTRASTS.index(contrast) - 1.5)  # or intervals would hide each other
            points.append((x, _y(one.rate.value), _y(one.rate.low), _y(one.rate.high), text))
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y, *_ in points)
        smallest = curve.smallest(contrast)
        words = "none" if smallest is None else f"{percent(smallest.diameter)} ({smallest.pixels:.3g} pixels)"
        found.append(Series(percent(contrast), path, tuple(points), words))
    return found


def _shown(found: Acceptance, results: tuple[ImageResult, ...]) -> list[Shown]:
    images = [r.source for r in results[:SHOWN] if r.source is not None]
    shown = []
    for result in results_of(found.fitted, images, None, environment.device("cpu"), map_side=SIDE):
        pixels = result.pixels()
        if pixels is None or result.error:
            continue
        height, width = pixels.shape[:2]
        share = min(1.0, SIDE / max(height, width))
        small = image_io.resized(pixels, max(1, round(height * share)), max(1, round(width * share)))
        shown.append(Shown(embedded(small), f"{result.path.name}: {result.score:.4g}, {result.verdict}"))
    return shown
