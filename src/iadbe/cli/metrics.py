"""List the metrics and their dialects; show one run in all dialects side by side.

usage: iadbe metrics [METRIC…]
       iadbe metrics explain RUN [--data.root DIR] [--data.roi FILE] [--data.ignore FILE] [--store DIR]
                                 [--format FORM] [--trust MODULE:CLASS]

A row is a level and a metric, then the ways it is computed: pixel_aupro, pixel_aupro@5%, pixel_aupro.rd4ad@5%,
pixel_auroc.touched, image_escape.held_out@1%. `explain` needs the maps of the run, so one with --keep-maps.

  --data.root DIR   folder of the data that the run was tested on; none for synthetic data
  --data.roi FILE   what counted in the run, where it was given: a mask, a folder of masks, or shapes
  --data.ignore FILE  what did not count, likewise
  --store DIR       folder of the results (default: runs)
  --format FORM     text, csv, markdown, latex or json
  --trust M:CLASS   a dataset's class that the run may name, and so run
"""

from __future__ import annotations

from collections.abc import Sequence

from iadbe import registry
from iadbe.cli import UsageError, split_arguments
from iadbe.cli.options import STORE
from iadbe.errors import BadConfig

OPTIONS = ("--data.root", "--data.roi", "--data.ignore", "--store", "--format", "--trust")


def run(arguments: Sequence[str]) -> int:
    """List metrics, or explain a run."""
    words, _, values = split_arguments("metrics", arguments, (), OPTIONS)
    registry.trust_written([*words, *values.get("--trust", "").split(",")])
    if words[:1] == ["explain"]:
        if len(words) != 2:
            raise UsageError("metrics explain takes one run: the start of its id, which `iadbe results --runs` lists.")
        return _explain(words[1], values)
    if values:
        raise UsageError(f"{', '.join(values)} is for `iadbe metrics explain RUN`.")
    from iadbe.results.explanation import listing

    print("\n".join(listing([registry.check("metrics", word) for word in words])))
    return 0


def _explain(name: str, values: dict[str, str]) -> int:
    from iadbe.cli.table_output import print_tables
    from iadbe.results import table
    from iadbe.results.explanation import explain
    from iadbe.running.store import Store

    form = values.get("--format", "text")
    if form not in ("text", *table.FORMATS):
        raise UsageError(f"--format is one of text, {', '.join(table.FORMATS)}, not {form!r}.")
    store = Store(values.get("--store", STORE))
    if not store.root.is_dir():
        raise BadConfig(f"there is no folder {store.root}. Give the folder of the results with --store DIR.")
    root, roi, ignore = (values.get(f"--data.{key}", "") for key in ("root", "roi", "ignore"))
    tables = explain(store, name, root, roi=roi, ignore=ignore)
    if form == "text":
        print_tables(tables)
    else:
        print(table.FORMATS[form](tables), end="")
    return 0
