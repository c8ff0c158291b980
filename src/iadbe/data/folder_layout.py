"""Finds out from the names of folders, and from annotations beside images, which images are normal and which defects.

The answers are parameters of :class:`iadbe.datasets.folder.Folder`.
"""

from __future__ import annotations

from pathlib import Path

from iadbe.errors import BadData
from iadbe.files import annotation_index, layout
from iadbe.files.folder_names import is_bad, is_good
from iadbe.files.layout import LayoutMatch


def match(folder: Path) -> LayoutMatch | None:
    """Match folders whose names identify normal images, and perhaps defects."""
    found = parameters(folder)
    if found is None:
        return None
    what = f"folders of your own (normal images in {found['normal_dir']!r}"
    if "abnormal_dir" in found:
        return LayoutMatch(f"{what}, defects in {', '.join(found['abnormal_dir'])})", found, fallback=True)
    if _has_annotated_defects(folder, str(found["normal_dir"])):
        return LayoutMatch(f"{what}, with annotated defects)", found, fallback=True)
    found["test_split_mode"] = "synthetic"
    return LayoutMatch(f"{what}, no defects, so synthetic ones are used for the test)", found, fallback=True)


def parameters(folder: Path) -> dict[str, str | tuple[str, ...]] | None:
    """Infer the parameters from the names of folders; None where no folder of normal images is found."""
    names = layout.subfolders(folder)
    full = {n for n in names if layout.images(folder / n) or (is_bad(n, names) and layout.images_below(folder / n))}
    if beside := layout.images(folder):  # beside folders of images, it is not clear which are the good ones
        return {"normal_dir": "."} if beside == layout.images_below(folder) else None
    below = {s: [n for n in layout.subfolders(folder / s) if layout.images(folder / s / n)] for s in ("train", "test")}
    train = [f"train/{n}" for n in below["train"]] or (["train"] if "train" in full else []) or sorted(full)
    siblings = [Path(n).name for n in train if Path(n).name.lower() not in layout.MASK_FOLDERS]
    good = [n for n in train if n == "train" or is_good(Path(n).name, siblings)]
    if len(good) != 1:
        return None
    test = [f"test/{n}" for n in below["test"]]
    good_test = [n for n in test if is_good(Path(n).name, below["test"])]
    bad = [
        n
        for n in train + test
        if n not in good + good_test and Path(n).name.lower() not in (*layout.MASK_FOLDERS, "test")
    ]
    masks = [n for n in names if n.lower() in layout.MASK_FOLDERS and layout.images_below(folder / n)]
    found: dict[str, str | tuple[str, ...]] = {"normal_dir": good[0]}
    found |= {"abnormal_dir": tuple(bad)} if bad else {}
    found |= {"normal_test_dir": good_test[0]} if good_test else {}
    return found | ({"mask_dir": masks[0]} if masks and bad else {})


def _has_annotated_defects(folder: Path, normal_dir: str) -> bool:
    """Say whether annotation files mark defects in images of the folder of normal ones."""
    images = [Path(normal_dir, name).as_posix() for name in layout.images_below(folder / normal_dir)]
    try:
        found = annotation_index.read(folder, images, good=("good", "ok", "normal"), roi=("roi",), ignore=("ignore",))
    except BadData:
        return True  # the index says what is wrong
    return any(found.kind(image) for image in images)
