"""How folders of normal and of defective images are named, in several languages.

A name is compared without its case, accents, numbers and words such as "images". Beside the words of the tables it may
be made of them: "without" or "not" and a word for a defect is normal ("no_defects", "fehlerfrei", "異常なし"), "not"
and a word for normal is defective ("not_ok", "不合格"). Words that all folders have say nothing ("ok_front" beside
"def_front").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Literal

GOOD = {  # compared as :func:`simplified` writes them; "not" and such a word is defective
    "English": (
        "good ok oks okay normal pass passed negative neg conforming conform correct compliant accept accepted "
        "acceptable approved qualified perfect clean healthy intact golden master flawless nominal inlier inliers "
        "benign uninfected uncracked norm"
    ),
    "German": "io gut gute guter gutes inordnung einwandfrei makellos bestanden unbeschädigt konform normale",
    "Dutch": "goed goede goedgekeurd normaal",
    "Danish, Norwegian, Swedish": "god gode bra godkendt godkjent godkänd godkända hel hela",
    "Finnish": "hyvä hyvät hyväksytty virheetön ehjä ehjät normaali",
    "French": (
        "bon bons bonne bonnes conforme conformes négatif négatifs normaux normales accepté acceptés sain saine sains"
    ),
    "Spanish, Catalan": (
        "bueno buenos buena buenas aceptado aceptados aceptada aceptadas aprobado negativo aprobados correcto "
        "correctos correcta correctas bien sano sanos bo normals"
    ),
    "Italian": (
        "buono buoni buona buone accettato accettati conformi normali integro integri corretto corretti idoneo idonei"
    ),
    "Portuguese": (
        "bom bons boa boas aprovado aprovados aprovada aprovadas normais perfeito correto corretos aceito aceitos"
    ),
    "Polish": "dobry dobre dobra poprawny poprawne prawidłowy prawidłowe wporządku sprawny",
    "Czech, Slovak": "dobrý dobré dobrá vpořádku vporiadku správný správné bezchybný bezchybné",
    "Slovenian, Croatian, Serbian": "dobri dobro dobar ispravno ispravni ustrezno ustrezni добро",
    "Hungarian": "jó jók megfelelő hibátlan hibamentes ép",
    "Romanian": "bun bune buni conforma",
    "Baltic languages": "geras geri labs labi korras hea terve",
    "Turkish": "iyi sağlam hatasız kusursuz uygun",
    "Greek": "καλό καλά κανονικό κανονικά φυσιολογικό",
    "Russian, Ukrainian, Bulgarian": (
        "годен годный годные норма нормальный нормальные хороший хорошие хорошо исправный исправные добрый добрі "
        "добре добри добър нормални придатний придатні справні"
    ),
    "Indonesian, Malay": "baik bagus lulus",
    "Vietnamese": "tốt đạt bìnhthường",
    "Thai": "ดี ปกติ ผ่าน",
    "Hindi": "अच्छा अच्छे सही ठीक सामान्य",
    "Arabic, Persian": "سليم سليمة جيد جيدة طبيعي مقبول سالم خوب",
    "Hebrew": "תקין תקינים טוב טובים",
    "Chinese": "正常 良品 合格 良 好 好的 良好 完好 正品 合規 合规 通过 通過 达标",
    "Japanese": "良品 正常 合格 適合",
    "Korean": "정상 양품 양호 합격 좋음 적합",
}
BAD = {  # "not" and such a word is normal
    "English": (
        "bad def defs ng ngs nok noks ko fail failed positive pos defective anomalous anomal abnormal faulty reject "
        "rejected rejects scrap broken damaged disapproved cracked incorrect imperfect flawed dirty blemished outlier "
        "outliers diseased malignant infected scratched nogo"
    ),
    "German": (
        "nio schlecht schlechte schlechter fehlerhaft fehlerhafte defekte ausschuss mangelhaft mangelhafte beschädigt "
        "beschädigte schadhaft durchgefallen anormal abweichend"
    ),
    "Dutch": "slecht slechte afgekeurd fout foute kapot beschadigd abnormaal",
    "Danish, Norwegian, Swedish": (
        "dårlig dårlige dålig dåliga afvist avvist underkänd underkända felaktig felaktiga underkendt underkjent "
        "trasig trasiga skadad skadet"
    ),
    "Finnish": "huono huonot hylätty viallinen vialliset rikki rikkinäinen epänormaali",
    "French": (
        "mauvais mauvaise mauvaises défectueux défectueuse défectueuses rebut rebuts positif positifs refusé refusés "
        "rejeté rejetés anormal anormale anormaux anormales cassé"
    ),
    "Spanish, Catalan": (
        "malo malos mala malas mal defectuoso defectuosos defectuosa defectuosas rechazado rechazados rechazada "
        "rechazadas positivo anormales incorrecto incorrectos incorrecta incorrectas roto rotos dañado dañados dolent "
        "dolents defectuós anómalo anómalos"
    ),
    "Italian": (
        "difettoso difettosi difettosa difettose cattivo cattivi cattiva cattive scarto scarti anormali anomalo "
        "anomali anomale rotto rotti danneggiato danneggiati scartato guasto"
    ),
    "Portuguese": (
        "ruim ruins defeituoso defeituosos defeituosa defeituosas reprovado reprovados reprovada reprovadas rejeitado "
        "rejeitados anormais danificado danificados quebrado"
    ),
    "Polish": "zly zla zle zły zła złe wadliwy wadliwe uszkodzony uszkodzone braki",
    "Czech, Slovak": "špatný špatné špatná vadný vadné vadná zlý zlé chybný chybné zmetky",
    "Slovenian, Croatian, Serbian": "slabi slabo loše loši loš škart oštećeno лоше",
    "Hungarian": "rossz rosszak hibás hibásak selejt selejtes sérült",
    "Romanian": "rău rele defect defecte rebut rebuturi respins",
    "Baltic languages": "blogas blogi slikts slikti brokas praak vigane katki",
    "Turkish": "kötü hatalı kusurlu bozuk anormal ıskarta",
    "Greek": "κακό κακά ελαττωματικό ελαττωματικά",
    "Russian, Ukrainian, Bulgarian": (
        "бракованный бракованные дефектный дефектные дефектни плохой плохие плохо негоден негодные поганий погані лош "
        "лоши повреждённые поврежденные аномальные браковані"
    ),
    "Indonesian, Malay": "rusak buruk gagal",
    "Vietnamese": "xấu hỏng",
    "Thai": "เสีย ผิดปกติ ไม่ดี ไม่ผ่าน ชำรุด",
    "Hindi": "खराब ख़राब दोषपूर्ण असामान्य",
    "Arabic, Persian": "معيب معيبة تالف تالفة سيء سيئ مرفوض معیوب خراب",
    "Hebrew": "פגום פגומים רע",
    "Chinese": "不良 次 坏 壞 坏的 废 报废 损坏",
    "Japanese": "不良 ng",
    "Korean": "불량 나쁨 불합격 부적합",
}
DEFECT = {  # nouns: defective, and normal after "without" or before "free"
    "English": "defect defects anomaly anomalies fault faults flaw flaws error errors damage blemish blemishes",
    "German, Dutch, Nordic languages": (
        "fehler defekt mangel mängel schaden schäden anomalie anomalien defecten fouten gebrek fejl feil fel defekter "
        "vika vikaa vikoja virhe"
    ),
    "Romance languages": (
        "défaut défauts anomalies defecto defectos anomalía anomalías fallo fallos difetto difetti defeito defeitos "
        "anomalia anomalias falha falhas defecte defectes falla"
    ),
    "Slavic languages": (
        "wada wady wad vada vady vad chyba chyby chyb anomalia anomalie napaka napake брак брака дефект дефекты "
        "дефектов дефекти аномалия аномалии аномалий вада вади"
    ),
    "Others": "hiba hata kusur ελάττωμα cacat lỗi khuyếttật ตำหนิ दोष عيب عيوب פגם פגמים",
    "Chinese, Japanese": "异常 異常 缺陷 瑕疵 欠陥 不具合 故障 问题 問題 损伤 破损 キズ 傷 划痕",
    "Korean": "이상 결함 비정상 하자",
}
TRAIN = (  # folders that hold a split
    "train training trainset trn learn trainieren entraînement apprentissage entrenamiento addestramento treino "
    "treinamento trening uczenie обучение eğitim 训练 训练集 訓練 訓練集 学習 학습 훈련"
)
TEST = "test testing testset tests prueba pruebas teste testes prova тест 测试 测试集 測試 測試集 テスト 테스트"
MASK = (  # words for masks of defects
    "groundtruth groundtruths gt gts mask masks label labels annotation annotations segmentation segmentations seg "
    "segmask segmasks maske masken masker maskers masques masque mascara mascaras máscara máscaras maschera maschere "
    "maska masky maski maszk maszkok maskeler маска маски маске 掩码 掩膜 掩模 遮罩 蒙版 标注 標註 标签 真值 マスク "
    "正解 ラベル 마스크 라벨"
)
_NOT = (  # before a word for normal (defective) or for a defect (normal)
    "no non not un without zero nicht kein keine ohne niet geen zonder ikke inte ej uden uten utan ingen ei ilman "
    "pas sans aucun sin sense senza nessun sem não nie bez ne brez nem fără değil χωρίς μη не без tidak tanpa "
    "không ไม่ बिना بدون غير ללא לא 无 無 没有 沒有 不 非 未 未见 비 불 부"
)
_FREE = "free less frei los freie fri fritt fria vrij なし 無し 無 없음 무 yok"  # after a noun: normal
_WITH = "with has mit met med avec con com amb z s с με có 有 มี مع"  # before a noun: defective
_HAVING = "あり 有り 有 있음 var"  # after a noun: defective
_SILENT = (  # words beside one of the above that say nothing about it: good_parts, 01_NG, 良品画像
    "image images img imgs picture pictures pic pics photo photos sample samples part parts piece pieces item "
    "items product products unit units data dataset set class label folder frame frames train training test "
    "testing val validation eval teil teile bild bilder stück stücke muster proben probe beeld beelden delar "
    "pièce pièces échantillon échantillons pieza piezas imagen imágenes muestra muestras pezzo pezzi immagine "
    "immagini campioni peça peças imagem imagens amostras części zdjęcia obrazy díly kusy obrázky snímky kép "
    "képek детали деталь изображения фото образцы изделия gambar ảnh sảnphẩm صور תמונות "
    "品 품 件 片 图 圖 图片 圖片 图像 圖像 样本 "
    "樣本 样品 樣品 照片 产品 產品 数据 數據 "
    "画像 写真 部品 製品 サンプル データ 이미지 사진 샘플 제품 데이터"
)
_LETTERS = r"[^\W\d_\u2e80-\uffff]"  # but for Chinese, Japanese and Korean ones
_BOUNDARY = re.compile(
    r"[\W_]+|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])|(?<=[a-zà-ÿ])(?=[A-ZÀ-Þ])"
    rf"|(?<={_LETTERS})(?=[\u2e80-\uffff])|(?<=[\u2e80-\uffff])(?={_LETTERS})"
)
_CHARACTERS = re.compile(rf"{_LETTERS}+|\d+|[\u2e80-\uffff]")  # words, or characters where there are no spaces
_PAIRS = (("0", "1"), ("g", "ng"), ("g", "b"), ("p", "f"))  # good and defective where there are exactly these two


def simplified(name: str) -> str:
    """Return a name in lower case, without accents, spaces and marks: ``Non-Defective`` and ``n.i.O.`` alike."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    plain = "".join(c for c in unicodedata.normalize("NFD", plain) if not unicodedata.combining(c))
    return "".join(c for c in unicodedata.normalize("NFC", plain) if c.isalnum())


