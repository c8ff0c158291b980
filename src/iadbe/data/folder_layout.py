"""Finds out from the names of folders, and from annotations beside images, which images are normal and which defects.

The answers are parameters of :class:`iadbe.datasets.folder.Folder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iadbe.errors import BadData
from iadbe.files import annotation_index, layout
from iadbe.files.folder_names import is_for_test, is_good, is_mask_folder, is_split
from iadbe.files.layout import LayoutMatch


def match(folder: Path) -> LayoutMatch | None:
    """Match folders whose names identify normal images, and perhaps defects."""
    found = parameters(folder)
    if found is None:
        return None
    what = f"folders of your own (normal images in {found['normal_dir']!r}"
    if "abnormal_dir" in found:
        return LayoutMatch(f"{what}, defects in {', '.join(found['abnormal_dir'])})", found, fallback=True)
    if _has_annotated_defects(folder, found["normal_dir"]):
        return LayoutMatch(f"{what}, with annotated defects)", found, fallback=True)
    found["test_split_mode"] = "synthetic"
    return LayoutMatch(f"{what}, no defects, so synthetic ones are used for the test)", found, fallback=True)


def parameters(folder: Path) -> dict[str, str | tuple[str, ...]] | None:
    """Infer the parameters from the names of folders; None where no folder of normal images is found."""
    names = layout.subfolders(folder)
    if beside := layout.images(folder):  # beside folders of images, it is not clear which are the good ones
        return {"normal_dir": "."} if beside == layout.images_below(folder) else None
    train, test = (next((n for n in names if is_split(n, split)), "") for split in ("train", "test"))
    parts = [n for n in names if n not in (train, test) and layout.images_below(folder / n)]
    if train:
        parts = _with_images(folder, train) or ([train] if layout.images(folder / train) else parts)
    parts = [n for n in parts if not is_mask_folder(Path(n).name)]
    good = [n for n in parts if n == train or is_good(Path(n).name, [Path(p).name for p in parts])]
    masks = [n for n in names if is_mask_folder(n) and layout.images_below(folder / n)]
    if not good:
        return _one_level_below(folder, parts[0], masks) if len(parts) == 1 and parts[0] in names else None
    tested = [n for n in _with_images(folder, test) if not is_mask_folder(Path(n).name)] if test else []
    good_test = [n for n in tested if is_good(Path(n).name, [Path(p).name for p in tested])]
    bad = [n for n in parts + tested if n not in good + good_test]
    for_test = [n for n in good if is_for_test(Path(n).name)]  # test_good beside train_good
    if for_test and for_test != good:
        good, good_test = [n for n in good if n not in for_test], good_test + for_test
    found: dict[str, str | tuple[str, ...]] = {"normal_dir": good[0] if len(good) == 1 else tuple(good)}
    found |= {"abnormal_dir": tuple(bad)} if bad else {}
    found |= {"normal_test_dir": good_test[0] if len(good_test) == 1 else tuple(good_test)} if good_test else {}
    return found | ({"mask_dir": masks[0]} if masks and bad else {})


def _one_level_below(folder: Path, part: str, masks: Sequence[str]) -> dict[str, str | tuple[str, ...]] | None:
    """Infer the parameters where the only folder of images holds the others: ``images/good``, ``images/bad``."""
    found = parameters(folder / part)
    if found is None or found["normal_dir"] == ".":
        return None
    found = {k: f"{part}/{v}" if isinstance(v, str) else tuple(f"{part}/{one}" for one in v) for k, v in found.items()}
    return {"mask_dir": masks[0], **found} if masks and "abnormal_dir" in found else found


def _with_images(folder: Path, part: str) -> list[str]:
    """Return the folders of a part, such as train/good, that hold images directly, as paths below the folder."""
    inner = (f"{part}/{name}" for name in layout.subfolders(folder / part))
    return [path for path in inner if layout.images(folder / path)]


def _has_annotated_defects(folder: Path, normal_dir: str | tuple[str, ...]) -> bool:
    """Say whether annotation files mark defects in images of the folder of normal ones."""
    places = (normal_dir,) if isinstance(normal_dir, str) else normal_dir
    images = [Path(place, name).as_posix() for place in places for name in layout.images_below(folder / place)]
    try:
        found = annotation_index.read(folder, images, good=("good", "ok", "normal"), roi=("roi",), ignore=("ignore",))
    except BadData:
        return True  # the index says what is wrong
    return any(found.kind(image) for image in images)
