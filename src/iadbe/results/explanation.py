"""Explain a run's pixel metrics: what the code of other papers would give for the same maps, dialect by dialect.

Computed from the kept maps, so it needs a run with kept maps and the data that it was tested on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iadbe import registry
from iadbe.data import resolve
from iadbe.data.transforms import TransformedDataset, sample_of_id
from iadbe.errors import BadConfig, BadData
from iadbe.metric import EXACT, MASK_RULES, NEAREST, parse
from iadbe.protocol import Protocol
from iadbe.results.style import Style, label
from iadbe.results.table import Cell, Column, Table
from iadbe.running import data_digests
from iadbe.running.store import Store
from iadbe.seeds import run_id
from iadbe.types import RunResult, RunSpec

if TYPE_CHECKING:  # images need torch, which takes long to import
    from iadbe.data.images import Images
    from iadbe.evaluation.spilled_maps import Maps

COLUMNS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_iou_max", "pixel_aupro", "pixel_aupro@5%")
AS_RUN = "as the run says"


def explain(
    store: Store, name: str, root: str = "", style: Style | None = None, roi: str = "", ignore: str = ""
) -> list[Table]:
    """Return a table for each test of a run's last step: dialects by metrics.

    Raises :class:`BadConfig` where the run kept no maps, :class:`BadData` where the data is not what was tested.

    Args:
        store: where the run is
        name: the start of the run's id
        root: folder of the data
        style: of the numbers
        roi: what counted in the run, as ``--data.roi``
        ignore: what did not, as ``--data.ignore``
    """
    folder = store.find(name)
    result = store.load(folder.name)
    files = list(_run_with_maps(folder, result))
    place = {key: value for key, value in (("root", root), ("roi", roi), ("ignore", ignore)) if value}
    return [_table(result, test, *_read(file, result.spec, place), style or Style(digits=4)) for test, file in files]


def variants() -> dict[str, str]:
    """Return all variants of the columns in order: name in rows -> whose code, and how it computes the metric."""
    texts_of: dict[str, dict[str, list[str]]] = {}
    for column in sorted(COLUMNS, key=lambda c: not c.startswith("pixel_aupro")):
        _, metric = parse(column)
        for dialect, how in metric.dialects.items():
            texts_of.setdefault(dialect, {}).setdefault(how, []).append(label(column.partition("@")[0]).split()[1])
    found = {EXACT: "every distinct score is a threshold"}
    for dialect, texts in texts_of.items():
        parts = [f"{' and '.join(dict.fromkeys(names))}: {how}" for how, names in texts.items()]
        found[dialect] = "; ".join(parts) if len(texts) > 1 else next(iter(texts))
    return found | {rule: f"exact, on masks resized so: {how}" for rule, how in MASK_RULES.items() if rule != NEAREST}


def row_name(column: str, variant: str) -> str | None:
    """Return the row of ``column`` in a variant, or None where there is no such row."""
    plain, at, parameter = column.partition("@")
    if variant == EXACT:
        return column
    return (
        f"{plain}.{variant}{at}{parameter}" if variant in MASK_RULES or variant in parse(column)[1].dialects else None
    )


def _run_with_maps(folder: Path, result: RunResult) -> Iterator[tuple[str, Path]]:
    """Yield (test, its file of maps) of the last step."""
    if result.error:
        raise BadConfig(f"the run {run_id(result.spec)} failed, so there is nothing to explain: {result.error}")
    if Protocol.parse(result.spec.protocol).align is not None:
        raise BadConfig(
            f"the maps of {run_id(result.spec)} lie in the frame of the reference that its images were registered to, "
            "and masks do not. Only runs without --align can be explained."
        )
    from iadbe.running.artifacts import maps_file  # which needs torch

    last = max((row.step for row in result.rows), default=0)
    tests = list(dict.fromkeys(row.test for row in result.rows if row.step == last))
    found = {}
    for test in tests:
        if (file := folder / "maps" / maps_file(f"{last}-{test}")).is_file():
            found[test] = file
    if not found:
        raise BadConfig(
            f"the run {run_id(result.spec)} kept no maps, so no metric can be computed again. Remove its folder and "
            "run it again with --keep-maps."
        )
    yield from found.items()


def _read(file: Path, spec: RunSpec, place: Mapping[str, str]) -> tuple[Images, np.ndarray, Maps]:
    """Return the test images, their scores (the highest of what counts of each map) and their maps."""
    from iadbe.data.images import Images, read_region_view
    from iadbe.data.view import view_of
    from iadbe.evaluation.spilled_maps import allocate, put
    from iadbe.running.artifacts import kept_ids, kept_maps
    from iadbe.types import TrainingImage

    ids = kept_ids(file)
    dataset = TransformedDataset(resolve.make(spec.dataset, {**spec.dataset_params, **place}))
    known = {sample.id: sample for sample in dataset.samples()}
    tested = {sample.category for i in ids if (sample := sample_of_id(i, known)) is not None}
    if not data_digests.is_data_of(spec, dataset, tested, data_digests.read(file.parents[2])):
        raise BadData(
            f"the data is not what the run was tested on: {spec.dataset} had other files, sizes or regions then. "
            "A region that was given to the run is given again, with --data.roi or --data.ignore."
        )
    samples = {i: sample for i in ids if (sample := sample_of_id(i, known)) is not None}
    if missing := [i for i in ids if i not in samples]:
        raise BadData(f"{len(missing)} of the run's test images are not in the data, for example {missing[0]}.")
    paper_view = registry.card("detectors", spec.detector).get("paper_view", {})
    view = view_of(Protocol.parse(spec.protocol), paper_view, map(dataset.image_size, samples.values()))
    images = Images(dataset, [TrainingImage(samples[i]) for i in ids], view)
    maps, scores = allocate((len(ids), *view.shape)), np.empty(len(ids), np.float32)
    for i, map_ in enumerate(kept_maps(file)):
        if not np.isfinite(map_).all():
            raise BadData(
                f"{file} holds scores beyond half precision (65504), so they are lost. Nothing can be explained."
            )
        region = read_region_view(dataset, samples[ids[i]], view)
        scores[i] = (map_ if region is None else map_[region]).max()
        put(maps, i, map_[None])
    return images, scores, maps


def _table(result: RunResult, test: str, images: Images, scores: np.ndarray, maps: Maps, style: Style) -> Table:
    from iadbe.evaluation.measure import DetectorOutput, measure

    known = variants()
    names = {(v, c): row for v in known for c in COLUMNS if (row := row_name(c, v)) is not None}
    native = Protocol.parse(result.spec.protocol).native
    values, notes = measure(DetectorOutput(scores, maps), images, list(names.values()), native=native)
    last = max(row.step for row in result.rows)
    as_run = {row.metric: row.value for row in result.rows if row.step == last and row.test == test}
    rows = [(Cell(AS_RUN), *(_cell(as_run.get(c), style) for c in COLUMNS))]
    for number, variant in enumerate(known, start=1):
        cells = (_cell(values.get(names.get((variant, c), "")), style) for c in COLUMNS)
        rows.append((Cell(variant, marks=(str(number),)), *cells))
    footnotes = [(str(number), how if how.endswith(".") else f"{how}.") for number, how in enumerate(known.values(), 1)]
    footnotes += [("", "From maps kept in half precision; last digits may differ from what the run says.")]
    footnotes += [("", note) for note in notes]
    footnotes += [("", "— : the metric has no such dialect, or the dialect is not defined on these maps.")]
    spec = result.spec
    columns = (Column("dialect", "dialect", numeric=False), *(Column(c, label(c)) for c in COLUMNS))
    title = f"{spec.detector} on {spec.dataset}, {test}, {len(maps)} test images, run {run_id(spec)}"
    about = {"run": run_id(spec), "detector": spec.detector, "dataset": spec.dataset, "test": test}
    return Table(title, columns, tuple(rows), tuple(footnotes), about)


def _cell(value: float | None, style: Style) -> Cell:
    return Cell() if value is None or not math.isfinite(value) else Cell(style.share(value), value)


def listing(names: Sequence[str] = ()) -> list[str]:
    """Return lines on all rows and their variants."""
    lines = []
    for name in names or registry.names("metrics"):
        card = registry.card("metrics", name)
        levels = " and ".join(sorted(card.get("of")))
        lines.append(f"{name}  ({levels})  {card.summary}")
        lines += [f"  .{dialect:<15}{how}" for dialect, how in card.get("dialects", {}).items()]
    lines += ["", "mask rules, for pixel metrics:", *(f"  .{rule:<15}{how}" for rule, how in MASK_RULES.items())]
    return lines
