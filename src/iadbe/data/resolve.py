"""Resolves ``--data``: the name of a dataset, a folder whose layout is recognised, or a YAML file.

Each reader recognises its own layout (``recognise``), so a new reader changes nothing here. YAML files written for
anomalib work unchanged: parameters with a counterpart are used, the others are listed in a note.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from iadbe import registry, system
from iadbe.data import anomalib_configs, folder_layout
from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData, UnknownName, did_you_mean, number_of
from iadbe.files import folder_names, layout
from iadbe.files.layout import LayoutMatch
from iadbe.files.video import EXTENSIONS as VIDEOS
from iadbe.parameters import complete

# class of anomalib.data -> names of its counterpart; other classes are matched by spelling
COUNTERPARTS = {
    "mvtec": ("mvtec_ad",),
    "btech": ("btad",),
    "kolektor": ("kolektor_sdd", "kolektorsdd", "ksdd"),
    "mvtecloco": ("mvtec_loco",),
    "mvtec3d": ("mvtec_3d",),
}
DATASETS = "datasets"  # the folder in which `iadbe data get` and anomalib keep data
DEFAULT_ROOTS = {  # below it, as anomalib names them; ours has the dataset's own name
    "mvtec_ad": ("MVTecAD", "MVTec"),
    "mvtec_ad2": ("MVTecAD2", "MVTec_AD_2"),
    "mvtec_3d": ("MVTec3D",),
    "mvtec_loco": ("MVTecLOCO", "MVTec_LOCO"),
    "visa": ("visa", "VisA"),
    "btad": ("BTech", "BTAD"),
    "kolektor_sdd": ("kolektor", "Kolektor"),
    "real_iad": ("Real-IAD", "RealIAD"),
    "mpdd": ("MPDD",),
}
_CLASS = re.compile(r"[\w.]+:\w+")  # package.module:Class
_VIEW = "the detector's view decides"
_RUN = "the run decides"
_NO_VALIDATION = "no validation images are taken from the test, so it stays unseen"
# parameters of anomalib's datamodules that are not properties of the data, and the reason
IGNORED = {
    "image_size": _VIEW,
    "center_crop": _VIEW,
    "normalization": _VIEW,
    "transform": _VIEW,
    "train_transform": _VIEW,
    "eval_transform": _VIEW,
    "train_augmentations": _VIEW,
    "val_augmentations": _VIEW,
    "test_augmentations": _VIEW,
    "augmentations": _VIEW,
    "train_batch_size": _RUN,
    "eval_batch_size": _RUN,
    "num_workers": _RUN,
    "seed": _RUN,
    "task": "every metric that the data allows is computed",
    "val_split_mode": _NO_VALIDATION,
    "val_split_ratio": _NO_VALIDATION,
    "test_split_mode": "this dataset has its own split",
    "test_split_ratio": "this dataset has its own split",
}


class ResolvedData(NamedTuple):
    """A dataset's name and parameters, and notes for the user on how they were found."""

    name: str
    params: dict[str, Any]
    notes: tuple[str, ...] = ()  # one sentence each


def find(text: str, **params: Any) -> ResolvedData:
    """Resolve ``--data TEXT``; ``params`` (``--data.NAME``) override the parameters that are found.

    Raises :class:`BadData` for a path that is missing or not recognised, :class:`UnknownName` for an unknown name.
    """
    names = registry.names("datasets")
    path = system.user_path(text)
    if text in names or (_CLASS.fullmatch(text) and not path.exists()):  # C:data is a folder of Windows
        return _with_default_root(ResolvedData(registry.check("datasets", text), params))
    if text and path.is_dir():
        found = _recognised(path) or _unknown(path)
    elif path.is_file():
        found = _from_yaml(path)
    elif _looks_like_a_path(text):
        raise BadData(f"there is no folder or file {path.absolute()}.{_similar_names(path)}")
    elif (name := _counterpart(text)) is not None:
        return _with_default_root(ResolvedData(name, params))
    elif text.startswith("anomalib."):
        raise _no_counterpart(text)
    else:
        near = did_you_mean(text, names)
        raise UnknownName(
            f"no dataset is named {text!r}, and there is no such folder.{near} There are: {', '.join(names)}."
        )
    return ResolvedData(found.name, found.params | params, found.notes)


def make(name: str, params: Mapping[str, Any]) -> Dataset:
    """Create a dataset. Raises :class:`UnknownName` or :class:`BadConfig` for a wrong parameter."""
    kind: type[Dataset] = registry.load("datasets", name)
    return kind.create(complete(registry.card("datasets", name), params))


