"""Options and config files of anomalib-based tools, translated.

Options with a counterpart are used, others are named in a note. Data files and ``anomalib.data`` classes are read by
:mod:`iadbe.data.resolve`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from iadbe.data import anomalib_configs
from iadbe.errors import UnknownName, did_you_mean
from iadbe.registry import card, names

# parameter of anomalib's class, or of a paper's code -> ours, by detector; the others keep their names
PARAMETERS = {
    "padim": {"n_features": "dims", "k": "dims"},
    "orthoad": {"n_features": "k"},
    "patchcore": {"coreset_sampling_ratio": "coreset", "num_neighbors": "neighbours", "k": "neighbours"},
    "dfm": {"pooling_kernel_size": "pool", "pca_level": "variance", "score_type": "score", "layers": "layer"},
    "dfkde": {"n_pca_components": "components", "layers": "layer"},
}
# default backbones of anomalib's classes
BACKBONES = {"padim": "resnet18", "patchcore": "wide_resnet50_2", "dfm": "resnet50", "dfkde": "resnet18"}
BACKBONES |= {"stfpm": "resnet18", "reverse_distillation": "wide_resnet50_2", "fastflow": "resnet18", "fre": "resnet50"}
# options and keys that this engine decides by other means, or has no use for
UNUSED = (
    *("trainer", "task", "normalization", "metrics", "logging", "callbacks", "logger", "visualization", "project"),
    *("image_metrics", "pixel_metrics", "optimization", "threshold", "data_path", "max_epochs", "ckpt_path", "verbose"),
    *("return_predictions", "inputs", "model_summary", "optimizer", "lr_scheduler", "early_stopping", "nncf"),
)
SWITCHES = ("--return_predictions",)  # unused options without a value
RENAMED = {"--seed_everything": "--seed", "--default_root_dir": "--store", "--results_dir": "--store", "-c": "--config"}
RENAMED |= {"--results_dir.path": "--store", "--accelerator": "--device"}
LAYERS = ("layer", "layers")
NOT_PARAMETERS = ("pre_processor", "post_processor", "evaluator", "visualizer", "input_size")  # a detector's, not ours


def arguments(tokens: Sequence[str], known: Collection[str]) -> tuple[list[str], list[str]]:
    """Translate options of other tools; return (tokens, notes on unused ones). ``known`` are the command's own."""
    out: list[str] = []
    unused: list[str] = []
    rest = list(tokens)
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        option = RENAMED.get(option, option)
        if option not in known:  # `iadbe watch` has a --model of its own
            option = re.sub(r"^--model(?=$|\.)", "--detector", option)
        option = re.sub(r"^(--(?:detector|data))\.class_path$", r"\1", option)
        option = re.sub(r"^(--(?:detector|data))\.init_args\.", r"\1.", option)
        if option == "--seed" and (value or "".join(rest[:1])).lower() in ("true", "null"):
            rest = rest if equals else rest[1:]  # any seed will do: ours is 0
        elif option not in known and option.startswith("--") and option[2:].partition(".")[0] in UNUSED:
            unused.append(option[2:])
            if not equals and option not in SWITCHES and rest and not rest[0].startswith("--"):
                rest.pop(0)
        else:
            out.append(option + equals + value)
    return out, not_used(unused)


def model_first(tokens: Sequence[str]) -> list[str]:
    """Put the folder of ``--ckpt_path`` first and leave out ``--model NAME``: a model's folder names its detector."""
    folder: list[str] = []
    out: list[str] = []
    rest = list(tokens)
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if option in ("--ckpt_path", "--model", "--model.class_path"):
            value = value if equals else rest.pop(0) if rest else ""
            folder = [value] if option == "--ckpt_path" else folder
        else:
            out.append(option + equals + value)
    return [*folder, *out]


