"""Pretrained networks that another tool asks timm for, with weights that IADBE finds or a file holds.

Tools call ``timm.create_model(..., pretrained=True)``, which downloads. In a block of :func:`pretrained_weights` the
network is made at random and gets its weights as :class:`iadbe.networks.backbone.Backbone` does: from the package that
comes with IADBE, the local caches or the internet; random ones with "none".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from iadbe.errors import BadConfig
from iadbe.networks.backbone import build_network, state_fingerprint
from iadbe.networks.timm_loader import load_timm

HEADS = ("classifier.", "head.", "head_dist.", "fc.", "num_batches_tracked")  # what features do not need
PREFIX = "model."  # of the network inside timm's extractor of features


@contextmanager
def pretrained_weights(weights: str, state: Mapping[str, Tensor] | None = None) -> Iterator[list[str]]:
    """Give what timm is asked for as pretrained in the block: ``weights``, "auto" or "none", or the tensors ``state``.

    The descriptions of the networks, "name: fingerprint from source", are appended to the list that is given.
    """
    timm, described = load_timm(), list[str]()
    original = timm.create_model

    def create_model(model_name: str, pretrained: bool = False, *args: Any, **options: Any) -> nn.Module:
        network = original(model_name, False, *args, **options)
        if not pretrained:
            return network
        if state is not None:
            source = f"{model_name}: {state_fingerprint(state)} from a file"
            take_state(network, state, model_name)
        elif weights == "none":
            source = f"{model_name}: random-{state_fingerprint(network.state_dict())} from random (weights=none)"
        else:
            found, name, fingerprint, where = build_network(model_name, weights, ())
            source = f"{name}: {fingerprint} from {where}"
            take_state(network, found.state_dict(), model_name)
        if source not in described:
            described.append(source)
        return network

    timm.create_model = create_model
    try:
        yield described
    finally:
        timm.create_model = original


def take_state(network: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load all that a network without its head needs from tensors by name; :class:`BadConfig` where one is missing."""
    wanted = network.state_dict()
    found = {key: state[plain] for key in wanted if (plain := _plain(key, state)) in state}
    wrong = [k for k, v in found.items() if v.shape != wanted[k].shape]
    lacking = [k for k in wanted if k not in found and not any(head in k for head in HEADS)]
    if wrong or lacking:
        raise BadConfig(f"the weights do not fit {name}: {', '.join([*wrong, *lacking][:3])} differ or are missing.")
    network.load_state_dict(found, strict=False)


def _plain(key: str, state: Mapping[str, Tensor]) -> str:
    return key if key in state else key.removeprefix(PREFIX)
