"""An encoder that is trained: a timm network from normalised images to its last feature map, pretrained or not.

:class:`iadbe.networks.backbone.Backbone` is the frozen counterpart, with batch norms folded into the convolutions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.layers.blocks.student import student_network
from iadbe.networks.backbone import build_network
from iadbe.networks.timm_loader import load_timm


class Encoder(nn.Module):
    """Maps images (B, 3, H, W) in [0, 1] to the last feature map (B, C, h, w).

    A transformer's feature map is that of its normalised patch tokens. If its patches do not divide the image, the
    image is resized to the nearest size that they divide.

    Attributes:
        channels: C
        stride: of the feature map, in pixels
    """

    mean: Tensor
    std: Tensor
    source: Tensor

    def __init__(self, name: str, weights: str = "auto") -> None:
        """Make the network; without weights, torch's global generator draws them.

        Args:
            name: any timm model
            weights: a file, auto or none, as for a backbone
        """
        super().__init__()
        with torch.device("meta"):
            last = len(load_timm().create_model(name, num_classes=0).feature_info) - 1
        text = f"{name}: random (weights=none)"
        if weights != "none":
            network, tagged, fingerprint, source = build_network(name, weights, (last,))
            text = f"{tagged}: {fingerprint} from {source}, trained further"
        elif "vit_" in name:  # takes images of any size, which a student does not
            network = build_network(name, weights, (last,))[0]
            network.init_weights()  # by torch's generator
        else:
            network = student_network(name, [last], unit_scales=True)
        config = network.pretrained_cfg
        network.prune_intermediate_layers([last], prune_norm=False, prune_head=True)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # networks from TensorFlow have 0.01, too slow for a few hundred steps
        self.network = network.to(memory_format=torch.channels_last)
        self.last = last
        self.channels = int(network.feature_info[last]["num_chs"])
        self.stride = int(network.feature_info[last]["reduction"])
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1))
        self.register_buffer("source", torch.tensor(list(text.encode()), dtype=torch.uint8))  # saved with the model

    @property
    def description(self) -> str:
        """Name, fingerprint and source of the weights that training started from."""
        return bytes(self.source.tolist()).decode()

    def forward(self, image: Tensor) -> Tensor:
        x = (self._on_grid(image) - self.mean) / self.std
        network: Any = self.network
        found = network.forward_intermediates(
            x.contiguous(memory_format=torch.channels_last), indices=[self.last], norm=True, intermediates_only=True
        )
        return found[0]

    def _on_grid(self, image: Tensor) -> Tensor:
        """Resize images (B, 3, H, W) to the nearest size that a transformer's patches divide."""
        patch = getattr(getattr(self.network, "patch_embed", None), "patch_size", 1)
        sides = (patch, patch) if isinstance(patch, int) else patch
        size = [max(1, round(side / step)) * step for side, step in zip(image.shape[-2:], sides, strict=True)]
        if size == [*image.shape[-2:]]:
            return image
        return F.interpolate(image, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
