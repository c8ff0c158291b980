import subprocess
import sys

import pytest

from fake_grids import paths


def run(code):
    done = subprocess.run([sys.executable, "-c", code], env=paths(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


LOADED = "import sys; print(*[m for m in ('timm', 'torch._dynamo', 'sympy') if m in sys.modules])"


def test_a_backbone_needs_no_compiler():
    code = "import torch; from iadbe.networks.backbone import Backbone; "
    code += "Backbone('resnet10t', (1,), 'none')(torch.rand(1, 3, 64, 64)); "
    assert run(code + LOADED) == ["timm"]


def test_afterwards_the_compiler_is_the_real_one():
    code = "from iadbe.networks.timm_loader import load_timm; load_timm(); import torch; "
    code += "import torch._dynamo.utils; f = torch.compile(lambda x: x + 1, backend='eager'); "
    code += "print(int(f(torch.ones(())))); "
    code += "print(torch._dynamo.__file__.endswith('__init__.py'), torch._dynamo.utils.is_compile_supported('cpu')); "
    assert run(code + LOADED) == ["2", "True", "True", "timm", "torch._dynamo", "sympy"]


@pytest.mark.parametrize("compiler", [False, True])
def test_functions_that_were_marked_at_import_work(compiler):
    """timm's NaFlexViT and torchvision's RoI align, with and without a compiler in the process."""
    code = "from iadbe.networks.timm_loader import load_timm; timm = load_timm(); import torch, torchvision; "
    code += "import torch._dynamo; " if compiler else ""
    code += "net = timm.create_model('naflexvit_base_patch16_gap', img_size=64, depth=1).eval(); "
    code += "print(tuple(net(torch.rand(1, 3, 64, 64)).shape)[0]); "
    code += (
        "print(tuple(torchvision.ops.roi_align(torch.rand(1, 2, 8, 8), [torch.tensor([[0., 0, 4, 4]])], 2).shape)[1])"
    )
    assert run(code) == ["1", "2"]


def test_a_compiler_that_is_there_already_stays():
    code = "import torch._dynamo as before; from iadbe.networks.timm_loader import load_timm; load_timm(); "
    code += "import sys; print(sys.modules['torch._dynamo'] is before); "
    assert run(code + LOADED) == ["True", "timm", "torch._dynamo", "sympy"]


def test_any_other_attribute_loads_the_compiler():
    code = "import sys; from iadbe.networks import timm_loader as t; "
    code += "sys.modules['torch._dynamo'] = t._StandIn('torch._dynamo'); "
    code += "import torch; print(callable(sys.modules['torch._dynamo'].reset)); "
    assert run(code + LOADED) == ["True", "torch._dynamo", "sympy"]


OTHER_TIMM = """
import torch
from torch._dynamo.eval_frame import OptimizedModule
from torch._dynamo.utils import is_compile_supported
import torch._dynamo.config as config
assert torch.compile(torch.nn.Identity(), backend="eager").__class__ is OptimizedModule
assert config is torch._dynamo.config and config.__spec__.origin.endswith(".py")
"""
MARKED = """
import functools
import torch
@torch._dynamo.disable
def plain(x): return x + 1
@torch._dynamo.disable()
def called(x): return x + 2
@torch._dynamo.disable(recursive=False)
def alone(x): return x + 3
assert "torch._dynamo.eval_frame" not in __import__("sys").modules
network = torch._dynamo.disable(torch.nn.Identity())
assert (plain(1), called(1), alone(1)) == (2, 3, 4)
assert network(5) == 5
"""


@pytest.mark.parametrize("text", [OTHER_TIMM, MARKED], ids=["other modules", "every way to mark"])
def test_whatever_a_version_of_timm_wants_of_the_compiler_at_import_is_there(tmp_path, text):
    (tmp_path / "timm.py").write_text(text)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
    code += "from iadbe.networks.timm_loader import _imported; print(_imported().__file__.endswith('timm.py')); "
    code += "import torch; print(int(torch.compile(lambda x: x + 1, backend='eager')(torch.ones(())))); "
    code += "print(torch._dynamo.utils is sys.modules['torch._dynamo.utils']); "
    code += "print(*[m for m in sys.meta_path if type(m).__name__ == '_OtherModules'])"
    assert run(code) == ["True", "2", "True"]


def test_a_torch_that_imports_its_compiler_itself_keeps_it():
    code = "import importlib; original = importlib.import_module; "
    code += "both = lambda: (original('torch._dynamo'), original('torch'))[1]; "
    code += "importlib.import_module = lambda *a, **k: both() if a == ('torch',) else original(*a, **k); "
    code += "from iadbe.networks import timm_loader; timm_loader.load_timm(); import sys; "
    code += "print(type(sys.modules['torch._dynamo']).__name__); "
    assert run(code + LOADED) == ["module", "timm", "torch._dynamo", "sympy"]
