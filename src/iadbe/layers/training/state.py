"""What an interrupted loop continues from: tensors of the detector, random states, optimizers and the like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from iadbe.networks.backbone import Backbone


class Stateful(Protocol):
    """What an interrupted loop continues from: optimizers, schedules, modules and averages of weights are such."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state, of tensors and plain values."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Take the state."""


State = Stateful | torch.Generator | np.random.Generator


class Variables:
    """Numbers that a loop's body changes and that an interrupted loop keeps: counters, a running minimum, a flag."""

    def __init__(self, **values: float | str | bool | None) -> None:
        """Set the attributes that :meth:`state_dict` returns; more cannot be added."""
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dict__:
            raise AttributeError(f"{name} is not among {', '.join(self.__dict__)}")
        self.__dict__[name] = value

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} is not among {', '.join(self.__dict__)}")

    def state_dict(self) -> dict[str, Any]:
        """Return the values."""
        return dict(self.__dict__)

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take the values."""
        self.__dict__.update(state_dict)


def random_state(rng: np.random.Generator) -> str:
    """Return the state of a generator as JSON, for its integers have 128 bits."""
    return json.dumps(rng.bit_generator.state, default=np.ndarray.tolist)


def set_random_state(rng: np.random.Generator, state: str) -> None:
    """Set what :func:`random_state` has returned."""
    rng.bit_generator.state = json.loads(state)


def learnt_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers by name, persistent or not, but not those of frozen backbones."""
    frozen = {
        id(tensor)
        for backbone in module.modules()
        if isinstance(backbone, Backbone)
        for tensor in (*backbone.parameters(), *backbone.buffers())
        if not tensor.requires_grad
    }
    named = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {name: _alone(tensor.detach()) for name, tensor in named if id(tensor) not in frozen}


def _alone(tensor: Tensor) -> Tensor:
    """Return a tensor that a file can hold without the rest of the memory that it is a view of."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


@torch.no_grad()
def put_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Set what :func:`learnt_tensors` has returned.

    Parameters are set in place, for optimizers hold them; buffers too, unless they have changed their shape.
    """
    own = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    for name, value in tensors.items():
        tensor = own[name]
        if tensor.shape == value.shape and tensor.dtype == value.dtype:
            tensor.copy_(value)
        else:
            path, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(path), attribute, value.to(tensor.device))


def state_of(own: State) -> Any:
    """Return the state of an optimizer, a module, a generator …"""
    if isinstance(own, torch.Generator):
        return own.get_state()
    return random_state(own) if isinstance(own, np.random.Generator) else own.state_dict()


def put_state(own: State, value: Any) -> None:
    """Set what :func:`state_of` has returned."""
    if isinstance(own, torch.Generator):
        own.set_state(value)
    elif isinstance(own, np.random.Generator):
        set_random_state(own, value)
    else:
        own.load_state_dict(value)
