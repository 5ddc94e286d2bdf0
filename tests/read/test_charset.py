from __future__ import annotations

import codecs
import contextlib

import numpy as np
import pytest

from filters.read.charset import UndecodableError, check_readable, decode_page, encoding_of, errors_in, utf8_page

RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 20
GERMAN = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. " * 20
JAPANESE = "いろはにほへと ちりぬるを わかよたれそ つねならむ。" * 20


@pytest.mark.parametrize(
    ("text", "encoding", "content_type", "meta"),
    [
        (GERMAN, "utf-8", "text/html; charset=utf-8", ""),
        (GERMAN, "utf-8", "text/html", ""),
        (GERMAN, "utf-8", "text/html; charset=ISO-8859-1", ""),
        (GERMAN, "utf-8", "text/html", "<meta charset=windows-1252>"),
        (GERMAN, "latin-1", "text/html; charset=iso-8859-1", ""),
        (GERMAN, "latin-1", "text/html; charset=utf-8", "<meta charset='iso-8859-1'>"),
        (GERMAN, "cp1252", "text/html", ""),
        (RUSSIAN, "cp1251", 'text/html; charset="windows-1251"', ""),
        (RUSSIAN, "koi8-r", "text/html", '<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">'),
        (RUSSIAN, "cp1251", "text/html", ""),
        (JAPANESE, "shift_jis", "text/html; charset=Shift_JIS", ""),
        (JAPANESE, "euc-jp", "text/html", "<meta charset=euc-jp>"),
        (JAPANESE, "iso-2022-jp", "text/html; charset=iso-2022-jp", ""),
        (JAPANESE, "shift_jis", "text/html; charset=nonsense", ""),
        (JAPANESE, "utf-16", "text/html", ""),
        (JAPANESE, "utf-8-sig", "text/html; charset=shift_jis", ""),
        (GERMAN, "utf-16-le", "text/html; charset=utf-16le", ""),
        (GERMAN, "utf-8", "text/html", "<meta charset=utf-16>"),
        (GERMAN, "utf-8", "text/html; charset=", "<meta charset=>"),
    ],
)
def test_character_sets(text: str, encoding: str, content_type: str, meta: str) -> None:
    page = f"<html><head>{meta}</head><body><p>{text}</p></body></html>"
    assert decode_page(page.encode(encoding), content_type) == page


def test_damaged_utf8_stays_utf8() -> None:
    page = GERMAN.encode()
    broken = page[:500].rstrip(b"\xc3") + b"\xff" + page[500:]
    text = decode_page(broken, "text/html; charset=utf-8")
    assert text.count("ö") >= GERMAN.count("ö") - 1
    assert text.count("\ufffd") == 1
    assert decode_page(GERMAN.encode()[:-1] + b"\xc3", "") == GERMAN[:-1] + "\ufffd"


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_become_text_or_are_refused(seed: int) -> None:
    data = np.random.default_rng(seed).bytes(2000)
    for charset in (
        "",
        "utf-7",
        "hz-gb-2312",
        "rot13",
        "big5",
        "gbk",
        "euc-jp",
        "iso-2022-jp",
        "utf-16",
        "windows-1255",
    ):
        for payload in (data, b"\xff\xfe" + data, b"<p>" + b"words " * 2000 + data[:50]):
            with contextlib.suppress(UndecodableError):
                text = decode_page(payload, f"text/html; charset={charset}")
                text.encode()
                assert "\0" not in text
                assert errors_in(text) <= 0.05 * len(text)


KOREAN = "뷁 펲시 똠방각하. 사람들은 오래전부터 별을 보고 계절을 알았다."
VENDOR = "①から⑳まで㈱髙﨑～－№も。"
CHINESE = "朱镕基、喆、囧、堃、鎔。价格是€100。"
CANTONESE = "嘅咗喺啲嚟冇咁佢哋嗰恒裏墻銹。"
THAI = "พืชใช้แสงเพื่อสร้างน้ำตาล “ตัวอย่าง”"
TURKISH = "Iğdır, İstanbul – her yerde “aynı”…"
WESTERN = "“Quoted”, it’s €5… Œuvre, Žižek and Š –"


