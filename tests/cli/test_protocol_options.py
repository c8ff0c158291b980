import pytest

from iadbe.cli import UsageError, benchmark, options
from iadbe.cli.options import parse
from iadbe.cli.protocol_options import OF_PROTOCOL, is_given, protocol_of


def name(*tokens):
    return protocol_of(parse("train", "About.", tokens, options.add_spec).values)


@pytest.mark.parametrize(
    ("tokens", "protocol"),
    [
        (["--size", "64"], "uniform@64"),
        (["--protocol", "paper"], "paper"),
        (["--budget", "10m"], "uniform+600s"),
        (["--budget", "10cpu-m"], "uniform+600cpu-s"),
        (["--protocol", "paper+2h", "--budget", "90s"], "paper+90s"),
        (["--precision", "bf16", "--accumulate", "4"], "uniform+bf16+4batches"),
        (["--protocol", "paper+fp16", "--precision", "fp32"], "paper"),
        (["--size", "512x64", "--fit", "pad", "--native"], "uniform@512x64,pad,native"),
        (["--protocol", "paper", "--native"], "paper,native"),
        (["--align", "template"], "uniform,aligned"),
        (["--align-limits", "45/0.2/0.1", "--fit", "pad"], "uniform,pad,aligned=45/0.2/0.1"),
        (["--align-limits", "30/0.15/0"], "uniform,aligned"),
        (["--protocol", "paper,aligned", "--align", "none"], "paper"),
        (["--size", "2048", "--tiles", "512"], "uniform@2048,tiles=512/64"),
        (["--size", "native", "--tiles", "auto"], "uniform@native,tiles=auto"),
        (["--tiles", "auto", "--tiling", "position"], "uniform,tiles=auto/position"),
        (["--tiles", "128", "--overlap", "32", "--tiling", "position"], "uniform,tiles=128/32/position"),
        (["--protocol", "uniform,tiles=64/8/position", "--tiling", "shared"], "uniform,tiles=64/8"),
    ],
)
def test_options_are_short_for_a_protocol(tokens, protocol):
    assert name(*tokens) == protocol


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (["--protocol", "paper", "--fit", "crop"], "give --size and --fit with uniform alone"),
        (["--size", "512x"], "or WIDTHxHEIGHT such as 512x256"),
        (["--precision", "half"], "precision is fp32, bf16, fp16"),
        (["--size", "3"], "at least 32 pixels"),
        (["--size", "0"], "at least 32 pixels"),
        (["--size", "-64"], "is a number of pixels"),
        (["--tiles", "x"], "SIDE/OVERLAP in pixels such as 512/64"),
        (["--tiles", "64", "--overlap", "50"], "overlap by at most half of that"),
        (["--tiles", "0"], "such as 512/64, or auto"),
        (["--tiles", "auto", "--overlap", "50"], "has an overlap of its own"),
        (["--size", "native", "--fit", "pad"], "--fit pad changes nothing"),
        (["--overlap", "50"], "give --tiles SIDE, too"),
        (["--tiles", "64", "--tiling", "each"], "--tiling is shared or position"),
        (["--align", "yes"], "--align is template or none"),
        (["--align", "none", "--align-limits", "1/0/0"], "limits need template"),
        (["--align-limits", "30"], "DEGREES/SHIFT/SCALE such as 30/0.15/0"),
        (["--align-limits", "400/0/0"], "turned by 0 to 180 degrees"),
    ],
)
def test_mistakes_are_one_sentence(tokens, sentence):
    with pytest.raises(UsageError, match=sentence):
        name(*tokens)


def test_every_option_of_a_protocol_changes_that_of_a_grid():
    assert not is_given(parse("benchmark", "About.", (), benchmark._add).values)
    words = {
        **{"protocol": "paper", "size": "64", "fit": "pad", "align": "none", "align_limits": "1/0/0", "tiles": "auto"},
        **{"overlap": "0", "tiling": "shared", "budget": "1s", "precision": "bf16", "accumulate": "2"},
    }
    assert set(words) | {"native"} == set(OF_PROTOCOL)
    for name, word in words.items():
        assert is_given(parse("benchmark", "About.", (f"--{name.replace('_', '-')}", word), benchmark._add).values), (
            name
        )
    assert is_given(parse("benchmark", "About.", ("--native",), benchmark._add).values)
