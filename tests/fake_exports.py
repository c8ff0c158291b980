"""Fake exports without torch: what the process of an export job may meet."""

import os
import signal
import time

from iadbe import progress
from iadbe.errors import BadConfig


def well(request, store, options):
    progress.report("convert", 1, 3)
    assert options.threads == 1
    print("hello")


def refuses(request, store, options):
    raise BadConfig("it cannot be exported: it needs depth.")


def raises(request, store, options):
    raise ValueError("odd\nshape")


def dies(request, store, options):
    print("the last word", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(request, store, options):
    (store.staging(store.load(store.find(request.run).name).spec) / "half").write_text("")
    time.sleep(600)


def grows(request, store, options):
    held = bytearray(400 * 2**20)
    held[:: 2**12] = b"x" * len(held[:: 2**12])
    time.sleep(600)