def _recognised(path: Path) -> ResolvedData | None:
    """Return the dataset whose reader recognises the folder or file, or None."""
    matches: dict[str, LayoutMatch] = {}
    for name in registry.names("datasets"):
        recognise = getattr(registry.load("datasets", name), "recognise", None)
        if recognise is not None and (match := recognise(path)) is not None:
            matches[name] = match
    best = {name: match for name, match in matches.items() if not match.fallback} or matches
    best = {name: match for name, match in best.items() if match.by_names} or best
    if not best:
        return None
    folder = path if path.is_dir() else path.parent
    if len(best) > 1:
        options = " or ".join(f"{match.description}: --data {name}" for name, match in best.items())
        raise BadConfig(f"{path} could be {options}. Write one of these, and --data.root {folder}.")
    ((name, match),) = best.items()
    return ResolvedData(name, {"root": str(folder), **match.params}, (f"{path} looks like {match.description}.",))


def _images_text(count: int) -> str:
    return number_of(count, "image")


def _unknown(folder: Path) -> NoReturn:
    counts = {name: len(layout.images_below(folder / name)) for name in layout.subfolders(folder)}
    named = {name: count for name, count in counts.items() if count}
    here = len(layout.images(folder))
    if not named and not here:
        raise BadData(f"{folder} holds no images.{layout.endings_text(folder)}")
    parts = [_images_text(here)] * bool(here)
    parts += [f"{name}/ ({_images_text(count)})" for name, count in list(named.items())[:8]]
    inner = [n for n in named if not folder_names.is_split(n) and layout.subfolders(folder / n)]
    inner = [n for n in inner if folder_layout.parameters(folder / n)]
    if inner and not here:
        own = "looks like data of its own" if len(inner) == 1 else "look like data of their own"
        example = system.command_line(["--data", str(folder / inner[0])])
        raise BadData(
            f"{folder} holds {', '.join(parts)}, and {', '.join(inner[:8])} {own}. Give that folder, for example: "
            f"{example}"
        )
    masks = [name for name in named if folder_names.is_mask_folder(name)]
    images = sorted((name for name in named if name not in masks), key=lambda name: -named[name])
    likely = [name for name in images if not folder_names.is_bad(name, images)] or images
    normal = "." if here else likely[0] if likely else "NORMAL"
    bad = [name for name in images if name != normal]
    words = ["--data.root", str(folder), "--data.normal_dir", normal]
    words += ["--data.abnormal_dir", ",".join(bad)] if bad else []
    words += ["--data.mask_dir", masks[0]] if masks and bad else []
    readers = [registry.card("datasets", name) for name in registry.names("datasets")]
    wanted = "; ".join(str(card.get("layout_description")) for card in readers if card.get("layout_description"))
    raise BadData(
        f"{folder} holds {', '.join(parts)}, and the names do not say which images are normal. Write the folder of "
        f"the normal ones, for example: --data folder {system.command_line(words)}. Or give the complete folder of a "
        f"public dataset. Looked for: {wanted}."
    )


def _from_yaml(file: Path) -> ResolvedData:
    if (found := _recognised(file)) is not None:
        return found
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise BadData(f"{file} is neither a folder nor a YAML file nor a video. Give the folder of the data.")
    config = layout.read_yaml(file)
    section: Any = config.get(anomalib_configs.SECTION)
    if anomalib_configs.is_dataset(section):
        described, left = anomalib_configs.converted(section)
        found = from_mapping(described, file)
        notes = [f"not used here: {', '.join(left)} (the detector's view and this engine decide them)."] if left else []
        return ResolvedData(found.name, found.params, (*found.notes, *notes))
    return from_mapping(config["data"] if isinstance(config.get("data"), dict) else config, file)


def from_mapping(config: Mapping[str, Any], file: Path) -> ResolvedData:
    """Resolve a mapping from ``file`` with ``class_path`` and ``init_args``, or with ``name`` and parameters."""
    if "class_path" in config:
        name, given = str(config["class_path"]), config.get("init_args") or {}
    elif "name" in config:
        name, given = str(config["name"]), config.get("params") or {k: v for k, v in config.items() if k != "name"}
    else:
        raise BadData(
            f"{file} describes no dataset: looked for `class_path` and `init_args`, for `name` and parameters, or for "
            f"`train` and `names` (YOLO), found {', '.join(map(str, config)) or 'nothing'}."
        )
    if not isinstance(given, dict):
        raise BadData(f"{file}: the parameters must be names with values.")
    if (known := _counterpart(name)) is None:
        raise _no_counterpart(name)
    params, notes = split_parameters(known, {str(k): v for k, v in given.items()})
    return _with_default_root(ResolvedData(known, _with_root(params, file), notes))