@pytest.mark.parametrize(
    ("text", "codec", "labels"),
    [
        (KOREAN, "cp949", "euc-kr EUC_KR ks_c_5601-1987 korean ksc5601 windows-949 iso-ir-149 uhc"),
        (VENDOR, "cp932", "shift_jis sjis x-sjis windows-31j ms_kanji Shift-JIS ms932"),
        (CHINESE, "gb18030", "gb2312 GBK gb_2312-80 x-gbk chinese gb18030 iso-ir-58 csgb2312 cp936"),
        (CANTONESE, "big5hkscs", "big5 big5-hkscs cn-big5 x-x-big5 csbig5 cp950"),
        (THAI, "cp874", "tis-620 iso-8859-11 windows-874 dos-874 iso8859-11"),
        (TURKISH, "cp1254", "iso-8859-9 latin5 l5 windows-1254 iso_8859-9:1989"),
        (WESTERN, "cp1252", "iso-8859-1 us-ascii latin1 l1 ansi_x3.4-1968 x-cp1252 cp819"),
        ("Україна, ґанок; привіт ўсім, Ўладзь", "windows-1251", "windows-1251 cp1251 x-cp1251"),
        ("Київ і ґанок", "mac_cyrillic", "x-mac-cyrillic x-mac-ukrainian"),
    ],
)
def test_labels_mean_what_the_encoding_standard_says(text: str, codec: str, labels: str) -> None:
    for label in labels.split():
        payload = f"<p>{text}".encode(codec)
        meta = f"<head><meta charset='{label}'>".encode() + payload
        pragma = f"<meta content='text/html; charset={label}' http-equiv=Content-Type>".encode() + payload
        assert decode_page(payload, f"text/html; charset={label}") == f"<p>{text}", label
        assert decode_page(meta, "text/html").endswith(text), label
        assert decode_page(pragma, "text/html").endswith(text), label


@pytest.mark.parametrize("codec", ["cp949", "cp932", "gb18030", "big5hkscs"])
@pytest.mark.parametrize("times", [1, 9])
def test_detection_means_the_same(codec: str, times: int) -> None:
    text = {
        "cp949": KOREAN + " 농부는 봄에 씨를 뿌리고 가을에 거둔다." * times,
        "cp932": VENDOR + "水は高いところから低いところへ流れます。" * times,
        "gb18030": CHINESE + "学生每天都要读书，老师会解释植物怎样利用阳光制造养分。" * times,
        "big5hkscs": CANTONESE + "學生每天都要讀書，老師會解釋植物點樣利用陽光製造養分。" * times,
    }[codec]
    assert decode_page(f"<p>{text}".encode(codec), "") == f"<p>{text}"


@pytest.mark.parametrize(
    ("payload", "label", "text"),
    [
        (b"\xad\xa1\xfc\xe2\xa1\xc1\xa1\xdd", "euc-jp", "①髙～－"),
        (b"\x8f\xb0\xa1\x8e\xb1", "x-euc-jp", "丂ｱ"),
        (b"\x1b$B-!|b!A\x1b(B <p> \x1b(J\\~\x1b(I1\x1b$(D0!\x1b(B", "iso-2022-jp", "①髙～ <p> ¥‾ｱ丂"),
        (b"~{<:Ky2;S{#,NpJ)SZHK!#~}bye", "hz-gb-2312", "己所不欲，勿施于人。bye"),
        (b"\x1b$)C\x0e;g6w\x0f ok", "iso-2022-kr", "사람 ok"),
        (b"<meta charset=hz-gb-2312>~{<:~}", "", "<meta charset=hz-gb-2312>己"),
        (b"\x80\xff", "x-user-defined", "\uf780\uf7ff"),
        (b"\x80 5", "gbk", "€ 5"),
        (b"\xa3\xe1\xfb\x48\x87\xdf\xa3\xc1\xa1\xfe", "big5", "€嘅鿋␁／"),
        (b"\xca\xe9", "windows-1255", "\u05baי"),
        (b"\xae\xbe", "koi8-u", "ўЎ"),
        (b"caf\xe9 \x92s", "utf-8", "café ’s"),
    ],
)
def test_characters_beyond_pythons_codecs(payload: bytes, label: str, text: str) -> None:
    assert decode_page(payload, f"text/html; charset={label}") == text


def test_c1_controls_of_code_pages_are_no_loss() -> None:
    text = decode_page(b"<p>caf\xe9 \x81 " + b"words " * 20, "text/html; charset=windows-1252")
    assert text.startswith("<p>café \x81 ")


