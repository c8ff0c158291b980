from iadbe.dashboard.docstrings import Piece, pieces, plain, sections


def test_a_docstring_is_split_into_sections():
    doc = "One sentence.\n\nMore of\nit.\n\nPaper: A, 2020.\nDiffers: not ``x=1``\n    at all.\nNumbers: 9."
    found = sections(doc)
    assert [p.heading for p in found] == ["", "Paper", "Differs", "Numbers"]
    assert found[0].pieces == (Piece("More of it.", False),)
    assert found[2].pieces == (Piece("not ", False), Piece("x=1", True), Piece(" at all.", False))
    assert sections("One sentence.") == []


def test_a_section_can_be_a_bullet_list():
    doc = "One.\n\nPaper: A.\nDiffers:\n    * No ``x``,\n      at all.\n    * Nor y * z.\nNumbers: 9."
    found = sections(doc)
    assert [p.heading for p in found] == ["Paper", "Differs", "Numbers"]
    assert found[1].pieces == ()
    assert found[1].points == (
        (Piece("No ", False), Piece("x", True), Piece(", at all.", False)),
        (Piece("Nor y * z.", False),),
    )


def test_roles_are_code_too():
    assert pieces("see :mod:`iadbe.data.synthetic_defects`.")[1] == Piece("iadbe.data.synthetic_defects", True)
    assert plain("only ``k`` good") == "only k good"
