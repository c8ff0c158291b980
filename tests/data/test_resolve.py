import re
from pathlib import Path

import pytest

from dataset_trees import NORMAL_AND_ABNORMAL, ONLY_NORMAL, TREES, draw, real
from iadbe.data import resolve
from iadbe.errors import BadConfig, BadData, UnknownName
from iadbe.registry import load, names


def counted(found):
    dataset = resolve.make(found.name, found.params)
    kinds = {}
    for s in dataset.samples():
        kinds[s.split, s.defect] = kinds.get((s.split, s.defect), 0) + 1
    return dataset, kinds


@pytest.fixture
def custom(tmp_path, monkeypatch):
    """The project of the two files: hazelnut and chest_xray, ten good parts and two cracks each."""
    for name in ("hazelnut", "chest_xray"):
        root = tmp_path / "datasets/Custom_Dataset" / name
        for i in range(10):
            draw(root / f"train/good/{i}.png")
        for i in range(4):
            draw(root / f"test/good/{i}.png")
        for i in range(2):
            draw(root / f"test/crack/{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestOldFiles:
    def test_only_normal_works_unchanged(self, custom):
        (custom / "data.yaml").write_text(ONLY_NORMAL)
        found = resolve.find("data.yaml")
        assert found.notes == ()
        dataset, kinds = counted(found)
        assert dataset.categories == ("custom_dataset",)
        assert kinds == {("train", "good"): 8, ("test", "good"): 1, ("test", "synthetic"): 1, ("test", "crack"): 2}

    def test_normal_and_abnormal_works_unchanged_and_says_what_is_not_used(self, custom):
        (custom / "configs/data").mkdir(parents=True)
        file = custom / "configs/data/chest.yaml"
        file.write_text(NORMAL_AND_ABNORMAL)
        found = resolve.find(str(file))
        _, kinds = counted(found)
        assert kinds == {("train", "good"): 10, ("test", "good"): 2, ("test", "synthetic"): 2, ("test", "crack"): 2}
        assert found.params["extensions"] == (".png",)
        (note,) = found.notes
        assert note.startswith("not used here: image_size, train_transform, eval_transform (")
        for name in ("train_batch_size", "num_workers", "task", "val_split_mode", "val_split_ratio", "seed"):
            assert name in note

    def test_a_relative_root_is_resolved_from_the_file_where_it_is_not_here(self, custom, monkeypatch):
        (custom / "configs/data").mkdir(parents=True)
        (custom / "configs/data/a.yaml").write_text(ONLY_NORMAL)
        monkeypatch.chdir("/")
        found = resolve.find(str(custom / "configs/data/a.yaml"))
        assert Path(found.params["root"]) == custom / "datasets/Custom_Dataset/hazelnut"

    def test_a_root_that_is_nowhere_is_reported(self, custom):
        (custom / "a.yaml").write_text(ONLY_NORMAL.replace("hazelnut", "walnut"))
        with pytest.raises(BadData, match="names the folder datasets/Custom_Dataset/walnut, which is not in"):
            resolve.find("a.yaml")

    def test_a_whole_configuration_and_a_category_are_understood(self, tmp_path):
        TREES["mvtec_ad"](tmp_path / "MVTec")
        (tmp_path / "a.yaml").write_text(
            "model: {class_path: anomalib.models.Padim}\n"
            "data:\n  class_path: anomalib.data.MVTec\n"
            "  init_args: {root: ./MVTec, category: nut, train_batch_size: 32, test_split_mode: from_dir, seed: 3}\n"
        )
        found = resolve.find(str(tmp_path / "a.yaml"))
        assert found.name == "mvtec_ad"
        assert counted(found)[0].categories == ("nut",)
        assert "test_split_mode" in found.notes[0]

    def test_folders_without_a_root_are_found(self, custom):
        (custom / "a.yaml").write_text(
            "class_path: Folder\ninit_args:\n  name: x\n"
            f"  normal_dir: {custom}/datasets/Custom_Dataset/hazelnut/train/good\n"
            f"  abnormal_dir: {custom}/datasets/Custom_Dataset/hazelnut/test/crack\n"
        )
        found = resolve.find("a.yaml")
        assert Path(found.params["root"]) == custom / "datasets/Custom_Dataset/hazelnut"
        assert counted(found)[1]["test", "crack"] == 2

    def test_a_wrong_name_in_a_file_is_reported(self, custom):
        (custom / "a.yaml").write_text(ONLY_NORMAL.replace("normal_dir:", "normel_dir:", 1))
        with pytest.raises(UnknownName, match=r"no parameter 'normel_dir'. Did you mean normal_dir"):
            resolve.find("a.yaml")

    def test_a_class_without_counterpart_is_reported(self, custom):
        (custom / "a.yaml").write_text("class_path: anomalib.data.ShanghaiTech\n")
        for text in ("a.yaml", "anomalib.data.ShanghaiTech"):
            with pytest.raises(UnknownName, match=r"anomalib.data.ShanghaiTech has no counterpart here"):
                resolve.find(text)


@pytest.mark.parametrize("text", ["mvtec_ad", "MVTec", "MVTecAD", "anomalib.data.MVTec", "anomalib.data.MVTecAD"])
def test_names_and_class_paths_mean_a_dataset(text):
    assert resolve.find(text, root="x") == ("mvtec_ad", {"root": "x"}, ())


def test_our_own_files_are_plain(tmp_path):
    given = TREES["folder"](tmp_path / "parts")
    for text in (
        "name: folder\nroot: parts\nabnormal_dir: [bad/dent, bad/stain]\n",
        "name: folder\nparams: {root: parts, abnormal_dir: bad, name: part}\n",
    ):
        (tmp_path / "a.yaml").write_text(text)
        found = resolve.find(str(tmp_path / "a.yaml"), seed=3)
        assert found.params["seed"] == 3
        assert found.params["root"] == given["root"]
        assert counted(found)[1]["test", "stain"] == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mvtec_ad", "looks like the MVTec AD layout (2 categories)."),
        ("mtd", "looks like Magnetic Tile Defects (6 folders)."),
        ("elpv", "looks like ELPV (solar cells)."),
        ("yolo", "looks like a YOLO dataset (data.yaml)."),
        ("mpdd", "looks like the MPDD layout (2 categories)."),
        ("visa", "looks like VisA (2 categories, official split)."),
        ("kolektor_sdd", "looks like KolektorSDD (6 commutators)."),
        ("real_iad", "looks like Real-IAD (realiad_256, all views)."),
        ("frames", "looks like videos or folders of frames (2 normal training clips)."),
    ],
)
def test_a_layout_is_recognised_and_reported(tmp_path, name, said):
    TREES[name](tmp_path)
    found = resolve.find(str(tmp_path))
    assert found.name == name
    assert found.notes == (f"{tmp_path} {said}",)
    assert resolve.make(found.name, found.params).samples() == resolve.make(name, {"root": str(tmp_path)}).samples()


