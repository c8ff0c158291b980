import pytest

from iadbe.registry import REGISTRIES, card, names


def test_everything_about_one_name(iadbe):
    output = iadbe("show", "padim")
    assert output.code == 0
    for fact in ("padim  (detector)", "2011.08785", "Gaussian", "localise", "resize=256, crop=224", "dims=550"):
        assert fact in output.out
    dims = next(line for line in output.out.splitlines() if line.startswith("  dims "))
    assert dims.split()[:3] == ["dims", "int", "100"]
    assert "channels" in dims


def test_what_a_paper_used_for_a_category(iadbe):
    assert "paper by category mvtec_ad/carpet (kind=texture, steps=500), " in iadbe("show", "cpr").out


@pytest.mark.parametrize("registry_name", REGISTRIES)
def test_everything_can_be_shown(iadbe, registry_name):
    for name in names(registry_name):
        output = iadbe("show", name)
        assert output.code == 0
        assert card(registry_name, name).summary[:40].split("\n")[0] in output.out


def test_a_class_of_ones_own(iadbe, elsewhere):
    (elsewhere / "own_show.py").write_text('"""Mine, at last."""\n\n\nclass Mine:\n    kind = "baseline"\n')
    assert "Mine, at last." in iadbe("show", "own_show:Mine").out


def test_mistakes_are_one_sentence(iadbe):
    assert "Did you mean padim" in iadbe("show", "padm").err
    assert iadbe("show").code == 2
    assert "no module nowhere" in iadbe("show", "nowhere:Mine").err


def test_a_parameter_is_not_also_a_fact(iadbe):
    facts, parameters = iadbe("show", "noisy").out.split("parameters:")
    assert "\nof  " not in facts
    assert "\n  of  " in parameters
