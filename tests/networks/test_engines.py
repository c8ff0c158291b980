import copy
import subprocess
import sys

import pytest
import torch

from drawn_images import images, parts
from iadbe.errors import BadConfig, BadOption, Missing
from iadbe.networks import engines
from iadbe.networks.backbone import Backbone
from iadbe.networks.feature_store import FeatureStore, using

ENGINES = ("onnxruntime", "openvino")


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture(scope="module")
def shown():
    return next(images(parts(4)).batches(4))


@pytest.fixture(scope="module")
def network(engine):
    with engines.using(engine):
        return Backbone("resnet10t", (3, 1), "none")


def test_features_are_those_of_torch_for_any_number_and_size_of_images(network, shown, engine):
    plain = Backbone("resnet10t", (3, 1), "none")
    assert (plain.engine, network.engine) == ("torch", engine)
    larger = torch.rand(3, 3, 96, 64)
    for batch in (shown.image, shown.image[:1], larger, shown.image[:3]):
        for mine, theirs in zip(network(batch), plain(batch), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    assert len(network._compiled) == 2
    assert "torch" not in plain.description
    assert f"by {engine} " in network.description
    assert "of torch)" in network.description


def test_results_do_not_share_memory(network, shown):
    first = network(shown.image)[0]
    kept = first.clone()
    network(1 - shown.image)
    assert torch.equal(first, kept)


def test_a_copy_is_compiled_again(network, shown):
    twin = copy.deepcopy(network)
    assert not twin._compiled
    assert torch.equal(twin(shown)[0], network(shown)[0])


def test_features_of_another_engine_are_stored_apart(network, shown, tmp_path):
    with using(FeatureStore(tmp_path)) as counters:
        network(shown)
        Backbone("resnet10t", (3, 1), "none")(shown)
        assert counters.computed == 2 * len(shown)
        network(shown)
        assert counters.stored == len(shown)


def test_an_engine_with_other_results_is_refused(engine, monkeypatch):
    class Moody(torch.nn.Module):
        def forward(self, x):
            return (x * (1 if torch.compiler.is_exporting() or torch.jit.is_tracing() else 2),)

    with pytest.raises(BadConfig, match=r"computes this network wrongly \(off by 5"):
        engines.compiled(Moody(), torch.rand(1, 3, 8, 8), engine)


def test_unknown_and_missing_engines_are_reported(monkeypatch):
    with pytest.raises(BadOption, match="Did you mean openvino"), engines.using("openvin"):
        pass
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(Missing, match=r"pip install 'iadbe\[openvino\]'"), engines.using("openvino"):
        pass


def test_other_engines_need_a_cpu():
    with pytest.raises(BadConfig, match="--device cpu"):
        engines.compiled(torch.nn.Identity(), torch.empty(1, 3, 8, 8, device="meta"), "openvino")


INTERRUPTED = """
import gc, signal, torch
from iadbe.networks import engines
example = torch.zeros(1, 3, 16, 16)
kept = [engines.compiled(torch.nn.Conv2d(3, width, 3), example, "openvino") for width in (4, 5)]
while kept:
    kept.pop(0)  # the first goes first
    gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("heard"))
signal.raise_signal(signal.SIGINT)
"""


def test_an_interrupt_works_after_networks_of_openvino_are_gone():
    """Each of its cores lends the thread a stack for signals, and the last one gives back what is no longer there."""
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
