"""Every error that IADBE raises on purpose.

IadbeError         the message says what is wrong, which one, and what to do next
    UnknownName    no such detector, dataset, setting, metric, backbone or parameter
    BadConfig      a grid, a parameter, an option or a path is wrong
        BadOption  an option of how to run is wrong: that says nothing about the run, so no result is stored
    BadData        an image, a mask or a layout cannot be used; the message names the file
    BadDetector    a detector broke its contract: its author can fix it
    Missing        something optional is not here; the message holds the command that brings it
    RunFailed      a run ended with an error, which the store keeps
    NoSpace        the disk is full: that says nothing about the run, so no result is stored
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

FULL_DISK = re.compile(
    r"No space left on device|Disk quota exceeded|database or disk is full|\(os error (28|39|112|122)\)", re.IGNORECASE
)
# what earlier versions stored as the error of a run, although it belonged to the machine
OF_MACHINE = re.compile(
    r"(is|are) not on this machine|pip install|No CUDA GPUs are available|Torch not compiled with \w+|"
    r"^there is no (engine|device|federation) '|"
    r"^the disk is full|No space left on device|Disk quota exceeded|the internet cannot be reached|"
    r"cannot be reached \(|^the weights of .* are not at |"
    r"^(ModuleNotFoundError|ImportError): |cannot open shared object file|[Nn]o NVIDIA driver|CUDA driver version is|"
    r"CUDA-capable device\(s\)|no kernel image is available|Read-only file system|Too many open files|"
    r"Input/output error|Stale file handle|Permission denied|Access is denied"
)


class IadbeError(Exception):
    """Anything the user or an author can put right; shown as one sentence, never as a traceback."""


class UnknownName(IadbeError):
    """A name is not in its registry."""


class BadConfig(IadbeError):
    """A grid, an option or a path is wrong, or two of them contradict."""


class BadOption(BadConfig):
    """An option of how to run (device, engine …) is wrong. It is no part of a run's identity, so there is no result."""


class BadData(IadbeError):
    """A file of the user's cannot be used as it is."""


class BadDetector(IadbeError):
    """A detector returned something that its contract does not allow."""


class Missing(IadbeError):
    """An extra, a weight file, a GPU or a download is not on this machine."""


class RunFailed(IadbeError):
    """One or more runs ended with an error; other runs of the same call are in the store."""


class NoSpace(IadbeError):
    """The disk is full, or the user's quota is used up."""

    @classmethod
    def of(cls, error: BaseException) -> NoSpace | None:
        """Return the error to raise instead of ``error`` if it tells of a full disk, else None."""
        chain: list[BaseException] = []
        one: BaseException | None = error
        while one is not None and one not in chain:  # what a library raises may only hide what the system has said
            chain.append(one)
            one = one.__cause__ or one.__context__
        full = next((each for each in chain if _is_full_disk(each)), None)
        if full is None:
            return None
        name = getattr(full, "filename", None)
        where = f" ({name})" if name else ""
        return cls(f"the disk is full{where}. Make room; the same command then goes on where this one stopped.")


def _is_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT) or getattr(error, "winerror", 0) in (39, 112)
    return bool(FULL_DISK.search(str(error)))  # safetensors and SQLite have errors of their own, without a number


def belongs_to_machine(error: BaseException) -> bool:
    """Return whether an exception of a run says what this machine lacked: then the run has no result."""
    text = str(error) if isinstance(error, IadbeError) else f"{type(error).__name__}: {error}"
    return isinstance(error, (Missing, BadOption, ImportError)) or is_of_machine(text)


def is_of_machine(error: str) -> bool:
    """Return whether a run's error says what this machine lacked, and nothing about the run."""
    return bool(OF_MACHINE.search(error))


def number_of(count: int, noun: str) -> str:
    """Return a number with a noun whose plural ends with s: ``1 image``, ``2 images``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean a, b?`` for the names close to ``name``, or the empty string."""
    known = list(known)
    lower = {k.lower(): k for k in reversed(known)}
    near = [lower[n] for n in difflib.get_close_matches(name.lower(), lower, n=3)]
    near += [k for k in known if name and k.lower().startswith(name.lower()) and k not in near]
    return f" Did you mean {', '.join(near[:3])}?" if near else ""
