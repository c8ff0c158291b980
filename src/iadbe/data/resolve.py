"""From what the user wrote after ``--data`` to a dataset: a name, a folder whose layout is recognised, or a YAML file.

A reader recognises its own layout (``recognise``), so a new reader needs no word here. Files written for anomalib work
unchanged: what has a counterpart is used, what has none is named in a sentence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from iadbe import registry
from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData, UnknownName, did_you_mean
from iadbe.files import layout
from iadbe.files.layout import Recognised
from iadbe.files.video import EXTENSIONS as VIDEOS
from iadbe.parameters import complete

# classes of anomalib.data -> names that their counterpart may have here; other classes are matched by spelling
COUNTERPARTS = {
    "mvtec": ("mvtec_ad",),
    "btech": ("btad",),
    "kolektor": ("kolektor_sdd", "kolektorsdd", "ksdd"),
    "mvtecloco": ("mvtec_loco",),
    "mvtec3d": ("mvtec_3d",),
}
_CLASS = re.compile(r"[\w.]+:\w+")  # package.module:Class
_VIEW = "the detector's view decides"
_RUN = "the run decides"
_NO_VALIDATION = "no validation images are taken from the test, so it stays unseen"
# parameters of anomalib's datamodules that are no property of the data, and why
NOT_USED = {
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
    "test_split_mode": "this dataset brings its own split",
    "test_split_ratio": "this dataset brings its own split",
}


class Found(NamedTuple):
    """A dataset's name and parameters, and what the user should know about how they were found."""

    name: str
    params: dict[str, Any]
    notes: tuple[str, ...] = ()  # one sentence each


def find(text: str, **params: Any) -> Found:
    """Find out what ``--data TEXT`` means; ``params`` (``--data.NAME``) win over what is found."""
    names = registry.names("datasets")
    path = Path(text).expanduser()
    if text in names or _CLASS.fullmatch(text):
        return Found(registry.check("datasets", text), params)
    if text and path.is_dir():
        found = _recognised(path) or _unknown(path)
    elif path.is_file():
        found = _from_yaml(path)
    elif _looks_like_a_path(text):
        raise BadData(f"there is no folder or file {path.absolute()}.{_near(path)}")
    elif (name := _counterpart(text)) is not None:
        return Found(name, params)
    elif text.startswith("anomalib."):
        raise _no_counterpart(text)
    else:
        near = did_you_mean(text, names)
        raise UnknownName(
            f"no dataset is named {text!r}, and there is no such folder.{near} There are: {', '.join(names)}."
        )
    return Found(found.name, found.params | params, found.notes)


def make(name: str, params: Mapping[str, Any]) -> Dataset:
    """Make a dataset; a parameter of a wrong name or type is told in one sentence."""
    made: Dataset = registry.load("datasets", name)(**complete(registry.card("datasets", name), params))
    return made


def _recognised(path: Path) -> Found | None:
    """Ask every reader whether the folder, or the file, is of its kind."""
    said: dict[str, Recognised] = {}
    for name in registry.names("datasets"):
        recognise = getattr(registry.load("datasets", name), "recognise", None)
        if recognise is not None and (answer := recognise(path)) is not None:
            said[name] = answer
    sure = {name: answer for name, answer in said.items() if answer.sure} or said
    sure = {name: answer for name, answer in sure.items() if answer.named} or sure
    if not sure:
        return None
    folder = path if path.is_dir() else path.parent
    if len(sure) > 1:
        could = " or ".join(f"{answer.what}: --data {name}" for name, answer in sure.items())
        raise BadConfig(f"{path} could be {could}. Write one of these, and --data.root {folder}.")
    ((name, answer),) = sure.items()
    return Found(name, {"root": str(folder), **answer.params}, (f"{path} looks like {answer.what}.",))


