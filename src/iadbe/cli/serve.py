"""Open the results server: leaderboard, runs, models and jobs, as an API and as pages, over one store.

It listens on this machine alone. With --host 0.0.0.0 others reach it, and it requires a token: the one of --token or of
the variable IADBE_TOKEN, or one that it makes and prints. Data that jobs may use is named here: --data bottles=DIR.

Jobs are carried out by workers: by default one that starts and ends with the server. Others, on this machine or on any
that sees the store, are started with `iadbe worker --store DIR`, and outlive the server.

    iadbe serve --store runs
    iadbe serve --store runs --data bottles=/data/bottles,mvtec=/data/mvtec_ad --workers 2
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jsonargparse

from iadbe import system
from iadbe.cli import UsageError
from iadbe.cli.options import STORE, parse
from iadbe.errors import BadConfig, Missing

PAUSE = 5.0  # seconds before a dead worker is restarted
GRACE = 10.0  # seconds that a worker has to give its job back


def run(arguments: Sequence[str]) -> int:
    """Serve until interrupted."""
    values = parse("serve", __doc__ or "", arguments, _add).values
    if not 0 <= values["port"] < 2**16:
        raise UsageError(f"--port is from 0 to 65535, not {values['port']}.")
    try:
        import uvicorn

        from iadbe.dashboard.pages import install
        from iadbe.web.app import build
        from iadbe.web.connections import ConnectionLimits, connection_limit, protocol, quieten
        from iadbe.web.policy import policy_for
    except ImportError as error:
        raise Missing(f"`iadbe serve` needs an extra ({error.name}): pip install 'iadbe[web]'") from error
    from iadbe.running.store import Store

    host, token = values["host"], values["token"] or os.environ.get("IADBE_TOKEN", "")
    names = tuple(_split(values["names"]))
    policy = policy_for(host, token, names, upload=values["upload_limit"] * 2**20)
    store = Store(values["store"])
    application = build(
        store, policy, values["database"], _data_roots(",".join(values["data"])), values["device"], install
    )
    application.app.state.server.data_roots.all()  # unreadable data ends the command now
    config = uvicorn.Config(
        application, host=host.strip("[]"), port=values["port"], log_level="warning", access_log=False,
        server_header=False, proxy_headers=False, timeout_graceful_shutdown=5, lifespan="on", ws="none",
        http=protocol(ConnectionLimits(connection_limit())),
    )  # fmt: skip
    quieten()
    shutting_down = application.app.state.server.shutting_down

    class Server(uvicorn.Server):
        """Ends the event streams at its shutdown."""

        def handle_exit(self, sig: int, frame: Any) -> None:
            shutting_down.set()
            super().handle_exit(sig, frame)

    server = Server(config)
    try:
        listening = config.bind_socket()
        listening.listen(128)  # from here on, connections wait instead of being refused
    except SystemExit as error:
        raise BadConfig(f"{host}:{values['port']} is taken, or not an address of this machine.") from error
    address = f"http://{'localhost' if not policy.open else host}:{listening.getsockname()[1]}"
    print(f"{store.root} is at {address}", flush=True)
    if store.is_read_only:
        print(f"{store.root} is read-only: results can be seen, and nothing can be run or changed", flush=True)
    if policy.token:
        print("token: the one that you gave" if token else f"token: {policy.token}", flush=True)
    workers = 0 if store.is_read_only else values["workers"]
    with _workers(workers, store.root, values["database"], values["device"]), suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    return 0


def _data_roots(text: str) -> dict[str, Path]:
    """Read ``name=folder,folder``: a folder alone is known by its own name."""
    found: dict[str, Path] = {}
    for part in _split(text):
        name, equals, folder = part.partition("=")
        path = system.user_path(folder if equals else part).absolute()
        if not path.exists():
            raise BadConfig(f"there is no folder {path}. Give --data NAME=DIR.")
        found[name if equals else path.name.lower()] = path
    return found


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@contextmanager
def _workers(count: int, root: Path, database: str, device: str) -> Iterator[None]:
    """Keep ``count`` workers alive; they end with the block, or when this process dies, and give their jobs back."""
    command = [sys.executable, "-m", "iadbe", "worker", "--store", str(root), "--tied", "--device", device]
    surroundings = {**os.environ, "IADBE_DATABASE": database} if database else None  # not in a list of processes
    over = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def keep() -> None:
        process = None
        while not over.is_set():
            if process is None or process.poll() is not None:
                if process is not None and over.wait(PAUSE):
                    break
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=surroundings, **system.own_session()
                )
                running.append(process)
            over.wait(0.5)

    keepers = [threading.Thread(target=keep, daemon=True) for _ in range(count)]
    for keeper in keepers:
        keeper.start()
    try:
        yield
    finally:
        over.set()
        for keeper in keepers:
            keeper.join()
        for process in running:
            if process.stdin is not None:  # a worker is tied to it; Windows has no signal that asks
                with suppress(OSError):
                    process.stdin.close()
        for process in running:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR", help="folder of the results")
    parser.add_argument("--database", type=str, default="", metavar="URL", help="of index and jobs: postgresql://…")
    parser.add_argument("--host", type=str, default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0: others reach it")
    parser.add_argument("--port", type=int, default=8080, metavar="N", help="0: any that is free")
    parser.add_argument("--token", type=str, default="", help="that every request needs; better in IADBE_TOKEN")
    parser.add_argument("--names", type=str, default="", metavar="A,B,…", help="further host names of this server")
    parser.add_argument(
        "--data", type=str, action="append", default=[], metavar="NAME=DIR,…", help="data that jobs may use; repeatable"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="that run with the server; 0: none")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps …")
    parser.add_argument("--upload-limit", type=int, default=2048, metavar="MB", help="of an archive of images")
