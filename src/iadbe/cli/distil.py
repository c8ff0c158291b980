"""Distil a teacher for EfficientAD: a small network learns what a backbone says of image patches.

Any backbone and any folder of images serve; the paper takes a Wide ResNet-101 and ImageNet. Without --images, textures
are drawn. An interrupted command goes on where it stopped when it is repeated. The weight file states source network,
images, steps and loss, also in a JSON file beside it. Without --out it lies in the cache, where EfficientAD finds it if
no teacher of that size comes with the package; else name it: --detector.weights FILE.

The paper's options are the defaults. On a few cores, take squares of the images and more of them per step:

    iadbe distil --backbone wide_resnet101_2.tv_in1k --images imagenet/train
    iadbe distil --images photos --views 500 --crop 16 --steps 1600 --learning-rate 1e-3 --schedule cosine
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal

import jsonargparse

from iadbe.cli import progress_bar
from iadbe.cli.options import parse
from iadbe.errors import BadConfig
from iadbe.types import Options


def run(arguments: Sequence[str]) -> int:
    """Distil a teacher, or continue."""
    values = parse("distil", __doc__ or "", arguments, _add).values
    import torch

    from iadbe import environment
    from iadbe.layers.blocks.pdn import cached
    from iadbe.networks import feature_store
    from iadbe.networks.backbone import Backbone
    from iadbe.running.distillation import Distillation, Recipe

    recipe = Recipe(**{f.name: values[f.name] for f in fields(Recipe)})
    device = environment.device(values["device"])
    if values["threads"]:
        torch.set_num_threads(values["threads"])
    backbone = Backbone(values["backbone"], _layers(values["layers"]), values["weights"]).to(device)
    file = Path(values["out"]).expanduser() if values["out"] else cached(recipe.size)
    distillation = Distillation(backbone, values["images"], recipe, file)
    print(f"{backbone.description}; {distillation.pool.description}", file=sys.stderr)
    if distillation.checkpoint.is_file():
        print(f"continues from {distillation.checkpoint}", file=sys.stderr)
    store = feature_store.open_store(Options(features=values["features"]))
    with progress_bar.shown(), feature_store.using(store):
        card = distillation.run()
    print(f"{file}: loss {card['loss']} after {card['steps_done']} steps in {card['seconds']} s")
    print(f"\nNext: iadbe train --detector efficientad --detector.weights {file} --data FOLDER")
    return 0


def _layers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise BadConfig(f"--layers takes whole numbers with commas, such as 2,3, not {text!r}.") from error


def _add(parser: jsonargparse.ArgumentParser) -> None:
    group = parser.add_argument_group("source")
    group.add_argument(
        "--backbone", type=str, default="tf_efficientnet_lite0.in1k", help="any convolutional timm model"
    )
    group.add_argument("--layers", type=str, default="2,3", help="of the backbone, the finest first")
    group.add_argument("--weights", type=str, default="auto", metavar="FILE", help="of the backbone: a file, or auto")
    group.add_argument(
        "--images", type=str, default="", metavar="DIR", help="images, at any depth; else drawn textures"
    )
    group.add_argument("--views", type=int, default=0, help="squares of the images to use; 0: each image once, whole")
    group.add_argument("--side", type=int, default=256, help="height and width of a view in pixels")
    group = parser.add_argument_group("network and training")
    group.add_argument("--size", type=Literal["S", "M"], default="S", help="S or M")
    group.add_argument("--width", type=int, default=384, help="channels of a descriptor")
    group.add_argument("--steps", type=int, default=60_000, help="of Adam")
    group.add_argument("--batch", type=int, default=16, help="views per step")
    group.add_argument(
        "--crop", type=int, default=0, help="positions along each side that a step uses of a view; 0: all"
    )
    group.add_argument("--learning-rate", type=float, default=1e-4, help="of Adam")
    group.add_argument("--schedule", type=Literal["constant", "cosine"], default="constant", help="constant or cosine")
    group.add_argument("--precision", type=Literal["fp32", "bf16"], default="fp32", help="fp32 or bf16")
    group.add_argument("--seed", type=int, default=0, help="decides every random number")
    group = parser.add_argument_group("how to run")
    group.add_argument("--out", type=str, default="", metavar="FILE", help="where the teacher goes, .safetensors")
    group.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps …")
    group.add_argument("--threads", type=int, default=0, metavar="N", help="0: all cores")
    group.add_argument("--features", type=str, default="", metavar="DIR", help="feature store; off: none")