def is_good(name: str, siblings: Iterable[str] = ()) -> bool:
    """Return whether a folder of this name holds normal images; 0 does beside 1 alone."""
    return _meaning(name, siblings) == "good"


def is_bad(name: str, siblings: Iterable[str] = ()) -> bool:
    """Return whether a folder of this name holds defective images; 1 does beside 0 alone."""
    return _meaning(name, siblings) == "bad"


def is_split(name: str, split: Literal["train", "test", "any"] = "any") -> bool:
    """Return whether a folder of this name holds the images of a split: ``Train``, ``01_test``, ``训练集``."""
    plain = simplified(name).strip("0123456789")
    return any(plain in _words()[one] for one in (("train", "test") if split == "any" else (split,)))


def is_for_test(name: str) -> bool:
    """Return whether a name such as ``test_good`` says that its images are for the test."""
    words = _split(name)
    return not set(_words()["test"]).isdisjoint(words)


def is_mask_folder(name: str) -> bool:
    """Return whether a folder of this name holds masks: ``ground_truth``, ``Ground-Truth``, ``defect_masks`` …"""
    masks, besides = _words()["mask"], (*_words()["silent"], *_words()["defect"])
    words = _split(name)
    telling = [word for word in words if word not in besides and not word.isdecimal()]
    return simplified(name) in masks or "".join(telling) in masks or (bool(telling) and set(telling) <= set(masks))


