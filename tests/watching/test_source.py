"""What is watched."""

from iadbe.watching.source import Item


def test_an_item_is_complete_by_default():
    item = Item("a.png", "key", [])
    assert item.path is None
    assert not item.is_fresh
