"""Folders of images: listing files, matching masks to images by name, seeded splits, reading YAML.

Nothing here reads pixels. Results are sorted, so they are the same on every machine.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from iadbe.errors import BadConfig, BadData, number_of
from iadbe.files import decoding, pages
from iadbe.files.image_io import EXTENSIONS, is_image

DELIMITERS = (",", ";", "\t")  # of tables; spreadsheets write semicolons where the comma is the decimal mark
WINDOWS_PATH = " A Windows path needs single quotes or forward slashes: 'C:\\data' or C:/data."
_ESCAPED_PATH = re.compile(  # a drive and a control character, or one that no text has
    r"[A-Za-z]:(?! ).*?[\x00-\x1f\x7f-\xa0\u2028\u2029]|.*?[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]", re.DOTALL
)
_UNDECODED = frozenset(map(chr, range(0xD800, 0xE000)))  # stand for bytes of a name that are not in its encoding
MASK_SUFFIXES = ("_mask", "_GT", "_gt", "_label", "")  # what may follow an image's stem in its mask's name

Extensions = Sequence[str] | None  # in lower case with the dot; None: whatever can be read


class LayoutMatch(NamedTuple):
    """A reader's answer for a folder in its layout."""

    description: str  # for example "the MVTec AD layout (2 categories)"
    params: Mapping[str, Any] = {}  # the reader's parameters beyond ``root``
    fallback: bool = False  # True: use this match only where no other reader recognises the folder
    by_names: bool = False  # names of categories or defects identify the dataset; wins over a match by layout alone


def subfolders(folder: Path) -> tuple[str, ...]:
    """Return the names of the folders in a folder, sorted, without hidden ones; none where there is no such folder."""
    return tuple(name for name, is_folder in _entries(folder) if is_folder)


def images(folder: Path, extensions: Extensions = None) -> tuple[str, ...]:
    """Return the names of the images that lie directly in a folder, sorted; none where there is no such folder."""
    return tuple(name for name, is_folder in _entries(folder) if not is_folder and _matches(name, extensions))


def files(folder: Path) -> tuple[str, ...]:
    """Return the names of the files directly in a folder, sorted, without hidden ones."""
    return tuple(name for name, is_folder in _entries(folder) if not is_folder)


def images_below(folder: Path, extensions: Extensions = None, without: Iterable[Path] = ()) -> tuple[str, ...]:
    """Return the images in a folder and all folders below, as relative paths with forward slashes, sorted.

    The folders of ``without`` are left out, unless one of them is ``folder`` itself. Links are followed.
    """
    left_out = {os.path.realpath(p) for p in without} - {os.path.realpath(folder)}
    found: list[str] = []
    stack, seen = [""], {os.path.realpath(folder)}
    while stack:
        here = stack.pop()
        for name, is_folder in _entries(folder / here):
            path = f"{here}/{name}" if here else name
            real = os.path.realpath(folder / path) if is_folder else ""
            if not is_folder and _matches(name, extensions):
                found.append(path)
            elif is_folder and real not in left_out and real not in seen:
                seen.add(real)
                stack.append(path)
    return tuple(sorted(found))


def masks_by_stem(folder: Path) -> dict[str, str]:
    """Return image stem -> file name of its mask: ``000_mask.png``, ``000_GT.png`` or ``000.png`` for 000."""
    found: dict[str, str] = {}
    names = images(folder)
    for ending in reversed(MASK_SUFFIXES):  # the most specific suffix is assigned last and wins
        for name in names:
            stem = Path(name).stem
            if stem.endswith(ending) and stem != ending:
                found[stem.removesuffix(ending)] = name
    return found


def pages_of(root: Path, path: str) -> tuple[str, ...]:
    """Return the pages of a TIFF below ``root`` as paths, or the file itself where it holds one image."""
    count = decoding.count_images(root / path)
    return (path,) if count == 1 else tuple(pages.name(path, number) for number in range(count))


def mask_of_page(root: Path, image: str, mask: str) -> str:
    """Return the page of a mask's file that belongs to a page of an image's file, else the mask's file itself.

    Raises :class:`BadData` where the mask's file has not as many pages.
    """
    file, number = pages.split(Path(image))
    if number is None:
        return mask
    images, masks = (decoding.count_images(root / path) for path in (file, mask))
    if images != masks:
        text = number_of(masks, "page")
        raise BadData(f"{root / mask} has {text}, and the {images} pages of {file.name} need one each.")
    return pages.name(mask, number)


def other_endings(folder: Path) -> dict[str, int]:
    """Return ending ("": none) -> number of files below a folder that are not images, the most frequent first."""
    found: Counter[str] = Counter()
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.update(Path(n).suffix.lower() for n in names if not n.startswith(".") and not is_image(Path(here) / n))
    return dict(found.most_common())


