"""The one OpenVINO core of a process."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def openvino_core() -> Any:
    """Return the one core of this process.

    Each core installs an alternative signal stack for the thread that makes it. If two cores are destroyed in the
    order of their creation, the second restores the stack of the first, which is freed. The next signal (Ctrl-C) then
    kills the process.
    """
    import openvino

    return openvino.Core()
