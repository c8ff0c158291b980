"""The machine: devices, memory, processor, package versions."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from iadbe import __version__, system
from iadbe.errors import BadOption, Missing
from iadbe.types import Options

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "pillow")


def device(name: str = "auto") -> torch.device:
    """Return the device that ``name`` means; ``auto`` is the first GPU of CUDA's, or the processor."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(name)
    except RuntimeError as error:
        raise BadOption(f"there is no device {name!r}. There are auto, cpu, cuda, cuda:1, mps …") from error
    if wanted.type == "meta":
        raise BadOption("there is no device 'meta' that computes. There are auto, cpu, cuda, cuda:1, mps …")
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise Missing(f"{name} is not on this machine: torch sees {torch.cuda.device_count()} GPUs.")
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise Missing("mps is not on this machine: torch sees no GPU of Apple's.")
    try:
        if wanted.type not in ("cpu", "cuda", "mps"):
            torch.empty(0, device=wanted)
    except Exception as error:  # each kind of device has an error of its own
        raise Missing(f"{name} is not on this machine: {' '.join(str(error).split())[:200]}") from error
    return wanted


def peak_cuda(name: str) -> dict[str, int]:
    """Return the largest memory taken on the GPU so far, in bytes; nothing without one."""
    return {"cuda": torch.cuda.max_memory_allocated(name)} if name.startswith("cuda") else {}


def environment(options: Options, used: str) -> dict[str, Any]:
    """Return what a reader needs to judge or repeat a run."""
    return {
        "iadbe": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": system.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "engine": options.engine,
        "device": torch.cuda.get_device_name(used) if used.startswith("cuda") else used or "cpu",
        "packages": versions(PACKAGES),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": options.command,
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed versions of packages; those that are missing are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
