from __future__ import annotations

import gzip
import random
import re
import zlib

import brotli
import pytest
import zstandard
from synthetic import html_page, http_response

from filters.read.http import (
    MediaType,
    Response,
    extract_media_type,
    header_lines,
    is_binary,
    is_html,
    is_text,
    parse_response,
)

PAGE = html_page(5)
TEXT = b"Natural words of a lesson that a crawler stored decoded: a leaf turns light into sugar.\r\n" * 3
LIMIT = 1 << 20


def answer(body: bytes, headers: dict[str, str] | None = None, warc: dict[str, str] | None = None) -> Response:
    return parse_response(warc or {}, http_response(body, headers=headers), LIMIT)


def chunks(body: bytes, size: int = 100) -> bytes:
    parts = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def deflate(data: bytes, window: int = -15) -> bytes:
    deflater = zlib.compressobj(wbits=window)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r", "\0"])
def test_a_header_line_ends_at_a_line_feed_only(character: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nX-Title: a{character}Content-Type: image/png\nB: c\r\n"
    assert list(header_lines(head)) == [("x-title", f"a{character}Content-Type: image/png"), ("b", "c")]


def test_header_lines_are_folded_and_lines_without_colon_passed_over() -> None:
    head = "HTTP/1.1 200 OK\r\n folded onto nothing\r\nA : b;\r\n\tc\r\n  d\r\nnonsense\r\n e\r\nF:\r\n: g"
    assert list(header_lines(head)) == [("a", "b; c d"), ("f", "")]


@pytest.mark.parametrize(
    "line",
    [
        "http/1.1 200 OK",
        "HTTP/2 200",
        "ICY 200 OK",
        "HTTP 200 OK",
        "HTTP/ 200",
        "200 OK",
        "HTTP/1.1\t200",
        "HTTP/1.1 200",
    ],
)
def test_status_lines_as_servers_write_them(line: str) -> None:
    block = f"{line}\r\nContent-Type: text/html\r\n\r\n".encode() + PAGE
    assert parse_response({}, block, LIMIT).payload == PAGE
    other = parse_response({}, block.replace(b"200", b"404", 1), LIMIT)
    assert other == Response(reason="http_status")


@pytest.mark.parametrize("line", ["", "HTTP/1.1", "HTTP/1.1 2000", "HTTP/1.1 OK", "FTP 200 OK", "<html>", "20 OK"])
def test_what_is_no_status_line_is_quarantined(line: str) -> None:
    cause = parse_response({}, f"{line}\r\n\r\n".encode() + PAGE, LIMIT).cause
    assert cause == "bad_http: no status line"


@pytest.mark.parametrize(
    ("served", "identified", "kept"),
    [
        ("application/pdf", "text/html", "text/html"),
        ("application/octet-stream", "application/xhtml+xml", "application/xhtml+xml"),
        ("text/html", "application/pdf", None),
        ("text/html", "text/plain", "text/html"),
        ("text/plain", "text/html", "text/html"),
        ("text/html", "application/octet-stream", "text/html"),
        ("text/html", "application/gzip", "text/html"),
        ("text/html", "nonsense", "text/html"),
        ("image/png", "application/octet-stream", None),
        ("unknown/unknown", "", "text/html"),
        ("text/html text/html", "", "text/html"),
    ],
)
def test_the_identified_type_counts_both_ways(served: str, identified: str, kept: str | None) -> None:
    warc = {"warc-identified-payload-type": identified} if identified else {}
    found = answer(PAGE, {"Content-Type": served}, warc)
    assert found == (Response(reason="not_html") if kept is None else Response(payload=PAGE, content_type=kept))


def test_the_charset_of_several_lines_is_kept() -> None:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=gbk\r\nContent-Type: text/html\r\n\r\n<p>x"
    assert parse_response({}, block, LIMIT).content_type == "text/html; charset=gbk"
    assert answer(b"<p>x", {"Content-Type": "text/html charset=gbk"}).content_type == "text/html; charset=gbk"


@pytest.mark.parametrize(
    "body", [b"%PDF-1.5\n%\xe2\xe3", gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(9)), b"PK\x03\x04"], ids=range(3)
)
def test_what_is_no_text_is_no_page(body: bytes) -> None:
    assert answer(body) == Response(reason="not_html")


CODINGS = {
    "gzip": gzip.compress,
    "zlib": lambda data: deflate(data, 15),
    "zstd": zstandard.compress,
    "deflate": deflate,
    "br": brotli.compress,
}


@pytest.mark.parametrize("name", ["gzip", "zlib", "zstd"])
@pytest.mark.parametrize("claim", ["", "identity", "br", "deflate", "utf-8", "none"])
def test_compression_is_known_by_its_bytes(name: str, claim: str) -> None:
    assert answer(CODINGS[name](PAGE), {"Content-Encoding": claim}).payload == PAGE
    assert answer(CODINGS[name](CODINGS[name](PAGE)), {"Content-Encoding": claim}).payload == PAGE


