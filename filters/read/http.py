"""HTTP responses as WARC records hold them: status, media type, and the payload without its encodings."""

from __future__ import annotations

import codecs
import io
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import brotli

from filters.read.decompress import DamagedError, MemberStream

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


HTML_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
PIECE = 1 << 15
LAYERS = 8
"""So many compressions of a payload are undone; a file made to hold itself has no end of them."""
_NOT_TOLD = ("", "application/octet-stream", "application/unknown", "unknown/unknown")
_CODINGS = ("gzip", "x-gzip", "deflate", "br", "zstd")
_COMPRESSED = ("application/gzip", "application/x-gzip", "application/zstd", "application/zlib")
"""Identified types that say nothing of what is inside."""
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"(?:(?:HTTP(?:/[\d.]*)?|ICY)[ \t]+)?(\d{3})(?=[ \t\r\n]|$)", re.IGNORECASE)
"""A status line as servers write it: "http/1.1 200", "HTTP/2 200", "ICY 200 OK" (SHOUTcast), without a version."""
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?(\r?\n)")
_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")


@dataclass(frozen=True, slots=True)
class Response:
    """What a response record comes to.

    Attributes:
        reason: why it is no document to extract ("http_status", "not_html"), or None.
        cause: why it has to be quarantined, or None.
        payload: decoded body where neither is set, else b"".
        content_type: media type of the payload and its charset where one was told ("text/html; charset=gbk").
    """

    reason: str | None = None
    cause: str | None = None
    payload: bytes = b""
    content_type: str = ""


class _TooLargeError(Exception):
    pass


def parse_response(warc: Mapping[str, str], block: bytes, limit: int) -> Response:
    """Judge and decode the block of a response record.

    Args:
        warc: headers of the record, by lower-case name.
        block: status line, headers and body.
        limit: largest decoded payload, in bytes.
    """
    if not warc.get("content-type", "application/http").lower().startswith("application/http"):
        return Response(reason="not_html")  # a dns: record, for example
    status = _STATUS.match(block)
    if status is None:
        return Response(cause="bad_http: no status line")
    if status[1] != b"200":
        return Response(reason="http_status")
    end = _HEAD_END.search(block)
    head, body = (block, b"") if end is None else (block[: end.start()], block[end.end() :])
    headers = _http_headers(head)
    told = _told(headers, warc)
    if told is None:
        return Response(reason="not_html")
    try:
        payload = _decoded(headers, body, limit, cut="warc-truncated" in warc)
    except _TooLargeError:
        return Response(cause=f"too_large: payload of more than {limit:,} bytes (input.max_document_bytes)")
    except (ValueError, zlib.error, brotli.error) as error:
        return Response(cause=f"undecodable: {error}")
    if is_binary(payload) or not (told.essence or is_html(payload)):
        return Response(reason="not_html")
    charset = f"; charset={told.charset}" if told.charset else ""
    return Response(payload=payload, content_type=(told.essence or "text/html") + charset)


def _told(headers: Mapping[str, str], warc: Mapping[str, str]) -> MediaType | None:
    """The type by the server and by whoever identified the payload, which decides; without an essence where neither
    tells it; None if it is no page."""
    served = extract_media_type(headers.get("content-type", ""))
    found = extract_media_type(warc.get("warc-identified-payload-type", "")).essence
    if found in _NOT_TOLD or found in _COMPRESSED or (found == "text/plain" and served.essence in HTML_TYPES):
        essence = "" if served.essence in _NOT_TOLD[2:] else served.essence
    else:
        essence = found
    return MediaType(essence, served.charset) if not essence or essence in HTML_TYPES else None


def header_lines(head: str) -> Iterator[tuple[str, str]]:
    """(lower-case name, value) of the lines after the first one of an HTTP or WARC head, folded lines joined.

    A line ends at CRLF or LF only: `str.splitlines` would cut at U+0085, U+2028 and others that stand in values, and a
    site could set headers of its records that way.
    """
    name = value = ""
    for line in head.split("\n")[1:]:
        if line[:1] in (" ", "\t") and name:
            value += " " + line.strip(" \t\r")
            continue
        if name:
            yield name, value
        key, colon, rest = line.partition(":")
        name = key.strip(" \t").lower() if colon else ""
        value = rest.strip(" \t\r")
    if name:
        yield name, value