def test_a_damaged_character_costs_itself_only() -> None:
    for text, codec in ((KOREAN, "cp949"), (VENDOR, "cp932"), (CHINESE, "gb18030"), (CANTONESE, "big5hkscs")):
        page = f"<p>{text * 20}</p>"
        payload = page.encode(codec)
        middle = payload.index("。".encode(codec) if codec != "cp949" else b".", len(payload) // 2)
        broken = payload[:middle] + b"\xff" + payload[middle:]
        read = decode_page(broken, f"text/html; charset={codec.removesuffix('hkscs')}")
        assert read.replace("\ufffd", "") == page
        assert read.count("\ufffd") == 1


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("<!-- <meta charset=big5> --><meta charset=gbk>", "gbk"),
        ("<script src='<meta charset=big5>'></script><meta charset=gbk>", "gbk"),
        ("<meta name=description content='charset=big5'><meta charset=gbk>", "gbk"),
        ("<meta charset=nonsense><meta charset=gbk>", "gbk"),
        ("<META HTTP-EQUIV='content-type' CONTENT='text/html; charset = \"gbk\"'>", "gbk"),
        ("<meta/charset=gbk />", "gbk"),
        ("<meta content='text/html; charset=gbk'>", "gbk"),
        ("<style>" + "a{}" * 40_000 + "</style><meta charset=gbk>", "gbk"),
        ("<?xml version='1.0' encoding='gbk'?><html>", "gbk"),
        ("<?xml version='1.0' encoding='big5'?><meta charset=gbk>", "gbk"),
    ],
)
def test_where_a_page_declares_its_charset(head: str, expected: str) -> None:
    page = head + f"<p>{CHINESE}"
    assert decode_page(page.encode("gb18030"), "text/html") == page


def test_what_a_meta_tag_cannot_mean() -> None:
    assert decode_page("<meta charset=utf-16>Žižek".encode(), "").endswith("Žižek")
    assert decode_page(b"<meta charset=x-user-defined>caf\xe9.", "").endswith("café.")


def test_a_charset_declared_twice_decides_over_utf8_by_accident() -> None:
    both = b"<meta charset=gb2312><p>\xc2\xa5\xc3\xa6"
    assert decode_page(both, "text/html; charset=gbk").endswith("楼忙")
    assert decode_page(both, "text/html").endswith("¥æ")
    assert decode_page(both, "text/html; charset=iso-8859-1").endswith("¥æ")
    three = "<meta charset=gbk><p>中文 ¥".encode()
    assert decode_page(three, "text/html; charset=gbk").endswith("中文 ¥")
    controls = b"<p>\xc2\x80\xc2\x81"
    assert decode_page(controls, "text/html; charset=gbk") == "<p>聙聛"


@pytest.mark.parametrize("end", ["le", "be"])
def test_utf16_without_a_mark_is_seen_by_its_markup(end: str) -> None:
    page = f"<html><p>{JAPANESE}"
    for content_type in ("text/html", "text/html; charset=utf-16", "text/html; charset=iso-8859-1"):
        assert decode_page(page.encode(f"utf-16-{end}"), content_type) == page
    assert decode_page(page.encode("utf-32"), "") == page


def test_utf8_where_utf16_was_declared_is_utf8() -> None:
    assert decode_page(GERMAN.encode(), "text/html; charset=utf-16") == GERMAN


def test_iso_2022_jp_is_read_without_being_declared() -> None:
    assert decode_page(JAPANESE.encode("iso-2022-jp"), "text/html") == JAPANESE
    assert decode_page(b"a \x1b[1mbold\x1b[0m word " + b"w " * 99, "").startswith("a \x1b[1m")


@pytest.mark.parametrize("charset", ["iso-8859-1", "windows-1251", "gbk"])
def test_utf8_that_the_crawler_cut_or_that_is_damaged_is_not_another_charset(charset: str) -> None:
    page = RUSSIAN + JAPANESE
    assert decode_page(page.encode()[:-1], f"text/html; charset={charset}") == page[:-1] + "\ufffd"
    broken = page.encode()[:1001] + b"\xff" + page.encode()[1001:]
    assert decode_page(broken, f"text/html; charset={charset}").count("ь") >= page.count("ь") - 1


def test_the_reading_with_the_fewest_errors_counts_at_last() -> None:
    assert decode_page(f"<p>{RUSSIAN}".encode("cp1251"), "text/html; charset=shift_jis") == f"<p>{RUSSIAN}"
    assert decode_page(f"<p>{JAPANESE}".encode("euc-jp"), "text/html; charset=euc-kr").count("\ufffd") == 0
    assert decode_page(codecs.BOM_UTF8 + RUSSIAN.encode("cp1251"), "text/html; charset=windows-1251") == RUSSIAN


