import io
import tarfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from iadbe.errors import BadConfig, BadData, Missing
from iadbe.files import ad2_submission
from iadbe.files.ad2_submission import MAPS, MASKS, check, file_name, pack, write_map, write_mask

SIZE = (5, 7)
IMAGES = {
    f"{name}/{split}/{i:03d}_{suffix}": SIZE
    for name in ("can", "rice")
    for split, suffix in (("test_private", "regular"), ("test_private_mixed", "mixed"))
    for i in range(5)
}
RNG = np.random.default_rng(0)
ONE = "can/test_private/001_regular"


@pytest.fixture
def folder(tmp_path):
    for image in IMAGES:
        values = RNG.normal(0, 2, SIZE).astype(np.float16)
        write_map(tmp_path / "mine" / file_name(MAPS, image), values)
        write_mask(tmp_path / "mine" / file_name(MASKS, image), values > 3)
    return tmp_path / "mine"


def test_what_is_written_has_no_fault_packed_or_not(folder, tmp_path):
    pack(folder, tmp_path / "other.tar.gz")
    for path in (folder, tmp_path / "other.tar.gz"):
        assert check(path, IMAGES) == ((), (), 20, 20)
        assert check(path, dict.fromkeys(IMAGES)) == ((), (), 20, 20)
    with tarfile.open(tmp_path / "other.tar.gz") as tar:
        names = tar.getnames()
    assert names[0] == "other/anomaly_images/can/test_private/000_regular.tiff"
    assert len(names) == 40
    again = tmp_path / "again"
    again.mkdir()
    pack(folder, again / "other.tar.gz")
    assert (again / "other.tar.gz").read_bytes()[10:] == (tmp_path / "other.tar.gz").read_bytes()[10:]  # but the time


def test_a_map_comes_back_bit_by_bit(tmp_path):
    values = RNG.normal(0, 100, (33, 21)).astype(np.float16)
    write_map(tmp_path / "a.tiff", values)
    found = tifffile.imread(tmp_path / "a.tiff")
    assert found.dtype == np.float16
    assert np.array_equal(found, values)
    write_mask(tmp_path / "a.png", values > 0)
    with Image.open(tmp_path / "a.png") as mask:
        assert mask.mode == "L"
        assert np.array_equal(np.asarray(mask), np.where(values > 0, 255, 0))


def spoilt(folder, kind, image=ONE, **how):
    """Overwrite a file of a submission."""
    path = folder / file_name(kind, image)
    if "array" in how and kind == MAPS:
        tifffile.imwrite(path, how["array"], photometric="minisblack")
    elif "array" in how:
        Image.fromarray(how["array"]).save(path)
    else:
        path.write_bytes(how["data"])


@pytest.mark.parametrize(
    ("kind", "how", "fault"),
    [
        (MAPS, {"array": np.zeros(SIZE, np.float32)}, "001_regular.tiff are float32 instead of float16."),
        (MAPS, {"array": np.zeros((*SIZE, 3), np.float16)}, "001_regular.tiff do not have one channel."),
        (MAPS, {"array": np.full(SIZE, np.inf, np.float16)}, "001_regular.tiff hold numbers that are not finite."),
        (
            MAPS,
            {"array": np.zeros((7, 5), np.float16)},
            "image's size, such as 7 x 5 instead of 5 x 7.",
        ),
        (MAPS, {"data": b"II*\0"}, "001_regular.tiff cannot be read as TIFF."),
        (MASKS, {"array": np.full(SIZE, 1, np.uint8)}, "001_regular.png hold values other than 0 and 255."),
        (MASKS, {"array": np.zeros((*SIZE, 3), np.uint8)}, "001_regular.png do not have one channel."),
        (MASKS, {"array": np.zeros((6, 7), np.uint8)}, "such as 6 x 7 instead of 5 x 7."),
        (MASKS, {"data": b""}, "001_regular.png cannot be read as PNG."),
    ],
)
def test_every_fault_is_a_sentence(folder, tmp_path, kind, how, fault):
    spoilt(folder, kind, **how)
    pack(folder, tmp_path / "x.tar.gz")
    for path in (folder, tmp_path / "x.tar.gz"):
        (found,) = check(path, IMAGES).faults
        assert found.startswith(f"{kind}/can/test_private: ")
        assert found.endswith(fault)


