"""Commands and files that were written for anomalib-based tools go on working.

What has a counterpart here is used; what has none is named in one sentence. Data files and ``anomalib.data``
classes are the business of :mod:`iadbe.sources`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iadbe.errors import UnknownName, did_you_mean
from iadbe.registry import names

# parameter of anomalib's class -> ours, by detector; the rest keep their names
PARAMETERS = {
    "padim": {"n_features": "dims", "k": "dims"},
    "patchcore": {"coreset_sampling_ratio": "coreset", "num_neighbors": "neighbours"},
    "dfm": {"pooling_kernel_size": "pool", "pca_level": "variance", "score_type": "score", "layer": "layer"},
    "dfkde": {"n_pca_components": "components", "layers": "layer"},
    "stfpm": {},
}
# keys of such configs that this engine decides by other means
UNUSED = (
    *("trainer", "task", "normalization", "metrics", "logging", "default_root_dir", "results_dir", "callbacks"),
    *("ckpt_path", "image_metrics", "pixel_metrics", "visualization", "optimization", "return_predictions"),
    *("logger", "max_epochs", "data_path", "project", "threshold"),
)
CLASSES = ("anomalib.models.", "anomalib.models.image.")


def arguments(tokens: list[str]) -> tuple[list[str], list[str]]:
    """Rewrite old options and class paths; return (tokens, sentences about what is not used)."""
    out: list[str] = []
    unused: list[str] = []
    detector = ""
    skip = False
    for i, token in enumerate(tokens):
        if skip:
            skip = False
            continue
        option, equals, value = token.partition("=")
        following = tokens[i + 1] if i + 1 < len(tokens) else ""
        if option == "--model" or option.startswith("--model."):
            option = "--detector" + option.removeprefix("--model")
        if option == "--detector" and (value or following):
            detector = detector_name(value or following)
            out += [option, detector]
            skip = not equals
        elif option.startswith("--detector."):
            key = option.removeprefix("--detector.").removeprefix("init_args.")
            out.append(f"--detector.{PARAMETERS.get(detector, {}).get(key, key)}{equals}{value}")
        elif option == "--seed_everything":
            out.append(f"--seed{equals}{value}")
        elif option.startswith("--data.init_args."):
            out.append(f"--data.{option.removeprefix('--data.init_args.')}{equals}{value}")
        elif option.startswith("--") and option[2:].partition(".")[0] in UNUSED and option not in ("--metrics", "--threshold"):
            unused.append(option[2:])
            skip = not equals and not following.startswith("--")
        else:
            out.append(token)
    return out, _said(unused)


def config(raw: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Turn a config of an anomalib-based tool, or one of ours, into our keys."""
    if "class_path" in raw:
        shelf = "data" if "anomalib.data" in str(raw["class_path"]) else "detector"
        raw = {shelf: raw}
    found: dict[str, Any] = {}
    unused: list[str] = []
    for key, value in raw.items():
        if key in ("model", "detector"):
            found["detector"] = _detector(value, unused)
        elif key == "data":
            found["data"] = _data(value)
        elif key == "seed_everything":
            found["seed"] = 0 if value in (None, True, False) else value
        elif key == "metrics" and isinstance(value, list):
            found["metrics"] = ",".join(value)
        elif key in UNUSED:
            unused.append(key)
        else:
            found[key] = value
    notes += _said(unused)
    return found


def detector_name(text: str) -> str:
    """Return our name for a detector written in any usual way: padim, Padim, anomalib.models.Padim."""
    if text in names("detectors") or ":" in text:
        return text
    last = text.rpartition(".")[2]
    squashed = {n.replace("_", ""): n for n in names("detectors")}
    if (own := squashed.get(last.lower().replace("_", ""))) is not None:
        return own
    if text.startswith("anomalib."):
        near = did_you_mean(last, names("detectors"))
        raise UnknownName(f"{text} has no counterpart here.{near} There are: {', '.join(names('detectors'))}.")
    return text


def _detector(value: Any, unused: list[str]) -> Any:
    if not isinstance(value, Mapping):
        return detector_name(str(value))
    name = detector_name(str(value.get("class_path") or value.get("name") or ""))
    given = dict(value.get("init_args") or {})
    given |= {k: v for k, v in value.items() if k not in ("class_path", "init_args", "name")}
    params: dict[str, Any] = {}
    for key, content in given.items():
        if key == "pre_trained":
            params |= {} if content else {"weights": "none"}
        elif key in ("pre_processor", "post_processor", "evaluator", "visualizer"):
            unused.append(f"{name}.{key}")
        elif content is not None:
            params[PARAMETERS.get(name, {}).get(key, key)] = _layers(content) if key in ("layers", "layer") else content
    if name == "dfkde" and isinstance(params.get("layer"), list):
        params["layer"] = params["layer"][-1]
    return {"name": name, **params}


def _layers(value: Any) -> Any:
    """Turn ``layer2`` into 2."""
    if isinstance(value, (list, tuple)):
        return [_layers(v) for v in value]
    return int(value[5:]) if isinstance(value, str) and value.startswith("layer") and value[5:].isdigit() else value


def _data(value: Any) -> Any:
    if isinstance(value, Mapping) and "class_path" in value:
        return {"name": value["class_path"], **(value.get("init_args") or {})}
    return value


def _said(unused: list[str]) -> list[str]:
    if not unused:
        return []
    return [f"Not used here: {', '.join(dict.fromkeys(unused))} (this engine decides them by other means)."]
