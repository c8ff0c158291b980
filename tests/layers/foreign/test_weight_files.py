from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from iadbe import progress, registry
from iadbe.errors import BadConfig
from iadbe.layers.foreign.weight_files import read_weight_file, state_of


class Evil:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A weight file with code in it, and the file that this code makes."""
    monkeypatch.setattr(registry, "_trusted", set())
    mark = tmp_path / "ran"
    torch.save({"w": torch.ones(2), "code": Evil(mark)}, tmp_path / "evil.pt")
    return tmp_path / "evil.pt", mark


@pytest.mark.parametrize("name", ["plain.pt", "plain.safetensors"])
def test_tensors_need_no_trust(tmp_path, name):
    state = {"w": torch.arange(3.0)}
    (save_file if name.endswith("s") else torch.save)(state, str(tmp_path / name))
    notes = []
    with progress.collecting_notes(notes):
        assert torch.equal(state_of(read_weight_file(str(tmp_path / name)), name)["w"], state["w"])
    assert notes == []


def test_a_pickle_that_nobody_trusts_runs_nothing(evil):
    file, mark = evil
    with pytest.raises(BadConfig, match=r"add --trust .*evil\.pt"):
        read_weight_file(str(file))
    assert not mark.exists()


def test_a_trusted_pickle_is_read_and_the_result_says_so(evil):
    file, mark = evil
    registry.trust(str(file))
    notes = []
    with progress.collecting_notes(notes):
        found = read_weight_file(str(file))
    assert mark.exists()
    assert torch.equal(found["w"], torch.ones(2))
    assert notes == ["evil.pt was unpickled because --trust names it: code in it ran in this run's process."]


def test_trust_is_in_the_content_not_in_the_name(evil, tmp_path):
    file, mark = evil
    torch.save({"w": torch.zeros(1)}, tmp_path / "good.pt")
    content = file.read_bytes()
    file.write_bytes((tmp_path / "good.pt").read_bytes())
    registry.trust(str(file))
    file.write_bytes(content)  # another file takes its place
    with pytest.raises(BadConfig, match="--trust"):
        read_weight_file(str(file))
    assert not mark.exists()


def test_what_is_trusted_reaches_the_process_of_a_run(evil, monkeypatch):
    file, _ = evil
    registry.trust(str(file))
    there = registry.trusted()
    monkeypatch.setattr(registry, "_trusted", set())
    registry.trust(*there)
    assert registry.is_trusted_content(file.read_bytes())


@pytest.mark.parametrize("found", [{}, {"a": 1}, [torch.ones(1)], {"state_dict": {"a": "b"}}])
def test_what_holds_no_tensors_is_refused(found):
    with pytest.raises(BadConfig, match="no tensors by name"):
        state_of(found, "x.pt")


def test_a_missing_file_is_one_sentence():
    with pytest.raises(BadConfig, match="there is no weight file nowhere.pt"):
        read_weight_file("nowhere.pt")
