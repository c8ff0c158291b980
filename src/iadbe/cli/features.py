"""Show or clear the feature store: features of frozen backbones, kept on disk so that they are computed once.

Shown are its size, its backbones, its hits (images whose features were read instead of computed), and how many rows
were damaged and computed again.

usage: iadbe features [clear] [--yes] [--features DIR]

  clear             remove every row; asks first
  --yes             do not ask
  --features DIR    another folder than the user's cache
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from iadbe.cli import UsageError, split_arguments
from iadbe.errors import BadConfig, did_you_mean
from iadbe.files.byte_sizes import format_bytes


def run(arguments: Sequence[str]) -> int:
    """Print its size, or clear it."""
    words, flags, values = split_arguments("features", arguments, ("--yes",), ("--features",))
    if words not in ([], ["clear"]):
        raise UsageError(f"features takes `clear`, not {' '.join(words)!r}.{did_you_mean(words[0], ['clear'])}")
    from iadbe.cache import cache_folder
    from iadbe.networks.feature_store import FeatureStore

    store = FeatureStore(Path(values.get("--features") or cache_folder() / "features").expanduser())
    networks = store.networks()
    rows, size = (sum(n[i] for n in networks.values()) for i in (0, 1))
    print(f"{store.root}: {rows} rows, {format_bytes(size)} of at most {format_bytes(store.budget)}")
    for name, (its_rows, its_size) in sorted(networks.items(), key=lambda n: -n[1][1]):
        print(f"  {name}: {its_rows} rows, {format_bytes(its_size)}")
    usage = store.usage()
    if total := usage.computed + usage.stored:
        hits = f"{usage.stored} hits ({usage.stored / total:.0%})"
        print(f"{total} images looked up: {hits}, {usage.computed} went through a backbone")
    if usage.rejected:
        print(f"{usage.rejected} rows were damaged or of an older version, and were computed again")
    if words == ["clear"]:
        if "--yes" not in flags and not _confirmed():
            raise UsageError("nothing was removed. Say --yes to clear the feature store.")
        if (other_file := _first_other_file(store.root)) is not None:
            raise BadConfig(f"{store.root} holds more than features, for example {other_file}: it is left alone.")
        store.clear()
        print("cleared")
    return 0


def _first_other_file(root: Path) -> Path | None:
    """Return a file that no feature store has written, so that a wrong folder is never cleared."""
    files = (file for file in root.rglob("*") if not file.is_dir())
    return next((f for f in files if not _belongs_to_store(f.relative_to(root))), None)


def _belongs_to_store(file: Path) -> bool:
    from iadbe.networks.feature_store import USAGE_FILE

    return file == Path(USAGE_FILE) or (file.suffix in (".npy", ".part") and len(file.parts) == 3)


def _confirmed() -> bool:
    """Ask on a terminal; without one the answer is no."""
    return sys.stdin.isatty() and input("Remove them all? [y/N] ").strip().lower() in ("y", "yes")
