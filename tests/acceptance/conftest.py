"""A calibrated model and images that it knows nothing of."""

from types import SimpleNamespace

import pytest

from iadbe import api
from iadbe.types import Options
from part_images import draw, draw_parts


@pytest.fixture(scope="session")
def factory(tmp_path_factory):
    """A small model, its challenge set, and parts that were imaged several times."""
    root = tmp_path_factory.mktemp("acceptance")
    draw_parts(root / "old", good=12, bad=2)
    for folder, first, count in (("calibration", 200, 30), ("good", 300, 12)):
        for i in range(count):
            draw(root / f"{folder}/{i}.png", first + i)
    for i in range(6):
        draw(root / f"bad/spot/{i}.png", 400 + i, spot=True)
    for part in range(3):
        for n in range(4):
            draw(root / f"again/part_{part}/{n}.png", 500 + 4 * part + n, spot=part == 2)
    how = {"protocol": "uniform@64", "store": root / "runs", "options": Options("cpu", features="off", images=0)}
    (trained,) = api.train("golden", str(root / "old"), **how)
    api.calibrate(trained, root / "calibration", overkill=0.05)
    return SimpleNamespace(root=root, model=trained.folder, old=root / "old/good")
