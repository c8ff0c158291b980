"""Images, archives and bombs, as somebody may send them."""

import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image


def image(form="PNG", size=(8, 8)):
    data = io.BytesIO()
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(data, form)
    return data.getvalue()


def bomb(width, height):
    """A PNG of a few hundred bytes whose header promises the moon."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def packed(folder, path, inside=""):
    files = {f"{inside}{p.relative_to(folder).as_posix()}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return zipped(path, files)