# readers that may also know a layout, but do not claim it: they give way to the one whose names it bears
GIVES_WAY = {"mpdd", "dtd_synthetic", "mvtec2d_3d", "coad", "mvtec_loco"}


@pytest.mark.parametrize("name", sorted(set(TREES) - {"toy"}))
def test_no_other_reader_claims_a_folder(tmp_path, name):
    given = TREES[name](tmp_path)
    matches = {}
    for other in names("datasets"):
        recognise = getattr(load("datasets", other), "recognise", None)
        if recognise and (match := recognise(Path(given["root"]))):
            matches[other] = match
    certain = {other for other, match in matches.items() if not match.fallback}
    if name == "folder":
        assert matches.keys() == {"folder"}
    elif name in GIVES_WAY:
        assert certain == {name, "mvtec_ad"}
        assert {other for other, match in matches.items() if match.by_names} == {name}
    else:
        assert certain == {name}


@pytest.mark.parametrize(
    "name",
    [
        "btad",
        "coad",
        "dagm",
        "dtd_synthetic",
        "eyecandies",
        "mpdd",
        "mvtec2d_3d",
        "mvtec_3d",
        "mvtec_ad2",
        "mvtec_loco",
    ],
)
def test_one_category_alone_is_recognised_too(tmp_path, name):
    dataset = resolve.make(name, TREES[name](tmp_path))
    found = resolve.find(str(tmp_path / dataset.categories[0]))
    assert found.name == name
    assert resolve.make(found.name, found.params).categories == dataset.categories[:1]


