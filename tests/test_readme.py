"""Every command, grid and program in the README works."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from iadbe.cli import COMMANDS, main
from iadbe.parameters import complete
from iadbe.registry import card
from iadbe.running import plan

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8") if README.is_file() else ""
pytestmark = pytest.mark.skipif(not TEXT, reason="there is no README.md here")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def commands():
    """Return every iadbe command of the README: in blocks, after &&, and in running text."""
    indented = re.findall(r"^    (\S.*)$", TEXT, re.MULTILINE)
    lines = [line for block in blocks("bash") for line in block.splitlines()] + indented
    parts = [part.strip() for line in lines for part in line.split("  #")[0].split("&&")]
    parts += re.findall(r"`(iadbe [^`]+)`", TEXT)
    return sorted({part for part in parts if part.startswith("iadbe ")})


@pytest.mark.parametrize("line", commands())
def test_a_command_and_its_options_are_there(line, capsys):
    command, *words = shlex.split(line)[1:]
    assert command in {name for group in COMMANDS.values() for name in group}
    chosen = [w for i, word in enumerate(words) if word in ("--detector", "--setting") for w in words[i : i + 2]]
    assert main([command, *chosen, "--help"]) == 0
    output = capsys.readouterr().out
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert f"{option} " in output or f"{option}\n" in output or f"{option}]" in output, option
    if command in ("results", "list", "data", "features") and words and not words[0].startswith("-"):
        assert words[0] in output


@pytest.mark.parametrize("block", blocks("yaml"))
def test_a_grid_is_one(block):
    grid = yaml.safe_load(block)
    assert set(grid) <= set(plan.KEYS)
    for entry in grid["detectors"]:
        entry = {"name": entry} if isinstance(entry, str) else entry
        params = {k: v for k, v in entry.items() if k not in ("name", "sweep")}
        swept = {k: values[0] for k, values in entry.get("sweep", {}).items()}
        complete(card("detectors", entry["name"]), {**params, **swept})


@pytest.mark.parametrize("block", blocks("python"))
def test_python_is_python(block):
    compile(block, "README.md", "exec")


def test_what_it_links_to_is_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_it_names_every_detector():
    own = re.sub(r"[^a-z]", "", TEXT.lower())
    from iadbe.registry import names

    assert [name for name in names("detectors") if name.replace("_", "") not in own] == []
