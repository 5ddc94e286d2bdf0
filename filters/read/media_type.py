"""Tells the media type of a payload by its headers (as browsers do) and by its first bytes."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

_NAME = re.compile(r"[0-9A-Za-z][-!#$&^_.+0-9A-Za-z]*")
"""Name of a type or subtype (RFC 6838, 4.2). HTTP allows more characters, but "*" and quotes name no type."""
_WITHIN = 4096
"""Bytes of a payload that are looked at to say what it is."""
_CONTROLS = bytes(set(range(32)) - set(b"\0\t\n\v\f\r\x0e\x0f\x1b"))
"""Bytes that no text holds; shifts and escapes are part of ISO-2022."""
_NOISE = 0.03
"""Share of them in the first bytes above which a payload is no text: compressed data has a tenth."""
_NULS = 0.2
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
UTF16_MARKUP = re.compile(rb"(?:[\t\n\r ]\0)*<\0[!?a-zA-Z]|(?:\0[\t\n\r ])*\0<\0[!?a-zA-Z]")
"""Markup in UTF-16 without a byte order mark."""
_MAGIC = re.compile(
    rb"%PDF-|%FDF-|\x04?%!PS|\{\\rtf|"  # documents
    rb"PK\x03\x04|PK\x05\x06|\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1|"  # Office, old and new
    rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|RIFF.{4}[A-Z]|BM.{4}\0\0\0\0|II\*\0|MM\0\*|\0\0[\x01\x02]\0|8BPS\0|AT&TFORM|"
    rb"wOF[F2]|OTTO\0|\0\x01\0\0\0|ttcf\0|"  # fonts
    rb"ID3[\x02-\x04]\0|OggS\0|fLaC\0|.{4}ftyp|\x1a\x45\xdf\xa3|FLV\x01|[FCZ]WS[\x01-\x20]|"  # sound and film
    rb"7z\xbc\xaf|Rar!\x1a|BZh[1-9]1AY&SY|\xfd7zXZ|\x7fELF|MZ.\0|\xca\xfe\xba\xbe|SQLite format 3\0|\0asm|.{257}ustar",
    re.DOTALL,
)
_ROOT = re.compile(rb"(?:\s+|<\?.*?\?>|<!--.*?-->)*+<(?:!DOCTYPE\s+)?([a-z][a-z0-9:_-]*)", re.IGNORECASE | re.DOTALL)
_FEEDS = (b"rss", b"feed", b"rdf:rdf", b"urlset", b"sitemapindex", b"opml")
_COMMA = re.compile(r"((?:[^\",]|\"(?:\\.|[^\"\\])*\"?)*),?", re.DOTALL)
_PARAMETER = re.compile(r";[ \t\r\n]*([^;=]*)(?:=(?:\"((?:\\.|[^\"\\])*)\"?[^;]*|([^;]*)))?", re.DOTALL)
_LOOSE_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type without its parameters in lower case ("text/html"), and the label of its charset; "" where none."""

    essence: str = ""
    charset: str = ""


def extract_media_type(value: str) -> MediaType:
    """The media type of a Content-Type header, several of which are one list (Fetch standard, "extract a MIME type").

    The last entry that is a media type counts, and inherits the charset of those before it with the same essence. Where
    none is one ("text/html charset=x"), the essence is "", and the charset is what follows "charset=".
    """
    essence = charset = ""
    for match in _COMMA.finditer(value):
        entry = _parsed(match[1])
        if entry is None:
            continue
        if entry.essence != essence:
            essence, charset = entry.essence, ""
        charset = entry.charset or charset
    if not essence and (found := _LOOSE_CHARSET.search(value)):
        charset = found[1]
    return MediaType(essence, charset)


def _parsed(entry: str) -> MediaType | None:
    """One entry of the list (MIME Sniffing standard, "parse a MIME type"); None if it is no media type."""
    entry = entry.strip(" \t\r\n")
    head, semicolon, parameters = entry.partition(";")
    kind, slash, subtype = head.rstrip(" \t\r\n").partition("/")
    if not (slash and _NAME.fullmatch(kind) and _NAME.fullmatch(subtype)):
        return None
    charset = ""
    for name, quoted, plain in _PARAMETER.findall(semicolon + parameters):
        if name.strip().lower() == "charset" and not charset:
            charset = re.sub(r"\\(.)", r"\1", quoted) or plain.strip(" \t\r\n'\"")
    return MediaType(f"{kind}/{subtype}".lower(), charset)


def is_binary(payload: bytes) -> bool:
    """Whether the payload is no text at all: a PDF, an Office file, an image, a font, an archive or noise."""
    if _is_utf16(payload):
        return False
    start = _beginning(payload)
    if _MAGIC.match(start) or _root(start) == b"svg":
        return True
    if start.startswith(b"<"):
        return False
    sample = payload.lstrip(b"\0")[:_WITHIN].rstrip(b"\0")
    return _controls(sample) > _NOISE * len(sample) or sample.count(0) > _NULS * len(sample)


def is_html(payload: bytes) -> bool:
    """Whether a payload of unknown type begins as a web page does: with markup that is no XML of another kind."""
    start = _beginning(payload.replace(b"\0", b"") if _is_utf16(payload) else payload)
    root = _root(start)
    return start.startswith(b"<") and (root == b"html" if start.startswith(b"<?xml") else root not in (*_FEEDS, b"svg"))


def is_text(payload: bytes) -> bool:
    """Whether the payload reads as text as it is, in UTF-8, UTF-16 or another charset, and so is not compressed."""
    if _is_utf16(payload):
        return True
    sample = payload[:_WITHIN]
    if _controls(sample[:16]) or 0 in sample[:16] or 200 * _controls(sample) > len(sample):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return len(sample) >= 128  # of so many compressed bytes a dozen are control characters
    return True


def _is_utf16(payload: bytes) -> bool:
    """Whether it begins with a byte order mark and has more NULs than noise, or begins with markup."""
    if payload.startswith(_MARKS[1:]):
        sample = payload[:_WITHIN]
        return sample.count(0) > 0.007 * len(sample)
    return UTF16_MARKUP.match(payload) is not None


def _beginning(payload: bytes) -> bytes:
    start = payload[:_WITHIN]
    for mark in _MARKS:
        start = start.removeprefix(mark)
    return start.lstrip()


def _root(start: bytes) -> bytes:
    found = _ROOT.match(start)
    return found[1].lower() if found else b""


def _controls(sample: bytes) -> int:
    return len(sample) - len(sample.translate(None, _CONTROLS))
