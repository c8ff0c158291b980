from iadbe.setting import told, without
from iadbe.types import Sample, Told

SAMPLES = tuple(Sample(str(i), "c", "train", "good", f"{i}.png") for i in range(4))


def test_told_says_the_same_of_all():
    assert [e.told for e in told(SAMPLES, Told.ANOMALOUS)] == [Told.ANOMALOUS] * 4
    assert told(SAMPLES)[0].told is Told.NORMAL


def test_without_keeps_the_order_and_goes_by_id():
    twin = Sample("2", "c", "test", "good", "other.png")
    assert [s.id for s in without(SAMPLES, [twin])] == ["0", "1", "3"]
