import errno
import sqlite3

import pytest
from safetensors import SafetensorError

from iadbe import errors


def test_every_error_is_one_family():
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and k.__module__ == errors.__name__]
    assert len(kinds) >= 6
    assert all(issubclass(k, errors.IadbeError) for k in kinds)


@pytest.mark.parametrize(
    "error",
    [
        "cuda:0 is not on this machine: torch sees 0 GPUs.",
        "the detector winclip needs open_clip. Install it with: pip install 'iadbe[clip]'",
        "the weights of resnet18.tv_in1k are not on this machine and the internet cannot be reached. Give a file …",
        "reading a.tiff needs the package tifffile: pip install 'iadbe[depth]'",
        "RuntimeError: No CUDA GPUs are available",
        "the disk is full. Make room; the same command then goes on where this one stopped.",
        "ModuleNotFoundError: No module named 'faiss'",
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
        "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU",
        "OSError: [Errno 30] Read-only file system: '/data/cache/x.npy'",
        "OSError: [Errno 24] Too many open files: '/data/a.png'",
        "SafetensorError: Error while serializing: I/O error: No space left on device (os error 28)",
    ],
)
def test_errors_of_a_machine_in_results_of_earlier_versions(error):
    assert errors.is_of_machine(error)


@pytest.mark.parametrize(
    "error",
    ["", "killed at 4.1 GB: memory limit 4.0 GB", "x.png cannot be read.", "ValueError: a bug", "stopped after 9 s"],
)
def test_other_errors_are_results(error):
    assert not errors.is_of_machine(error)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("padm", " Did you mean padim?"),
        ("PADIM", " Did you mean padim?"),
        ("patch", " Did you mean patchcore?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_close_names_are_suggested(name, hint):
    assert errors.did_you_mean(name, ["padim", "patchcore", "stfpm"]) == hint


def test_a_full_disk_is_distinguished_from_other_errors():
    full = errors.NoSpace.of(OSError(errno.ENOSPC, "No space left on device", "/here/x"))
    assert str(full).startswith("the disk is full (/here/x). Make room")
    assert errors.NoSpace.of(OSError(errno.EACCES, "no")) is None
    assert errors.NoSpace.of(ValueError("no")) is None


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed: No space left on device"),
        sqlite3.OperationalError("database or disk is full"),
    ],
)
def test_a_full_disk_is_known_in_a_librarys_own_words(error):
    assert "the disk is full" in str(errors.NoSpace.of(error))
    outer = ValueError("it failed")
    outer.__cause__ = error
    assert errors.NoSpace.of(outer) is not None
    assert errors.NoSpace.of(SafetensorError("invalid header")) is None


@pytest.mark.parametrize(
    ("error", "of_machine"),
    [
        (errors.Missing("the detector needs x: pip install x"), True),
        (ModuleNotFoundError("No module named 'faiss'"), True),
        (OSError(errno.EROFS, "Read-only file system", "/here"), True),
        (RuntimeError("No CUDA GPUs are available"), True),
        (AssertionError("Torch not compiled with XPU enabled"), True),
        (PermissionError(errno.EACCES, "Permission denied", "/home/cache"), True),
        (errors.BadOption("there is no engine 'tensorrt'."), True),
        (errors.BadConfig("coreset is too large"), False),
        (RuntimeError("shapes do not fit"), False),
        (errors.BadData("x.png cannot be read: it is cut off"), False),
        (MemoryError(), False),
    ],
)
def test_an_exception_belongs_to_the_machine_or_to_the_run(error, of_machine):
    assert errors.belongs_to_machine(error) is of_machine


def test_one_of_a_thing_and_several():
    assert [errors.number_of(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
