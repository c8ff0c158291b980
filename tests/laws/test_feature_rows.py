"""networks/feature_store: whatever happens to a row on disk, features are those that the backbone computes."""

import numpy as np
import pytest
import torch

from drawn_images import images, parts
from iadbe.networks.backbone import Backbone
from iadbe.networks.feature_store import FeatureStore, using

LAYERS = (1, 2, 3)
COUNT = 4


@pytest.fixture(scope="module")
def backbone():
    return Backbone("resnet10t", LAYERS, "none")


@pytest.fixture(scope="module")
def shown():
    return next(images(parts(COUNT)).batches(COUNT))


@pytest.fixture
def store(tmp_path, backbone, shown):
    made = FeatureStore(tmp_path)
    with using(made):
        backbone(shown)
    return made


def path(store, layer, key):
    (found,) = store.root.glob(f"*/{layer}/{key}.npy")
    return found


def flip(position):
    def damage(file, other):
        content = bytearray(file.read_bytes())
        content[position % len(content)] ^= 1 << (position % 8)
        file.write_bytes(content)

    return damage


def cut(keep):
    return lambda file, other: file.write_bytes(file.read_bytes()[:keep])


def resaved(change):
    """Write the row as NumPy does, without address and checksum, as older versions did."""
    return lambda file, other: np.save(file, change(np.load(file)))


def replaced_data(change):
    """Change the features and keep everything around them."""

    def damage(file, other):
        content = file.read_bytes()
        row = np.frombuffer(content, "<f4", offset=128, count=np.load(file).size)
        file.write_bytes(content[:128] + change(row).tobytes() + content[128 + row.nbytes :])

    return damage


DAMAGE = {
    **{f"bit flipped at {at}": flip(at) for at in (0, 7, 20, 60, 126, 127, 128, 129, 1000, -1, -5, -20, -60)},
    **{f"cut to {keep}": cut(keep) for keep in (0, 1, 127, 128, 500, -1, -4, -5, -60)},
    "longer": lambda file, other: file.write_bytes(file.read_bytes() + b"x"),
    "another image's row": lambda file, other: file.write_bytes(other.read_bytes()),
    "no checksum": resaved(lambda row: row),
    "no checksum, one value changed": resaved(lambda row: np.where(row == row.flat[5], 9, row)),
    "float64": resaved(lambda row: row.astype(np.float64)),
    "float16": resaved(lambda row: row.astype(np.float16)),
    "big-endian": resaved(lambda row: row.astype(">f4")),
    "Fortran order": resaved(np.asfortranarray),
    "fewer dimensions": resaved(lambda row: row[0]),
    "fewer channels": resaved(lambda row: row[1:]),
    "an archive": lambda file, other: file.write_bytes(b"PK\x03\x04" + bytes(2000)),
    "zeros": lambda file, other: file.write_bytes(bytes(file.stat().st_size)),
    "values in another order": replaced_data(lambda row: row[::-1]),
    "values of another image": replaced_data(lambda row: np.roll(row, 1)),
    "NaN": replaced_data(lambda row: np.full_like(row, np.nan)),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_bad_row_is_computed_again_and_counted(store, backbone, shown, layer, damage):
    damage(path(store, layer, shown.keys[2]), path(store, layer, shown.keys[1]))
    with using(store) as counters:
        found = backbone(shown)
    assert (counters.computed, counters.stored, counters.rejected) == (1, COUNT - 1, 1)
    for mine, expected in zip(found, backbone(shown), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)
    with using(store) as counters:
        again = backbone(shown)
    assert (counters.computed, counters.stored, counters.rejected) == (0, COUNT, 0), "the row was written again"
    assert all(torch.equal(a, b) for a, b in zip(again, found, strict=True))


def test_rows_of_another_layer_network_or_shape_are_not_used(store, backbone, shown):
    """Whole rows with a right checksum, but at another address or of another size."""
    first, second = (path(store, layer, shown.keys[0]) for layer in (1, 2))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    other = Backbone("resnet10t", LAYERS, "none")
    other.name = "resnet10t_other"
    for key in shown.keys:
        for layer in LAYERS:
            row = path(store, layer, key)
            copy = store.root / row.parts[-3].replace("resnet10t", other.name) / row.parts[-2] / row.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(row.read_bytes())
    for network in (backbone, other):
        with using(store) as counters:
            found = network(shown)
        assert counters.rejected > 0
        for mine, expected in zip(found, backbone(shown), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", [1, COUNT - 1, COUNT])
@pytest.mark.parametrize("change", [lambda r: r[:-1], lambda r: r[:, :-1], lambda r: np.repeat(r, 2, 2)])
def test_whole_rows_of_a_wrong_shape_are_not_used(store, backbone, shown, wrong, change):
    """As if a faulty program had written them. A wrong grid of all rows is noticed if there is anything to compute."""
    weights = path(store, 2, shown.keys[0]).parts[-3]
    rows = {key: change(np.load(path(store, 2, key))) for key in shown.keys[:wrong]}
    if wrong == COUNT and len(rows[shown.keys[0]]) == backbone.channels[1]:
        path(store, 1, shown.keys[0]).unlink()
    for key, row in rows.items():
        store.put(weights, 2, key, np.ascontiguousarray(row))
    with using(store) as counters:
        found = backbone(shown)
    assert counters.rejected >= 1
    for mine, expected in zip(found, backbone(shown), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)
