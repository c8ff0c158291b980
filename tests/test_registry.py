import importlib.util
import subprocess
import sys

import pytest

from iadbe import registry
from iadbe.errors import BadConfig, BadDetector, Missing, UnknownName


def test_the_folder_is_the_registry():
    assert {"padim", "patchcore", "stfpm"} <= set(registry.names("detectors"))
    assert registry.load("settings", "few_shot").__name__ == "FewShot"


@pytest.mark.parametrize("registry_name", registry.REGISTRIES)
def test_everything_registered_loads_and_its_card_agrees(registry_name):
    for name in registry.names(registry_name):
        own = registry.card(registry_name, name)
        assert own.summary
        if own.get("foreign") and importlib.util.find_spec(own.get("foreign")) is None:
            with pytest.raises(Missing, match=r"pip install 'iadbe\["):
                registry.load(registry_name, name)
        else:
            assert registry.load(registry_name, name).version == own.get("version")


def test_cards_need_no_torch():
    code = (
        "import sys; from iadbe import registry\n"
        "for name_of in registry.REGISTRIES:\n    [registry.card(name_of, n) for n in registry.names(name_of)]\n"
        "assert not {'torch', 'numpy', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_card_states_parameters_types_and_defaults():
    found = {p.name: p for p in registry.card("detectors", "padim").parameters}
    assert found["dims"].annotation == "int"
    assert found["dims"].default == 100
    assert found["layers"].default == (1, 2, 3)
    assert found["dims"].doc


def test_parameters_of_the_contract_stand_on_every_card():
    for name in registry.names("datasets"):
        card = registry.card("datasets", name)
        assert [p.name for p in card.parameters[-2:]] == ["roi", "ignore"]
        assert all(p.doc for p in card.parameters[-2:])


def test_unknown_names_are_reported_with_a_suggestion():
    with pytest.raises(UnknownName, match=r"no detector is named 'padm'. Did you mean padim"):
        registry.load("detectors", "padm")


def test_a_class_from_anywhere_joins(tmp_path, monkeypatch):
    (tmp_path / "elsewhere_iadbe.py").write_text(
        '"""Mine."""\nfrom iadbe.settings.vanilla import Vanilla\n\n\nclass Mine(Vanilla):\n'
        '    """My own."""\n\n    demands = frozenset({"zero-shot"})\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.trust("elsewhere_iadbe:Mine", "elsewhere_iadbe:Yours", "no_such_module_here:Mine")
    assert registry.load("settings", "elsewhere_iadbe:Mine").__name__ == "Mine"
    assert registry.card("settings", "elsewhere_iadbe:Mine").get("demands") == frozenset({"zero-shot"})
    for wrong in ("elsewhere_iadbe:Yours", "no_such_module_here:Mine"):
        with pytest.raises(UnknownName):
            registry.load("settings", wrong)


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """Work in an empty folder that Python does not know."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_a_class_in_the_current_folder_is_found(empty_folder):
    (empty_folder / "found_here.py").write_text(
        '"""Mine."""\nfrom iadbe.detector import Detector\n\n\nclass Mine(Detector):\n    year = 2026\n'
    )
    registry.trust("found_here:Mine")
    assert registry.card("detectors", "found_here:Mine").get("year") == 2026
    assert registry.load("detectors", "found_here:Mine").__name__ == "Mine"


@pytest.fixture(autouse=True)
def trust_of_one_test(monkeypatch):
    """Let no other test find what one of these has trusted."""
    monkeypatch.setattr(registry, "_trusted", set(registry.trusted()))


@pytest.mark.parametrize("kind", ["detectors", "datasets", "settings", "metrics", "executors", "drawings"])
def test_a_class_must_inherit_from_the_contract(kind):
    registry.trust("subprocess:Popen")
    with pytest.raises(BadConfig, match=r"'subprocess:Popen' is not a .* inherits from iadbe\."):
        registry.load(kind, "subprocess:Popen")


def test_a_class_that_nobody_trusts_is_not_imported(empty_folder):
    (empty_folder / "untrusted_here.py").write_text("open('imported', 'w').close()\n\n\nclass Mine:\n    pass\n")
    for read in (registry.check, registry.card, registry.load):
        with pytest.raises(UnknownName, match="add --trust untrusted_here:Mine"):
            read("detectors", "untrusted_here:Mine")
    assert not (empty_folder / "imported").exists()


@pytest.mark.parametrize("text", ["padim", "a:b:c", "a.b", ":C", "a b:C", ""])
def test_only_the_name_of_a_class_can_be_trusted(text):
    with pytest.raises(BadConfig, match="package.module:Class"):
        registry.trust(text)


def test_classes_in_rows_are_found():
    registry.trust_written(["image_rows.here:Share@5%", "pixel_rows_here:Other.touched", "image_auroc", 3, None])
    assert {"rows.here:Share", "rows_here:Other"} <= set(registry.trusted())
    assert "image_auroc" not in registry.trusted()


def test_a_file_that_cannot_be_used_is_one_sentence(empty_folder):
    (empty_folder / "broken_here.py").write_text("class Mine:\n    def\n")
    (empty_folder / "raising_here.py").write_text('"""Mine."""\nthing = 3\nnumber = 1 / 0\n')
    (empty_folder / "thing_here.py").write_text('"""Mine."""\nthing = 3\n')
    registry.trust("broken_here:Mine", "raising_here:thing", "thing_here:thing", "thing_here:Mine", "not.at.all:Mine")
    with pytest.raises(BadDetector, match=r"broken_here\.py, line 2: invalid syntax"):
        registry.card("detectors", "broken_here:Mine")
    with pytest.raises(BadDetector, match="cannot be imported: ZeroDivisionError: division by zero"):
        registry.load("detectors", "raising_here:thing")
    with pytest.raises(UnknownName, match="is not a class but int"):
        registry.load("detectors", "thing_here:thing")
    with pytest.raises(UnknownName, match="no module not.at.all"):
        registry.card("detectors", "not.at.all:Mine")
    with pytest.raises(UnknownName, match="has no class 'Mine'"):
        registry.card("detectors", "thing_here:Mine")


def test_a_dataclass_explains_its_fields():
    found = {p.name: p for p in registry.card("settings", "noisy").parameters}
    assert found["ratio"].doc
