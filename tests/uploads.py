"""Uploads for tests: images, archives and decompression bombs."""

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
    """A PNG of a few hundred bytes whose header announces a huge image."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def zip_files(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def zip_folder(folder, path, inside=""):
    files = {f"{inside}{p.relative_to(folder).as_posix()}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return zip_files(path, files)


def tiff_of(sizes, thumbnails=()):
    """A TIFF of headers alone, one for each (width, height); those numbered in ``thumbnails`` are reduced copies."""
    parts, place = [b"II*\0" + struct.pack("<I", 8)], 8
    for number, (width, height) in enumerate(sizes):
        tags = {254: int(number in thumbnails), 256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 4, 277: 1}
        tags |= {278: height, 279: width * height}
        place += 2 + 12 * len(tags) + 4
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        parts.append(struct.pack("<H", len(tags)) + entries + struct.pack("<I", place * (number < len(sizes) - 1)))
    return b"".join(parts)
