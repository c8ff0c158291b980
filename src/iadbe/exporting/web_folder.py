"""An exported file as a static folder: one page in which a browser scores images, by ONNX Runtime Web.

The folder holds ``model.onnx``, ``model.json`` (its card, and the colours of heat maps), the page, and the runtime. Any
web server can serve it, and nothing leaves the browser. The runtime is the package ``onnxruntime-web``, which npm gives
by its name, or a folder that holds it already.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from iadbe import system
from iadbe.cache import cache_folder
from iadbe.errors import BadConfig, Missing
from iadbe.exporting import bill_of_materials, result
from iadbe.exporting.result import Exported
from iadbe.report import colormap
from iadbe.running.model_folder import FittedDetector
from iadbe.runtime import signature
from iadbe.runtime.inspector import Inspector

PACKAGE, MAJOR = "onnxruntime-web", 1
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
DESCRIPTION = "package.json"  # of the package: its version and its licence
PAGE = ("index.html", "page.js", "worker.js", "regions.js", "page.css")
MINUTES = 10  # that npm may take


def export(
    fitted: FittedDetector,
    folder: Path | None = None,
    runtime: Path | None = None,
    images: Sequence[np.ndarray] = (),
    source: str = "given images",
    allowed: Collection[str] = (),
) -> Exported:
    """Write a fitted detector as a page; for the arguments see :func:`iadbe.exporting.result.write`.

    Raises :class:`BadConfig` and :class:`iadbe.errors.BadDetector` as that does, and as :func:`write`.
    """
    if fitted.intensity is not None:
        raise BadConfig("this model takes deep images, and a browser gives 8 bits: export a file.")
    folder = Path(f"{fitted.name}_web") if folder is None else folder
    check(folder)
    with tempfile.TemporaryDirectory(prefix="iadbe-", ignore_cleanup_errors=True) as place:
        made = result.write(fitted, Path(place) / "model.onnx", "onnx", images, "fp32", source, allowed)
        write(made.file, Inspector(made.file).card, folder, runtime)
    return replace(made, file=folder / "model.onnx", references=None)


def write(file: Path, card: Mapping[str, Any], folder: Path, runtime: Path | None = None) -> Path:
    """Write the folder.

    Args:
        file: an exported ONNX file; it is moved into the folder
        card: its card
        folder: a folder that does not exist, is empty, or was written by this function
        runtime: a folder with ``onnxruntime-web``; None: npm is asked for it once

    Raises:
        BadConfig: for a folder that holds something else, or a runtime that is not one
        Missing: where npm is missing or cannot get the package
    """
    check(folder)
    sources = _from_folder(runtime) if runtime is not None else _from_npm()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "runtime").mkdir(exist_ok=True)
    for name, source in sources.items():
        _copy(source, folder / "runtime" / name)
    own = Path(__file__).parent / "web_page"
    for name in PAGE:
        _copy(own / name, folder / name)
    _copy(Path(colormap.__file__).with_name("report.css"), folder / "report.css")
    _copy(file, folder / "model.onnx")
    system.remove(file)
    with system.replacing(folder / "model.json") as part:
        part.write_text(json.dumps({"card": card, "colours": colormap.scale().tolist()}), encoding="utf-8")
    return folder


def check(folder: Path) -> None:
    """Raise :class:`BadConfig` where something else would be mixed with the page."""
    if folder.exists() and not folder.is_dir():
        raise BadConfig(f"{folder} is a file, and a web page is a folder: name another with --out.")
    others = sorted({entry.name for entry in folder.iterdir()} - _own_names()) if folder.is_dir() else []
    if others:
        raise BadConfig(f"{folder} has other files ({', '.join(others[:3])}): name a new folder with --out.")


def _own_names() -> set[str]:
    beside = (f"model.onnx{ending}" for ending in (signature.ENDING, bill_of_materials.ENDING))
    return {*PAGE, "report.css", "model.onnx", "model.json", "runtime", *beside}


def _copy(source: Path, target: Path) -> None:
    with system.replacing(target) as part:
        shutil.copyfile(source, part)


def _from_folder(folder: Path) -> dict[str, Path]:
    """Return the runtime's files in a folder: the package, its ``dist``, or the folder above ``node_modules``."""
    for package in (folder, folder.parent if folder.name == "dist" else folder, folder / "node_modules" / PACKAGE):
        found = {name: package / "dist" / name for name in RUNTIME}
        found[DESCRIPTION] = package / DESCRIPTION
        if all(path.is_file() for path in found.values()):
            return found
    raise BadConfig(
        f"{folder} does not hold the package {PACKAGE}: its {DESCRIPTION}, and in dist {', '.join(RUNTIME)}. "
        f"`npm install {PACKAGE}` makes a folder node_modules, whose parent --runtime takes."
    )


def _from_npm() -> dict[str, Path]:
    """Return the runtime's files, which npm is asked for once."""
    kept = cache_folder() / PACKAGE
    try:
        return _from_folder(kept)
    except BadConfig:
        _download(kept)
    return _from_folder(kept)


def _download(kept: Path) -> None:
    """Get the package by npm, which compares its digest with the registry's, and keep the files that pages need."""
    npm = shutil.which("npm")
    if npm is None:
        raise Missing(
            f"a web page needs the package {PACKAGE}, and npm, which would get it, is not installed. "
            f"Install Node.js, or name a folder that holds the package with --runtime."
        )
    with tempfile.TemporaryDirectory(prefix="iadbe-") as folder:
        command = [npm, "pack", f"{PACKAGE}@{MAJOR}", "--silent", "--pack-destination", folder]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60 * MINUTES, cwd=folder)
        except (OSError, subprocess.SubprocessError) as error:
            message = " ".join((getattr(error, "stderr", b"") or b"").decode(errors="replace").split())[:160]
            raise Missing(
                f"npm could not get the package {PACKAGE}{': ' + message if message else ''}. Try again with a "
                "connection, or name a folder that holds it with --runtime."
            ) from error
        archive = next(Path(folder).glob("*.tgz"))
        wanted = {f"package/dist/{name}" for name in RUNTIME} | {f"package/{DESCRIPTION}"}
        with tarfile.open(archive) as members:
            members.extractall(folder, [m for m in members if m.name in wanted and m.isfile()], filter="data")
        kept.parent.mkdir(parents=True, exist_ok=True)
        system.remove_tree(kept)
        shutil.copytree(Path(folder) / "package", kept)
