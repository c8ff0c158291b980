import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from iadbe import __version__, cli
from iadbe.cli import doctor
from iadbe.errors import BadData

FOLDER = Path(cli.__file__).parent


def ends_with(monkeypatch, what):
    """Let `iadbe doctor` do something else."""

    def run(arguments):
        if isinstance(what, BaseException):
            raise what
        return what()

    monkeypatch.setattr(doctor, "run", run)


def test_every_file_that_runs_is_in_the_overview():
    own = {path.stem for path in FOLDER.glob("*.py") if "\ndef run(" in path.read_text(encoding="utf-8")}
    assert own == {name for group in cli.COMMANDS.values() for name in group}
    for name in own:
        assert f"  {name:<11}{cli.summary(name)}\n" in cli.help_text()
        assert 20 < len(cli.summary(name)) < 110


def test_the_overview_needs_nothing():
    code = (
        "import sys; from iadbe.cli import main; main(['--help']); main([])\n"
        "assert not {'torch', 'numpy', 'rich', 'jsonargparse', 'yaml'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("usage: iadbe COMMAND") == 2


@pytest.mark.parametrize("name", [name for group in cli.COMMANDS.values() for name in group])
def test_every_command_explains_itself(iadbe, name):
    for arguments in ((name, "--help"), ("help", name)):
        output = iadbe(*arguments)
        assert output.code == 0
        assert f"iadbe {name}" in output.out
        assert "(type:" not in output.out
        assert output.err == ""


def test_version(iadbe):
    assert iadbe("--version").out == f"iadbe {__version__}\n"


def test_a_wrong_command_is_usage(iadbe):
    output = iadbe("trian")
    assert (output.code, output.out) == (2, "")
    assert output.err == "iadbe: there is no command 'trian'. Did you mean train? See `iadbe --help`.\n"
    assert "Did you mean --help?" in iadbe("--hlep").err


def test_a_users_mistake_is_one_sentence(iadbe, monkeypatch):
    ends_with(monkeypatch, BadData("x.png is broken."))
    output = iadbe("doctor")
    assert (output.code, output.err) == (1, "iadbe: x.png is broken.\n")


def test_what_the_system_refuses_is_no_bug(iadbe, monkeypatch):
    ends_with(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "/there"))
    output = iadbe("doctor")
    assert (output.code, output.err) == (
        1,
        "iadbe: the disk is full (/there). Make room; the same command then goes on where this one stopped.\n",
    )


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EISDIR, errno.EINVAL, errno.ELOOP])
def test_what_a_file_of_the_users_refuses_is_no_bug_but_one_of_the_packages_is(iadbe, monkeypatch, number):
    ends_with(monkeypatch, OSError(number, os.strerror(number), "/there/x.csv"))
    output = iadbe("doctor")
    assert (output.code, output.err) == (1, f"iadbe: /there/x.csv: {os.strerror(number).lower()}.\n")
    ends_with(monkeypatch, OSError(number, os.strerror(number), str(Path(cli.__file__).with_name("gone.yaml"))))
    assert iadbe("doctor").code == 3


def test_a_bug_leaves_its_traceback_in_a_file(iadbe, monkeypatch):
    ends_with(monkeypatch, lambda: {}["gone"])
    output = iadbe("doctor", "--json")
    assert output.code == 3
    assert "this is a bug (KeyError: 'gone')" in output.err
    assert output.err.count("\n") == 1
    log = Path(output.err.split("The details are in ")[1].split(";")[0])
    text = log.read_text(encoding="utf-8")
    log.unlink()
    assert text.startswith("iadbe doctor --json\n")
    assert "Traceback" in text


def test_an_interrupt_says_what_is_kept(iadbe, monkeypatch):
    ends_with(monkeypatch, KeyboardInterrupt())
    assert iadbe("doctor").code == 130
    assert iadbe("doctor").err == "iadbe: interrupted.\n"
    monkeypatch.setattr(cli, "RESUMABLE", ("doctor",))
    assert "the same command goes on" in iadbe("doctor").err


def test_being_terminated_is_an_interrupt(iadbe, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    ends_with(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert iadbe("doctor").code == 130
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_leaves_is_no_error():
    code = "from iadbe.cli import main; raise SystemExit(main(['list']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_a_terminal_without_dashes_gets_its_help():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "iadbe"]
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert b"usage: iadbe COMMAND ..." in done.stdout


class TestWordsAndFlags:
    def test_are_split(self):
        found = cli.split_arguments("x", ["a", "--yes", "--in", "b", "c", "--to=d"], ["--yes"], ["--in", "--to"])
        assert found == (["a", "c"], {"--yes"}, {"--in": "b", "--to": "d"})

    @pytest.mark.parametrize("wrong", [["--yess"], ["--in"], ["--yes=1"]])
    def test_are_strict(self, wrong):
        with pytest.raises(cli.UsageError, match="iadbe x"):
            cli.split_arguments("x", wrong, ["--yes"], ["--in"])
