"""How folders of normal and of defective images are named, in several languages."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

GOOD = {  # compared as :func:`simplified` writes them
    "English": (
        *("good", "ok", "okay", "normal", "pass", "passed", "negative", "neg", "nondefective", "nodefect", "nodefects"),
        *("defectfree", "conforming", "conform", "compliant", "accept", "accepted", "perfect", "clean", "healthy"),
        *("nonanomalous", "faultfree", "undamaged", "intact", "golden"),
    ),
    "German": ("io", "gut", "gutteil", "gutteile", "inordnung", "fehlerfrei"),
    "French": ("bon", "bons", "bonne", "bonnes", "conforme", "conformes", "sansdefaut"),
    "Spanish, Italian, Portuguese": ("bueno", "buenos", "buono", "buoni", "bom", "bons", "aceptado", "sindefecto"),
    "Polish, Czech": ("dobry", "dobre", "poprawny"),
    "Russian": ("годен", "годные", "норма", "хороший", "хорошие"),
    "Chinese": ("正常", "正常品", "良品", "合格", "合格品", "良", "好"),
    "Japanese": ("良品", "正常", "合格"),
    "Korean": ("정상", "양품", "양호", "합격"),
}
BAD = {
    "English": (
        *("bad", "ng", "nok", "notok", "ko", "fail", "failed", "positive", "pos", "defective", "defect", "defects"),
        *("anomaly", "anomalies", "anomalous", "abnormal", "nonconforming", "nonconform", "noncompliant", "faulty"),
        *("fault", "faults", "reject", "rejected", "rejects", "scrap", "broken", "damaged", "nogood", "notgood"),
    ),
    "German": (
        "nio",
        "niO",
        "schlecht",
        "schlechtteil",
        "fehler",
        "fehlerhaft",
        "defekt",
        "ausschuss",
        "nichtinordnung",
    ),
    "French": ("mauvais", "mauvaise", "defaut", "defauts", "defectueux", "nonconforme", "rebut"),
    "Spanish, Italian, Portuguese": ("malo", "defecto", "defectos", "defectuoso", "difetto", "difettoso", "noconforme"),
    "Polish, Czech": ("zly", "wada", "wadliwy", "vadny"),
    "Russian": ("брак", "дефект", "дефекты"),
    "Chinese": ("异常", "異常", "不良", "不良品", "缺陷", "不合格", "不合格品", "次品", "坏"),
    "Japanese": ("不良", "不良品", "異常", "欠陥", "不合格"),
    "Korean": ("불량", "비정상", "이상", "결함", "불합격"),
}
_NUMBERED = ("0", "1")  # good and defective, where there are exactly these two


def simplified(name: str) -> str:
    """Return a name in lower case, without accents, spaces and marks: ``Non-Defective`` and ``n.i.O.`` alike."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    plain = "".join(c for c in unicodedata.normalize("NFD", plain) if not unicodedata.combining(c))
    return "".join(c for c in unicodedata.normalize("NFC", plain) if c.isalnum())


_GOOD = frozenset(simplified(name) for names in GOOD.values() for name in names)
_BAD = frozenset(simplified(name) for names in BAD.values() for name in names)


def is_good(name: str, siblings: Iterable[str] = ()) -> bool:
    """Return whether a folder of this name holds normal images; 0 does beside 1 alone."""
    return simplified(name) in _GOOD or (name == _NUMBERED[0] and set(siblings) == set(_NUMBERED))


def is_bad(name: str, siblings: Iterable[str] = ()) -> bool:
    """Return whether a folder of this name holds defective images; 1 does beside 0 alone."""
    return simplified(name) in _BAD or (name == _NUMBERED[1] and set(siblings) == set(_NUMBERED))
