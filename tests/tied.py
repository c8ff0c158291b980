"""Runs ``-m MODULE …`` or ``SCRIPT …``, and ends with the process that started it, however that ends.

It must be started with a pipe as its standard input. Tests that are killed cannot clean up.
"""

import os
import runpy
import signal
import sys
import threading


def command(*words):
    """Return the command that runs ``words`` in a process that is tied to this one; give it ``stdin=PIPE``."""
    return [sys.executable, __file__, *map(str, words)]


def end_with_input():
    while os.read(0, 1):
        pass
    if os.getpgid(0) == os.getpid():  # with what it has started
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    first, *rest = sys.argv[1:]
    if first == "-m":
        name, *rest = rest
        sys.path[0], sys.argv = os.getcwd(), [name, *rest]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = os.path.dirname(os.path.abspath(first)), [first, *rest]
        runpy.run_path(first, run_name="__main__")
