"""Carry out runs for `iadbe benchmark --executor dask --scheduler ADDRESS` on this machine, until Ctrl-C.

ADDRESS is what `dask scheduler` prints when it starts, for example tcp://192.168.0.7:8786. There is one worker for
each GPU, or one for every four cores. The store's folder must be one that all machines see.
"""

from __future__ import annotations

from collections.abc import Sequence

import jsonargparse

from iadbe.cli import Usage
from iadbe.cli.options import parse


def run(arguments: Sequence[str]) -> int:
    """Serve until interrupted."""
    values = parse("worker", __doc__ or "", arguments, _add, form="ADDRESS [options]").values
    if not values["address"]:
        raise Usage("whose worker? Give the address that `dask scheduler` prints, for example tcp://192.168.0.7:8786.")
    from iadbe.executors import dask  # says what to install where it is missing

    dask.serve(values["address"], values["jobs"], values["device"])
    return 0


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("address", type=str, nargs="?", default="", metavar="ADDRESS", help="of the scheduler")
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time; 0: one for each GPU or every four cores")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 …")