@cache
def _words() -> dict[str, tuple[str, ...]]:
    """Return the tables as they are compared, the longest words first."""
    good, bad, defect = (" ".join(table.values()) for table in (GOOD, BAD, DEFECT))
    tables = {
        "good": good,
        "bad": f"{bad} {defect}",
        "defect": defect,
        "silent": _SILENT,
        "mask": MASK,
        "train": TRAIN,
        "test": TEST,
    }
    tables |= {"not": _NOT, "free": _FREE, "with": _WITH, "having": _HAVING}
    simple = {kind: {simplified(word) for word in words.split()} for kind, words in tables.items()}
    return {kind: tuple(sorted(words, key=lambda word: (-len(word), word))) for kind, words in simple.items()}


def _meaning(name: str, siblings: Iterable[str]) -> str:
    """Return "good", "bad" or "" for a folder's name."""
    if (place := _in_pair(name, siblings)) is not None:
        return "bad" if place else "good"
    names = (name, *_distinct(name, siblings))
    return next((found for n in names for variant in _variants(n) if (found := _meaning_of(variant))), "")


@cache
def _meaning_of(text: str) -> str:
    """Return the meaning of a simplified name, of one word or of two."""
    words = _words()
    for meaning in ("good", "bad"):
        if text in words[meaning]:
            return meaning
    for start, of, meaning in (("not", "good", "bad"), ("not", "bad", "good"), ("with", "defect", "bad")):
        if any(text.startswith(word) and text.removeprefix(word) in words[of] for word in words[start]):
            return meaning
    for end, meaning in (("free", "good"), ("having", "bad")):
        if any(text.endswith(word) and text.removesuffix(word) in words["defect"] for word in words[end]):
            return meaning
    return ""


