"""Stored results: every run matches its folder, and every table equals an export of the runs."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from iadbe.cli import main
from iadbe.running.store import Store, folder_name
from iadbe.seeds import run_id

RESULTS = Path(__file__).parents[2] / "results"
RUNS = Store(RESULTS / "runs")
WRITTEN = [line.strip() for line in (RESULTS / "README.md").read_text().splitlines()]
EXPORTS = [line for line in WRITTEN if line.startswith("iadbe results export ")]


@pytest.mark.parametrize("folder", list(RUNS.folders()), ids=lambda f: f.name)
def test_a_stored_run_matches_its_folder_name(folder):
    result = RUNS.load(folder)
    assert folder.name == folder_name(result.spec)
    assert folder.name.endswith(run_id(result.spec))
    assert not result.error
    assert result.scores, "intervals need the scores"
    assert result.environment["command"].startswith("iadbe benchmark results/")
    text = (folder / "result.json").read_text() + (folder / "scores.csv").read_text()
    assert not re.search(r"""[\s"=,]/\w""", text), "a path of the machine that ran it"


@pytest.mark.parametrize("command", EXPORTS)
def test_a_table_equals_an_export_of_the_stored_runs(command, tmp_path):
    shutil.copytree(RESULTS / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns(".tables"))
    words = shlex.split(command)[1:]
    table = words[words.index("export") + 1]
    words = [{table: str(tmp_path / "table.md"), "results/runs": str(tmp_path / "runs")}.get(w, w) for w in words]
    assert main(words) == 0
    assert (tmp_path / "table.md").read_text() == (RESULTS.parent / table).read_text()


def test_every_table_has_its_command():
    tables = {shlex.split(command)[3] for command in EXPORTS}
    assert tables == {f"results/{p.name}" for p in RESULTS.glob("*.md")} - {"results/README.md"}
