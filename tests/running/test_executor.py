import inspect

import pytest

from fake_grids import break_down, tell_two
from iadbe.errors import BadConfig, UnknownName
from iadbe.registry import load, names
from iadbe.running import executor
from iadbe.running.executor import Executor, Lane, lanes
from iadbe.running.worker import Work
from iadbe.types import Options


@pytest.fixture
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(executor, "cores", lambda: 16)


@pytest.fixture
def three_gpus(monkeypatch):
    monkeypatch.setattr(executor, "gpus", lambda preload: ["0", "1", "2"])


@pytest.mark.usefixtures("sixteen_cores")
class TestLanes:
    def test_without_a_gpu_cores_are_shared(self):
        cpu = Options(device="cpu")
        assert lanes(cpu) == (Lane(4),) * 4
        assert lanes(cpu, jobs=3) == (Lane(5),) * 3
        assert lanes(cpu, jobs=20) == (Lane(1),) * 20
        assert lanes(Options(device="cpu", threads=2)) == (Lane(2),) * 4

    @pytest.mark.usefixtures("three_gpus")
    def test_each_gpu_has_a_lane(self):
        assert lanes(Options()) == (Lane(5, "0"), Lane(5, "1"), Lane(5, "2"))
        assert [lane.gpu for lane in lanes(Options(device="cuda"), jobs=4)] == ["0", "1", "2", "0"]

    @pytest.mark.usefixtures("three_gpus")
    def test_a_gpu_that_is_named_takes_all_runs(self):
        assert lanes(Options(device="cuda:1")) == (Lane(16),)
        assert lanes(Options(device="cuda:1"), jobs=2) == (Lane(8), Lane(8))

    def test_a_number_that_cannot_be(self):
        with pytest.raises(BadConfig, match="-1 runs at a time"):
            lanes(Options(device="cpu"), jobs=-1)


def test_a_lane_tells_libraries(tmp_path):
    lane = Lane(3, "1")
    assert lane.environment["OMP_NUM_THREADS"] == "3"
    assert lane.environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in Lane(3).environment
    assert lane.work(Work(tmp_path, Options())).options.threads == 3


class TestGpus:
    def test_they_are_counted_in_another_process(self, monkeypatch):
        monkeypatch.setattr(executor, "_tell_gpus", tell_two)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert executor.gpus(()) == ["0", "1"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-abc")
        assert executor.gpus(()) == ["3", "GPU-abc"]

    def test_one_that_breaks_torch_is_none(self, monkeypatch):
        monkeypatch.setattr(executor, "_tell_gpus", break_down)
        assert executor.gpus(()) == []


@pytest.mark.parametrize("name", names("executors"))
def test_every_executor_keeps_the_contract(name):
    kind = load("executors", name)
    assert issubclass(kind, Executor)
    assert inspect.isgeneratorfunction(kind.run)
    assert inspect.signature(kind) == inspect.signature(Executor)


def test_the_shelf():
    assert {"local", "dask"} <= set(names("executors"))
    with pytest.raises(UnknownName, match="Did you mean dask"):
        load("executors", "desk")
