"""Checkpoints: a training run that was killed goes on from its last one, with the same final numbers on a CPU.

Whoever carries out a run opens :class:`Checkpoints` and says with :meth:`Checkpoints.training` what is trained. Then
:func:`iadbe.layers.training.loop.loop` writes, at most every :data:`INTERVAL` seconds and at its end, all that the rest
of the run depends on: parameters and buffers of the detector, what is in ``state``, all random states, the place in the
epoch, the losses so far and the time that is left. The run that is repeated computes everything outside its loops once
more, leaves out the loops that were finished, and goes on in the one that was not.

    with Checkpoints(folder, {"run": "3f2a"}).training(detector, "0"):
        detector.fit(train, rng)

A file is complete or absent. It is used only if it is whole and of the same run, versions and code. It holds tensors
and plain values only, and is read with ``weights_only``.
"""

from __future__ import annotations

import math
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from torch import Tensor, nn

from iadbe import progress, system
from iadbe.errors import BadDetector
from iadbe.layers.training.precision import current_arithmetic
from iadbe.layers.training.state import (
    State,
    Stateful,
    learnt_tensors,
    put_state,
    put_tensors,
    random_state,
    set_random_state,
    state_of,
)

INTERVAL = 45.0  # seconds between two checkpoints of a loop
ENDED = 10.0  # seconds of finished loops that may be computed again
SHARE = 1 / 30  # of the time that writing may take: slow disks get fewer checkpoints
SUFFIX = ".checkpoint"
UNREADABLE = (OSError, RuntimeError, UnpicklingError, BadZipFile, EOFError, LookupError, TypeError, ValueError)


@dataclass
class Position:
    """Where a loop is, between two batches."""

    done: int = 0  # batches so far
    step: int = 0  # of them in the present epoch
    epoch: str = ""  # the random state at the beginning of the epoch
    now: str = ""  # the random state behind the last batch
    augmentation: Tensor | None = None  # the state of the augmentation's generator there
    finished: bool = False

    def drawn(
        self, rng: np.random.Generator, draw: Callable[[np.random.Generator], tuple[list[np.ndarray], torch.Generator]]
    ) -> tuple[list[np.ndarray], torch.Generator]:
        """Return what ``draw`` draws for the present epoch, and be where training was in it."""
        if not self.step:
            self.epoch = random_state(rng)
            return draw(rng)
        set_random_state(rng, self.epoch)
        chunks, generator = draw(rng)
        if self.augmentation is not None:
            generator.set_state(self.augmentation)
        set_random_state(rng, self.now)
        return chunks, generator