def _unknown(folder: Path) -> NoReturn:
    readers = [registry.card("datasets", name) for name in registry.names("datasets")]
    wanted = "; ".join(str(card.get("looks_like")) for card in readers if card.get("looks_like"))
    raise BadData(
        f"{folder} is in no layout that is known. Looked for: {wanted}. Found: {layout.found_in(folder)}. "
        f"Name the folders: --data folder --data.root {folder} --data.normal_dir GOOD --data.abnormal_dir DEFECTS."
    )


def _from_yaml(file: Path) -> Found:
    if (found := _recognised(file)) is not None:
        return found
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise BadData(f"{file} is neither a folder nor a YAML file nor a video. Give the folder of the data.")
    config = layout.read_yaml(file)
    return described(config["data"] if isinstance(config.get("data"), dict) else config, file)


def described(config: Mapping[str, Any], file: Path) -> Found:
    """Find out which dataset a mapping from ``file`` means: one with ``class_path`` and ``init_args``, or ``name``."""
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
    params, notes = used(known, {str(k): v for k, v in given.items()})
    return Found(known, _rooted(params, file), notes)


def used(name: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Split what is given for the dataset ``name`` into its parameters and a sentence on the rest."""
    known = {p.name: p for p in registry.card("datasets", name).parameters}
    params: dict[str, Any] = {}
    rest: dict[str, list[str]] = {}
    for key, value in given.items():
        if key in known and not (value is None and known[key].default is not None):
            params[key] = tuple(value) if isinstance(value, list) else value
        elif key == "category" and "root" in given and value:
            params["root"] = Path(str(given["root"]), str(value)).as_posix()
        elif key in NOT_USED:
            rest.setdefault(NOT_USED[key], []).append(key)
        elif key not in known:
            hint = did_you_mean(key, [*known, *NOT_USED])
            raise UnknownName(f"{name} has no parameter {key!r}.{hint} It has: {', '.join(known)}.")
    if not rest:
        return params, ()
    reasons = "; ".join(f"{', '.join(keys)} ({why})" for why, keys in rest.items())
    return params, (f"not used here: {reasons}.",)


def _rooted(params: dict[str, Any], file: Path) -> dict[str, Any]:
    """Find the folder that a file means: as seen from here, else from the file's folder or one above it."""
    folders = [v for k, v in params.items() if k.endswith("_dir") and v]
    flat = [str(f) for v in folders for f in (v if isinstance(v, tuple) else (v,))]
    if "root" not in params and flat and all(os.path.isabs(f) for f in flat):
        return params | {"root": os.path.commonpath(flat)}
    if "root" not in params and not flat:
        return params
    root = Path(str(params.get("root", "."))).expanduser()
    places = [Path.cwd(), *file.absolute().parents]
    for place in places:
        if (place / root).is_dir() and ("root" in params or (place / flat[0]).is_dir()):
            return params | {"root": str(place / root)}
    raise BadData(f"{file} names the folder {root}, which is neither in {places[0]} nor in {places[1]} or above it.")


def _counterpart(text: str) -> str | None:
    """Return our name for a class path, a class name or a name in another spelling, or None."""
    if _CLASS.fullmatch(text):
        return text
    names = registry.names("datasets")
    squashed = _squashed(text.rpartition(".")[2])
    spellings = {_squashed(name): name for name in names}
    options = [name for name in COUNTERPARTS.get(squashed, ()) if name in names]
    return options[0] if options else spellings.get(squashed)


def _no_counterpart(text: str) -> UnknownName:
    names = registry.names("datasets")
    hint = did_you_mean(text.rpartition(".")[2], names)
    return UnknownName(f"{text} has no counterpart here.{hint} There are: {', '.join(names)}.")


def _squashed(text: str) -> str:
    return text.lower().replace("_", "").replace("-", "")


def _looks_like_a_path(text: str) -> bool:
    ending = Path(text).suffix.lower()
    return any(c in text for c in "/\\") or text.startswith((".", "~")) or ending in (".yaml", ".yml", ".zip", *VIDEOS)


def _near(path: Path) -> str:
    parent = path.absolute().parent
    return did_you_mean(path.name, (p.name for p in parent.iterdir())) if parent.is_dir() else ""