def test_two_datasets_in_one_folder_are_no_longer_either(tmp_path):
    TREES["mpdd"](tmp_path)
    TREES["mvtec2d_3d"](tmp_path)
    assert resolve.find(str(tmp_path)).name == "mvtec_ad"  # the layout, whosoever it is


def test_one_category_and_the_yaml_file_itself_are_recognised(tmp_path):
    TREES["mvtec_ad"](tmp_path / "m")
    TREES["yolo"](tmp_path / "y")
    (tmp_path / "y/data.yaml").rename(tmp_path / "y/parts.yml")
    assert resolve.find(str(tmp_path / "m/nut")).notes[0].endswith("the MVTec AD layout (category nut).")
    found = resolve.find(str(tmp_path / "y/parts.yml"), name="part")
    assert found.params == {"root": str(tmp_path / "y"), "file": "parts.yml", "name": "part"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["0.png", "1.png", "2.png"], {("train", "good"): 1, ("test", "good"): 1, ("test", "synthetic"): 1}),
        (["good/0.png", "bad/0.png"], {("train", "good"): 1, ("test", "bad"): 1}),
        (["OK/0.png", "OK/1.png", "NG/0.png"], {("train", "good"): 1, ("test", "good"): 1, ("test", "NG"): 1}),
        (
            ["train/NORMAL/0.jpeg", "train/PNEUMONIA/0.jpeg", "test/NORMAL/1.jpeg", "test/PNEUMONIA/1.jpeg"],
            {("train", "good"): 1, ("test", "good"): 1, ("test", "PNEUMONIA"): 2},
        ),
        (
            ["train/0.png", "test/good/0.png", "test/hole/0.png", "ground_truth/hole/0_mask.png"],
            {("train", "good"): 1, ("test", "good"): 1, ("test", "hole"): 1},
        ),
    ],
)
def test_folders_of_your_own_are_recognised_by_their_names(tmp_path, files, expected):
    for file in files:
        draw(tmp_path / file)
    found = resolve.find(str(tmp_path))
    assert found.name == "folder"
    _, kinds = counted(found)
    assert kinds == expected
    assert ("mask_dir" in found.params) == any("mask" in f for f in files)
    assert found.notes[0].startswith(f"{tmp_path} looks like folders of your own")


@pytest.mark.parametrize(
    ("files", "holds", "write"),
    [
        (["batch1/0.png", "batch2/0.png", "batch2/1.png"], r"batch1/ \(1 image\), batch2/ \(2 images\)", "batch2"),
        (["0.png", "more/0.png"], r"1 image, more/ \(1 image\)", r"\."),
        (["train/good/rgb/0.png"], r"train/ \(1 image\)", "train"),
    ],
)
def test_what_is_not_recognised_says_first_what_was_found_and_what_to_write(tmp_path, files, holds, write):
    for file in files:
        draw(tmp_path / file)
    with pytest.raises(BadData) as error:
        resolve.find(str(tmp_path))
    first, second = str(error.value).split(" Or give the complete folder")
    assert re.search(rf"holds {holds}, and the names do not say which images are normal\.", first)
    assert re.search(rf"--data folder --data\.root {tmp_path} --data\.normal_dir {write}( |\.)", first)
    assert "Looked for" not in first
    assert "MT_Free/Imgs" in second


def test_a_folder_without_images_names_the_endings_that_it_holds(tmp_path):
    with pytest.raises(BadData, match=r"holds no images\.$"):
        resolve.find(str(tmp_path))
    (tmp_path / "good").mkdir()
    for name in ("a.czi", "b.czi", "c.txt"):
        (tmp_path / "good" / name).touch()
    with pytest.raises(
        BadData, match=r"other kinds: 2 ending in \.czi and 1 ending in \.txt\. Known images end in \.png"
    ):
        resolve.find(str(tmp_path))


@pytest.mark.parametrize(
    ("good", "bad"),
    [("pass", "fail"), ("negative", "positive"), ("IO", "NIO"), ("0", "1"), ("正常", "异常")],
)
@pytest.mark.parametrize("layout", ["{}/{}.png", "train/{}/{}.png", "{}/more/{}.png"])
def test_names_of_many_kinds_tell_normal_and_defective_images(tmp_path, good, bad, layout):
    for i in range(5):
        draw(tmp_path / (layout if "more" not in layout else "{}/{}.png").format(good, i))
    draw(tmp_path / layout.format(bad, 0))
    found = resolve.find(str(tmp_path))
    _, kinds = counted(found)
    assert found.name == "folder"
    assert sum(n for (_, defect), n in kinds.items() if defect == "good") == 5
    assert sum(n for (split, defect), n in kinds.items() if split == "test" and defect != "good") == 1