def test_faults_of_many_files_are_one_sentence(folder):
    for image in IMAGES:
        spoilt(folder, MAPS, image, array=np.zeros(SIZE))
    found = check(folder, IMAGES).faults
    assert len(found) == 4
    text = "000_regular.tiff, 001_regular.tiff, 002_regular.tiff and 2 more are float64 instead of float16."
    assert found[0] == f"anomaly_images/can/test_private: {text}"


def test_a_mask_has_the_size_of_its_map(folder):
    spoilt(folder, MASKS, array=np.zeros((6, 7), np.uint8))
    (fault,) = check(folder, dict.fromkeys(IMAGES)).faults
    assert fault.endswith("001_regular.png differ in size from their map.")


def test_missing_and_superfluous_files_are_named(folder):
    (folder / file_name(MAPS, ONE)).unlink()
    (folder / MAPS / "can/notes.txt").write_text("x")
    (folder / "timing.csv").write_text("x")
    (folder / MASKS / "can/test_private/001_regular.tiff").write_text("x")
    assert check(folder, IMAGES).faults == (
        "anomaly_images/can/test_private lacks 1 of 5 files: 001_regular.tiff.",
        ".: timing.csv do not belong there.",
        "anomaly_images/can: notes.txt do not belong there.",
        "anomaly_images_thresholded/can/test_private: 001_regular.tiff do not belong there.",
    )


def test_masks_may_be_left_out(folder):
    for image in IMAGES:
        (folder / file_name(MASKS, image)).unlink()
    found = check(folder, IMAGES)
    assert (found.faults, found.masks) == ((), 0)
    assert found.notes == ("without anomaly_images_thresholded the server computes no metric that needs a threshold.",)


def test_the_published_data_set_has_4090_images():
    images = ad2_submission.published_images()
    assert len(images) == 4090
    assert "can/test_private/320_regular" in images
    assert "walnuts/test_private_mixed/227_mixed" in images
    assert "sheet_metal/test_private/142_regular" not in images


def test_archives_from_elsewhere(folder, tmp_path):
    with tarfile.open(tmp_path / "flat.tar", "w") as tar:
        for path in sorted(folder.rglob("*.*")):
            tar.add(path, path.relative_to(folder).as_posix())
    (fault,) = check(tmp_path / "flat.tar", IMAGES).faults
    assert fault == "the archive must hold one folder with anomaly_images in it; found is no folder."
    with tarfile.open(tmp_path / "odd.tar", "w") as tar:
        tar.add(folder, "mine")
        link = tarfile.TarInfo("mine/anomaly_images/can/test_private/009_regular.tiff")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        outside = tarfile.TarInfo("../../x.tiff")
        tar.addfile(outside, io.BytesIO(b""))
    assert any("009_regular.tiff do not belong there" in f for f in check(tmp_path / "odd.tar", IMAGES).faults)
    assert not (tmp_path.parent / "x.tiff").exists()
    with tarfile.open(tmp_path / "odd.tar") as tar:
        start = next(member.offset_data for member in tar if member.name.endswith("003_mixed.tiff"))
    (tmp_path / "cut.tar").write_bytes((tmp_path / "odd.tar").read_bytes()[: start + 9])
    (tmp_path / "none.tar.gz").write_bytes(b"PK\3\4")
    for name in ("cut.tar", "none.tar.gz"):
        with pytest.raises(BadData, match="is no tar archive, or is incomplete"):
            check(tmp_path / name, IMAGES)
    with pytest.raises(BadConfig, match="there is no archive and no folder"):
        check(tmp_path / "nothing", IMAGES)


def test_without_tifffile_the_package_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(Missing, match="pip install tifffile"):
        check(folder, IMAGES)
