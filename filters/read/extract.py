"""Main text of web pages, by resiliparse or trafilatura."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from filters.config import ExtractConfig
from filters.errors import ConfigError
from filters.read.batch import Batch
from filters.read.charset import clean_text, decode_page
from filters.read.remote import describe

MAX_DEPTH = 3_000
"""Deepest nesting given to an extractor. Real pages stay below 100; resiliparse's time grows with the square of it
(10,000 nested <div>: 3 s, 100,000: minutes), and native code can neither be interrupted nor its crash be caught."""
MAX_ATTRIBUTES = 5_000
"""Most attributes of one tag: resiliparse's time grows with the square of it, too."""
_LONG_TAG = 20_000
"""Only tags of more characters than this are looked at for their attributes."""

_TAG = re.compile(r"<(/?)(?:div|article|ul|ol|menu|dir|dl)\b", re.IGNORECASE)
_LIST = re.compile(r"<(/?)ul\b", re.IGNORECASE)
_ITEM = re.compile(r"<li\b", re.IGNORECASE)
_LINK = re.compile(r"<a\b", re.IGNORECASE)
_LIST_LEVELS = 3
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")


def extract(batch: Batch, config: ExtractConfig) -> None:
    """Replace the pages of a batch (`html`) by their main text, in place.

    A page without text is removed with `no_text_extracted`; one that the extractor fails on, or that is built to stall
    it, is quarantined with the cause "extraction_failed". Plain text is only decoded. A batch without `html` is left
    as it is.

    Raises:
        ConfigError: the engine cannot be imported.
    """
    if batch.html is None or batch.content_type is None:
        return
    engine = _resiliparse() if config.engine == "resiliparse" else _trafilatura()
    texts = [""] * len(batch)
    failed: dict[int, str] = {}
    alive = batch.alive
    for row in np.flatnonzero(alive).tolist():
        payload: bytes = batch.html[row].as_py()
        content_type = batch.content_type[row].as_py() or ""
        try:
            page = decode_page(payload, content_type)
            if content_type.partition(";")[0].strip().lower() == "text/plain":
                texts[row] = page.strip()
                continue
            reason = hostile(page)
            if reason is None:
                texts[row] = clean_text(engine(page)).strip()
            else:
                failed[row] = f"extraction_failed: {reason}"
        except Exception as error:  # whatever an extractor raises on odd markup costs this page only
            failed[row] = f"extraction_failed: {describe(error)}"
    batch.text = pa.array(texts, pa.large_string())
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    batch.remove(lengths < max(1, config.min_characters), "no_text_extracted")
    if failed:
        batch.quarantine(list(failed), list(failed.values()), [batch.html[row].as_py()[:200] for row in failed])
    batch.html = batch.content_type = None


def hostile(page: str) -> str | None:
    """Why this page would stall an extractor, or None."""
    depth = nesting(page)
    if depth > MAX_DEPTH:
        return f"elements nested {depth:,} deep"
    attributes = _most_attributes(page)
    if attributes > MAX_ATTRIBUTES:
        return f"a tag with {attributes:,} attributes"
    return None


def nesting(page: str) -> int:
    """Depth of nested blocks (which resiliparse climbs) and lists (which it indents); 0 for less than `MAX_DEPTH`."""
    if page.count("<") <= MAX_DEPTH:
        return 0
    deepest = depth = 0
    for closing in _TAG.findall(page):
        if not closing:
            depth += 1
            deepest = max(deepest, depth)
        elif depth:
            depth -= 1
    return deepest


def _most_attributes(page: str) -> int:
    pieces = page.split(">")
    if max(map(len, pieces)) <= _LONG_TAG:
        return 0
    most = 0
    for piece in pieces:
        if len(piece) > _LONG_TAG and "<" in piece:
            most = max(most, len(_QUOTED.sub("", piece[piece.find("<") :]).split()) - 1)
    return most


def _resiliparse() -> Callable[[str], str]:
    from resiliparse.extract.html2text import extract_plain_text

    def text_of(page: str) -> str:
        page = sheltered_lists(page)
        return str(extract_plain_text(page, preserve_formatting=True, main_content=True, alt_texts=False))

    return text_of


def sheltered_lists(page: str) -> str:
    """The page with its bulleted lists moved out of reach of a rule of resiliparse.

    It takes any <ul> within three levels of <body> for navigation, though there it is as often the content of a page
    without layout elements. A list with fewer links than every second item is wrapped to lie deeper. This works on
    the source because resiliparse's DOM queries take quadratic time.
    """
    parts = []
    done = start = depth = 0
    for match in _LIST.finditer(page):
        if not match[1]:
            start = start if depth else match.start()
            depth += 1
        elif depth:
            depth -= 1
            end = page.find(">", match.end(), match.end() + 100) + 1
            if depth == 0 and end:
                body = page[start:end]
                if 2 * len(_LINK.findall(body)) < len(_ITEM.findall(body)):
                    parts += [page[done:start], "<div>" * _LIST_LEVELS, body, "</div>" * _LIST_LEVELS]
                    done = end
    return "".join([*parts, page[done:]]) if parts else page


def _trafilatura() -> Callable[[str], str]:
    try:
        from trafilatura import extract as extract_text
    except ImportError as error:
        raise ConfigError(
            f"extract.engine: trafilatura cannot be imported ({error}). Remedy: pip install lxml_html_clean, or "
            "extract.engine: resiliparse"
        ) from error

    def text_of(page: str) -> str:
        return extract_text(page, include_comments=False, deduplicate=False) or ""

    return text_of