@pytest.mark.parametrize("inner", CODINGS)
@pytest.mark.parametrize("outer", CODINGS)
def test_encodings_are_undone_in_their_order(inner: str, outer: str) -> None:
    body = CODINGS[outer](CODINGS[inner](PAGE))
    names = [{"zlib": "deflate"}.get(name, name) for name in (inner, outer)]
    assert answer(body, {"Content-Encoding": ", ".join(names)}).payload == PAGE
    transfer = {"Content-Encoding": names[0], "Transfer-Encoding": f"{names[1]}, chunked"}
    assert answer(chunks(body), transfer).payload == PAGE


def test_compressions_without_end_are_quarantined() -> None:
    body = PAGE
    for _ in range(7):
        body = gzip.compress(body)
    assert answer(body).payload == PAGE
    for _ in range(3):
        body = gzip.compress(body)
    assert answer(body).cause == "undecodable: compressed more than 8 times"


@pytest.mark.parametrize("name", ["gzip", "zlib", "zstd"])
def test_a_bomb_nobody_announced_is_bounded(name: str) -> None:
    assert (answer(CODINGS[name](bytes(50 << 20))).cause or "").startswith("too_large")


LEGACY = "Съешь же ещё этих мягких французских булок, да выпей чаю. ".encode("cp1251") * 5


@pytest.mark.parametrize("claim", ["gzip", "x-gzip", "deflate", "br", "zstd", "gzip, br"])
@pytest.mark.parametrize(
    "body",
    [
        PAGE,
        TEXT,
        b"\xef\xbb\xbf" + PAGE,
        b"\r\n<!-- x -->" + PAGE,
        LEGACY,
        "<p>水は高い".encode("utf-16"),
        b"x^2 + y^2 = z^2",
    ],
    ids=range(7),
)
def test_a_body_stored_decoded_is_kept(claim: str, body: bytes) -> None:
    assert answer(body, {"Content-Encoding": claim}).payload == body
    assert answer(body, {"Transfer-Encoding": f"{claim}, chunked"}).payload == body


@pytest.mark.parametrize(
    "first", [b"2024\n", b"2024\r\n", b"10\r\n", b"bad\n", b"0\n", b"0\r\n", b"face\r\n", b"5; x\n"]
)
def test_a_text_that_begins_like_a_chunk_is_no_chunk(first: bytes) -> None:
    body = first + b"reasons to learn about fractions.\r\n" * 4
    assert answer(body, {"Content-Type": "text/plain", "Transfer-Encoding": "chunked"}).payload == body


@pytest.mark.parametrize(
    "body",
    [
        chunks(PAGE).replace(b"\r\n", b"\n"),
        chunks(PAGE).replace(b"64\r\n", b"64 ;a=b\r\n"),
        chunks(PAGE).replace(b"64\r\n", b"00000064  \r\n"),
        chunks(PAGE)[:-2] + b"X-Trailer: a\r\n\r\n",
        chunks(PAGE) + b"HTTP/1.1 200 OK\r\n\r\n",
        chunks(PAGE, 1 << 20),
    ],
    ids=range(6),
)
def test_chunks_as_servers_write_them(body: bytes) -> None:
    assert answer(body, {"Transfer-Encoding": "Chunked"}).payload == PAGE
    assert answer(b"0\r\nX-Trailer: a\r\n\r\n", {"Transfer-Encoding": "chunked"}).payload == b""


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Transfer-Encoding": "chunked"}, chunks(PAGE)[:-40]),
        ({"Transfer-Encoding": "chunked"}, chunks(PAGE, 1 << 20)[:300]),
        ({"Transfer-Encoding": "chunked"}, chunks(gzip.compress(PAGE), 1 << 20)[:150]),
        ({"Transfer-Encoding": "chunked"}, re.sub(b"64\r\n", b"xx\r\n", chunks(PAGE)).replace(b"xx", b"64", 2)),
        ({}, gzip.compress(PAGE)[:-30]),
        ({}, gzip.compress(PAGE)[:40] + b"\xff\xff\xff" + gzip.compress(PAGE)[43:]),
        ({}, zstandard.compress(PAGE)[:-30]),
        ({}, deflate(PAGE, 15)[:-30]),
        ({"Content-Encoding": "deflate"}, deflate(PAGE)[:-30]),
        ({"Content-Encoding": "br"}, brotli.compress(PAGE)[:-30]),
    ],
    ids=range(10),
)
def test_a_failure_later_in_the_stream_is_damage(headers: dict[str, str], body: bytes) -> None:
    assert (answer(body, headers).cause or "").startswith("undecodable")


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
