import json

import numpy as np
import pytest
import torch

from dataset_trees import mvtec_ad2
from iadbe.datasets.mvtec_ad2 import MVTecAD2
from iadbe.errors import BadConfig, BadData
from iadbe.files import ad2_submission
from iadbe.running import submission
from iadbe.running.store import Store
from iadbe.running.submission import Source, Statistics, Submission
from iadbe.types import RunResult, RunSpec, Score

RNG = np.random.default_rng(0)
CPU = torch.device("cpu")


def test_statistics_are_those_of_all_values():
    maps = [RNG.normal(1e4, 0.5, (n, 9)).astype(np.float32) for n in (3, 50, 1)]
    found = Statistics()
    for values in maps:
        found.add(values)
    values = np.concatenate([m.ravel() for m in maps]).astype(np.float64)
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.deviation == pytest.approx(values.std(), rel=1e-7)


def test_large_and_narrow_maps_keep_their_order_in_half_precision():
    values = np.sort(RNG.normal(1e6, 100, (20, 20)).astype(np.float32), axis=None).reshape(20, 20)
    assert values.min() > np.finfo(np.float16).max
    found = Statistics()
    found.add(values)
    half = found.standardised(values)
    assert np.isfinite(half).all()
    assert (np.diff(half.ravel().astype(np.float64)) >= 0).all()
    assert len(np.unique(half)) > 300
    assert found.standardised(np.array([[1e12]])) == np.float16(65504)
    plain = Statistics()
    plain.add(np.full((4, 4), 7.0))
    assert not plain.standardised(np.full((4, 4), 7.0)).any()  # and so no pixel is above the threshold


@pytest.fixture
def data(tmp_path):
    root = mvtec_ad2(tmp_path / "data")["root"]
    return {f"test_{kind}": MVTecAD2(str(root), kind) for kind in ("private", "private_mixed")}


def stored(root, task, *, dataset="mvtec_ad2", error="", **kept):
    """Store a run on a task, with the files of ``kept``."""
    spec = RunSpec("padim", dataset, "vanilla", task, dataset_params=kept.pop("params", {}))
    store = Store(root)
    store.save(RunResult(spec, error=error, scores=(Score(0, task, "x", task, "good", 1.0),)))
    folder = store.path(spec)
    for name in kept.get("files", ()):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_a_plan_says_what_is_lacking(tmp_path, data):
    model = ("model/detector.json",)
    can = stored(tmp_path / "runs", "can", files=model)
    rice = stored(tmp_path / "runs", "rice", files=model)
    out = tmp_path / "x.tar.gz"
    found = submission.plan([can, rice], data, out, CPU)
    assert sorted(found.sources) == [
        f"{c}/{s}" for c in ("can", "rice") for s in ("test_private", "test_private_mixed")
    ]
    assert found.notes()[0].startswith(
        "the data is not the whole published data set (can/test_private: 1 of 321 images)"
    )
    with pytest.raises(BadConfig, match=r"no run gives maps of rice/test_private, rice/test_private_mixed\."):
        submission.plan([can], data, out, CPU)
    with pytest.raises(BadConfig, match="both give maps of can. Leave out one of them"):
        submission.plan([can, stored(tmp_path / "others", "can", files=model)], data, out, CPU)
    with pytest.raises(BadConfig, match="is of mvtec_ad. Give runs on mvtec_ad2"):
        submission.plan([stored(tmp_path / "runs", "can", dataset="mvtec_ad")], data, out, CPU)
    with pytest.raises(BadConfig, match="ended with an error: no memory"):
        submission.plan([stored(tmp_path / "failed", "can", error="no memory")], data, out, CPU)


def test_maps_of_the_public_split_do_not_serve(tmp_path, data):
    maps = ("maps/0-can.npz", "held_out_maps/0-can.npz")
    public = stored(tmp_path / "a", "can", files=maps, params={"test_type": "public"})
    with pytest.raises(BadConfig, match="kept neither its model nor maps of a private split.*--keep-models"):
        submission.plan([public], data, tmp_path / "x.tar.gz", CPU)
    private = stored(tmp_path / "b", "can", files=maps, params={"test_type": "private"})
    with pytest.raises(BadConfig, match="no run gives maps of can/test_private_mixed"):
        submission.plan([private], data, tmp_path / "x.tar.gz", CPU)


def with_maps(folder, data, value=0.0):
    """Keep maps of all images of a run: noise, with a bright pixel in the test images."""
    for kind, split in (("maps", "test"), ("held_out_maps", "val")):
        samples = [s for s in data.samples() if s.split == split]
        maps = RNG.normal(0, 1, (len(samples), 256, 256)).astype(np.float16)
        maps[:, 100:140, 100:140] += 20 * (split == "test") + value
        (folder / kind).mkdir(exist_ok=True)
        np.savez_compressed(folder / kind / "0-all.npz", maps=maps, ids=np.array([s.id for s in samples]))


def test_maps_that_were_kept_are_written_at_their_images_size(tmp_path, data):
    sources = {}
    for split, dataset in data.items():
        folder = stored(tmp_path / split, "can", params={"test_type": dataset.test_type})
        with_maps(folder, dataset)
        source = Source(folder, Store(folder.parent).load(folder.name), False)
        sources |= {f"{category}/{split}": source for category in ("can", "rice")}
    made = Submission(data, sources, tmp_path / "x.tar.gz", CPU)
    assert made.write() == ((), (), 4, 4)
    assert ad2_submission.check(tmp_path / "x.tar.gz", made.images()).faults == ()
    folder = stored(tmp_path / "broken", "can", params={"test_type": "private"})
    with_maps(folder, data["test_private"], value=np.inf)
    sources["can/test_private"] = Source(folder, Store(folder.parent).load(folder.name), False)
    with pytest.raises(BadData, match="is not finite: kept maps end at 65504"):
        Submission(data, sources, tmp_path / "y.tar.gz", CPU).write()


def test_maps_that_were_kept_are_read_one_at_a_time(tmp_path, data, monkeypatch):
    """Not the file of all of them: it is as large as the data."""
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda *_: pytest.fail("a whole array"))
    test_maps_that_were_kept_are_written_at_their_images_size(tmp_path, data)


def test_a_damaged_plan_is_one_sentence(tmp_path, data):
    made = Submission(data, {}, tmp_path / "x.tar.gz", CPU)
    made.parts.mkdir()
    (made.parts / "plan.json").write_text(json.dumps({"statistics": 3}))
    with pytest.raises(BadData, match=r"plan\.json is damaged .* Remove "):
        made.write()


def test_only_one_map_is_in_memory_at_a_time(tmp_path, data, monkeypatch):
    import weakref

    alive, most = [], []
    real = Statistics.standardised

    def standardised(self, values):
        alive.append(weakref.ref(values))
        most.append(sum(one() is not None for one in alive))
        return real(self, values)

    monkeypatch.setattr(Statistics, "standardised", standardised)
    test_maps_that_were_kept_are_written_at_their_images_size(tmp_path, data)
    assert len(most) >= 4
    assert max(most) <= 2  # the next map is made before the loop lets go of the last