def test_two_readers_that_recognise_one_folder_are_both_named(tmp_path):
    TREES["mvtec_ad"](tmp_path)
    TREES["yolo"](tmp_path)
    with pytest.raises(BadConfig, match=r"--data mvtec_ad or .*--data yolo"):
        resolve.find(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("mvtec_a", UnknownName, r"no dataset is named 'mvtec_a', .* Did you mean mvtec_ad"),
        ("./datasts", BadData, r"no folder or file .*datasts. Did you mean datasets\?"),
        ("nowhere/at/all.yaml", BadData, "no folder or file"),
        ("line.mp4", BadData, "no folder or file"),
        ("part.png", BadData, "neither a folder nor a YAML file"),
        ("empty.yaml", BadData, "describes no dataset: looked for `class_path`"),
    ],
)
def test_meaningless_parameters_are_reported(tmp_path, monkeypatch, text, kind, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    draw(tmp_path / "part.png")
    (tmp_path / "empty.yaml").write_text("model: padim\n")
    with pytest.raises(kind, match=said):
        resolve.find(text)


def test_making_one_checks_names_and_types(tmp_path):
    given = TREES["folder"](tmp_path)
    with pytest.raises(UnknownName, match=r"no parameter 'sed'. Did you mean seed"):
        resolve.make("folder", {**given, "sed": 1})
    with pytest.raises(BadConfig, match="seed takes a whole number"):
        resolve.make("folder", {**given, "seed": "many"})


def test_the_real_folders_are_recognised():
    expected = {name: name for name in ("mvtec_ad", "mtd", "mvtec_loco", "mvtec_3d")}
    expected |= {"kolektor_yolo/Datasets": "yolo", "mvtec_ad/transistor": "mvtec_ad", "mvtec_3d/tire": "mvtec_3d"}
    assert {f: resolve.find(str(real(f))).name for f in expected} == expected


@pytest.mark.parametrize("folder", ["mvtec_ad", "MVTecAD", "MVTec", "MVTecAD/mvtec_anomaly_detection"])
def test_a_published_dataset_without_a_root_is_found_where_anomalib_keeps_it(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    TREES["mvtec_ad"](tmp_path / "datasets" / folder)
    for text in ("mvtec_ad", "anomalib.data.MVTec"):
        found = resolve.find(text)
        assert Path(found.params["root"]) == Path("datasets", folder)
        assert found.notes == (f"mvtec_ad is read from {Path('datasets', folder)}, since no root was given.",)
        assert resolve.make(found.name, found.params).categories == ("bolt", "nut")
    assert resolve.find("mvtec_ad", root="elsewhere").params == {"root": "elsewhere"}
    (tmp_path / "data.yaml").write_text("class_path: anomalib.data.MVTecAD\n")
    assert Path(resolve.find("data.yaml").params["root"]) == Path("datasets", folder)


def test_without_any_folder_the_root_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = resolve.find("mvtec_ad")
    with pytest.raises(BadConfig, match=r"the folder of the data, and \./datasets has none\. Give --data\.root DIR"):
        resolve.make(found.name, found.params)


def test_folders_that_are_data_of_their_own_are_named_and_not_taken_for_good_and_defective(tmp_path):
    for name in ("a/OK/0.png", "a/NG/0.png", "b/OK/0.png"):
        draw(tmp_path / "parts" / name)
    with pytest.raises(
        BadData, match=r"parts holds a/ \(2 images\), b/ \(1 image\), and a, b look like data of their own"
    ) as e:
        resolve.find(str(tmp_path / "parts"))
    assert str(e.value).endswith(f"--data {tmp_path / 'parts' / 'a'}")


def test_files_without_an_ending_are_counted(tmp_path):
    (tmp_path / "image").write_bytes(b"x")
    with pytest.raises(BadData, match="holds no images. It holds files of other kinds: 1 without an ending"):
        resolve.find(str(tmp_path))
