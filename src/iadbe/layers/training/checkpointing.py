"""Training in less memory: what lies inside of wide blocks is not kept for the way back, but computed again there.

Paper: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, 1604.06174. Blocks that are wider inside than
    at their end (Sandler et al., "MobileNetV2", CVPR 2018, 1801.04381) gain most and are the only ones here.
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
    """Train ``network`` in the block with the same results as without, in less memory and a little more time."""
    wide = [module for module in network.modules() if is_wide(module)]
    try:
        for module in wide:
            module.forward = _forgetful(module, module.forward)
        yield
    finally:
        for module in wide:
            module.__dict__.pop("forward", None)  # the class's own is there again


def is_wide(module: nn.Module) -> bool:
    """Say whether a module is a block of convolutions that hands on less than it works with."""
    channels = [c.out_channels for c in module.children() if isinstance(c, nn.Conv2d)]
    return len(channels) > 1 and max(channels) > channels[-1]


def _forgetful(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: checkpoint(
        forward, *given, use_reentrant=False, context_fn=lambda: (nullcontext(), _uncounted(module))
    )


@contextmanager
def _uncounted(module: nn.Module) -> Iterator[None]:
    """Leave running statistics as they are: the batch has been counted on the way forward.

    They are still to be there, as the way back looks for all that the way forward had.
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
