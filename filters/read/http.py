"""HTTP responses as WARC records hold them: status, type, and the payload without transfer and content encoding."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import brotli

from filters.read.decompress import DamagedError, MemberStream
from filters.read.media_type import MediaType, extract_media_type, is_binary, is_html, is_text

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
