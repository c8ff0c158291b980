"""The machine: devices, memory, processor, package versions."""

from __future__ import annotations

import os
import platform
import resource
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from iadbe import __version__
from iadbe.errors import BadConfig, Missing
from iadbe.types import Options

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "pillow")


def device(name: str = "auto") -> torch.device:
    """Return the device that ``name`` means; ``auto`` is the first GPU, or the processor."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(name)
    except RuntimeError as error:
        raise BadConfig(f"there is no device {name!r}. There are auto, cpu, cuda, cuda:1 …") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise Missing(f"{name} is not on this machine: torch sees {torch.cuda.device_count()} GPUs.")
    return wanted


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_cuda(name: str) -> dict[str, int]:
    """Return the largest memory taken on the GPU so far, in bytes; nothing without one."""
    return {"cuda": torch.cuda.max_memory_allocated(name)} if name.startswith("cuda") else {}


def environment(options: Options, used: str) -> dict[str, Any]:
    """Return what a reader needs to judge or repeat a run."""
    return {
        "iadbe": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "engine": options.engine,
        "device": torch.cuda.get_device_name(used) if used.startswith("cuda") else "cpu",
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


def processor() -> str:
    """Return the processor's name."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
