"""The text of a web page from its bytes, whatever it claims its character set to be."""

from __future__ import annotations

import codecs
import re

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_HTTP_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE)
_META_CHARSET = re.compile(rb"<meta[^>]{0,256}?charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.-]{2,40})", re.IGNORECASE)
_META_WITHIN = 4096
"""Bytes of the page searched for a meta charset (the HTML standard says 1024; many pages need more)."""
_NOT_ASCII_BASED = ("utf-16", "iso2022")
_BROKEN_UTF8 = 0.1
"""A page whose bytes above 0x7f are UTF-8 but for this share is UTF-8 with damage, not another character set."""


def decode_page(payload: bytes, content_type: str) -> str:
    """The page as text: valid UTF-8 when encoded, without BOM and NUL.

    A byte order mark decides; else bytes that are valid UTF-8 are UTF-8, since a wrong `charset=iso-8859-1` is far more
    common than another encoding that happens to be valid UTF-8; else the HTTP charset, the meta charset and detection
    (resiliparse's uchardet) are tried in this order.

    Args:
        payload: bytes of the page.
        content_type: the HTTP Content-Type header, "" if unknown.
    """
    for bom, encoding in _BOMS:
        if payload.startswith(bom):
            return without_nul(payload[len(bom) :].decode(encoding, "replace"))
    declared = _declared(payload, content_type)
    if not (declared and declared[0].startswith(_NOT_ASCII_BASED)):
        try:
            return without_nul(payload.decode())
        except UnicodeDecodeError:
            pass
    for encoding in declared:
        if encoding != "utf-8":
            text = _decoded(payload, encoding)
            if text is not None:
                return without_nul(text)
    damaged = payload.decode("utf-8", "replace")
    high = sum(map(len, re.findall(rb"[\x80-\xff]+", payload)))
    if damaged.count("\ufffd") <= _BROKEN_UTF8 * high:
        return without_nul(damaged)
    text = _decoded(payload, detect_encoding(payload) or "utf-8")
    return without_nul(damaged if text is None else text)


def without_nul(text: str) -> str:
    return text.replace("\0", "") if "\0" in text else text


def clean_text(text: str) -> str:
    """Text that any consumer can take: no NUL, no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return without_nul(text)


def _declared(payload: bytes, content_type: str) -> list[str]:
    labels = []
    if match := _HTTP_CHARSET.search(content_type):
        labels.append(match[1])
    if found := _META_CHARSET.search(payload, 0, _META_WITHIN):
        label = found[1].decode("ascii")
        # A meta tag that can be read as ASCII cannot be in UTF-16 (HTML standard, 13.2.3.2).
        labels.append("utf-8" if label.lower().startswith("utf-16") else label)
    encodings = (map_encoding_to_html5(label, False) for label in labels)
    return list(dict.fromkeys(encoding for encoding in encodings if encoding))


def _decoded(payload: bytes, encoding: str) -> str | None:
    try:
        return payload.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        pass
    try:
        text = payload.decode(encoding, "replace")
    except LookupError:
        return None
    return text if text.count("\ufffd") <= len(payload) // 200 else None
