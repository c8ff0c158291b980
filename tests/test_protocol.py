import pytest

from iadbe.errors import BadConfig
from iadbe.protocol import AUTO, NATIVE, Budget, Limits, Protocol, Tiling, seconds


@pytest.mark.parametrize(
    ("name", "known", "same"),
    [
        ("uniform", Protocol(), "uniform"),
        ("uniform@256", Protocol(), "uniform"),
        ("uniform@512", Protocol("uniform", 512), "uniform@512"),
        ("paper", Protocol("paper"), "paper"),
        ("uniform+10m", Protocol(budget=Budget(600)), "uniform+600s"),
        ("uniform@64+1.5s", Protocol("uniform", 64, Budget(1.5)), "uniform@64+1.5s"),
        ("uniform+1.5cpu-m", Protocol(budget=Budget(90, cpu=True)), "uniform+90cpu-s"),
        ("paper+0", Protocol("paper", budget=Budget(0)), "paper+0s"),
        ("uniform+bf16", Protocol(precision="bf16"), "uniform+bf16"),
        ("uniform+fp32+1batches", Protocol(), "uniform"),
        ("uniform@512,pad", Protocol("uniform", 512, fit="pad"), "uniform@512,pad"),
        ("uniform,squash", Protocol(), "uniform"),
        (
            "uniform@512x256,crop,native+1m",
            Protocol("uniform", 256, Budget(60), width=512, fit="crop", native=True),
            "uniform@512x256,crop,native+60s",
        ),
        ("uniform,aligned", Protocol(align=Limits()), "uniform,aligned"),
        ("paper,aligned=30/0.15/0,native", Protocol("paper", align=Limits(), native=True), "paper,aligned,native"),
        (
            "uniform@64,pad,aligned=45/0.2/0.1",
            Protocol("uniform", 64, fit="pad", align=Limits(45, 0.2, 0.1)),
            "uniform@64,pad,aligned=45/0.2/0.1",
        ),
        ("uniform@2048,tiles=512/64", Protocol("uniform", 2048, tiling=Tiling(512, 64)), "uniform@2048,tiles=512/64"),
        ("uniform,tiles=64", Protocol(tiling=Tiling(64, 8)), "uniform,tiles=64/8"),
        (
            "paper,aligned,tiles=128/0/position/top0.1,native+1m",
            Protocol("paper", align=Limits(), tiling=Tiling(128, 0, True, 0.1), native=True, budget=Budget(60)),
            "paper,aligned,tiles=128/0/position/top0.1,native+60s",
        ),
        ("uniform@native,native", Protocol("uniform", NATIVE, native=True), "uniform@native,native"),
        ("uniform,tiles=auto", Protocol(tiling=Tiling(AUTO, 0)), "uniform,tiles=auto"),
        (
            "uniform@native,tiles=auto/position/top0.1+1m",
            Protocol("uniform", NATIVE, Budget(60), tiling=Tiling(AUTO, 0, True, 0.1)),
            "uniform@native,tiles=auto/position/top0.1+60s",
        ),
        ("uniform@300x300", Protocol("uniform", 300), "uniform@300"),
        ("paper,native+bf16", Protocol("paper", precision="bf16", native=True), "paper,native+bf16"),
        ("paper+4batches+fp16+1m", Protocol("paper", 256, Budget(60), "fp16", 4), "paper+60s+fp16+4batches"),
    ],
)
def test_a_name_has_one_meaning_and_a_meaning_one_name(name, known, same):
    assert Protocol.parse(name) == known
    assert str(known) == same
    assert Protocol.parse(same) == known


@pytest.mark.parametrize(
    "name",
    [
        "",
        "unifrom",
        "uniform@",
        "paper@512",
        "uniform+",
        "uniform@512@512",
        "paper,pad",
        "uniform,native,pad",
        "paper@native",
        "uniform,aligned=",
    ],
)
def test_an_unknown_protocol_is_reported(name):
    with pytest.raises(BadConfig, match=r"there is no protocol .* uniform@SIZE"):
        Protocol.parse(name)


@pytest.mark.parametrize("name", ["uniform@31", "uniform@64x31", "uniform@0"])
def test_a_view_that_is_too_small_is_reported(name):
    with pytest.raises(BadConfig, match="a view has at least 32 pixels along each side, not"):
        Protocol.parse(name)


@pytest.mark.parametrize("name", ["uniform+bf16+fp16", "uniform+1m+2m", "uniform+2batches+2batches"])
def test_nothing_is_said_twice(name):
    with pytest.raises(BadConfig, match="has two of"):
        Protocol.parse(name)


@pytest.mark.parametrize("name", ["uniform+0batches", "uniform+fp8", "uniform+batches"])
def test_an_impossible_precision_is_reported(name):
    with pytest.raises(BadConfig, match="batches are accumulated from 1 on|is not a time"):
        Protocol.parse(name)


def test_times_have_units():
    assert [seconds(t) for t in ("90s", "10m", "2h", "7", " 1.5 min ")] == [90, 600, 7200, 7, 90]
    for text in ("soon", "3 days", "-1"):
        with pytest.raises(BadConfig, match="is not a time such as 90s"):
            seconds(text)
    assert Budget.parse("2CPU-min") == Budget(120, cpu=True)
    for text in ("90cpu-", "cpu-90s", "90cpu-cpu-s"):
        with pytest.raises(BadConfig, match="is not a time"):
            Budget.parse(text)
    with pytest.raises(BadConfig, match="is not a time"):
        Protocol.parse("uniform+soon")


def test_papers_have_their_own_view():
    with pytest.raises(BadConfig, match="give --size and --fit with uniform alone"):
        Protocol("paper", fit="pad")
    with pytest.raises(BadConfig, match="is squash, pad or crop"):
        Protocol(fit="stretch")


def test_limits_are_checked():
    with pytest.raises(BadConfig, match="turned by 0 to 180 degrees"):
        Limits(rotation=200)
    with pytest.raises(BadConfig, match="shifted by 0 to 0.5"):
        Protocol.parse("uniform,aligned=30/0.9/0")
    with pytest.raises(BadConfig, match=r"DEGREES/SHIFT/SCALE such as 30/0.15/0, not '30'"):
        Protocol.parse("uniform,aligned=30,native")


@pytest.mark.parametrize("tiles", ["16/0", "64/33", "64/8/top2"])
def test_impossible_tiles_are_reported(tiles):
    with pytest.raises(BadConfig, match="tiles have at least 32 pixels"):
        Protocol.parse(f"uniform,tiles={tiles}")


def test_tiles_in_another_spelling_are_reported():
    with pytest.raises(BadConfig, match="tiles are SIDE/OVERLAP in pixels such as 512/64"):
        Protocol.parse("uniform,tiles=large")
    with pytest.raises(BadConfig, match="has an overlap of its own"):
        Protocol.parse("uniform,tiles=auto/64")


def test_images_at_their_own_size_have_no_fit():
    with pytest.raises(BadConfig, match="--fit pad changes nothing"):
        Protocol.parse("uniform@native,pad")
