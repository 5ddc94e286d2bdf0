"""HTTP responses as WARC records hold them: status, type, and the payload without transfer and content encoding."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import brotli

from filters.read.decompress import DamagedError, MemberStream

HTML_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
PIECE = 1 << 15
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/\d(?:\.\d+)? +(\d{3})")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


@dataclass(frozen=True, slots=True)
class Response:
    """What a response record comes to.

    Attributes:
        reason: why it is no document to extract ("http_status", "not_html"), or None.
        cause: why it has to be quarantined, or None.
        payload: decoded body where neither is set, else b"".
        content_type: the Content-Type header, "" without one.
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
    end = _HEAD_END.search(block)
    head, body = (block, b"") if end is None else (block[: end.start()], block[end.end() :])
    headers = _http_headers(head)
    content_type = headers.get("content-type", "")
    if status[1] != b"200":
        return Response(reason="http_status", content_type=content_type)
    media = content_type.partition(";")[0].strip().lower()
    if media and media not in HTML_TYPES:
        return Response(reason="not_html", content_type=content_type)
    try:
        payload = _decoded(headers, body, limit, cut="warc-truncated" in warc)
    except _TooLargeError:
        return Response(cause=f"too_large: payload of more than {limit:,} bytes (input.max_document_bytes)")
    except (ValueError, zlib.error, brotli.error) as error:
        return Response(cause=f"undecodable: {error}")
    if not media and payload.lstrip()[:1] != b"<":
        return Response(reason="not_html")
    return Response(payload=payload, content_type=content_type)


def _http_headers(head: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").splitlines()[1:]:
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if colon and value.strip():
            # Several Content-Encoding lines are one list; of any other header the first counts.
            if name == "content-encoding" and name in headers:
                headers[name] += "," + value
            else:
                headers.setdefault(name, value.strip())
    return headers


def _decoded(headers: Mapping[str, str], body: bytes, limit: int, cut: bool) -> bytes:
    """The body without its encodings. Crawlers often store it decoded under the original headers, so each encoding is
    undone only where the bytes show it. `cut`: the crawler says it stored only the beginning."""
    if "chunked" in headers.get("transfer-encoding", "").lower() and _CHUNK_SIZE.match(body):
        body = _dechunked(body, cut)
    codings = [coding.strip().lower() for coding in headers.get("content-encoding", "").split(",")]
    for coding in reversed(codings):
        if coding in ("gzip", "x-gzip") and body.startswith(b"\x1f\x8b"):
            body = _limited(_inflate(body, 31, cut), limit)
        elif coding == "deflate" and not _looks_like_text(body):
            body = _limited(_inflate(body, 15 if _has_zlib_header(body) else -15, cut), limit)
        elif coding == "br" and not _looks_like_text(body):
            body = _limited(_unbrotli(body, cut), limit)
        elif coding == "zstd" and body.startswith(b"\x28\xb5\x2f\xfd"):
            body = _limited(_unzstd(body, cut), limit)
    if len(body) > limit:
        raise _TooLargeError
    return body


def _dechunked(body: bytes, cut: bool) -> bytes:
    parts: list[bytes] = []
    at = 0
    while match := _CHUNK_SIZE.match(body, at):
        size = int(match[1], 16)
        if size == 0:
            return b"".join(parts)
        part = body[match.end() : match.end() + size]
        parts.append(part)
        at = match.end() + size
        if len(part) < size:
            break
        at += 2 if body[at : at + 2] == b"\r\n" else 1 if body[at : at + 1] == b"\n" else 0
    if not cut and at < len(body):
        raise ValueError(f"no chunk begins at byte {at} of the chunked body")
    if not cut:
        raise ValueError("the chunked body ends early")
    return b"".join(parts)


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


def _has_zlib_header(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0


def _looks_like_text(body: bytes) -> bool:
    return body[:64].lstrip()[:1] == b"<" or not body