@pytest.mark.parametrize(
    ("payload", "content_type"),
    [
        (b"<p>" + np.random.default_rng(3).bytes(5000), "text/html"),
        (b"<p>" + np.random.default_rng(3).bytes(5000), "text/html; charset=windows-1252"),
        (b"\xff\xfe" + np.random.default_rng(3).bytes(5000).replace(b"\0", b"\1") + b"\x00\xd8" * 300, "text/html"),
        ("<p>\x80\x81\x82 words".encode(), "text/html; charset=utf-8"),
    ],
    ids=range(4),
)
def test_what_is_not_readable_is_refused(payload: bytes, content_type: str) -> None:
    with pytest.raises(UndecodableError, match="replacement or control characters"):
        decode_page(payload, content_type)


def test_a_text_is_held_against_the_limit() -> None:
    check_readable("")
    check_readable("word " * 20 + "\ufffd\x07")
    with pytest.raises(UndecodableError, match="50% of the text are"):
        check_readable("ab\ufffd\x07")


def test_labels_that_mean_nothing() -> None:
    for label in ("", "utf-7", "rot13", "base64", "idna", "x" * 1000, "gbk;", "\0", "кодировка"):
        assert encoding_of(label) is None


def test_hostile_tags_are_passed_over_in_linear_time() -> None:
    for part in (b"<a '", b"<meta ", b"<!--", b"<meta charset", b'<meta content="', b"<a b='\" ", b"<?xml ", b"= '"):
        payload = part * 300_000 + b"\xe9"
        with contextlib.suppress(UndecodableError):
            decode_page(payload, "text/html")


def test_a_byte_that_is_no_shift_jis_is_no_private_character() -> None:
    page = (JAPANESE.encode("cp932") + b"\xa0\xfd") * 2
    assert decode_page(page, "text/html; charset=shift_jis") == (JAPANESE + "\ufffd\ufffd") * 2


@pytest.mark.parametrize(
    ("payload", "content_type", "same"),
    [
        (GERMAN.encode(), "text/html; charset=iso-8859-1", True),
        (b"<p>ascii</p>", "", True),
        (b"", "", True),
        (GERMAN.encode() + b"\xc3", "text/html", False),
        (GERMAN.encode() + b"\xed\xa0\x80", "text/html", False),
        (GERMAN.encode() + b"\xc0\x80", "text/html", False),
        (GERMAN.encode() + b"\0", "text/html", False),
        (codecs.BOM_UTF8 + GERMAN.encode(), "text/html", False),
        (JAPANESE.encode("iso2022_jp"), "text/html", False),
        (JAPANESE.encode("euc_jp"), "text/html; charset=euc-jp", False),
        ("<p>wide</p>".encode("utf-16-le"), "text/html", False),
        (b"<p>~{VPND~}</p>" * 20, "text/html; charset=hz-gb-2312", False),
        (GERMAN.encode("latin-1"), "text/html", False),
    ],
)
def test_a_page_in_utf8_is_taken_as_it_is(payload: bytes, content_type: str, same: bool) -> None:
    page = utf8_page(payload, content_type)
    assert page.decode() == decode_page(payload, content_type)
    assert (page is payload) == same


def test_what_is_taken_as_utf8_is_what_would_be_decoded() -> None:
    random = np.random.default_rng(3)
    pieces = [
        b"a",
        "\u00e4".encode(),
        "\u20ac".encode(),
        b"\x80",
        b"\xc2",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\x1b",
        b"\0",
    ]
    for _ in range(2000):
        payload = b"words " * 20 + b"".join(pieces[place] for place in random.integers(0, len(pieces), 6))
        with contextlib.suppress(UndecodableError):
            page = decode_page(payload, "text/html")
            assert utf8_page(payload, "text/html").decode() == page


def test_big5_that_is_declared_as_gb2312_is_read_as_big5() -> None:
    """GB 18030 has a character for almost any two bytes, many of them for private use."""
    text = "這是一個繁體中文的句子，說明分數是整體的一部分。學校教授數學與科學。" * 6
    page = f"<html><body><p>{text}</p></body></html>".encode("cp950")
    assert text in decode_page(page, "text/html; charset=gb2312")
    simplified = "这是一个简体中文的句子，说明分数是整体的一部分。\ue000" * 6
    assert simplified in decode_page(simplified.encode("gb18030"), "text/html; charset=gb2312")
