"""How folders of normal and of defective images are named, in several languages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

GOOD = {  # compared as :func:`simplified` writes them
    "English": (
        *("good", "ok", "okay", "normal", "pass", "passed", "negative", "neg", "nondefective", "nodefect", "nodefects"),
        *("defectfree", "conforming", "conform", "compliant", "accept", "accepted", "perfect", "clean", "healthy"),
        *("nonanomalous", "faultfree", "undamaged", "intact", "golden", "nondefect", "withoutdefect", "withoutdefects"),
        *("uncracked", "correct", "master", "flawless", "noanomaly", "noanomalies"),
    ),
    "German": ("io", "gut", "gutteil", "gutteile", "inordnung", "fehlerfrei"),
    "Dutch": ("goed", "goedgekeurd"),
    "Danish, Norwegian, Swedish": ("god", "gode", "bra", "godkendt", "godkjent", "godkänd", "godkända"),
    "Finnish": ("hyvä", "hyvät", "hyväksytty"),
    "French": ("bon", "bons", "bonne", "bonnes", "conforme", "conformes", "sansdefaut", "négatif", "négatifs"),
    "Spanish": ("bueno", "buenos", "buena", "buenas", "aceptado", "aceptados", "aprobado", "sindefecto", "negativo"),
    "Italian": ("buono", "buoni", "buona", "buone", "accettato", "senzadifetto", "senzadifetti"),
    "Portuguese": ("bom", "bons", "boa", "boas", "aprovado", "aprovados", "semdefeito"),
    "Polish, Czech, Slovak": ("dobry", "dobre", "dobra", "dobrý", "dobré", "poprawny", "vporiadku", "vpořádku"),
    "Hungarian": ("jó",),
    "Romanian": ("bun", "bune"),
    "Turkish": ("iyi", "sağlam", "hatasız"),
    "Greek": ("καλό", "καλά"),
    "Russian, Ukrainian": (
        *("годен", "годные", "норма", "хороший", "хорошие", "хорошо", "добрый", "добрі", "добре"),
        "безбрака",
    ),
    "Indonesian, Malay": ("baik", "bagus"),
    "Vietnamese": ("tốt", "đạt"),
    "Thai": ("ดี",),
    "Chinese": ("正常", "正常品", "良品", "合格", "合格品", "良", "好", "良好", "无缺陷", "好品"),
    "Japanese": ("良品", "正常", "合格"),
    "Korean": ("정상", "양품", "양호", "합격", "정상품"),
}
BAD = {
    "English": (
        *("bad", "ng", "nok", "notok", "ko", "fail", "failed", "positive", "pos", "defective", "defect", "defects"),
        *("anomaly", "anomalies", "anomalous", "abnormal", "nonconforming", "nonconform", "noncompliant", "faulty"),
        *("fault", "faults", "reject", "rejected", "rejects", "scrap", "broken", "damaged", "nogood", "notgood"),
        *("withdefect", "withdefects", "cracked", "incorrect", "flawed", "dirty", "unhealthy"),
    ),
    "German": (
        *("nio", "schlecht", "schlechtteil", "schlechtteile", "fehler", "fehlerhaft", "defekt", "ausschuss"),
        *("nichtinordnung", "nichtok"),
    ),
    "Dutch": ("slecht", "afgekeurd", "defecten"),
    "Danish, Norwegian, Swedish": ("dårlig", "dålig", "dåliga", "afvist", "avvist", "underkänd", "underkända"),
    "Finnish": ("huono", "huonot", "hylätty", "viallinen"),
    "French": (
        *(
            "mauvais",
            "mauvaise",
            "mauvaises",
            "defaut",
            "defauts",
            "defectueux",
            "nonconforme",
            "nonconformes",
            "rebut",
        ),
        *("positif", "positifs", "avecdefaut"),
    ),
    "Spanish": (
        *("malo", "malos", "mala", "malas", "defecto", "defectos", "defectuoso", "defectuosos", "noconforme"),
        *("rechazado", "rechazados", "positivo", "condefecto"),
    ),
    "Italian": ("difetto", "difetti", "difettoso", "difettosi", "cattivo", "cattivi", "cattiva", "cattive", "scarto"),
    "Portuguese": ("ruim", "ruins", "defeito", "defeitos", "defeituoso", "reprovado", "reprovados", "rejeitado"),
    "Polish, Czech, Slovak": ("zly", "zla", "zle", "wada", "wady", "wadliwy", "vadny", "vada", "vady", "chyba"),
    "Hungarian": ("rossz", "hibás", "selejt"),
    "Romanian": ("rău", "defecte", "rebuturi"),
    "Turkish": ("kötü", "hatalı", "kusurlu"),
    "Greek": ("κακό", "κακά", "ελαττωματικό"),
    "Russian, Ukrainian": ("брак", "дефект", "дефекты", "плохой", "плохие", "плохо", "негоден", "негодные", "поганий"),
    "Indonesian, Malay": ("cacat", "rusak", "buruk"),
    "Vietnamese": ("lỗi", "xấu", "khôngđạt"),
    "Thai": ("เสีย",),
    "Chinese": (
        *("异常", "異常", "不良", "不良品", "缺陷", "缺陷品", "不合格", "不合格品", "次品", "坏", "坏品"),
        *("有缺陷", "瑕疵", "瑕疵品", "废品"),
    ),
    "Japanese": ("不良", "不良品", "異常", "欠陥", "不合格", "不具合", "欠陥品"),
    "Korean": ("불량", "불량품", "비정상", "이상", "결함", "불합격"),
}
_BESIDE = (  # words beside one of the above that say nothing about it: good_parts, 01_NG, IO-Teile
    *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "sample", "samples", "part", "parts"),
    *("piece", "pieces", "item", "items", "product", "products", "data", "set", "class", "teil", "teile", "bild"),
    *("bilder", "piezas", "pezzi", "peças", "immagini", "imágenes"),
)
_ITEM = "品"  # item, in Chinese and Japanese
_NUMBERED = ("0", "1")  # good and defective, where there are exactly these two


def simplified(name: str) -> str:
    """Return a name in lower case, without accents, spaces and marks: ``Non-Defective`` and ``n.i.O.`` alike."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    plain = "".join(c for c in unicodedata.normalize("NFD", plain) if not unicodedata.combining(c))
    return "".join(c for c in unicodedata.normalize("NFC", plain) if c.isalnum())


_GOOD = frozenset(simplified(name) for names in GOOD.values() for name in names)
_BAD = frozenset(simplified(name) for names in BAD.values() for name in names)
_SILENT = frozenset(simplified(word) for word in _BESIDE)


def is_good(name: str, siblings: Iterable[str] = ()) -> bool:
    """Return whether a folder of this name holds normal images; 0 does beside 1 alone."""
    return not _GOOD.isdisjoint(_variants(name)) or (name == _NUMBERED[0] and set(siblings) == set(_NUMBERED))


def is_bad(name: str, siblings: Iterable[str] = ()) -> bool:
    """Return whether a folder of this name holds defective images; 1 does beside 0 alone."""
    return not _BAD.isdisjoint(_variants(name)) or (name == _NUMBERED[1] and set(siblings) == set(_NUMBERED))


def _variants(name: str) -> set[str]:
    """Return a name as it is compared: whole, and without the numbers and words that say nothing."""
    words = [simplified(word) for word in re.split(r"[\W_]+", unicodedata.normalize("NFC", name))]
    telling = [word for word in words if word and word not in _SILENT and not word.isdecimal()]
    variants = {simplified(name), "".join(telling)}
    return variants | {variant.removesuffix(_ITEM) for variant in variants}
