"""Benchmark leakage: which documents repeat a run of words from a benchmark, and at which scores.

Quality filters raise the share of leaked documents, for benchmarks look like what they are trained to like. A document
leaks if it contains `NGRAM` consecutive words of a benchmark item, words lower-cased and without punctuation (13-grams:
Brown et al. 2020, Language Models are Few-Shot Learners, appendix C). An item with fewer words cannot be found.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from filters.errors import InputError, RunError
from filters.inspect.run import DAMAGE, Run
from filters.inspect.summary import BELOW
from filters.kernels.ngrams import NgramSet
from filters.kernels.packed import PackedText
from filters.storage import Location, files_below, parquet_file

NGRAM = 13
BUCKET = 0.25
BATCH_ITEMS = 10_000
_LINES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's n-grams.

    Attributes:
        path: of the file.
        sha256: of the file as stored.
        items: strings in it.
        ngrams: its n-grams.
    """

    path: str
    sha256: str
    items: int
    ngrams: NgramSet

    def to_json(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {
            "path": self.path,
            "sha256": self.sha256,
            "items": self.items,
            "ngrams": self.ngrams.count,
            "too_short": self.ngrams.too_short,
        }


def read_benchmark(path: str | Path, size: int = NGRAM, keys: Sequence[str] = ()) -> Benchmark:
    """Read a benchmark file.

    Args:
        path: .jsonl, .parquet, or text with a blank line between items; JSONL and text also as .gz or .zst.
        size: words in an n-gram.
        keys: columns to read; without any, every string in a row is an item of its own.

    Raises:
        InputError: the file cannot be read, lacks a key, or has no item with as many words.
    """
    items = 0

    def packed() -> Iterator[PackedText]:
        nonlocal items
        waiting: list[str] = []
        for item in _items(Path(path), keys):
            waiting.append(item)
            items += 1
            if len(waiting) == BATCH_ITEMS:
                yield PackedText.from_strings(waiting)
                waiting = []
        yield PackedText.from_strings(waiting)

    try:
        ngrams = NgramSet.of(packed(), size)
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, EOFError, ValueError, pa.ArrowException, zstandard.ZstdError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot read this benchmark file: {error}. Remedy: give .jsonl, .parquet or plain text (.gz, .zst)"
        ) from error
    if not ngrams.count:
        raise InputError(
            f"{path}: none of its {items:,} items has {size} words, so nothing could be found. Remedy: a shorter "
            "ngram, or other keys"
        )
    return Benchmark(str(path), digest, items, ngrams)


def _items(path: Path, keys: Sequence[str]) -> Iterator[str]:
    suffix = Path(path.name.removesuffix(".gz").removesuffix(".zst")).suffix
    if suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            _check_keys(path, keys, file.schema_arrow.names)
            for batch in file.iter_batches(1000, columns=list(keys) or None):
                for row in batch.to_pylist():
                    yield from _strings(row)
        return
    with _opened(path) as lines:
        if suffix in _LINES:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise InputError(
                        f"{path}: line {number} is not JSON: {error}. Remedy: one object a line"
                    ) from error
                if keys and isinstance(row, dict):
                    _check_keys(path, keys, row)
                    row = {key: row[key] for key in keys}
                yield from _strings(row)
        else:
            paragraph: list[str] = []
            for text in (line.decode("utf-8", "replace") for line in lines):
                if text.strip():
                    paragraph.append(text)
                elif paragraph:
                    yield "".join(paragraph)
                    paragraph = []
            if paragraph:
                yield "".join(paragraph)


@contextmanager
def _opened(path: Location) -> Iterator[Iterable[bytes]]:
    """The lines of a file."""
    if path.suffix == ".gz":
        with path.open("rb") as stored, gzip.open(stored, "rb") as lines:
            yield lines
    elif path.suffix == ".zst":
        with path.open("rb") as stored, zstandard.ZstdDecompressor().stream_reader(stored) as stream:
            yield io.BufferedReader(stream)
    else:
        with path.open("rb") as plain:
            yield plain


def _check_keys(path: Path, keys: Sequence[str], present: Sequence[str] | dict[str, Any]) -> None:
    missing = [key for key in keys if key not in present]
    if missing:
        raise InputError(f"{path}: no key {missing[0]!r}; there are {', '.join(present)}. Remedy: name one of these")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)


