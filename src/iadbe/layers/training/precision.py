"""Mixed precision and gradient accumulation, which a run chooses for whatever detector it trains.

Paper: Micikevicius et al., "Mixed Precision Training", ICLR 2018, 1710.03740: weights stay float32, matrix products and
    convolutions are computed in 16 bits, and in fp16 the loss is scaled so that small gradients do not vanish.

    with computing("bf16", "cuda", accumulate=4):
        detector.fit(train, rng)

Only the body of :func:`iadbe.layers.training.loop.loop` computes so. Frozen backbones and exact neighbours stay
float32, for the feature store keeps what they compute. With ``accumulate``, an optimizer steps with the mean gradient
of so many calls of :func:`iadbe.layers.training.loop.step`: a batch of so many times the images, in the memory of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iadbe.errors import BadConfig, Missing
from iadbe.layers.training.state import State

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class _Pending:
    """Gradients of an optimizer that has not made its step yet: their sum, and of how many calls."""

    gradients: list[Tensor | None]
    calls: int = 0
    norm: float = float("inf")


class Arithmetic:
    """How training computes in a ``with`` block of :func:`computing`."""

    def __init__(self, precision: str = "fp32", device: str = "cpu", accumulate: int = 1) -> None:
        """Choose; see :func:`computing`."""
        self.precision, self.device, self.accumulate = precision, device, accumulate
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
        self._pending: dict[torch.optim.Optimizer, _Pending] = {}

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a loop's body. Weights are cast at each use, for they may change within it."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device, TYPES[self.precision], cache_enabled=False)

    def full_precision(self) -> AbstractContextManager[Any]:
        """Return the context of gradients and of the optimizer within a loop's body."""
        return nullcontext() if self.precision == "fp32" else torch.autocast(self.device, enabled=False)

    def is_due(self, optimizer: torch.optim.Optimizer, norm: float) -> bool:
        """Add the gradients to those of earlier calls; say whether the optimizer's step is due, with their mean."""
        if self.accumulate == 1:
            return True
        parameters = _parameters(optimizer)
        pending = self._pending.setdefault(optimizer, _Pending([None] * len(parameters)))
        for number, parameter in enumerate(parameters):
            if parameter.grad is not None:
                before = pending.gradients[number]
                pending.gradients[number] = parameter.grad if before is None else before.add_(parameter.grad)
                parameter.grad = None  # another optimizer's loss may add to it before the next call
        pending.calls, pending.norm = pending.calls + 1, norm
        if pending.calls == self.accumulate:
            self._take(optimizer)
            return True
        optimizer._opt_called = True  # type: ignore[attr-defined]  # schedules count calls, and need not warn
        return False

    def unfinished(self) -> Iterator[tuple[torch.optim.Optimizer, float]]:
        """Yield the optimizers whose steps are not done at the end of a loop, with mean gradients, and their norms."""
        for optimizer, pending in list(self._pending.items()):
            self._take(optimizer)
            yield optimizer, pending.norm

    def forget(self) -> None:
        """Forget gradients whose step was not made: an error or the detector has ended the loop."""
        self._pending.clear()

    def _take(self, optimizer: torch.optim.Optimizer) -> None:
        pending = self._pending.pop(optimizer)
        for parameter, gradient in zip(_parameters(optimizer), pending.gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.div_(pending.calls)

    def state(self, owners: Sequence[State]) -> dict[str, Any]:
        """Return the scale of the loss and the gradients so far of the optimizers among ``owners``."""
        pending = {n: vars(self._pending[own]) for n, own in _optimizers(owners) if own in self._pending}
        return {"scaler": self.scaler.state_dict(), "pending": pending}

    def load(self, state: dict[str, Any], owners: Sequence[State]) -> None:
        """Take what :meth:`state` has returned."""
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.forget()
        for number, own in _optimizers(owners):
            if (found := state["pending"].get(number)) is not None:
                pairs = zip(found["gradients"], _parameters(own), strict=True)
                gradients = [None if g is None else g.to(p.device) for g, p in pairs]
                self._pending[own] = _Pending(gradients, found["calls"], found["norm"])


_arithmetic: ContextVar[Arithmetic] = ContextVar("arithmetic", default=Arithmetic())  # noqa: B039  (fp32 holds no state)


def current_arithmetic() -> Arithmetic:
    """Return how training computes here."""
    return _arithmetic.get()


@contextmanager
def computing(precision: str = "fp32", device: str | torch.device = "cpu", accumulate: int = 1) -> Iterator[None]:
    """Let training in the ``with`` block compute in mixed precision, and accumulate gradients.

    Args:
        precision: fp32, bf16 or fp16
        device: where training runs; one that cannot compute so raises :class:`Missing`
        accumulate: calls of ``step`` whose mean gradient an optimizer's step takes
    """
    kind = torch.device(device).type
    if precision not in TYPES or accumulate < 1:
        raise BadConfig(
            f"precision is {', '.join(TYPES)}, and accumulate at least 1, not {precision} and {accumulate}."
        )
    check(precision, kind)
    token = _arithmetic.set(Arithmetic(precision, kind, accumulate))
    before = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    try:
        yield
    finally:
        torch.set_autocast_enabled(kind, before[0])  # after an error in a loop's body, the loop may still be open
        torch.set_autocast_dtype(kind, before[1])
        _arithmetic.reset(token)


def check(precision: str, device: str) -> None:
    """Raise :class:`Missing` if ``device`` cannot train in this precision."""
    if precision == "fp32":
        return
    try:
        with torch.autocast(device, TYPES[precision]):
            image = torch.ones(1, 2, 4, 4, device=device)
            weight = torch.ones(2, 2, 3, 3, device=device, requires_grad=True)
            found = torch.nn.functional.conv2d(image, weight)
        found.float().sum().backward()
    except (RuntimeError, NotImplementedError) as error:
        raise Missing(f"{precision} cannot be computed on {device} here. Train with precision fp32.") from error
    if found.dtype != TYPES[precision] or (device == "cuda" and precision == "bf16" and not _has_bf16()):
        raise Missing(f"{precision} is not to be had on {device} here. Train with precision fp32.")


def _has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _optimizers(owners: Sequence[State]) -> list[tuple[int, torch.optim.Optimizer]]:
    return [(n, own) for n, own in enumerate(owners) if isinstance(own, torch.optim.Optimizer)]
