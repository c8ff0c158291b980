"""Gradient checkpointing: activations inside wide blocks are computed again in the backward pass, to save memory.

Paper: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, 1604.06174. Only inverted
    bottlenecks, wider inside than at their end, are checkpointed (Sandler et al., "MobileNetV2", CVPR 2018,
    1801.04381): they save most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextmanager
def gradient_checkpointing(network: nn.Module) -> Iterator[None]:
    """Checkpoint the wide blocks of ``network`` in the ``with`` block. Results stay the same; training takes longer."""
    wide = [module for module in network.modules() if is_wide(module)]
    try:
        for module in wide:
            module.forward = _checkpointed(module, module.forward)
        yield
    finally:
        for module in wide:
            module.__dict__.pop("forward", None)  # the method of the class shows again


def is_wide(module: nn.Module) -> bool:
    """Return whether a module is a block of convolutions with fewer channels at its end than inside."""
    channels = [c.out_channels for c in module.children() if isinstance(c, nn.Conv2d)]
    return len(channels) > 1 and max(channels) > channels[-1]


def _checkpointed(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: checkpoint(
        forward, *given, use_reentrant=False, context_fn=lambda: (nullcontext(), _frozen_statistics(module))
    )


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch norms as they are: the forward pass has updated them already.

    The buffers have to exist, because the second computation must save the same tensors as the first.
    """
    norms: list[Any] = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
