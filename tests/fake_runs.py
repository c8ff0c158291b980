"""Fake runs without torch, for tests of the pool: the task names what a run does."""

import errno
import os
import signal
import sys
import time
from pathlib import Path

from iadbe import progress
from iadbe.errors import BadData
from iadbe.types import Row, RunResult, RunSpec

FUNCTION = "fake_runs:execute"


def spec(task="well", seed=0, **params):
    return RunSpec("padim", "toy", "vanilla", task, seed, detector_params=params)


def execute(spec, store, options):
    if spec.task == "lacks":
        return RunResult(spec, error="there is no GPU.", transient=True)
    staging = store.staging(spec)  # as a real run does
    (staging / "image.png").write_bytes(b"half")
    value = globals()[spec.task](spec, options)
    result = RunResult(spec, rows=(Row(0, "test", "image_auroc", value),), environment={"threads": options.threads})
    store.save(result, staging)
    return result


def well(spec, options):
    return spec.seed / 100


def says(spec, options):
    print("hello from python")
    os.write(2, b"hello from C\n")
    for done in range(1, 101):
        progress.report("fit", done, 100)
    progress.loss(0.5)
    return 1.0


def raises(spec, options):
    raise ValueError("a bug")


def refuses(spec, options):
    raise BadData("x.png cannot be read.")


def segfault(spec, options):
    print("the last word", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def vanishes(spec, options):
    os._exit(0)


def fills_the_disk(spec, options):
    raise OSError(errno.ENOSPC, "No space left on device", "/some/disk")


def killed(spec, options):
    os.kill(os.getpid(), signal.SIGKILL)


def hog(spec, options):
    memory = []
    while True:
        memory.append(bytearray(os.urandom(1024)) * 20_000)
        time.sleep(0.02)


def sleeps(spec, options):
    time.sleep(spec.detector_params.get("seconds", 60))
    return 0.5


def stubborn(spec, options):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    time.sleep(60)


def waits_for(spec, options):
    """End when a file is there; say where this process is meanwhile."""
    folder = Path(spec.place["folder"])
    (folder / f"pid-{spec.seed}").write_text(str(os.getpid()))
    while not (folder / "go").exists():
        time.sleep(0.02)
    return spec.seed / 100


def kills_its_worker(spec, options):
    """Kill the process that started this one's fork server, as a machine's failure does; once, where asked."""
    import psutil

    once = spec.place.get("once")
    if once and Path(once).exists():
        return 0.25
    if once:
        Path(once).touch()
    server = psutil.Process(os.getppid())
    os.kill(server.ppid(), signal.SIGKILL)
    time.sleep(60)


def surroundings(spec, options):
    found = [os.environ.get(n, "") for n in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "IADBE_MARK")]
    print("env", *found, "torch" if "torch" in sys.modules else "no-torch", "main", sys.modules["__main__"])
    return 1.0


def starts_a_child(spec, options):
    """Have a child process of one's own, and be deaf."""
    import subprocess

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "60"])
    time.sleep(60)


def with_torch(spec, store, options):
    """Multiply in parallel after the fork, which a broken thread pool would not survive; tell the threads."""
    import numpy as np
    import torch
    from threadpoolctl import threadpool_info

    torch.rand(600, 600) @ torch.rand(600, 600)
    np.linalg.svd(np.random.default_rng(0).random((200, 200)))
    blas = {i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"}
    return RunResult(spec, environment={"threads": [torch.get_num_threads(), *blas]})


def starts_a_hog(spec, options):
    import subprocess

    subprocess.run([sys.executable, "-c", "import time; hoard = b'x' * 400_000_000; time.sleep(60)"])


def tidies(spec, options):
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        Path(os.environ["IADBE_MARK"]).touch()


def returns_a_function(spec, options):
    return lambda: None


def returns_unpicklable(spec, store, options):
    return lambda: None


def saves_and_crashes(spec, store, options):
    execute(spec, store, options)
    os.kill(os.getpid(), signal.SIGSEGV)


def crashes(spec, store, options):
    os._exit(3)


def elsewhere(spec, context, *rest):
    """Carry out a run through dask on a machine where the folder of the same name is another one."""
    from dataclasses import replace

    from iadbe.executors import dask

    dask.FILE_TIMEOUT = 0.1
    return dask.attempt(spec, replace(context, root=context.root / "elsewhere"), *rest)