def _split(name: str) -> list[str]:
    """Return the words of a name, simplified."""
    return [word for part in _BOUNDARY.split(unicodedata.normalize("NFC", name)) if (word := simplified(part))]


def _distinct(name: str, siblings: Iterable[str]) -> list[str]:
    """Return a name without the words at its beginning, its end, or both, that it has in common with all siblings."""
    split = [_CHARACTERS.findall(sibling) for sibling in {unicodedata.normalize("NFC", s) for s in siblings}]
    words = _CHARACTERS.findall(unicodedata.normalize("NFC", name))
    if len(split) < 2:
        return []
    start = _common(split)
    end = _common([other[start:][::-1] for other in split])
    return [" ".join(own) for own in (words[start:], words[: len(words) - end], words[start : len(words) - end])]


def _common(split: Sequence[Sequence[str]]) -> int:
    """Return how many words all begin with."""
    different = (i for i, words in enumerate(zip(*split, strict=False)) if len(set(words)) > 1)
    return next(different, min(map(len, split)))


def _in_pair(name: str, siblings: Iterable[str]) -> int | None:
    """Return the place of a name in one of the pairs if it and its only sibling are one, else None."""
    names = sorted({_short(sibling) for sibling in siblings})
    return next((pair.index(_short(name)) for pair in _PAIRS if names == sorted(pair)), None)


def _short(name: str) -> str:
    """Return ``class_01`` as ``1``: without words that say nothing and leading zeros."""
    short = "".join(word for word in _split(name) if word not in _words()["silent"])
    return str(int(short)) if short.isdecimal() else short


def _variants(name: str) -> list[str]:
    """Return a name as it is compared: whole, and without the numbers and words that say nothing."""
    telling = "".join(word for word in _split(name) if word not in _words()["silent"] and not word.isdecimal())
    variants = [simplified(name), telling]
    return [*variants, *(shorter for variant in variants for shorter in _shortened(variant))]


def _shortened(text: str) -> Iterator[str]:
    """Give a compound without the words that say nothing at its ends: ``gut`` for ``gutbilder``."""
    for word in _words()["silent"]:
        for shorter in (text.removesuffix(word), text.removeprefix(word)):
            if shorter not in ("", text):
                yield shorter
                yield from _shortened(shorter)
