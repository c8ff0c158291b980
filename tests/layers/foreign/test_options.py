import pytest

from iadbe.errors import BadConfig, UnknownName
from iadbe.layers.foreign.options import parse_options

KNOWN = ("backbone", "layers", "lr", "pre_trained", "n_features", "layer")


def test_values_have_the_types_that_they_look_like():
    text = "backbone=resnet18, layers=layer2+layer3,lr=1e-3,pre_trained=false,n_features=null"
    assert parse_options(text, KNOWN, "Padim") == {
        "backbone": "resnet18",
        "layers": ["layer2", "layer3"],
        "lr": 1e-3,
        "pre_trained": False,
        "n_features": None,
    }
    assert parse_options("n_features=100,layers=2+3,lr=-0.5", KNOWN, "Padim") == {
        "n_features": 100,
        "layers": [2, 3],
        "lr": -0.5,
    }
    assert parse_options("", KNOWN, "Padim") == {}


def test_text_is_never_code():
    assert parse_options("backbone=__import__('os').getcwd()", KNOWN, "Padim")["backbone"].startswith("__import__")


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("backbon=x", UnknownName, "Padim has no option 'backbon'. Did you mean backbone"),
        ("backbone", BadConfig, "name=value"),
        ("backbone=", BadConfig, "name=value"),
        ("lr=1,lr=2", BadConfig, "'lr' is given twice"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(text, error, sentence):
    with pytest.raises(error, match=sentence):
        parse_options(text, KNOWN, "Padim")
