from __future__ import annotations

import gzip
import random
import zlib

import pytest

from filters.read.media_type import MediaType, extract_media_type, is_binary, is_html, is_text


@pytest.mark.parametrize(
    ("header", "essence", "charset"),
    [
        ("text/html; charset=gbk", "text/html", "gbk"),
        ("Text/HTML;Charset=GBK", "text/html", "GBK"),
        ('text/html;charset="gbk"', "text/html", "gbk"),
        (r'text/html;charset="g\bk"', "text/html", "gbk"),
        ('text/html;charset="gbk', "text/html", "gbk"),
        ('text/html;charset="gbk"x', "text/html", "gbk"),
        ("text/html;charset='gbk'", "text/html", "gbk"),
        ("text/html;charset=gbk;charset=utf-8", "text/html", "gbk"),
        ("text/html ; version=1 ;charset=gbk ", "text/html", "gbk"),
        ('text/html;title="a,b;charset=x";charset=gbk', "text/html", "gbk"),
        ("text/html;;;charset=gbk", "text/html", "gbk"),
        ("'text/html'", "", ""),
        ("text/*", "", ""),
        ("text/html;charset=", "text/html", ""),
        ("text/html, text/html", "text/html", ""),
        ("*/*, text/html", "text/html", ""),
        ("text/html, */*", "text/html", ""),
        ("text/html;charset=gbk, text/html", "text/html", "gbk"),
        ("text/html;charset=gbk, text/plain", "text/plain", ""),
        ("text/html;charset=gbk, text/html;charset=big5", "text/html", "big5"),
        ("text/plain, text/html;charset=big5", "text/html", "big5"),
        ("text/html,", "text/html", ""),
        (",,text/html", "text/html", ""),
        ("text/html, nonsense", "text/html", ""),
        ("text/html charset=gbk", "", "gbk"),
        ("text/html:charset=gbk", "", "gbk"),
        ('"text/html"', "", ""),
        ("text / html", "", ""),
        ("text/", "", ""),
        ("html", "", ""),
        ("*/*", "", ""),
        ("", "", ""),
        ("tеxt/html", "", ""),
    ],
)
def test_media_types_as_the_fetch_standard_extracts_them(header: str, essence: str, charset: str) -> None:
    assert extract_media_type(header) == MediaType(essence, charset)


NOISE = random.Random(1).randbytes(3000)


@pytest.mark.parametrize(
    "payload",
    [
        b"%PDF-1.7\nplain words until here",
        b"\xef\xbb\xbf \n%PDF-1.4",
        b"%!PS-Adobe-3.0\n",
        b"\x04%!PS-Adobe-3.0\n",
        b"words.txt".ljust(257, b"\0") + b"ustar\x0000",
        bytes(32 << 10) + b"\1CD001\1" + bytes(range(256)),
        rb"{\rtf1\ansi words}",
        b"PK\x03\x04words",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0JFIF",
        b"GIF89a",
        b"RIFF\1\2\3\4WEBPVP8",
        b"<?xml version='1.0'?>\n<!-- x --><svg xmlns='http://www.w3.org/2000/svg'><text>words</text></svg>",
        b"wOFFwords",
        b"wOF2words",
        b"OTTO\0",
        b"\0\1\0\0\0\x12",
        b"\0\0\0\x20ftypisom",
        b"7z\xbc\xaf\x27\x1c",
        NOISE,
        NOISE[:200],
        bytes([65, 0, 0, 0]) * 100,
    ],
    ids=range(23),
)
def test_what_is_no_text_is_binary(payload: bytes) -> None:
    assert is_binary(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"<html>",
        b"<html>" + bytes(3000),
        b"<p>\x0b a stray control \x07",
        b"What a %PDF- is",
        "Съешь же ещё".encode("cp1251"),
        "水は高いところ".encode("iso-2022-jp"),
        "水は高いところ".encode("utf-16"),
        "<p>水は高いところ".encode("utf-16-be"),
        "<p>水は高いところ".encode("utf-16-le"),
        b"x^2 + y^2",
        b"BM is a band",
        b"MZ is not",
    ],
)
def test_what_is_text_is_not_binary(payload: bytes) -> None:
    assert not is_binary(payload)


def test_a_page_of_unknown_type_is_known_by_its_markup() -> None:
    for page in (b"<p>x", b" \r\n<!DOCTYPE html>", b"\xef\xbb\xbf<html>", "<p>é".encode("utf-16"), b"<!-- x --><html>"):
        assert is_html(page)
    assert is_html(b"<?xml version='1.0'?><!DOCTYPE html PUBLIC '-//W3C//DTD XHTML 1.0 Strict//EN'><html>")
    for other in (b"", b"x<p>", b"<?xml version='1.0'?><note>", b"<rss version='2.0'>", b"<svg>", b"{}", b"\x89PNG"):
        assert not is_html(other)


def test_text_is_told_from_compressed_bytes() -> None:
    text = "Wörter einer Seite. " * 200
    for words in (text, text[:10]):
        for codec in ("utf-8", "utf-16"):
            assert is_text(words.encode(codec))
    for codec in ("cp1252", "shift_jis"):
        assert is_text(("水は高いところ" if codec == "shift_jis" else text).encode(codec) * 20)
    chance = random.Random(2)
    for _ in range(300):
        words = " ".join(chance.choices(text.split(), k=chance.randrange(3, 400))).encode() + chance.randbytes(20)
        assert not is_text(zlib.compress(words)[2:])
        assert not is_text(gzip.compress(words))
