"""Config files of anomalib 0.x: their section ``dataset`` as the ``class_path`` and ``init_args`` of later versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SECTION = "dataset"
FOLDER = "folder"  # the format whose name is the user's choice
RENAMED = {"path": "root", "mask": "mask_dir", "split_ratio": "normal_split_ratio"}
KEPT = (
    *("root", "category", "name", "normal_dir", "abnormal_dir", "normal_test_dir", "mask_dir", "extensions", "seed"),
    *("normal_split_ratio", "test_split_mode", "test_split_ratio"),
)


def is_dataset(section: Any) -> bool:
    """Say whether a section ``dataset`` of a config file is one of anomalib 0.x; the earliest have no format."""
    return isinstance(section, Mapping) and ("format" in section or {"name", "path"} <= set(section))


def converted(section: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the section as ``class_path`` and ``init_args``, and the names of the settings that it leaves out."""
    given = {RENAMED.get(str(key), str(key)): value for key, value in section.items()}
    init = {key: value for key, value in given.items() if key in KEPT and value is not None}
    if init.get("test_split_mode") == "same_as_test":
        del init["test_split_mode"]
    left = [key for key, value in given.items() if key not in (*KEPT, "format", "task") and value is not None]
    format_ = str(section.get("format") or section["name"])
    if format_ != FOLDER:
        init.pop("name", None)  # of published data it says what the format does
    return {"class_path": format_, "init_args": init}, left
