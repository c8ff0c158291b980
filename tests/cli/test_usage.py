import pytest

from iadbe.cli import UsageError
from iadbe.cli.usage import Parser, axis_options, written
from iadbe.registry import card

ABOUT = """First line.

Prose that goes on
over two lines.

    kept: as it
      was: written
"""


@pytest.fixture
def parser():
    made = Parser("try", ABOUT, "[options]")
    group = made.add_argument_group("numbers")
    group.add_argument("--count", type=int, default=3, metavar="N", help="how many")
    group.add_argument("--name", type=str, default="", help="of it")
    group.add_argument("--time-limit", type=float, help="seconds")
    group.add_argument("--quiet", action="store_true", help="say nothing")
    return made


def test_help_is_without_noise(parser):
    parser.show("padim", [("--detector.dims", "N", "how many channels")])
    text = parser.format_help()
    assert "Prose that goes on over two lines.\n\n    kept: as it\n      was: written\n" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "usage: iadbe try [options]"
    assert {"--count N how many (default: 3)", "--name NAME of it", "--quiet say nothing"} <= set(lines)
    assert text.index("--detector.dims N") < text.index("--count N"), "what is shown comes first"


def test_values_are_read(parser):
    assert parser.read(["--count", "5", "--time-limit=1.5"]) == {
        "count": 5, "name": "", "time_limit": 1.5, "quiet": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (["--count", "many"], "--count takes a whole number, not 'many'"),
        (["--time-limit", "soon"], "--time-limit takes a number, not 'soon'"),
        (["--cuont", "1"], "has no option --cuont. Did you mean --count?"),
        (["--co", "1"], "has no option --co. Did you mean --count?"),
        (["--detector.dim", "1"], "Did you mean --detector.dims?"),
        (["-x"], "has no option -x"),
        (["stray"], "stray"),
        (["--count"], "expected one argument"),
    ],
)
def test_mistakes_are_one_sentence(parser, tokens, sentence):
    parser.show("padim", [("--detector.dims", "N", "")])
    with pytest.raises(UsageError) as caught:
        parser.read(tokens)
    assert sentence in str(caught.value)
    assert "See `iadbe try --help`." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_negative_number_is_a_value(parser):
    assert parser.read(["--time-limit", "-2"])["time_limit"] == -2


def test_options_of_a_detector():
    options = {
        option: (metavar, text) for option, metavar, text in axis_options("detector", "", card("detectors", "dfm"))
    }
    assert options["--detector.score"][0] == "fre|nll"
    assert options["--detector.variance"][1].endswith("(default: 0.97)")
    layers = dict((o, m) for o, m, _ in axis_options("detector", "", card("detectors", "padim")))["--detector.layers"]
    assert layers == "N,…"


@pytest.mark.parametrize(
    ("value", "text"), [((1, 2), "1,2"), (None, "null"), (True, "true"), (0.5, "0.5"), ("a", "a"), ((), "")]
)
def test_values_are_written_as_they_are_typed(value, text):
    assert written(value) == text