class Checkpoints:
    """The checkpoints of one run, in a folder that is made when the first is written.

    Attributes:
        notes: sentences about training that went on, and files that could not be read or written
        earlier: seconds of wall time and of the processor that interrupted processes have spent on what was not
            computed again
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        others: Sequence[Stateful] = (),
        interval: float = INTERVAL,
    ) -> None:
        """Choose.

        Args:
            folder: of this run alone
            identity: plain values that name the run, its versions and its code; others' files are not read
            others: what else is kept and continued, such as the history of losses
            interval: seconds between two checkpoints; inf: none are written
        """
        self.folder, self.identity, self.others, self.interval = folder, dict(identity), tuple(others), interval
        self.notes: list[str] = []
        self.earlier = {"wall": 0.0, "cpu": 0.0}
        self.unsaved = 0.0  # seconds of finished loops without a file
        self._start = {"wall": time.monotonic(), "cpu": time.process_time()}
        self._cost = 0.0  # seconds of the last writing
        self._has_warned = False

    @contextmanager
    def training(self, detector: nn.Module, name: str) -> Iterator[None]:
        """Keep checkpoints of the block's loops, which train ``detector``; no other block has this ``name``."""
        token = _block.set(_Block(self, detector, name))
        try:
            yield
        finally:
            _block.reset(token)

    def remove(self) -> None:
        """Remove all files: the run is finished."""
        system.remove_tree(self.folder)

    def pause(self) -> float:
        """Return the seconds between two checkpoints of a loop."""
        return self.interval and max(self.interval, self._cost / SHARE)  # 0: after every step

    def is_worthwhile(self, seconds: float) -> bool:
        """Say whether a loop that has ended gets a file, ``seconds`` after its last one."""
        return self.unsaved + seconds >= min(ENDED, self.interval)

    def write(self, name: str, values: Mapping[str, Any]) -> bool:
        """Write a file, whole or not at all, and say whether that was possible: a full disk stops no training."""
        began = time.monotonic()
        part = self.folder / f"{name}.{uuid.uuid4().hex[:8]}.part"
        whole = {
            "identity": self.identity,
            "seconds": {clock: self.earlier[clock] + now - self._start[clock] for clock, now in _clocks().items()},
            "others": [other.state_dict() for other in self.others],
            **values,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(whole, file)
                file.flush()
                os.fsync(file.fileno())
            system.replace(part, self._file(name))
        except (OSError, RuntimeError) as error:  # torch raises the latter when it cannot write
            self._warn(f"a checkpoint of training could not be written: {_first_line(error)}")
            return False
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        self._cost = time.monotonic() - began
        return True

    def read(self, name: str) -> dict[str, Any] | None:
        """Return what a file of this run holds; None where there is none, or one that cannot be used."""
        try:
            with ZipFile(self._file(name)) as archive:  # torch.load does not look at the checksums
                if archive.testzip() is not None:
                    raise BadZipFile("it is damaged")
            found = torch.load(self._file(name), map_location="cpu", weights_only=True)
            if found["identity"] == self.identity:
                return dict(found)
            why = "it is of another version, code or device"
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            why = _first_line(error)
        self._warn(f"a checkpoint of training is not used, and training starts anew: {why}")
        return None

    def take(self, values: Mapping[str, Any]) -> None:
        """Go on from the time and the histories of a file."""
        for other, state in zip(self.others, values["others"], strict=True):
            other.load_state_dict(state)
        self.earlier = {
            clock: values["seconds"][clock] - (now - self._start[clock]) for clock, now in _clocks().items()
        }

    def forget(self, pattern: str) -> None:
        """Remove the files whose names match ``pattern``."""
        for file in self.folder.glob(f"{pattern}{SUFFIX}"):
            with suppress(OSError):
                file.unlink()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _warn(self, sentence: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            self.notes.append(f"{sentence}.")
            warnings.warn(sentence, stacklevel=3)


@dataclass
class _Block:
    """A fit, or a client's part of it."""

    checkpoints: Checkpoints
    detector: nn.Module
    name: str
    loops: int = 0  # that have begun


_block: ContextVar[_Block | None] = ContextVar("checkpoints", default=None)


@contextmanager
def part(detector: nn.Module, name: str) -> Iterator[None]:
    """Let ``detector`` be what is trained in the ``with`` block, a part of the present one such as a client's fit."""
    outer = _block.get()
    token = _block.set(outer and _Block(outer.checkpoints, detector, f"{outer.name}-{name}"))
    try:
        yield
    finally:
        _block.reset(token)


@dataclass
class LoopCheckpoint:
    """The file of one loop; without :class:`Checkpoints` nothing is ever written or found.

    Args:
        rng: draws the order of the images
        state: what the loop's body changes beside the detector
        name: the file's; by default the number of the loop
    """

    rng: np.random.Generator
    state: Sequence[State] = ()
    name: str = ""
    _saved: float = field(default_factory=lambda: time.monotonic())
    _began: float = field(default_factory=lambda: time.monotonic())

    def __post_init__(self) -> None:
        self._block = _block.get()
        if self._block is not None and not self.name:
            self.name = str(self._block.loops)
            self._block.loops += 1

    def restored(self) -> Position:
        """Return where the loop was interrupted, with everything as it was there; else its beginning."""
        block = self._block
        if block is None or (found := block.checkpoints.read(f"{block.name}-{self.name}")) is None:
            return Position()
        if wrong := _misfits(block.detector, found, self.state):
            block.checkpoints._warn(f"a checkpoint of training is not used, and training starts anew: {wrong}")
            return Position()
        try:
            put_tensors(block.detector, found["tensors"])
            for own, value in zip(self.state, found["state"], strict=True):
                put_state(own, value)
            current_arithmetic().load(found["arithmetic"], self.state)
            for budget, value in zip(progress.budgets(), found["budgets"], strict=True):
                budget.load_state_dict(value)
            block.checkpoints.take(found)
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
            block.checkpoints.forget(f"{block.name}-{self.name}")
            raise BadDetector(
                f"a checkpoint of {type(block.detector).__name__} does not fit what is trained ({_first_line(error)}). "
                "It is removed: run it again, which trains from the beginning."
            ) from error
        at = Position(**found["position"])
        set_random_state(self.rng, at.now)
        torch.set_rng_state(found["torch"])
        if found["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(found["cuda"])
        if at.done and not at.finished:
            note = f"training was interrupted and went on after step {at.done} of its loop."
            block.checkpoints.notes.append(note)
            progress.report("resumed", at.done)
        return at

    def save_when_due(self, at: Position, augmentation: torch.Generator) -> None:
        """Write a checkpoint if the last one is old enough; the body has ended with its batch."""
        if self._block is not None and time.monotonic() - self._saved >= self._block.checkpoints.pause():
            at.augmentation = augmentation.get_state()
            self._save(at)

    def finish(self, at: Position) -> None:
        """Write the end of the loop if it took long enough; then it is left out when the run is repeated."""
        block = self._block
        if block is None or not math.isfinite(block.checkpoints.interval):
            return
        at.finished = True
        if not block.checkpoints.is_worthwhile(time.monotonic() - self._saved) or not self._save(at):
            block.checkpoints.unsaved += time.monotonic() - self._began

    def _save(self, at: Position) -> bool:
        assert self._block is not None
        at.now = random_state(self.rng)
        values = {
            "position": asdict(at),
            "tensors": learnt_tensors(self._block.detector),
            "state": [state_of(own) for own in self.state],
            "arithmetic": current_arithmetic().state(self.state),
            "budgets": [budget.state_dict() for budget in progress.budgets()],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        }
        done = self._block.checkpoints.write(f"{self._block.name}-{self.name}", values)
        self._saved = time.monotonic()  # also after a failure, which the next batch need not repeat
        return done


def rounds_done(rng: np.random.Generator) -> int:
    """Return how many rounds of federated learning are done, with the common detector as it was behind the last."""
    block, done = _block.get(), LoopCheckpoint(rng, name="rounds").restored().done
    if block is not None and done:
        block.checkpoints.notes.append(f"training was interrupted and went on after round {done}.")
        progress.report("resumed", done)
    return done


def round_ended(rng: np.random.Generator, done: int) -> None:
    """Keep the common detector behind ``done`` rounds; what the clients kept in them is not needed any more."""
    if (block := _block.get()) is not None and block.checkpoints.folder.is_dir():
        end = LoopCheckpoint(rng, name="rounds")
        if end._save(Position(done, finished=True)):
            block.checkpoints.forget(f"{block.name}-round{done - 1}-*")
            block.checkpoints.unsaved = 0.0


def _misfits(detector: nn.Module, found: Mapping[str, Any], state: Sequence[State]) -> str:
    """Say why a file cannot be used, before anything of it is."""
    own = dict(detector.named_parameters(remove_duplicate=False))
    if wrong := [
        name for name, p in own.items() if name in found["tensors"] and found["tensors"][name].shape != p.shape
    ]:
        return f"{wrong[0]} has another shape"
    if learnt_tensors(detector).keys() != found["tensors"].keys():
        return "it holds other tensors"
    return "" if len(found["state"]) == len(state) else "its loop changed something else"


def _clocks() -> dict[str, float]:
    return {"wall": time.monotonic(), "cpu": time.process_time()}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
