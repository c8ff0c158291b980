"""One OpenVINO core in a process."""

import pytest

from iadbe.runtime.openvino_core import openvino_core


def test_there_is_one_core():
    pytest.importorskip("openvino")
    assert openvino_core() is openvino_core()