@dataclass(frozen=True)
class Bucket:
    """Documents with a score from `low` up to `high`: how many were examined, and how many leak."""

    low: float
    high: float
    examined: int
    leaked: int


@dataclass(frozen=True)
class Leaks:
    """What a leak check found.

    Attributes:
        benchmark: what a manifest would say of it.
        size: words in an n-gram.
        examined: survivors whose text was looked at.
        survivors: documents that survived deduplication.
        complete: whether the run holds the texts of all of them; else only of those kept.
        kept: documents kept, and how many of them leak.
        buckets: by score, ascending, without empty ones.
        ids: of the first leaking documents, highest scores first.
    """

    benchmark: dict[str, Any]
    size: int
    examined: int
    survivors: int
    complete: bool
    kept: tuple[int, int]
    buckets: tuple[Bucket, ...]
    ids: tuple[tuple[float, str], ...]

    @property
    def leaked(self) -> int:
        """Documents that leak, of those examined."""
        return sum(bucket.leaked for bucket in self.buckets)

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def check_leaks(run: Run, benchmark: Benchmark, *, examples: int = 5) -> Leaks:
    """Look for a benchmark in the texts a run holds: its shards, and its rejected documents where it has them.

    Raises:
        RunError: the texts are damaged.
    """
    counts = np.zeros((2, round(5 / BUCKET)), np.int64)
    found: list[tuple[float, str]] = []
    kept = np.zeros(2, np.int64)
    for folder in ("data", "rejected"):
        for ids, scores, texts in _texts(run.path, folder):
            leaks = benchmark.ngrams.found_in(PackedText.from_arrow(texts))
            place = np.clip(scores / BUCKET, 0, counts.shape[1] - 1).astype(np.int64)
            counts[0] += np.bincount(place, minlength=counts.shape[1])
            counts[1] += np.bincount(place[leaks], minlength=counts.shape[1])
            if folder == "data":
                kept += len(scores), int(leaks.sum())
            found += [(-float(scores[row]), ids[row].as_py()) for row in np.flatnonzero(leaks).tolist()]
            found = sorted(found)[:examples]
    buckets = tuple(
        Bucket(place * BUCKET, (place + 1) * BUCKET, int(counts[0, place]), int(counts[1, place]))
        for place in np.flatnonzero(counts[0]).tolist()
    )
    survivors = run.histogram().total()
    return Leaks(
        benchmark.to_json(),
        benchmark.ngrams.size,
        int(counts[0].sum()),
        survivors,
        int(counts[0].sum()) == survivors,
        (int(kept[0]), int(kept[1])),
        buckets,
        tuple((-score, name) for score, name in found),
    )


def _texts(path: Location, folder: str) -> Iterator[tuple[pa.Array, np.ndarray[Any, np.dtype[np.float32]], pa.Array]]:
    """(ids, scores, texts) of the survivors in data/ or rejected/."""
    columns = ["id", "score", "text", *(["reason"] if folder == "rejected" else [])]
    try:
        for shard in files_below(path / folder, ".parquet"):
            with parquet_file(shard) as file:
                for batch in file.iter_batches(1000, columns=columns):
                    yield from _survivors(pa.table(batch))
        for shard in files_below(path / folder, ".jsonl.zst"):
            with _opened(shard) as lines:
                rows: list[dict[str, Any]] = []
                for line in lines:
                    rows.append({name: orjson.loads(line)[name] for name in columns})
                    if len(rows) == 1000:
                        yield from _survivors(pa.Table.from_pylist(rows))
                        rows = []
                if rows:
                    yield from _survivors(pa.Table.from_pylist(rows))
    except (*DAMAGE, zstandard.ZstdError) as error:
        raise RunError(
            f"{path / folder}: cannot read the texts: {error}. Remedy: restore them (manifest.json has their SHA-256), "
            "or filter again"
        ) from error


def _survivors(table: pa.Table) -> Iterator[tuple[pa.Array, np.ndarray[Any, np.dtype[np.float32]], pa.Array]]:
    if "reason" in table.column_names:
        chosen = np.array([reason in BELOW for reason in table["reason"].to_pylist()], dtype=bool)
        table = table.filter(pa.array(chosen))
    if table.num_rows:
        scores = table["score"].to_numpy().astype(np.float32)
        yield table["id"].combine_chunks(), scores, table["text"].combine_chunks()
