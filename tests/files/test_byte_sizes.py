import pytest

from iadbe.errors import BadConfig
from iadbe.files.byte_sizes import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 KB"),
        (1536, "1.5 KB"),
        (99_949, "99.9 KB"),
        (99_960, "100 KB"),
        (499_999, "500 KB"),
        (999_499, "999 KB"),
        (999_500, "1 MB"),
        (2_500_000, "2.5 MB"),
        (300_000_000, "300 MB"),
        (999_999_999, "1 GB"),
        (4_096_000_000, "4.1 GB"),
        (21_474_836_480, "21.5 GB"),
        (3 * 10**12, "3 TB"),
        (10**22, "10000 EB"),
    ],
)
def test_a_size_is_written_with_the_unit_that_shows_it(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1", 1),
        ("1KB", 1000),
        ("1 kib", 1024),
        ("0.5k", 500),
        ("500MB", 500_000_000),
        ("4GB", 4_000_000_000),
        (" 1.5 g ", 1_500_000_000),
        ("2GiB", 2 * 2**30),
        ("1TB", 10**12),
        ("64 bytes", 64),
    ],
)
def test_a_size_is_read(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1e9", "nan", "4 lots", "1,5GB", "٣MB", "0", "0.0GB", "0.1b"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(BadConfig, match="size"):
        parse_bytes(text)


@pytest.mark.parametrize("count", [1, 10, 999, 1001, 12_345, 999_999, 123_456_789, 10**9, 7 * 10**12])
def test_a_written_size_can_be_read_and_is_nearly_the_same(count):
    assert parse_bytes(format_bytes(count)) == pytest.approx(count, rel=0.05)
