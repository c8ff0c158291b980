from iadbe.dashboard.docstrings import Piece, pieces, plain, sections


def test_a_docstring_is_split_into_sections():
    doc = "One sentence.\n\nMore of\nit.\n\nPaper: A, 2020.\nDiffers: not ``x=1``\n    at all.\nNumbers: 9."
    found = sections(doc)
    assert [p.heading for p in found] == ["", "Paper", "Differs", "Numbers"]
    assert found[0].pieces == (Piece("More of it.", False),)
    assert found[2].pieces == (Piece("not ", False), Piece("x=1", True), Piece(" at all.", False))
    assert sections("One sentence.") == []


def test_roles_are_code_too():
    assert pieces("see :mod:`iadbe.data.synthetic_defects`.")[1] == Piece("iadbe.data.synthetic_defects", True)
    assert plain("only ``k`` good") == "only k good"
