"""Deep images in a graph: scaled as they are when they are read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from exported_models import golden
from iadbe.exporting.deep_images import Levels
from iadbe.exporting.result import write
from iadbe.files import channels, image_io
from iadbe.files.decoding import Raster
from iadbe.files.input_images import inputs_of
from iadbe.running.inference import results_of
from iadbe.runtime.inspector import Inspector
from iadbe.runtime.prediction import results_of as results_of_file
from iadbe.types import ChannelProjection, IntensityRange

SPECTRAL = ChannelProjection(((0.5, 0.25, 0.0, 0.1), (0.0, 1.0, -1.0, 0.0), (0.3, 0.0, 0.0, 0.9)), (0.1, 0.5, 0.2), "x")
GREY = ChannelProjection(((0.25,) * 4,), (0.0,), "mean")


def test_levels_are_those_of_images_that_are_read():
    intensity = IntensityRange(100, 3000)
    values = np.random.default_rng(0).integers(0, 4096, (40, 50, 3), dtype=np.uint16)
    found = Levels(intensity)(torch.from_numpy(values.astype(np.float32))[None])[0].numpy()
    assert np.array_equal(found, image_io._to_uint8(Raster(values, 12), "x.png", intensity))


@pytest.mark.parametrize("projection", [SPECTRAL, GREY])
def test_channels_are_projected(projection):
    intensity = IntensityRange(0, 1, projection=projection)
    values = np.random.default_rng(0).random((40, 50, 4), dtype=np.float32)
    found = Levels(intensity)(torch.from_numpy(values)[None])[0].numpy()
    expected = image_io._to_uint8(Raster(channels.projected(values, projection), 0), "x.tif", intensity)
    expected = expected if expected.ndim == 3 else np.repeat(expected[:, :, None], 3, axis=2)
    assert np.abs(found - expected.astype(np.float32)).max() <= 1  # one level where rounding chooses
    assert np.mean(found != expected) < 0.001


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_file_scores_raw_values_and_files_as_a_model_folder_does(tmp_path, engine):
    pytest.importorskip("onnxscript")
    pytest.importorskip(engine)
    region = np.zeros((60, 70), bool)
    region[5:50, 10:60] = True
    model = replace(golden(), intensity=IntensityRange(200, 3000, "declared"), region=region)
    raw = np.random.default_rng(0).integers(0, 4096, (60, 70), dtype=np.uint16)
    (tmp_path / "images").mkdir()
    Image.fromarray(raw).save(tmp_path / "images" / "a.png")
    expected = next(results_of(model, inputs_of([tmp_path / "images"]), None, torch.device("cpu")))
    made = write(model, tmp_path / "model.onnx")
    assert made.parity.holds
    inspector = Inspector(made.file, engine, threads=1)
    of_file = next(results_of_file(inspector, inputs_of([tmp_path / "images"])))
    of_values = inspector(raw[:, :, None])
    assert of_file.note == expected.note != ""
    for found in (of_file.score, of_values.score):
        assert found == pytest.approx(expected.score, rel=1e-4)
    for found in (of_file.map, of_values.anomaly_map):
        assert np.allclose(found, expected.map, atol=1e-4)
    assert np.array_equal(of_file.pixels(), expected.pixels())
