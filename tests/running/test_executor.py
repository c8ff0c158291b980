import inspect

import pytest

from fake_grids import crash, send_two_gpus
from iadbe.errors import BadConfig, UnknownName
from iadbe.registry import load, names
from iadbe.running import executor
from iadbe.running.executor import Executor, Slot, slots
from iadbe.running.worker import RunContext
from iadbe.types import Options


@pytest.fixture
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(executor.system, "cores", lambda: 16)


@pytest.fixture
def three_gpus(monkeypatch):
    monkeypatch.setattr(executor, "gpus", lambda preload: ["0", "1", "2"])


@pytest.mark.usefixtures("sixteen_cores")
class TestSlots:
    def test_without_a_gpu_cores_are_shared(self):
        cpu = Options(device="cpu")
        assert slots(cpu) == (Slot(4),) * 4
        assert slots(cpu, jobs=3) == (Slot(5),) * 3
        assert slots(cpu, jobs=20) == (Slot(1),) * 20
        assert slots(Options(device="cpu", threads=2)) == (Slot(2),) * 4

    @pytest.mark.usefixtures("three_gpus")
    def test_each_gpu_has_a_slot(self):
        assert slots(Options()) == (Slot(5, "0"), Slot(5, "1"), Slot(5, "2"))
        assert [slot.gpu for slot in slots(Options(device="cuda"), jobs=4)] == ["0", "1", "2", "0"]

    @pytest.mark.usefixtures("three_gpus")
    def test_a_gpu_that_is_named_takes_all_runs(self):
        assert slots(Options(device="cuda:1")) == (Slot(16),)
        assert slots(Options(device="cuda:1"), jobs=2) == (Slot(8), Slot(8))

    def test_a_number_that_cannot_be(self):
        with pytest.raises(BadConfig, match="-1 runs at a time"):
            slots(Options(device="cpu"), jobs=-1)


def test_a_slot_limits_the_threads_of_libraries(tmp_path):
    slot = Slot(3, "1")
    assert slot.environment["OMP_NUM_THREADS"] == "3"
    assert slot.environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in Slot(3).environment
    assert slot.context(RunContext(tmp_path, Options())).options.threads == 3


class TestGpus:
    def test_they_are_counted_in_another_process(self, monkeypatch):
        monkeypatch.setattr(executor, "_send_gpu_count", send_two_gpus)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert executor.gpus(()) == ["0", "1"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-abc")
        assert executor.gpus(()) == ["3", "GPU-abc"]

    def test_one_that_breaks_torch_is_none(self, monkeypatch):
        monkeypatch.setattr(executor, "_send_gpu_count", crash)
        assert executor.gpus(()) == []


@pytest.mark.parametrize("name", names("executors"))
def test_every_executor_keeps_the_contract(name):
    kind = load("executors", name)
    assert issubclass(kind, Executor)
    assert inspect.isgeneratorfunction(kind.run)
    assert inspect.signature(kind) == inspect.signature(Executor)


def test_the_registry():
    assert {"local", "dask"} <= set(names("executors"))
    with pytest.raises(UnknownName, match="Did you mean dask"):
        load("executors", "desk")
