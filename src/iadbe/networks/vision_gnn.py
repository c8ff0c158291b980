"""Vision GNN: patches of an image are nodes, each connected to those of similar features; as backbones by timm's names.

Paper: Han et al., "Vision GNN: An Image is Worth Graph of Nodes", NeurIPS 2022, 2206.00272. A block is a max-relative
    graph convolution between two linear layers, with a shortcut, and a perceptron. Neighbours are the nearest nodes by
    normalised features, every d-th of k d (dilated). The pyramid halves the grid between four stages, its neighbours
    are means of r x r nodes, and near ones are preferred (relative position).
Differs:
    * There is no classifier. Layers are the blocks, from 0. Tensors have the names of the authors' files.
    * On another grid than that of 224 x 224 pixels, the positional embedding is interpolated too, not only the relative
      position; where there are fewer nodes than k d, neighbours are every d-th of all.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["VisionGNN"]  # timm adds the names of the models

SIDE = 224  # pixels of the images that the networks were trained with
NEIGHBOURS = 9
RATIOS = (4, 2, 1, 1)  # of the grids of nodes and neighbours, by stage of a pyramid
GROUPS = 4  # of the graph convolution's weights
URL = "https://github.com/huawei-noah/Efficient-AI-Backbones/releases/download"


@dataclass(frozen=True)
class Size:
    """Channels and blocks of each stage; one stage is an isotropic network."""

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    file: str  # below URL


SIZES = {
    "vig_ti_224_gelu": Size((192,), (12,), "vig/vig_ti_74.5.pth"),
    "vig_s_224_gelu": Size((320,), (16,), "vig/vig_s_80.6.pth"),
    "vig_b_224_gelu": Size((640,), (16,), "vig/vig_b_82.6.pth"),
    "pvig_ti_224_gelu": Size((48, 96, 240, 384), (2, 2, 6, 2), "pyramid-vig/pvig_ti_78.5.pth.tar"),
    "pvig_s_224_gelu": Size((80, 160, 400, 640), (2, 2, 6, 2), "pyramid-vig/pvig_s_82.1.pth.tar"),
    "pvig_m_224_gelu": Size((96, 192, 384, 768), (2, 2, 16, 2), "pyramid-vig/pvig_m_83.1.pth.tar"),
    "pvig_b_224_gelu": Size((128, 256, 512, 1024), (2, 2, 18, 2), "pyramid-vig/pvig_b_83.66.pth.tar"),
}
default_cfgs: dict[str, Any] = {}  # timm reads it from the module of a model


class VisionGNN(nn.Module):
    """The network of a :class:`Size`, with the methods by which timm's networks give features of their layers."""

    def __init__(self, size: Size, num_classes: int = 0, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, size.channels[-1]
        self.stem = _Stem(in_chans, size.channels[0], 2 if len(size.channels) > 1 else 4)
        grid = SIDE // self.stem.stride
        self.pos_embed = nn.Parameter(torch.zeros(1, size.channels[0], grid, grid))
        self.feature_info: list[dict[str, Any]] = []
        self.places: list[int] = []  # of the blocks among the parts of the backbone
        parts: list[nn.Module] = []
        for stage, (channels, blocks) in enumerate(zip(size.channels, size.blocks, strict=True)):
            if stage:
                parts.append(_Downsample(size.channels[stage - 1], channels))
            for _ in range(blocks):
                number = len(self.places)
                self.places.append(len(parts))
                stride = SIDE // (grid >> stage)
                self.feature_info.append({"num_chs": channels, "reduction": stride, "module": f"backbone.{len(parts)}"})
                grapher = _grapher(size, stage, number, grid >> stage)
                parts.append(nn.Sequential(grapher, _FeedForward(channels)))
        self.backbone = nn.Sequential(*parts)
        self.apply(_initialised)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over the nodes of the last block: (B, C)."""
        return self.forward_intermediates(x, [len(self.places) - 1])[-1].mean((2, 3))

    def forward_intermediates(self, x: Tensor, indices: Sequence[int], **options: Any) -> list[Tensor]:
        """Return the output (B, C, h, w) of each block of ``indices``, rising, and of no other."""
        x = self.stem(x)
        position: Tensor = self.pos_embed
        if position.shape[-2:] != x.shape[-2:]:
            position = F.interpolate(position, x.shape[-2:], mode="bicubic", align_corners=False)
        x = x + position
        found, wanted = [], {self.places[i] for i in indices}
        for place, part in enumerate(self.backbone[: max(wanted) + 1]):
            x = part(x)
            if place in wanted:
                found.append(x)
        return found

    def prune_intermediate_layers(self, indices: Sequence[int], **options: Any) -> list[int]:
        """Drop the blocks after the last of ``indices``."""
        self.backbone = self.backbone[: self.places[max(indices)] + 1]
        return list(indices)


class _Stem(nn.Module):
    """Convolutions that halve the grid ``halvings`` times, and one that keeps it."""

    def __init__(self, inside: int, outside: int, halvings: int) -> None:
        super().__init__()
        self.stride = 2**halvings
        widths = [inside, *(outside >> k for k in range(halvings - 1, -1, -1))]
        parts: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            parts += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.GELU()]
        self.convs = nn.Sequential(*parts, nn.Conv2d(outside, outside, 3, 1, 1), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class _Downsample(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _FeedForward(nn.Module):
    """A perceptron over each node, with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = _linear(channels, 4 * channels), _linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.gelu(self.fc1(x)))


