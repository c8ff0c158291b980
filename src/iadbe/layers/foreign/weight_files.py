"""Weight files of other tools, which are pickles: read without running code, or only because the user trusts them.

A pickle can run any code when it is read. torch's restricted reader builds tensors and allowed classes alone, so it is
tried first. A file that needs more is unpickled only if the user has typed ``--trust FILE``, and the result says so.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iadbe import progress, registry, system
from iadbe.errors import BadConfig

Reader = Callable[[Path], Any]


def read_tensors(file: Path) -> Any:
    """Return what a file of tensors and plain values holds; any other file raises an exception of torch's."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def read_weight_file(path: str, restricted: Reader = read_tensors) -> Any:
    """Return what a weight file holds, read by ``restricted``, which runs no code of the file.

    Raises :class:`BadConfig` for a file that is not there, and for one that ``restricted`` refuses and the user does
    not trust (:func:`iadbe.registry.trust`). A trusted one is unpickled, with a note on the result.
    """
    file = system.user_path(path)
    if not file.is_file():
        raise BadConfig(f"there is no weight file {file}. weights= takes a file, auto or none.")
    try:
        return restricted(file)
    except Exception as error:  # a file that is damaged, or holds more than tensors, can raise any exception
        content = file.read_bytes()
        if not registry.is_trusted_content(content):
            raise BadConfig(
                f"{file} cannot be read as tensors ({type(error).__name__}), and unpickling it may run code that it "
                f"holds. If you trust its author, add --trust {file}."
            ) from error
        return _unpickled(file, content)


def _unpickled(file: Path, content: bytes) -> Any:
    """Unpickle the content of a trusted file, not the file, which another may have taken the place of."""
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
    except Exception as error:
        raise BadConfig(f"{file} cannot be read as weights ({type(error).__name__}: {error}).") from error
    progress.note(f"{file.name} was unpickled because --trust names it: code in it ran in this run's process.")
    return found


def state_of(found: Any, path: str) -> dict[str, Tensor]:
    """Return the tensors by name of what a file holds: a state dict, alone or under ``state_dict`` or ``model``."""
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise BadConfig(f"{path} holds no tensors by name, so it cannot be weights.")
    return dict(found)
