"""OpenVINO's pair of files."""

import pytest

from exported_models import golden, random_image
from iadbe.errors import BadConfig
from iadbe.exporting.result import write
from iadbe.runtime.inspector import Inspector

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return write(golden(), tmp_path_factory.mktemp("openvino") / "golden", "openvino", [random_image(70, 90)])


def test_graph_and_weights_lie_side_by_side_and_agree_with_torch(exported):
    assert sorted(p.name for p in exported.file.parent.iterdir()) == [
        "golden.bin",
        "golden.reference.npz",
        "golden.xml",
    ]
    assert exported.parity.holds
    assert exported.parity.engine == "openvino"
    assert exported.bytes > exported.file.stat().st_size


def test_the_inspector_reads_it_by_the_same_door(exported):
    inspector = Inspector(exported.file)
    assert inspector.card["detector"] == "golden"
    assert inspector(random_image(33, 44)).anomaly_map.shape == (33, 44)
    with pytest.raises(BadConfig, match="openvino alone"):
        Inspector(exported.file, "onnxruntime")
