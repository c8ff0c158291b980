import numpy as np

from iadbe.drawing import render
from iadbe.drawings.fabric import PITCH, Fabric


def test_the_weave_repeats_every_four_yarns_across_and_along():
    grey = render(Fabric(), "cloth").image.mean(axis=-1)
    power = np.abs(np.fft.fft2((grey - grey.mean()) * np.outer(np.hanning(256), np.hanning(256)))) ** 2
    v, u = np.unravel_index(power.argmax(), power.shape)
    wanted = 256 / (4 * PITCH)
    assert min(u, 256 - u) == np.clip(min(u, 256 - u), wanted - 1.5, wanted + 1.5)
    assert min(v, 256 - v) == np.clip(min(v, 256 - v), wanted - 1.5, wanted + 1.5)


def test_a_plainer_defect_covers_more():
    for kind in ("hole", "stain", "thread"):
        faint, plain = (render(Fabric(), f"a {kind}", kind, severity).mask.sum() for severity in (0.0, 1.0))
        assert plain > 1.3 * faint, kind


def test_a_broken_warp_yarn_shows_the_paler_weft_in_one_upright_line():
    good = render(Fabric(), "cloth").image.astype(int)
    bad, mask, _ = render(Fabric(), "cloth", "thread", 1.0)
    assert bad[mask].mean() > good[mask].mean() + 20
    rows, columns = np.nonzero(mask)
    assert np.ptp(rows) > 50
    assert np.ptp(columns) < 20


def test_a_wrong_yarn_changes_hue_more_than_it_changes_light():
    good = render(Fabric(), "cloth").image.astype(int)
    bad, mask, _ = render(Fabric(), "cloth", "colour", 1.0)
    change = (bad - good)[mask].mean(axis=0)
    assert np.ptp(change) > 1.5 * abs(change.mean())