def config(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a config under our keys, and sentences on what is not used.

    ``detector`` and ``data`` are kept as written, see :func:`detector` and :func:`iadbe.data.resolve.from_mapping`.
    """
    if "class_path" in raw:
        raw = {"data" if _is_data(str(raw["class_path"])) else "detector": raw}
    found: dict[str, Any] = {}
    unused: list[str] = []
    for key, value in raw.items():
        if key in ("model", "detector"):
            found["detector"] = value
        elif key == anomalib_configs.SECTION and anomalib_configs.is_dataset(value):
            found["data"], left = anomalib_configs.converted(value)
            unused += [f"{key}.{name}" for name in left]
        elif key == "seed_everything":
            found |= {} if value is None or isinstance(value, bool) else {"seed": value}
        elif key in ("default_root_dir", "results_dir"):
            found["store"] = value
        elif key == "metrics" and not isinstance(value, Mapping):
            found["metrics"] = value
        elif key in UNUSED:
            unused += [] if value is None else [key]
        else:
            found[key] = value
    return found, not_used(unused)


def backbone_notes(name: str) -> list[str]:
    """Return the note that another backbone than anomalib's is the default here, or none."""
    own = next((p.default for p in card("detectors", name).parameters if p.name == "backbone"), None)
    theirs = BACKBONES.get(name)
    if own is None or theirs is None or own.partition(".")[0] == theirs:
        return []
    return [f"{name} uses {own}; anomalib's default is {theirs}: --detector.backbone {theirs} takes it."]


def detector_name(text: str) -> str:
    """Return our name for a detector written in any usual way: padim, Padim, anomalib.models.Padim."""
    own = names("detectors")
    if text in own or ":" in text:
        return text
    last = text.rpartition(".")[2]
    spellings = {_letters(name): name for name in own}
    if (found := spellings.get(_letters(last))) is not None:
        return found
    near = did_you_mean(last, own)
    if text.startswith("anomalib."):
        raise UnknownName(f"{text} is not here (yet).{near} There are: {', '.join(own)}.")
    raise UnknownName(f"no detector is named {text!r}.{near} See `iadbe list detectors`.")


def detector(value: Any) -> tuple[str, dict[str, Any], bool]:
    """Read a detector in a config: return (its name or "", its parameters, whether it was written for other tools)."""
    if not isinstance(value, Mapping):
        return str(value or ""), {}, False
    foreign = "class_path" in value
    given = dict(value.get("init_args") or value.get("params") or {})
    given |= {k: v for k, v in value.items() if k not in ("class_path", "init_args", "name", "params")}
    return str(value.get("class_path") or value.get("name") or ""), given, foreign


def parameters(name: str, given: Mapping[str, Any], foreign: bool) -> tuple[dict[str, Any], list[str]]:
    """Return a detector's parameters under our names, and sentences on what was renamed or is not used.

    Where ``foreign``, a parameter that is unlike any of ours has no counterpart; else it is left for others to refuse.
    """
    own = {p.name: p for p in card("detectors", name).parameters}
    ours: dict[str, Any] = {}
    renamed, unused = [], []
    for key, value in given.items():
        to = key if key in own else PARAMETERS.get(name, {}).get(key, key)
        if key not in own and key == "pre_trained":
            ours |= {"weights": "none"} if str(value).lower() == "false" and "weights" in own else {}
        elif to not in own and (key in NOT_PARAMETERS or (foreign and not did_you_mean(key, own))):
            unused.append(f"{name}.{key}")
        elif not (value is None and foreign):  # null leaves it to the tool
            ours[to] = _layers(value, own[to].annotation == "int") if to in own and to in LAYERS else value
            renamed += [f"{key} is called {to} here"] if to != key else []
    return ours, [*([f"{name}: {', '.join(renamed)}."] if renamed else []), *not_used(unused)]


def not_used(names_: Sequence[str]) -> list[str]:
    """Return the sentence on what is not used, or none."""
    if not names_:
        return []
    return [f"not used here: {', '.join(dict.fromkeys(names_))} (this engine decides them by other means)."]


def _layers(value: Any, single: bool) -> Any:
    """Turn ``layer2`` into 2, in lists too; where one layer is wanted, take the last."""
    if isinstance(value, str):
        found = re.sub(r"['\"]?\blayer(\d+)\b['\"]?", r"\1", value).strip("[] ")
        return found.rpartition(",")[2].strip() if single else found
    if isinstance(value, (list, tuple)):
        each = [_layers(v, True) for v in value]
        return each[-1] if single and each else each
    return value


def _is_data(class_path: str) -> bool:
    return "data" in class_path.split(".") or class_path in ("Folder", "MVTec", "MVTecAD")


def _letters(text: str) -> str:
    return text.lower().replace("_", "").replace("-", "")
