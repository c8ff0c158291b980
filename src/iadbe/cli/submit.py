"""Write or check a submission to the evaluation server of MVTec AD 2 (benchmark.mvtec.com).

RUN is a run's folder, or the beginning of its id: for each object of the data, one run that has kept its model. The
model predicts the private test splits; the archive holds a map and a mask of every image, in the server's layout.

    iadbe benchmark grid.yaml --keep-models
    iadbe submit mvtec_ad2 RUN RUN … --root mvtec_ad_2 --out patchcore.tar.gz
    iadbe submit --check patchcore.tar.gz

Maps are in standard deviations from the mean of the validation images' maps, and masks are where they are above 3: the
rule that the server's utilities name as a baseline. Runs without a model serve where they have kept maps: one run with
--keep-maps and --data.test_type private, another with private_mixed. An interrupted command goes on when repeated.

Beside the archive stands the table of runtime and memory, as the server's utilities measure them, of the first model:
NAME_runtimes_and_memory_cpu.csv, or gpu. The server refuses other files in the archive. --check takes any archive or
folder, and says what the server would refuse, a sentence for each fault; with --root it also compares sizes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonargparse

from iadbe import system
from iadbe.cli import UsageError, progress_bar
from iadbe.cli.options import STORE, add_trust, parse
from iadbe.errors import BadConfig, did_you_mean

if TYPE_CHECKING:
    import torch

    from iadbe.dataset import Dataset
    from iadbe.running.submission import Submission

NAME = "mvtec_ad2"
PHASES = ("validation", "maps", "check", "pack", "timing")


def run(arguments: Sequence[str]) -> int:
    """Write a submission, or check one."""
    form = f"{NAME} RUN… --out FILE.tar.gz [options]\n       iadbe submit --check FILE|FOLDER [--root DIR]"
    values = parse("submit", __doc__ or "", arguments, _add, form=form).values
    if values["check"]:
        return _check(values)
    if values["server"] != NAME:
        hint = did_you_mean(values["server"], (NAME,))
        raise UsageError(f"what is submitted? Write `iadbe submit {NAME} RUN… --out FILE.tar.gz`.{hint}")
    if not values["runs"] or not values["out"]:
        raise UsageError("which runs, and where to? Give runs' folders or ids after mvtec_ad2, and --out FILE.tar.gz.")
    from iadbe import environment
    from iadbe.running import submission

    device = environment.device(values["device"])
    out = system.user_path(values["out"]).absolute()
    folders = list(dict.fromkeys(_folder(text, values["store"]) for text in values["runs"]))
    prepared = submission.plan(folders, _data(values["root"]), out, device)
    prepared.deviations = values["deviations"]
    if prepared.parts.is_dir():
        print(f"continues from {prepared.parts}", file=sys.stderr)
    for note in prepared.notes():
        print(f"note: {note}", file=sys.stderr)
    with progress_bar.shown(PHASES):
        found = prepared.write()
    print(f"{out}: {found.maps} maps and {found.masks} masks, all checked")
    if values["repeats"]:
        _time(prepared, values, device)
    return 0


def _time(prepared: Submission, values: dict[str, Any], device: torch.device) -> None:
    """Measure the model of the first object, and write the table beside the archive."""
    from iadbe import progress
    from iadbe.running import model_folder, timing_table

    source = next((s for s in prepared.sources.values() if s.has_model), None)
    if source is None:
        print("note: no run has kept its model, so there are no timings.", file=sys.stderr)
        return
    fitted = model_folder.load(source.folder / "model", str(device))
    notes: list[str] = []
    with progress_bar.shown(PHASES), progress.collecting_notes(notes):
        rows = timing_table.measure(fitted, device, warmup=values["warmup"], repeats=values["repeats"])
    kind = "gpu" if device.type == "cuda" else device.type
    path = prepared.out.with_name(f"{prepared.out.name.removesuffix('.tar.gz')}_runtimes_and_memory_{kind}.csv")
    timing_table.write(path, rows)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    means = (f"{row.image_height} x {row.image_width}: {1000 * row.runtime_mean:.4g} ms" for row in rows)
    print(f"{path}: {fitted.name}, {', '.join(means)} (mean of {values['repeats']})")


def _check(values: dict[str, Any]) -> int:
    """Check an archive or a folder; return 1 where the server would refuse it."""
    from iadbe.files import ad2_submission

    images: ad2_submission.Sizes = ad2_submission.published_images()
    if values["root"]:
        from iadbe.running.submission import images_of

        images = images_of(_data(values["root"]))
    with progress_bar.shown(PHASES):
        found = ad2_submission.check(system.user_path(values["check"]), images)
    for fault in found.faults:
        print(f"fault: {fault}")
    for note in found.notes:
        print(f"note: {note}")
    against = "the images of the data" if values["root"] else "the published numbers of images"
    verdict = f"{len(found.faults)} faults" if found.faults else "no fault"
    print(f"{found.maps} maps and {found.masks} masks, checked against {against}: {verdict}")
    return 1 if found.faults else 0


def _folder(text: str, store: str) -> Path:
    """Return the folder of a run."""
    from iadbe.running.store import RESULT, Store

    path = system.user_path(text).absolute()
    if path.name == "model" and (path.parent / RESULT).is_file():
        path = path.parent
    if path.exists():
        if not (path / RESULT).is_file():
            raise BadConfig(f"{path} is not a run's folder: it has no {RESULT}.")
        return path
    return Store(store).find(text).absolute()


def _data(root: str) -> dict[str, Dataset]:
    """Return the data set by private split."""
    from iadbe.data import resolve
    from iadbe.files.ad2_submission import SUFFIXES

    params = resolve.find(NAME, **({"root": root} if root else {})).params
    if not params.get("root"):
        raise BadConfig("where is MVTec AD 2? Give its folder with --root DIR.")
    return {split: resolve.make(NAME, {**params, "test_type": split.removeprefix("test_")}) for split in SUFFIXES}


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("server", type=str, nargs="?", default="", metavar=NAME, help="the data set and its server")
    parser.add_argument("runs", type=str, nargs="*", metavar="RUN", help="folder, or the beginning of an id")
    parser.add_argument("--out", type=str, default="", metavar="FILE", help="the archive, .tar.gz")
    parser.add_argument("--root", type=str, default="", metavar="DIR", help="folder of the data")
    parser.add_argument("--check", type=str, default="", metavar="FILE", help="an archive or a folder to check instead")
    parser.add_argument("--deviations", type=float, default=3.0, metavar="X", help="from the mean to the threshold")
    group = parser.add_argument_group("timings")
    group.add_argument("--repeats", type=int, default=1000, metavar="N", help="predictions per size; 0: no timings")
    group.add_argument("--warmup", type=int, metavar="N", help="predictions before (default: 1000 on a GPU, else 0)")
    group = parser.add_argument_group("how to run")
    group.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps …")
    group.add_argument("--store", type=str, default=STORE, metavar="DIR", help="where run ids are looked up")
    add_trust(parser)
