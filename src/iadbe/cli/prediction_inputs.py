"""What `iadbe predict` scores: files, folders and patterns, or the test images of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadbe import system
from iadbe.cli import UsageError
from iadbe.errors import BadConfig, BadData, UnknownName
from iadbe.registry import names

if TYPE_CHECKING:
    import numpy as np

    from iadbe.dataset import Dataset
    from iadbe.files.input_images import InputImage
    from iadbe.types import IntensityRange, Sample

CATEGORIES = ("category", "categories")
FILES = ("path", "root")  # anomalib's PredictDataset: --data.path IMAGES
YAML = (".yaml", ".yml")


@dataclass
class DataOptions:
    """The options ``--data``, ``--data.NAME`` and ``--config`` of a command line."""

    name: str = ""
    params: dict[str, str] = field(default_factory=dict)
    configured: Any = None
    config: Path = Path()
    checkpoint: str = ""  # of the config file


def take(tokens: Sequence[str]) -> tuple[list[str], DataOptions]:
    """Take the options of the data from the tokens, as anomalib-based tools write them; return the other tokens."""
    options, others, rest = DataOptions(), [], list(tokens)
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if option not in ("--data", "--input", "--config") and not option.startswith("--data."):
            others.append(option + equals + value)
            continue
        if not equals:
            if not rest:
                raise UsageError(f"{option} needs a value.")
            value = rest.pop(0)
        if option == "--config":
            _read_config(system.user_path(value), options)
        elif option.startswith("--data."):
            options.params[option.removeprefix("--data.")] = value
        else:
            options.name = value
    return others, options


def _read_config(file: Path, options: DataOptions) -> None:
    from iadbe.files.layout import read_yaml

    if not file.is_file():
        raise BadConfig(f"there is no config file {file}.")
    found = read_yaml(file)
    options.config = file
    options.configured = found if "class_path" in found else found.get("data")
    options.checkpoint = str(found.get("ckpt_path") or "")


def images_of(inputs: Sequence[str], options: DataOptions) -> list[InputImage]:
    """Return the images to score. Raises :class:`UsageError` where nothing names any."""
    from iadbe.files.input_images import inputs_of

    given = list(inputs)
    name = options.name
    if not name and options.params and not (set(options.params) - set(FILES)) and options.configured is None:
        given += options.params.values()
        return inputs_of(given)
    if is_data(name) or (not name and options.configured is not None):
        return [*(inputs_of(given) if given else []), *_test_images(name, options)]
    for text in given:
        if is_data(text):
            raise BadConfig(f"{text} is data. For its test images write --data {text}, and --data.root DIR.")
    given += [name] if name else []
    if not given:
        raise UsageError("which images? Give files, folders or patterns after the model, or --data NAME.")
    return inputs_of(given)


def is_data(text: str) -> bool:
    """Return whether a text names a dataset or a YAML file that describes one, rather than images."""
    if text.startswith("anomalib."):
        return True
    return bool(text) and (text in names("datasets") or Path(text).suffix.lower() in YAML) and not Path(text).is_dir()


def _test_images(name: str, options: DataOptions) -> list[InputImage]:
    from iadbe.data import resolve
    from iadbe.dataset import Index
    from iadbe.files.input_images import InputImage

    params: dict[str, Any] = {k: v for k, v in options.params.items() if k not in CATEGORIES}
    configured = options.configured
    chosen: Any = [options.params[k] for k in CATEGORIES if k in options.params]
    if name:
        found = resolve.find(name)
    elif isinstance(configured, dict):
        inner = dict(configured.get("init_args") or configured.get("params") or {})
        chosen = chosen or [value for k in CATEGORIES if (value := inner.pop(k, None))]
        found = resolve.from_mapping({**configured, "init_args": inner}, options.config)
    else:
        found = resolve.find(str(configured))
    own, _ = resolve.split_parameters(found.name, params)
    dataset = resolve.make(found.name, {**found.params, **own})
    try:
        wanted = dataset.chosen_categories(_several(chosen[-1]) if chosen else ())
    except UnknownName as error:
        raise BadConfig(f"{found.name}: {error}") from error
    index = Index(dataset.samples())
    images = []
    for category in wanted:
        for sample in index.test(category):
            images.append(InputImage(dataset.root / sample.image, partial(_read_sample, dataset, sample)))
    if not images:
        raise BadData(f"{found.name} has no test images in {', '.join(wanted)}.")
    return images


def _read_sample(dataset: Dataset, sample: Sample, intensity: IntensityRange | None) -> tuple[np.ndarray, str]:
    dataset.intensity = intensity  # the model's, as for any other image
    return dataset.image(sample), ""


def _several(value: Any) -> list[str]:
    parts = value.strip("[] ").split(",") if isinstance(value, str) else value
    return [str(part).strip() for part in parts]