def split_parameters(name: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Split a mapping into parameters of the dataset ``name`` and a note on the others."""
    known = {p.name: p for p in registry.card("datasets", name).parameters}
    params: dict[str, Any] = {}
    rest: dict[str, list[str]] = {}
    for key, value in given.items():
        if key in known and not (value is None and known[key].default is not None):
            params[key] = tuple(value) if isinstance(value, list) else value
        elif key == "category" and "root" in given and value:
            params["root"] = Path(str(given["root"]), str(value)).as_posix()
        elif key in IGNORED:
            rest.setdefault(IGNORED[key], []).append(key)
        elif key not in known:
            hint = did_you_mean(key, [*known, *IGNORED])
            raise UnknownName(f"{name} has no parameter {key!r}.{hint} It has: {', '.join(known)}.")
    if not rest:
        return params, ()
    reasons = "; ".join(f"{', '.join(keys)} ({why})" for why, keys in rest.items())
    return params, (f"not used here: {reasons}.",)


def _with_default_root(data: ResolvedData) -> ResolvedData:
    """Look for data without a root where `iadbe data get` and anomalib keep it, and say so."""
    reader: Any = registry.load("datasets", data.name) if data.name in registry.names("datasets") else None
    is_published = hasattr(reader, "recognise") and bool(registry.card("datasets", data.name).get("url"))
    if data.params.get("root") or not is_published:
        return data
    from iadbe.files import download

    for name in (data.name, *DEFAULT_ROOTS.get(data.name, ())):
        folder = Path(DATASETS, name)
        if folder.is_dir() and (root := download.locate(folder, data.name)) is not None:
            note = f"{data.name} is read from {root}, since no root was given."
            return data._replace(params={**data.params, "root": str(root)}, notes=(*data.notes, note))
    return data


def _with_root(params: dict[str, Any], file: Path) -> dict[str, Any]:
    """Resolve a relative root: against the current folder, else the file's folder or one above it."""
    folders = [v for k, v in params.items() if k.endswith("_dir") and v]
    folders_given = [str(f) for v in folders for f in (v if isinstance(v, tuple) else (v,))]
    if "root" not in params and folders_given and all(os.path.isabs(f) for f in folders_given):
        return params | {"root": os.path.commonpath(folders_given)}
    if "root" not in params and not folders_given:
        return params
    root = Path(str(params.get("root", ".")).replace("\\", "/")).expanduser()
    places = [Path.cwd(), *file.absolute().parents]
    for place in places:
        if (place / root).is_dir() and ("root" in params or (place / folders_given[0]).is_dir()):
            return params | {"root": str(place / root)}
    where = f"neither in {places[0]} nor in {places[1]}" if places[0] != places[1] else f"not in {places[0]}"
    raise BadData(f"{file} names the folder {root}, which is {where} or above it.")


def _counterpart(text: str) -> str | None:
    """Return the name of the dataset for a class path, a class name or another spelling; None: there is none."""
    if _CLASS.fullmatch(text):
        return text
    names = registry.names("datasets")
    squashed = _normalised(text.rpartition(".")[2])
    spellings = {_normalised(name): name for name in names}
    options = [name for name in COUNTERPARTS.get(squashed, ()) if name in names]
    return options[0] if options else spellings.get(squashed)


def _no_counterpart(text: str) -> UnknownName:
    names = registry.names("datasets")
    hint = did_you_mean(text.rpartition(".")[2], names)
    return UnknownName(f"{text} has no counterpart here.{hint} There are: {', '.join(names)}.")


def _normalised(text: str) -> str:
    return text.lower().replace("_", "").replace("-", "")


def _looks_like_a_path(text: str) -> bool:
    ending = Path(text).suffix.lower()
    return any(c in text for c in "/\\") or text.startswith((".", "~")) or ending in (".yaml", ".yml", ".zip", *VIDEOS)


def _similar_names(path: Path) -> str:
    parent = path.absolute().parent
    return did_you_mean(path.name, (p.name for p in parent.iterdir())) if parent.is_dir() else ""
