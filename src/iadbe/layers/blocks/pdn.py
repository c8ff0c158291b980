"""Patch description network (PDN): a shallow network whose every output describes one patch of 33 x 33 pixels.

Paper: Batzner et al., "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies", WACV 2024,
    arXiv:2303.14535, section 3.1 and tables 5 and 6 of its appendix.
Differs:
    * Without padding, as in the paper; the public weights were trained with padding and serve without.
    * With another ``width``, the channels of all layers change in proportion.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from iadbe.cache import cache_folder
from iadbe.errors import BadConfig, Missing
from iadbe.networks.backbone import read_state

Size = Literal["S", "M"]
WIDTH = 384  # channels of the paper's descriptors
FIELD, STRIDE = 33, 4  # receptive field of an output, and distance of two, in pixels
BORDER = 4  # outputs that are missing at each side, as there is no padding
PACKAGED = Path(__file__).parents[2] / "networks" / "pdn_s.safetensors"  # M has 16 MB, which is too much for a package
# of each convolution: kernel's side, and channels (0: the outputs)
CONVOLUTIONS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "S": ((4, 128), (4, 256), (3, 256), (4, 0)),
    "M": ((4, 256), (4, 512), (1, 512), (3, 512), (4, 0), (1, 0)),
}


class PDN(nn.Module):
    """Maps images (B, 3, H, W) in [0, 1] to descriptors (B, C, h, w), with h = H / 4 - 8 where 4 divides H.

    ImageNet's mean and standard deviation are applied within. Average pooling halves the grid after the first two
    convolutions; a ReLU follows every convolution but the last.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: Size = "S", width: int = WIDTH, outputs: int = 0) -> None:
        """Choose the network; weights come from torch's global generator.

        Args:
            size: S has four convolutions, M six
            width: channels of a descriptor; those of the inner layers are in proportion, 384 is the paper's
            outputs: channels that come out; 0: ``width``
        """
        super().__init__()
        if size not in CONVOLUTIONS or width < 1:
            raise BadConfig(f"a PDN has the size S or M and a width of at least 1, not {size!r} and {width}.")
        self.size, self.width = size, width
        before = 3
        for number, (kernel, channels) in enumerate(CONVOLUTIONS[size], 1):
            after = max(1, channels * width // WIDTH) if channels else outputs or width
            self.add_module(f"conv{number}", nn.Conv2d(before, after, kernel))
            before = after
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)  # up to four times faster on a CPU with bfloat16

    def forward(self, image: Tensor) -> Tensor:
        """Return the descriptors (B, C, h, w)."""
        return self.head(self.trunk(image))

    def trunk(self, image: Tensor) -> Tensor:
        """Return what the last convolution takes: (B, C', h', w')."""
        x = (image - self.mean) / self.std
        for number in range(1, len(CONVOLUTIONS[self.size])):
            x = F.relu(self.get_submodule(f"conv{number}")(x))
            if number <= 2:
                x = F.avg_pool2d(x, 2)
        return x

    def head(self, x: Tensor, outputs: slice = slice(None)) -> Tensor:
        """Apply the last convolution; only these ``outputs`` are computed."""
        last: Any = self.get_submodule(f"conv{len(CONVOLUTIONS[self.size])}")
        return F.conv2d(x, last.weight[outputs], last.bias[outputs])


def read_pdn(file: Path) -> PDN:
    """Return the network that a weight file holds, frozen.

    The file may be one of ``iadbe distil``, a state dict of nelson1425/EfficientAD (convolutions are named by their
    place in a sequence) or of anomalib (``conv1`` …), also within a whole model of anomalib (``teacher.conv1`` …).

    Raises :class:`BadConfig` for a file that holds no PDN.
    """
    tensors = _plain_names(read_state(file))
    sides = [tuple(v.shape[2:]) for k, v in tensors.items() if k.endswith("weight")]
    found = [size for size, parts in CONVOLUTIONS.items() if sides == [(kernel, kernel) for kernel, _ in parts]]
    if not found:
        raise BadConfig(f"{file} does not hold a patch description network (PDN) of EfficientAD, small or medium.")
    size: Size = "S" if found[0] == "S" else "M"
    network = PDN(size, len(tensors[f"conv{len(sides)}.bias"]))
    try:
        network.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise BadConfig(f"{file} does not hold a PDN as in the paper: {str(error).splitlines()[-1].strip()}") from error
    return network.requires_grad_(False).eval()


def teacher(weights: str, size: Size, width: int) -> tuple[PDN, str]:
    """Return a frozen PDN and the source of its weights.

    Args:
        weights: a file; auto: the one that comes with the package (S) or else the one that ``iadbe distil`` has left in
            the cache; none: random ones
        size: S or M
        width: channels of a descriptor

    Raises :class:`BadConfig` for a file of another size or width and :class:`Missing` where auto finds no file.
    """
    if weights == "none":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return PDN(size, width).requires_grad_(False).eval(), "random (weights=none)"
    if weights in ("", "auto"):
        file = next((f for f in (packaged(size), cached(size)) if f is not None and f.is_file()), None)
        if file is None:
            raise Missing(
                f"no teacher of size {size} comes with the package, and none is in the cache. Make one that stays "
                f"there, `iadbe distil --size {size} --images FOLDER`, give a file (weights=FILE), or take random "
                "weights (weights=none)."
            )
        source = "package" if file == PACKAGED else "local cache"
    else:
        file, source = Path(weights).expanduser(), f"file {Path(weights).name}"
    network = read_pdn(file)
    if (network.size, network.width) != (size, width):
        raise BadConfig(
            f"{file.name} holds a PDN of size {network.size} and width {network.width}, not {size} and {width}. "
            f"Say model_size={network.size} width={network.width}."
        )
    return network, source + _origin(file)


def packaged(size: Size) -> Path | None:
    """Return the weight file that comes with the package, if there is one for this size."""
    return PACKAGED if size == "S" else None


def cached(size: Size) -> Path:
    """Return where ``iadbe distil`` leaves a teacher if no other file is named."""
    return cache_folder() / "teachers" / f"pdn_{size.lower()}.safetensors"


def _origin(file: Path) -> str:
    """Return what the teacher was distilled from, by the card within a file of ``iadbe distil``; "" for other files."""
    if file.suffix != ".safetensors":
        return ""
    try:
        with safe_open(file, "pt") as opened:
            card = json.loads((opened.metadata() or {}).get("card", "{}"))
        return f", distilled from {card['source']['network']} on {card['images']} in {card['steps_done']} steps"
    except (SafetensorError, ValueError, KeyError, TypeError):
        return ""


def _plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the convolutions as ``conv1.weight``, ``conv1.bias`` …, in order."""
    found: dict[tuple[int, str], Tensor] = {}
    for name, value in state.items():
        if match := re.fullmatch(r"(?:(?:model\.)?teacher\.)?(?:conv)?(\d+)\.(weight|bias)", name):
            found[int(match[1]), match[2]] = value
    numbers = sorted({number for number, kind in found if (number, "bias") in found and (number, "weight") in found})
    return {
        f"conv{place}.{kind}": found[number, kind]
        for place, number in enumerate(numbers, 1)
        for kind in ("weight", "bias")
    }
