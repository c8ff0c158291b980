"""An encoder that is trained: a timm network from normalised images to feature maps, pretrained or not.

:class:`iadbe.networks.backbone.Backbone` is the frozen counterpart, with batch norms folded into the convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from iadbe.layers.blocks.student import student_network
from iadbe.layers.features.region import average_pooled
from iadbe.networks.backbone import build_network
from iadbe.networks.grid import on_grid, without_aliasing
from iadbe.networks.timm_loader import load_timm


class Encoder(nn.Module):
    """Maps images (B, 3, H, W) in [0, 1] to the last of its feature maps (B, C, h, w); ``pyramid`` gives all.

    A transformer's feature map is that of its normalised patch tokens. If its patches do not divide the image, the
    image is resized to the nearest size that they divide.

    Attributes:
        layers: numbers of the feature maps, as those of a backbone
        channels: C of the last one
        stride: of the last one, in pixels
        pyramid_channels: C of each
    """

    mean: Tensor
    std: Tensor
    source: Tensor

    def __init__(self, name: str, weights: str = "auto", layers: Sequence[int] = ()) -> None:
        """Make the network; without weights, torch's global generator draws them.

        Args:
            name: any timm model
            weights: a file, auto or none, as for a backbone
            layers: numbers of the feature maps, in order; none: the network's last one
        """
        super().__init__()
        if not layers:
            with torch.device("meta"):
                layers = [len(load_timm().create_model(name, num_classes=0).feature_info) - 1]
        self.layers = tuple(layers)
        text = f"{name}: random (weights=none)"
        if weights != "none":
            network, tagged, fingerprint, source = build_network(name, weights, self.layers)
            text = f"{tagged}: {fingerprint} from {source}, trained further"
        elif "vit_" in name:  # takes images of any size, which a student does not
            network = build_network(name, weights, self.layers)[0]
            network.init_weights()  # by torch's generator
        else:
            network = student_network(name, [*self.layers], unit_scales=True)
        config = network.pretrained_cfg
        network.prune_intermediate_layers([*self.layers], prune_norm=False, prune_head=True)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # networks from TensorFlow have 0.01, too slow for a few hundred steps
        self.network = network.to(memory_format=torch.channels_last)
        self.pyramid_channels = tuple(int(network.feature_info[layer]["num_chs"]) for layer in self.layers)
        self.channels = self.pyramid_channels[-1]
        self.stride = int(network.feature_info[self.layers[-1]]["reduction"])
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1))
        self.register_buffer("source", torch.tensor(list(text.encode()), dtype=torch.uint8))  # saved with the model

    @property
    def description(self) -> str:
        """Name, fingerprint and source of the weights that training started from."""
        return bytes(self.source.tolist()).decode()

    def forward(self, image: Tensor) -> Tensor:
        return self.pyramid(image)[-1]

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """Return the feature map of each layer (B, C, h, w)."""
        network: Any = self.network
        found: list[Tensor] = network.forward_intermediates(
            self._normalised(image), indices=[*self.layers], norm=True, intermediates_only=True
        )
        return found

    def embedding(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """Return one vector per image (B, C): a transformer's class token, normalised, else the mean of positions.

        The mean is over the positions that count by ``region`` (B, H, W) bool; a class token is of the whole image.
        """
        network: Any = self.network
        if getattr(network, "cls_token", None) is None:
            return average_pooled(self(image), region)
        [(_, prefix)] = network.forward_intermediates(
            self._normalised(image),
            indices=[self.layers[-1]],
            return_prefix_tokens=True,
            norm=True,
            intermediates_only=True,
        )
        token: Tensor = prefix[:, 0]
        return token

    def _normalised(self, image: Tensor) -> Tensor:
        """Return images (B, 3, H, W) as the network takes them."""
        x = (on_grid(self.network, image) - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)


def halved(image: Tensor, times: int) -> Tensor:
    """Return images (B, C, H, W) at 1 / 2**times of their size."""
    if not times:
        return image
    height, width = (max(1, side >> times) for side in image.shape[-2:])
    return without_aliasing(image, (height, width))
