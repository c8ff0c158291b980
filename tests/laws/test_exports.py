"""Every detector of the shelf can leave IADBE as one file, or its card says why not.

The form for export of every detector has to score as the usual one. A file has to give torch's scores and maps, in ONNX
Runtime and in OpenVINO, for batches of several sizes. Detectors are the small ones of the other laws, with random
weights and few steps. Files are written of one detector for each kind of operation; the whole shelf takes half an hour,
so ``.ci/full`` walks it (``pytest -m full tests/laws/test_exports.py``).
"""

from unittest import mock

import numpy as np
import pytest
import torch

from iadbe.data.images import Batch, View
from iadbe.errors import BadDetector, Missing
from iadbe.evaluation.calibration import Calibration
from iadbe.exporting import onnx_file, parity
from iadbe.exporting.card import card_of
from iadbe.exporting.program import Program, for_export
from iadbe.exporting.result import write
from iadbe.parameters import complete, why_not_exportable
from iadbe.protocol import Tiling
from iadbe.registry import card, load, names
from iadbe.running.model_folder import FittedDetector
from iadbe.running.tiled_detector import TiledDetector
from iadbe.runtime.inspector import ENGINES, Inspector
from laws.test_detectors import images, make, quick

TOLERANCE = parity.TOLERANCE["fp32"]
BATCHES = ((1, 64, 64), (3, 50, 90))  # images, height, width
REPRESENTATIVE = {  # one for each kind of operation
    "patchcore": "nearest neighbours in a bank",
    "spade": "nearest positions in images of a gallery",
    "anomalydino": "the mean of a share of positions",
    "fastflow": "flows",
    "rkde": "boxes",
    "dra": "images at several sizes",
    "reverse_distillation": "a decoder",
}
ILL_CONDITIONED = {  # map within which file and torch agree
    "dsr": 0.1  # after four steps its maps change by 3 % when pixels change by 1e-7: instance norms divide by little
}
OTHER_FORMS = {  # parameters that make another computation
    "anogan": {"encoder": True},
    "anomalydino": {"masking": "always"},
    "cutpaste": {"patch": 32, "stride": 16},
    "dfm": {"score": "nll"},
    "golden": {"reference": "nearest"},
    "padim": {"dims": 0},
    "uflow": {"score": "nfa"},
}


def reason(name, params):
    own = card("detectors", name)
    return why_not_exportable(own, complete(own, params))


def walked(form):
    """Return a case of the walk: of the shelf's whole one unless it is representative."""
    name, params = form
    whole = (pytest.mark.full,) * (name not in REPRESENTATIVE or bool(params))
    return pytest.param(*form, id="-".join([name, *map(str, params.values())]), marks=(pytest.mark.slow, *whole))


FORMS = [(name, {}) for name in names("detectors")] + list(OTHER_FORMS.items())


def fitted(name, params, view):
    try:
        load("detectors", name)
    except Missing as error:
        pytest.skip(str(error))
    detector = make(name, **params)
    detector.view = view
    detector.fit(images(name, view=view), np.random.default_rng(0))
    return FittedDetector(detector.eval(), name, {**quick(name), **params}, Calibration())


def apart(expected, found):
    """Return the largest difference, relative to the largest value."""
    expected, found = (np.asarray(values, np.float64) for values in (expected, found))
    return np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-12)


def assert_a_file_agrees(model, shapes, file):
    """Compare file and torch on batches of ``shapes``: images, height, width."""
    program = Program(model).eval()
    onnx_file.write(program, card_of(model), file)
    batches = [onnx_file.example_images(*shape) for shape in shapes]
    with torch.no_grad():
        expected = [program(batch) for batch in batches]
    for engine in ENGINES:
        pytest.importorskip(engine)
        inspector = Inspector(file, engine, threads=1)
        for batch, outputs in zip(batches, expected, strict=True):
            found = inspector.batch(batch.numpy())
            assert apart(outputs["score"], [one.score for one in found]) <= TOLERANCE, engine
            if "anomaly_map" in outputs:
                maps = [one.anomaly_map for one in found]
                assert apart(outputs["anomaly_map"], maps) <= ILL_CONDITIONED.get(model.name, TOLERANCE), engine