def endings_text(folder: Path) -> str:
    """Return a sentence on the files below a folder that are not images of a known format; "" where there are none."""
    endings = list(other_endings(folder).items())
    if not endings:
        return ""
    counted = [f"{count} {f'ending in {e}' if e else 'without an ending'}" for e, count in endings[:3]]
    counted += [f"{len(endings) - 3} more"] if len(endings) > 3 else []
    listed = f"{', '.join(counted[:-1])} and {counted[-1]}" if len(counted) > 1 else counted[0]
    return f" It holds files of other kinds: {listed}. Known images end in {extensions_text()}."


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return names in the order of the numbers in them: frame2 comes before frame10."""
    return tuple(sorted(names, key=natural_key))


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return the sort key of :func:`natural_order`."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)], name


def draw_groups(groups: Iterable[Sequence[str]], count: int, seed: int) -> set[str]:
    """Draw whole groups of names until ``count`` names are drawn. The order depends on the seed and the names only."""

    def order(group: Sequence[str]) -> bytes:
        return hashlib.sha256(f"{seed}|{group[0]}".encode()).digest()

    drawn: set[str] = set()
    for group in sorted(groups, key=order):
        if len(drawn) + len(group) <= count:
            drawn.update(group)
    return drawn


def hold_out(
    names: Sequence[str], share: float, seed: int, least: int = 1, groups: Mapping[str, str] | None = None
) -> set[str]:
    """Draw a share of the names: at least ``least`` unless the share is 0, never all.

    With ``groups`` (name -> group) whole groups are drawn, at least one and never all of them.
    """
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault((groups or {}).get(name, name), []).append(name)
    if share == 0 or len(members) < 2:
        return set()
    count = min(max(round(share * len(names)), least), len(names) - 1)
    smallest: list[str] = min(members.values(), key=len)
    return draw_groups(members.values(), count, seed) or set(smallest)


def contents(folder: Path) -> str:
    """Return the first entries of a folder, for an error message."""
    return ", ".join([*(f"{n}/" for n in subfolders(folder)), *images(folder)][:8]) or "nothing"


def check_share(name: str, value: float) -> float:
    """Return ``value`` if it is a share, else raise :class:`BadConfig`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise BadConfig(f"{name} is {value!r}, but a share is at least 0 and below 1, for example 0.2.")
    return float(value)


def extensions_text(extensions: Extensions = None) -> str:
    """Return the file extensions as text, for an error message."""
    return ", ".join(extensions or EXTENSIONS)


def read_text(path: Path) -> str:
    """Return a text file's content: UTF-8, or UTF-16 with a byte order mark, which is left out.

    Raises :class:`OSError`, and :class:`BadData` that names the file where it is in another encoding.
    """
    data = path.read_bytes()
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadData(f"{path}, line {line} is not text in UTF-8. Save the file in that encoding.") from error


def read_table(path: Path) -> list[list[str]]:
    """Return the rows of a table with commas, semicolons or tabs, whichever its first line has most of.

    Raises as :func:`read_text` does, and :class:`csv.Error`.
    """
    text = read_text(path)
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    with io.StringIO(text, newline="") as lines:
        return list(csv.reader(lines, delimiter=delimiter))


def load_yaml(path: Path) -> Any:
    """Return the value that a YAML file holds. Raises :class:`OSError`, :class:`yaml.YAMLError`, :class:`BadData`."""
    found = yaml.safe_load(read_text(path))
    if (text := _with_escapes(found)) is not None:
        raise BadData(f"{path} holds the path {text!r}, in which backslashes were read as escapes.{WINDOWS_PATH}")
    return found


def _with_escapes(value: Any) -> str | None:
    """Return the first text that was a Windows path in double quotes, with backslashes read as escapes, or None."""
    if isinstance(value, str):
        return value if _ESCAPED_PATH.match(value) else None
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((text for part in parts if (text := _with_escapes(part)) is not None), None)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds. Raises :class:`BadData` naming the file and the line."""
    try:
        found = load_yaml(path)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise BadData(
            f"{path} is not valid YAML{where}: {getattr(error, 'problem', error)}.{yaml_hint(error)}"
        ) from error
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise BadData(f"{path} must hold names with values, like `root: DIR`, not {type(found).__name__}.")
    return found


def yaml_hint(error: yaml.YAMLError) -> str:
    """Return what to do about a Windows path in double quotes, whose backslashes YAML reads as escapes; else ``""``."""
    problem = str(getattr(error, "problem", "") or "")
    if "escape" not in problem:
        return ""
    return WINDOWS_PATH


def _entries(folder: Path) -> list[tuple[str, bool]]:
    try:
        with os.scandir(folder) as entries:
            found = sorted((e.name, e.is_dir()) for e in entries if not e.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    for name, _ in found:
        if not name.isascii() and any(c in _UNDECODED for c in name):
            raise BadData(f"the name of {str(folder / name)!a} is not in this system's encoding. Rename the file.")
    return found


def _matches(name: str, extensions: Extensions) -> bool:
    if extensions is None:
        return is_image(Path(name))
    return not name.startswith(".") and name.lower().endswith(tuple(extensions))
