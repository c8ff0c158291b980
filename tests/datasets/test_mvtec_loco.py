import json

import numpy as np
import pytest
from PIL import Image

from dataset_trees import mvtec_loco as tree
from dataset_trees import real
from iadbe.datasets import mvtec_loco
from iadbe.datasets.mvtec_loco import MVTecLOCO
from iadbe.errors import BadData
from iadbe.metric import DEFAULT
from iadbe.running import plan


def logical(dataset):
    return next(s for s in dataset.samples() if s.id == "pens/test/logical_anomalies/000.png")


def test_the_mask_is_the_union_and_the_regions_have_their_saturations(tmp_path):
    dataset = MVTecLOCO(**tree(tmp_path))
    sample = logical(dataset)
    assert sample.mask == "pens/ground_truth/logical_anomalies/000"
    mask = dataset.mask(sample)
    first, second = dataset.defects(sample)
    assert (first.mask.sum(), second.mask.sum()) == (40, 30)
    assert mask.sum() == 40 + 30 - 2 * 5  # two rows of five columns are in both
    assert first.saturation == 15 / 40  # 15 pixels
    assert second.saturation == 0.5  # half of them


def test_a_saturation_never_exceeds_the_region(tmp_path):
    dataset = MVTecLOCO(**tree(tmp_path))
    folder = tmp_path / logical(dataset).mask
    Image.fromarray((np.eye(20, 28) * 253).astype(np.uint8)).save(folder / "000.png")
    assert [r.saturation for r in dataset.defects(logical(dataset))] == [1.0, 0.5]


def test_a_number_of_pixels_is_scaled_with_the_image(tmp_path):
    tree(tmp_path)
    (tmp_path / "pens").rename(tmp_path / "juice_bottle")
    config = json.loads((tmp_path / "pins/defects_config.json").read_text())
    config[0]["saturation_threshold"] = 16 * mvtec_loco.PUBLISHED_PIXELS["juice_bottle"] / (20 * 28)
    (tmp_path / "juice_bottle/defects_config.json").write_text(json.dumps(config))
    dataset = MVTecLOCO(str(tmp_path))
    sample = next(s for s in dataset.samples() if s.id == "juice_bottle/test/logical_anomalies/000.png")
    assert dataset.defects(sample)[0].saturation == pytest.approx(16 / 40)


def test_what_the_configuration_does_not_say_is_reported(tmp_path):
    dataset = MVTecLOCO(**tree(tmp_path))
    sample = logical(dataset)
    Image.fromarray(np.full((20, 28), 77, np.uint8)).save(tmp_path / sample.mask / "001.png")
    with pytest.raises(BadData, match=r"001\.png has the pixel value 77, which defects_config\.json does not list"):
        dataset.defects(sample)
    for text in (
        "{",
        '[{"pixel_value": 255}]',
        '[{"pixel_value": 1, "saturation_threshold": 2, "relative_saturation": 1}]',
    ):
        mvtec_loco._saturations.cache_clear()
        (tmp_path / "pens/defects_config.json").write_text(text)
        with pytest.raises(BadData, match=r"defects_config\.json is not a list of defects"):
            dataset.defects(sample)
    mvtec_loco._saturations.cache_clear()
    (tmp_path / "pens/defects_config.json").unlink()
    with pytest.raises(BadData, match=r"defects_config\.json is not there"):
        dataset.defects(sample)


def test_the_digest_follows_the_configuration(tmp_path):
    dataset = MVTecLOCO(**tree(tmp_path))
    before = dataset.digest()
    file = tmp_path / "pens/defects_config.json"
    file.write_text(file.read_text().replace("15", "16"))
    assert dataset.digest() != before


def test_its_official_metrics_are_computed_beside_the_usual_ones(tmp_path):
    tree(tmp_path)
    data = {"name": "mvtec_loco", "root": str(tmp_path)}
    run = plan.expand({"detectors": ["padim"], "data": [data]}).runs[0]
    assert run.metrics == (*DEFAULT, "image_auroc.kinds", "pixel_spro", "pixel_spro.kinds")
    run = plan.expand({"detectors": ["padim"], "data": [data], "metrics": ["image_ap"]}).runs[0]
    assert run.metrics == ("image_ap",)


def test_real_juice_bottles():
    dataset = MVTecLOCO(str(real("mvtec_loco")))
    assert MVTecLOCO.recognise(real("mvtec_loco")).by_names
    samples = dataset.samples()
    count = [(s.split, s.defect) for s in samples].count
    assert count(("train", "good")) == 40
    assert count(("val", "good")) == 15
    bad = [s for s in samples if s.is_anomaly]
    assert {s.defect for s in bad} == {"logical_anomalies"}
    assert len(bad) == 20
    regions = [r for s in bad for r in dataset.defects(s)]
    assert len(regions) >= 20
    assert all(0 < r.saturation <= 1 for r in regions)
    # a missing label: any part of the place where it may be, as large as a label, is enough
    assert min(r.saturation for r in regions) < 0.9
    for s in bad:
        assert np.array_equal(np.logical_or.reduce([r.mask for r in dataset.defects(s)]), dataset.mask(s))
