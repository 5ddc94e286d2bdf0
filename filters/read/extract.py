"""Main text of web pages, by resiliparse or trafilatura."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from filters.config.filter import ExtractConfig
from filters.errors import ConfigError
from filters.kernels.html_work import Work, parsing_work
from filters.read.batch import Batch
from filters.read.charset import UndecodableError, check_readable, clean_text, decode_page, utf8_page
from filters.read.engines import (
    EngineMissingError,
    ExtractionError,
    ExtractionTimeoutError,
    child,
    program_of,
)
from filters.storage.remote import describe

LIMITS = Work(rebuilt=100_000, steps=50_000_000, depth=3_000, attributes=5_000)
"""Most of what a page may have the parser do. No one of 782 real pages comes near: at most 672 elements and attributes
built again, 112,293 steps, 86 elements open, 185 attributes of a tag. resiliparse's time grows with the square of the
last two."""


def extract(batch: Batch, config: ExtractConfig) -> None:
    """Replace the pages of a batch (`html`) by their main text, in place.

    A page without text is removed with `no_text_extracted`, one that takes the extractor more than `config.seconds`
    with `extraction_timeout`; one that no charset makes readable is quarantined with the cause "undecodable", one that
    the extractor fails or dies on, or that is built to stall it, with "extraction_failed". Plain text is only decoded.
    A batch without `html` is left as it is.

    Raises:
        ConfigError: the engine cannot be imported.
    """
    if batch.html is None or batch.content_type is None:
        return
    program = program_of(config.engine)
    texts = [""] * len(batch)
    failed: dict[int, str] = {}
    late = np.zeros(len(batch), dtype=bool)
    alive = batch.alive
    for row in np.flatnonzero(alive).tolist():
        payload: bytes = batch.html[row].as_py()
        content_type = batch.content_type[row].as_py() or ""
        try:
            if content_type.partition(";")[0].strip().lower() == "text/plain":
                plain = decode_page(payload, content_type)
                texts[row] = plain.strip()
                check_readable(plain)
                continue
            page = utf8_page(payload, content_type)
            reason = hostile(page)
            if reason is None:
                with child(program) as engine:
                    texts[row] = clean_text(engine.text_of(page, config.seconds)).strip()
                check_readable(texts[row])
            else:
                failed[row] = f"extraction_failed: {reason}"
        except EngineMissingError as error:
            raise ConfigError(
                f"extract.engine: {config.engine} cannot be imported ({error}). Remedy: pip install lxml_html_clean, "
                "or extract.engine: resiliparse"
            ) from error
        except ExtractionTimeoutError:
            late[row] = True
        except ExtractionError as error:
            failed[row] = f"extraction_failed: {error}"
        except UndecodableError as error:
            failed[row] = f"undecodable: {error}"
        except Exception as error:  # whatever decoding raises costs this page only
            failed[row] = f"extraction_failed: {describe(error)}"
    batch.text = pa.array(texts, pa.large_string())
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    batch.remove(late, "extraction_timeout")
    batch.remove(lengths < max(1, config.min_characters), "no_text_extracted")
    if failed:
        batch.quarantine(list(failed), list(failed.values()), [batch.html[row].as_py()[:200] for row in failed])
    batch.html = batch.content_type = None


def hostile(page: bytes) -> str | None:
    """Why a page (in UTF-8) is built to stall a parser, or None."""
    work = parsing_work(page, LIMITS)
    if work.depth >= LIMITS.depth:
        return f"elements nested {LIMITS.depth:,} deep"
    if work.attributes > LIMITS.attributes:
        return f"a tag with {work.attributes:,} attributes"
    if work.rebuilt > LIMITS.rebuilt:
        return f"formatting elements left open, to be built again more than {LIMITS.rebuilt:,} times"
    if work.steps > LIMITS.steps:
        return f"tags whose elements are looked for in more than {LIMITS.steps:,} steps"
    return None
