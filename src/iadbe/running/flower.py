"""Federated learning through Flower: the clients of `iadbe.running.federation` as ClientApps, with the same numbers.

`--federation flower`, or Options(federation="flower"), trains clients here. Each is a ClientApp in a process of
Flower's simulation, on the CPU. The ServerApp sends it the common parameters and receives the trained ones, as over a
network. Training, random numbers and aggregation equal those of the simulation in one process, which shows that only
parameters need to be sent. Flower's and Ray's usage statistics are switched off.

Paper: Beutel et al., "Flower: A Friendly Federated Learning Research Framework", 2007.14390.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from iadbe.data.images import Images
from iadbe.detector import Detector
from iadbe.errors import BadDetector, Missing
from iadbe.running import federation
from iadbe.running.federation import BudgetShare
from iadbe.types import Step

for silence in ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED"):  # read when they are imported
    os.environ.setdefault(silence, "0")

try:
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation
except ImportError as absent:
    raise Missing("Flower is not installed. Install it with: pip install 'iadbe[flower]'") from absent

ARRAYS, CONFIG, CLIENT = "arrays", "config", "client"
WAIT = 0.1  # seconds between two counts of the clients
CONNECT_TIMEOUT = 120  # seconds until all clients must be connected
CORES = 1  # CPU cores of one client


def learn(
    detector: Detector,
    clients: Sequence[Images],
    step: Step,
    rng: np.random.Generator,
    limited: BudgetShare | None = None,
) -> None:
    """Train a detector on all clients. ``limited`` is ignored: Flower's clients have no time budget."""
    source, device = federation.seed_sequence(rng), clients[0].device
    here = [Images(c.dataset, c.items, c.view, depth=c.depth) for c in clients]
    failed: list[BaseException] = []
    server = ServerApp()

    @server.main()
    def serve(grid: Any, context: Any) -> None:
        try:
            nodes = _nodes(grid, len(here))
            train = partial(_train_round, grid, nodes)
            federation.learn(detector, here, step, rng, train_clients=train)
        except BaseException as error:  # the simulation would swallow it
            failed.append(error)

    run_simulation(
        server_app=server,
        client_app=client_of(detector.cpu(), here, step, source),
        num_supernodes=len(here),
        backend_config={
            "client_resources": {"num_cpus": CORES, "num_gpus": 0.0},
            "init_args": {"include_dashboard": False},
        },
    )
    detector.to(device)
    if failed:
        raise failed[0]


def client_of(detector: Detector, clients: Sequence[Images], step: Step, source: np.random.SeedSequence) -> ClientApp:
    """Return the ClientApp of all clients. Each reads its own images only."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Any) -> Message:
        number, round_index = int(context.node_config["partition-id"]), int(message.content[CONFIG]["turn"])
        common = _with_parameters(detector, message.content[ARRAYS])
        made = federation.client_update(common, clients[number], step, source, round_index, number)
        found = {ARRAYS: ArrayRecord(made.state_dict()), CLIENT: MetricRecord({"number": number})}
        return Message(content=RecordDict(found), reply_to=message)

    return app


def _with_parameters(detector: Detector, arrays: ArrayRecord) -> Detector:
    """Return a copy with the parameters that were sent, in the same memory layout, which decides the last bit."""
    taken, tensors = copy.deepcopy(detector), arrays.to_torch_state_dict()
    if all(value.shape == tensors[name].shape for name, value in taken.state_dict().items()):
        taken.load_state_dict(tensors)
    else:
        taken.load_tensors(tensors)
    return taken


def _nodes(grid: Any, count: int) -> list[int]:
    """Wait until all clients are connected."""
    until = time.monotonic() + CONNECT_TIMEOUT
    while len(nodes := list(grid.get_node_ids())) < count:
        if time.monotonic() > until:
            raise BadDetector(f"only {len(nodes)} of {count} clients of Flower have started in {CONNECT_TIMEOUT} s.")
        time.sleep(WAIT)
    return nodes


def _train_round(grid: Any, nodes: list[int], common: Detector, round_index: int) -> list[Detector]:
    """Send the common parameters to every client; return the trained detectors in the clients' order."""
    content = {ARRAYS: ArrayRecord(common.state_dict()), CONFIG: ConfigRecord({"turn": round_index})}
    messages = [Message(content=RecordDict(dict(content)), message_type="train", dst_node_id=node) for node in nodes]
    learners = {}
    for reply in grid.send_and_receive(messages):
        if reply.has_error():
            raise BadDetector(f"a client failed in round {round_index + 1}: {reply.error.reason}")
        learners[int(reply.content[CLIENT]["number"])] = _with_parameters(common, reply.content[ARRAYS])
    if len(learners) < len(nodes):
        raise BadDetector(f"only {len(learners)} of {len(nodes)} clients answered in round {round_index + 1}.")
    return [learners[number] for number in sorted(learners)]
