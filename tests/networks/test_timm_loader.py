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