class _MaxRelative(nn.Module):
    """Max-relative graph convolution: a grouped linear layer over x_i and max_j (x_j - x_i), channels alternating."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(2 * channels, 2 * channels, 1, groups=GROUPS)
        self.nn = nn.Sequential(convolution, nn.BatchNorm2d(2 * channels), nn.GELU())

    def forward(self, x: Tensor, others: Tensor, edges: Tensor) -> Tensor:
        """Return (B, 2 C, h, w).

        Args:
            x: nodes (B, C, h, w)
            others: what they are connected to (B, C, M)
            edges: indices (B, h w, k) into ``others``
        """
        images, channels, height, width = x.shape
        index = edges.flatten(1)[:, None].expand(-1, channels, -1)
        largest = others.gather(2, index).view(images, channels, height * width, -1).amax(3).view_as(x)
        return self.nn(torch.stack([x, largest - x], 2).flatten(1, 2))


class _DynamicGraph(nn.Module):
    """The graph convolution with the graph of its input."""

    def __init__(self, channels: int, neighbours: int, dilation: int, ratio: int) -> None:
        super().__init__()
        self.gconv = _MaxRelative(channels)
        self.neighbours, self.dilation, self.ratio = neighbours, dilation, ratio

    def forward(self, x: Tensor, position: Tensor | None) -> Tensor:
        ratio = min(self.ratio, *x.shape[-2:])
        others = (F.avg_pool2d(x, ratio, ratio) if ratio > 1 else x).flatten(2)
        return self.gconv(x, others, self.edges(x.flatten(2), others, position))

    def edges(self, nodes: Tensor, others: Tensor, position: Tensor | None) -> Tensor:
        """Return the indices (B, N, k) of the dilated nearest of ``others`` (B, C, M) of ``nodes`` (B, C, N)."""
        nodes, others = F.normalize(nodes, dim=1), F.normalize(others, dim=1)
        distance = nodes.square().sum(1)[:, :, None] - 2 * nodes.mT @ others + others.square().sum(1)[:, None]
        if position is not None:
            size = distance.shape[1:]
            if position.shape[1:] != size:
                position = F.interpolate(position[None], size, mode="bicubic", align_corners=False)[0]
            distance = distance + position
        count = min(self.neighbours * self.dilation, others.shape[2])
        return distance.topk(count, largest=False).indices[:, :, :: self.dilation]


class _Grapher(nn.Module):
    """Linear layer, graph convolution, linear layer, with a shortcut."""

    def __init__(self, channels: int, neighbours: int, dilation: int, ratio: int, grid: int) -> None:
        super().__init__()
        self.fc1 = _linear(channels, channels)
        self.graph_conv = _DynamicGraph(channels, neighbours, dilation, ratio)
        self.fc2 = _linear(2 * channels, channels)
        if grid:
            position = relative_position(channels, grid)[None, None]
            size = (grid * grid, grid * grid // ratio**2)
            position = F.interpolate(position, size, mode="bicubic", align_corners=False)[0]
            self.relative_pos = nn.Parameter(-position, requires_grad=False)
        else:
            self.register_parameter("relative_pos", None)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(self.graph_conv(self.fc1(x), self.relative_pos))


def _grapher(size: Size, stage: int, number: int, grid: int) -> _Grapher:
    """Return the graph convolution of a block: neighbours grow with depth (isotropic), and so does the dilation."""
    channels, count = size.channels[stage], sum(size.blocks)
    if len(size.channels) > 1:
        return _Grapher(channels, NEIGHBOURS, min(number // 4 + 1, 49 // NEIGHBOURS), RATIOS[stage], grid)
    neighbours = int(torch.linspace(NEIGHBOURS, 2 * NEIGHBOURS, count)[number])
    return _Grapher(channels, neighbours, min(number // 4 + 1, 196 // (2 * NEIGHBOURS)), 1, 0)


def relative_position(channels: int, grid: int) -> Tensor:
    """Return (N, N): 2 / C times the products of the sinusoidal embeddings of all N = grid² positions."""
    frequency = 10_000 ** (-torch.arange(channels // 4, dtype=torch.float64) / (channels / 4))
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * frequency
    line = torch.cat([angle.sin(), angle.cos()], 1)  # (grid, C / 2)
    across, down = line[None].expand(grid, -1, -1), line[:, None].expand(-1, grid, -1)
    embedding = torch.cat([across, down], 2).flatten(0, 1)
    return (2 / channels * embedding @ embedding.T).float()


def _linear(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 1), nn.BatchNorm2d(outside))


def _initialised(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(module.bias)


def register(timm: Any) -> None:
    """Make the networks known to timm, once."""
    if default_cfgs:
        return
    mean = std = (0.5, 0.5, 0.5)
    about = {"input_size": (3, SIDE, SIDE), "crop_pct": 0.9, "interpolation": "bicubic", "num_classes": 1000}
    default_cfgs.update(
        timm.models.generate_default_cfgs(
            {f"{n}.in1k": {**about, "mean": mean, "std": std, "url": f"{URL}/{s.file}"} for n, s in SIZES.items()}
        )
    )
    for name in SIZES:
        timm.models.register_model(_entrypoint(timm, name))


def _entrypoint(timm: Any, name: str) -> Any:
    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        known = {k: v for k, v in options.items() if k in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")}
        return timm.models.build_model_with_cfg(
            VisionGNN, name, pretrained, pretrained_filter_fn=_without_classifier, size=SIZES[name], **known
        )

    create.__name__ = create.__qualname__ = name
    return create


def _without_classifier(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith("prediction.")}
