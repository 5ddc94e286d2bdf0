"""Small inputs of every format, and a reader that checks what every reader owes its caller."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import zstandard

from filters.config.filter import InputConfig
from filters.read.batch import FIRST_BYTES, Batch, Quarantined
from filters.read.units import plan_units, read_unit

COMPRESS = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


class Result:
    """Everything the units of an input came to."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches
        self.ids = [value for batch in batches for value in batch.id.to_pylist()]
        self.texts = [value for batch in batches for value in batch.text.to_pylist()]
        self.positions = [value for batch in batches for value in batch.position.tolist()]
        self.reasons = [value for batch in batches for value in batch.reason]
        self.quarantined: list[Quarantined] = [record for batch in batches for record in batch.quarantined]
        self.causes = [record.cause.partition(":")[0] for record in self.quarantined]
        self.records = sum(batch.records for batch in batches)
        self.skipped = sum(batch.skipped for batch in batches)

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: str) -> list[Any]:
        return [value for batch in self.batches for value in batch.columns[name].to_pylist()]

    @property
    def html(self) -> list[bytes]:
        return [value for batch in self.batches for value in batch.html.to_pylist()]


def checked(batch: Batch) -> Batch:
    """The batch, whose columns agree in length and encoding and whose records are all accounted for."""
    n = len(batch)
    assert batch.records == n + len(batch.quarantined)
    assert n <= 1000
    assert len(batch.id) == len(batch.text) == len(batch.reason) == n
    assert batch.id.null_count == batch.text.null_count == 0
    assert batch.text.type == "large_string"
    assert all(len(column) == n for column in batch.columns.values())
    for array in (batch.id, batch.text, *batch.columns.values()):
        array.validate(full=True)
    if batch.html is not None:
        assert len(batch.html) == len(batch.content_type) == n
    assert all(len(record.first_bytes) <= FIRST_BYTES for record in batch.quarantined)
    assert all(record.source == batch.source for record in batch.quarantined)
    return batch


def read_all(config: InputConfig) -> Result:
    return Result([checked(batch) for unit in plan_units(config) for batch in read_unit(unit, config)])


def read_file(path: Path, kind: str, **options: Any) -> Result:
    return read_all(InputConfig.model_validate({"kind": kind, "paths": [str(path)], **options}))


def json_lines(count: int, words: int = 40) -> bytes:
    return b"".join(
        json.dumps({"id": f"doc-{row}", "text": f"text {row} " + f"word{row % 7} " * words}).encode() + b"\n"
        for row in range(count)
    )


def html_page(number: int) -> bytes:
    sentence = f"Sentence number {number} of a page that an extractor recognises as an article. "
    return (
        f"<html><head><title>Page {number}</title></head><body><article><h1>Page {number}</h1>"
        f"<p>{sentence * 4}</p><p>{sentence * 3}</p></article></body></html>"
    ).encode()


def http_response(body: bytes, status: str = "200 OK", headers: dict[str, str] | None = None) -> bytes:
    lines = {"Content-Type": "text/html; charset=utf-8", **(headers or {})}
    head = f"HTTP/1.1 {status}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return head.encode() + b"\r\n" + body


def warc_record(number: int, block: bytes, kind: str = "response", headers: dict[str, str] | None = None) -> bytes:
    lines = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{number:08d}-0000-4000-8000-000000000000>",
        "WARC-Target-URI": f"https://example.org/{number}",
        "WARC-Date": "2024-05-18T01:58:10Z",
        "Content-Type": "text/plain" if kind == "conversion" else f"application/http; msgtype={kind}",
        "Content-Length": str(len(block)),
        **(headers or {}),
    }
    return b"WARC/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()).encode() + b"\r\n" + block + b"\r\n\r\n"


def responses(count: int) -> list[bytes]:
    return [warc_record(number, http_response(html_page(number))) for number in range(count)]