def regions(count, side):
    """Return pixels that count (N, side, side), another number in each image."""
    counts = torch.ones(count, side, side, dtype=torch.bool)
    counts[0, :, 5 * side // 8 :] = False
    counts[1, : side // 5] = False
    counts[2, side // 3 : -side // 4, side // 3 : -side // 4] = False
    return counts


@pytest.mark.parametrize(("name", "params"), [pytest.param(*form, id="-".join(map(str, form))) for form in FORMS])
def test_the_form_for_export_scores_as_the_usual_one(name, params):
    """Without a graph, so that the whole shelf is tried, also where other pixels count in each image."""
    if why := reason(name, params):
        pytest.skip(why)
    detector = fitted(name, params, View(64)).detector
    own = for_export(detector)
    image = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for region in (None, regions(3, 64)):
        batch = Batch(image, region=region)
        with torch.no_grad():
            expected = detector.predict(batch)
            with mock.patch("torch.compiler.is_exporting", return_value=True):
                found = own.predict(batch)
        assert apart(expected.score, found.score) <= TOLERANCE
        assert expected.map is None or apart(expected.map, found.map) <= TOLERANCE


@pytest.mark.skipif(not onnx_file.can_write(), reason="writing ONNX files takes the extra onnxruntime")
@pytest.mark.parametrize(("name", "params"), [walked(form) for form in FORMS])
@pytest.mark.parametrize("fit", ["squash", pytest.param("pad", marks=(pytest.mark.full, pytest.mark.slow))])
def test_a_file_gives_torchs_scores_and_maps(name, params, fit, tmp_path):
    if why := reason(name, params):
        pytest.skip(why)
    model = fitted(name, params, View(64, fit=fit))
    assert_a_file_agrees(model, BATCHES, tmp_path / "model.onnx")


@pytest.mark.skipif(not onnx_file.can_write(), reason="writing ONNX files takes the extra onnxruntime")
@pytest.mark.parametrize(
    ("name", "tiling", "fit"),
    [
        pytest.param("golden", "64/32", "pad", marks=pytest.mark.slow),
        *(
            pytest.param(*case, marks=(pytest.mark.full, pytest.mark.slow))
            for case in (("patchcore", "64/32/top0.5", "squash"), ("padim", "64/32/position", "squash"))
        ),
    ],
)
def test_a_file_sees_tiles(name, tiling, fit, tmp_path):
    """Of golden in padded views, in which some tiles show nothing but padding."""
    view = View(96, fit=fit)
    detector = TiledDetector(make(name), view, Tiling.parse(tiling))
    detector.fit(images(name, view=view), np.random.default_rng(0))
    model = FittedDetector(detector.eval(), name, quick(name), Calibration())
    assert_a_file_agrees(model, ((1, 64, 64), (3, 30, 140)), tmp_path / "model.onnx")


@pytest.mark.parametrize("name", [name for name in names("detectors") if reason(name, {})])
def test_what_cannot_be_exported_is_refused_at_once_with_its_reason(name, tmp_path):
    class Unfitted(torch.nn.Module):
        needs = frozenset()
        not_exportable = ""

    model = FittedDetector(Unfitted(), name, {}, Calibration())
    with pytest.raises(BadDetector) as refused:
        write(model, tmp_path / "model.onnx")
    assert str(refused.value) == f"{name} cannot be exported: {reason(name, {})}."
    assert not list(tmp_path.iterdir())


def test_reasons_are_few():
    """Whoever adds a detector exports it, or adds it here, with the reason on its card."""
    assert {name for name in names("detectors") if reason(name, {})} == {"anogan", "anomalib", "btf", "devnet", "yolo"}