def _http_headers(head: bytes) -> dict[str, str]:
    """Values by lower-case name; of several lines of a name, all that are not empty, as one list."""
    headers: dict[str, str] = {}
    for name, value in header_lines(head.decode("latin-1")):
        if value:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def _decoded(headers: Mapping[str, str], body: bytes, limit: int, cut: bool) -> bytes:
    """The body without its encodings. Crawlers often store it decoded under the original headers, and servers compress
    without a word, so each encoding is undone where the bytes show it. `cut`: the crawler stored only the beginning."""
    content, transfer = (
        [coding.strip(" \t").lower() for coding in headers.get(name, "").split(",")]
        for name in ("content-encoding", "transfer-encoding")
    )
    if "chunked" in transfer:
        body = _dechunked(body, cut)
    for coding in reversed(content + transfer):
        if coding in _CODINGS:
            body = _limited(_unpacked(body, cut) or _told_unpacked(body, coding, cut), limit)
    for _ in range(LAYERS):
        pieces = _unpacked(body, cut)
        if pieces is None:
            break
        body = _limited(pieces, limit)
    else:
        raise ValueError(f"compressed more than {LAYERS} times")
    if len(body) > limit:
        raise _TooLargeError
    return body


def _unpacked(body: bytes, cut: bool) -> Iterator[bytes] | None:
    """What a body holds that its first bytes show to be compressed; None if they do not."""
    if body.startswith(b"\x1f\x8b\x08"):
        return _inflate(body, 31, cut)
    if body.startswith(b"\x28\xb5\x2f\xfd"):
        return _unzstd(body, cut)
    if _ZLIB.match(body) and not is_text(body):
        return _inflate(body, 15, cut)
    return None


def _told_unpacked(body: bytes, coding: str, cut: bool) -> Iterator[bytes]:
    """What a body holds that only its headers tell to be compressed, if it is not text already."""
    if coding not in ("deflate", "br") or is_text(body):
        return iter((body,))
    return _inflate(body, -15, cut) if coding == "deflate" else _unbrotli(body, cut)


def _dechunked(body: bytes, cut: bool) -> bytes:
    """The data of a chunked body; the body itself where its first line is no chunk size but the first line of a text.

    Raises:
        ValueError: it ends early or breaks off.
    """
    parts: list[bytes] = []
    at = 0
    while match := _CHUNK_SIZE.match(body, at):
        size = int(match[1], 16)
        part = body[match.end() : match.end() + size]
        if not at and not _is_chunk(match, part, size, body):
            return body
        if size == 0:
            return b"".join(parts)
        parts.append(part)
        at = match.end() + size
        if len(part) < size:
            break
        at += 2 if body[at : at + 2] == b"\r\n" else 1 if body[at : at + 1] == b"\n" else 0
    if not at:
        return body
    if not cut and at < len(body):
        raise ValueError(f"no chunk begins at byte {at} of the chunked body")
    if not cut:
        raise ValueError("the chunked body ends early")
    return b"".join(parts)


def _is_chunk(line: re.Match[bytes], part: bytes, size: int, body: bytes) -> bool:
    """Whether what follows the first line is a chunk of the size it names."""
    behind = body[line.end() + size :]
    if size == 0:
        return not behind.strip(b"\r\n\0 ") or re.match(rb"[!-9;-~]+:", behind) is not None  # a trailer
    if len(part) == size:
        return not behind or re.match(rb"\r?\n(?:" + _CHUNK_SIZE.pattern + rb"|$)", behind) is not None
    # A chunk cut short: the text after a line that only looks like a size is no markup, or the line ends in LF.
    return line[2] == b"\r\n" and (part.lstrip()[:1] == b"<" or not is_text(part))


def _limited(pieces: Iterator[bytes], limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise _TooLargeError
        parts.append(piece)
    return b"".join(parts)


def _inflate(body: bytes, window: int, cut: bool) -> Iterator[bytes]:
    while body:
        inner = zlib.decompressobj(window)
        for start in range(0, len(body), PIECE):
            yield inner.decompress(body[start : start + PIECE])
            if inner.eof:
                break
        if not inner.eof:
            if not cut:
                raise ValueError("the compressed body ends early")
            return
        body = inner.unused_data + body[start + PIECE :]
        if window != 31 or not body.startswith(b"\x1f\x8b"):
            return


def _unbrotli(body: bytes, cut: bool) -> Iterator[bytes]:
    inner = brotli.Decompressor()
    for start in range(0, len(body), PIECE):
        yield inner.process(body[start : start + PIECE], output_buffer_limit=PIECE)
        while not inner.can_accept_more_data() and not inner.is_finished():
            yield inner.process(b"", output_buffer_limit=PIECE)
        if inner.is_finished():
            return
    if not cut:
        raise ValueError("the compressed body ends early")


def _unzstd(body: bytes, cut: bool) -> Iterator[bytes]:
    stream = MemberStream(io.BytesIO(body), "")
    try:
        while piece := stream.read():
            yield piece
    except DamagedError as error:
        if not (cut and error.cause == "truncated"):
            raise ValueError(error.detail) from error
