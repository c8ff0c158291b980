"""Show or clear the feature store: what frozen backbones saw, kept on disk so that it is computed once.

usage: iadbe features [clear --yes] [--features DIR]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from iadbe.cli import Usage


def run(arguments: Sequence[str]) -> int:
    """Print its size, or clear it."""
    rest = list(arguments)
    if {"-h", "--help"} & set(rest):
        print(__doc__)
        return 0
    folder = ""
    if "--features" in rest:
        at = rest.index("--features")
        if at + 1 == len(rest):
            raise Usage("--features needs a folder.")
        folder = rest.pop(at + 1)
        rest.remove("--features")
    sure = "--yes" in rest
    words = [w for w in rest if w != "--yes"]
    if words not in ([], ["clear"]):
        raise Usage(f"features knows `clear`, not {' '.join(words)!r}.")
    from iadbe import machine
    from iadbe.types import Options

    store = machine.feature_store(Options(features=folder))
    if store is None:
        raise Usage("--features off is no folder.")
    size, count = store.size(), store.rows()
    print(f"{store.root}: {count} rows, {size / 1e9:.2f} GB of at most {store.budget / 1e9:.0f} GB")
    if words == ["clear"]:
        if not sure and not (sys.stdin.isatty() and input("Remove them all? [y/N] ").strip().lower() == "y"):
            raise Usage("nothing was removed. Say --yes to clear the feature store.")
        store.clear()
        print("cleared")
    return 0
