"""Sizes in bytes as people write and read them: ``500MB``, ``4.1 GB``."""

from __future__ import annotations

import re

from iadbe.errors import BadConfig, number_of

NAMES = ("KB", "MB", "GB", "TB", "PB", "EB")
UNITS = {"": 1, "b": 1, "byte": 1, "bytes": 1}
for _power, _name in enumerate(NAMES, start=1):
    UNITS |= {_name.lower(): 1000**_power, _name[0].lower(): 1000**_power, f"{_name[0].lower()}ib": 1024**_power}


def format_bytes(count: int) -> str:
    """Write a number of bytes (at least 0) with two or more digits: ``1 byte``, ``1.5 KB``, ``300 MB``, ``4.1 GB``."""
    if count < 1000:
        return number_of(count, "byte")
    value, at = count / 1000, 0
    while value >= 999.5 and at < len(NAMES) - 1:  # 999.6 MB would be written as 1000 MB
        value, at = value / 1000, at + 1
    return f"{f'{value:.1f}'.removesuffix('.0') if value < 99.95 else f'{value:.0f}'} {NAMES[at]}"


def parse_bytes(text: str) -> int:
    """Read ``4GB``, ``500 MB``, ``2GiB`` or plain bytes. Raises :class:`BadConfig` for what is no size above 0."""
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{0,18})?)\s*([a-zA-Z]*)\s*", text)
    if not match or match[2].lower() not in UNITS:
        raise BadConfig(f"{text!r} is not a size such as 500MB or 4GB.")
    if (count := int(float(match[1]) * UNITS[match[2].lower()])) < 1:
        raise BadConfig(f"{text!r} is no size: it must be at least 1 byte, such as 500MB or 4GB.")
    return count
