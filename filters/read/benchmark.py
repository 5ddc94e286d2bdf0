"""Reads the n-grams of benchmarks: what `decontaminate` removes documents for, and the leak check looks for."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from filters.config.filter import DecontaminateConfig
from filters.errors import InputError
from filters.kernels.hash_sets import NgramSet
from filters.kernels.packed import PackedText
from filters.read.decompress import MemberStream
from filters.read.jsonl import line_groups
from filters.read.parquet import TooLarge, group_batches

NGRAM = 13
MOST = 10
BATCH_ITEMS = 10_000
ITEM_BYTES = 64 * 2**20
"""Most bytes of an item, decompressed."""
FILE_BYTES = 4 * 2**30
"""Most bytes of a benchmark, decompressed."""
INSTRUCTIONS = ("instruction", "instructions", "system", "system_prompt", "prompt_template", "template")
"""Columns, and roles of messages, with what a model is told, not asked: no items, unless `keys` names them."""
FEW_VALUES = 0.1
MOST_WORDINGS = 100
"""A column with fewer different strings, by this share of its rows, holds instructions too, whatever it is called, but
not one with more than so many: passages with many questions each."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's n-grams.

    Attributes:
        path: of the file.
        sha256: of the file as stored.
        items: strings in it.
        ngrams: its n-grams.
        left_out: columns that are no items, for they hold instructions.
    """

    path: str
    sha256: str
    items: int
    ngrams: NgramSet
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {
            "path": self.path,
            "sha256": self.sha256,
            "items": self.items,
            "ngrams": self.ngrams.count,
            "too_short": self.ngrams.too_short,
            "frequent": self.ngrams.frequent,
            "left_out": list(self.left_out),
        }


def read_benchmark(path: str | Path, size: int = NGRAM, keys: Sequence[str] = ()) -> Benchmark:
    """Read a benchmark file.

    Args:
        path: .jsonl, .parquet, or text with a blank line between items; JSONL and text also compressed (.gz, .zst).
        size: words in an n-gram.
        keys: columns to read; without any, every string in a row is an item of its own, but for columns that hold
            instructions: by their name (`INSTRUCTIONS`), or because they say the same in row after row.

    Raises:
        InputError: the file cannot be read, lacks a key, or has no item with as many words.
    """
    items = 0
    left_out: tuple[str, ...] = ()
    seen: set[int] = set()

    def packed() -> Iterator[PackedText]:
        nonlocal items
        waiting: list[str] = []
        for item in _items(Path(path), keys, left_out):
            items += 1
            # An item that comes again says no more, and is not what many items have in common.
            name = xxhash.xxh3_64_intdigest(item.encode("utf-8", "surrogatepass"))
            if name in seen:
                continue
            seen.add(name)
            waiting.append(item)
            if len(waiting) == BATCH_ITEMS:
                yield PackedText.from_strings(waiting)
                waiting = []
        yield PackedText.from_strings(waiting)

    try:
        left_out = () if keys else _instructions(Path(path))
        ngrams = NgramSet.of(packed(), size, MOST)
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, EOFError, ValueError, pa.ArrowException, RecursionError) as error:
        raise InputError(
            f"{path}: cannot read this benchmark file: {error}. Remedy: give .jsonl, .parquet or plain text (.gz, .zst)"
        ) from error
    if not ngrams.count:
        raise InputError(
            f"{path}: none of its {items:,} items has {size} words"
            + (" that not many others have too" if ngrams.frequent else "")
            + (f" (columns {', '.join(left_out)} hold instructions, and were left out)" if left_out else "")
            + ", so nothing could be found. Remedy: a shorter ngram, or other keys"
        )
    return Benchmark(str(path), digest, items, ngrams, left_out)


def read_benchmarks(config: DecontaminateConfig) -> tuple[Benchmark, ...]:
    """The benchmarks of a config, with their paths as it has them.

    Raises:
        InputError: see `read_benchmark`.
    """
    return tuple(
        replace(read_benchmark(config.at(file), config.ngram, config.keys), path=file) for file in config.files
    )


def _instructions(path: Path) -> tuple[str, ...]:
    """Columns that hold instructions."""
    rows: Counter[str] = Counter()
    values: dict[str, set[int]] = {}
    for row in _rows(path, ()):
        for name, value in _strings(row):
            if name and value.strip():
                rows[name] += 1
                values.setdefault(name, set()).add(xxhash.xxh3_64_intdigest(value.encode("utf-8", "surrogatepass")))
    few = {name: max(1, min(FEW_VALUES * rows[name], MOST_WORDINGS)) for name in rows}
    several = {name for name in rows if rows[name] > 1 and len(values[name]) <= few[name]}
    return tuple(
        name
        for name in rows
        if name in several or any(part.strip() in INSTRUCTIONS for part in name.lower().split("."))
    )


def _items(path: Path, keys: Sequence[str], left_out: Sequence[str]) -> Iterator[str]:
    for row in _rows(path, keys):
        for name, value in _strings(row):
            if name not in left_out:
                yield value


def _rows(path: Path, keys: Sequence[str]) -> Iterator[Any]:
    """The rows of a table, with the columns `keys` or all, or the paragraphs of a text."""
    suffix = Path(path.name.removesuffix(".gz").removesuffix(".zst")).suffix
    if suffix == ".parquet":
        with path.open("rb") as stored, pq.ParquetFile(path) as file:
            _check_keys(path, keys, file.schema_arrow.names)
            columns = list(keys) or None
            for group in range(file.num_row_groups):
                for batch in group_batches(file, group, stored, columns, ITEM_BYTES):
                    if isinstance(batch, TooLarge):
                        raise _too_large(path)
                    yield from batch.to_pylist()
        return
    if suffix in (".jsonl", ".ndjson", ".json"):
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InputError(f"{path}: line {number} is not JSON: {error}. Remedy: one object a line") from error
            if keys and isinstance(row, dict):
                _check_keys(path, keys, row)
                row = {key: row[key] for key in keys}
            yield row
        return
    for has_text, lines in itertools.groupby(_lines(path), lambda line: not line.isspace() and line != b""):
        paragraph: list[bytes] = []
        size = 0
        for line in lines if has_text else ():
            size += len(line)
            if size > ITEM_BYTES:
                raise _too_large(path)
            paragraph.append(line)
        if paragraph:
            yield b"\n".join(paragraph).decode("utf-8", "replace")


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a benchmark, which is in memory about a batch at a time.

    Raises:
        InputError: one has more than `ITEM_BYTES`, or all have more than `FILE_BYTES`: a small file can unpack to any.
        ValueError: the file is damaged.
    """
    size = 0
    with path.open("rb") as stored:
        stream = MemberStream(stored, path.name)
        if stream.compression == "none" and path.suffix in (".gz", ".zst"):
            raise ValueError("it is not compressed, as its name says")
        for group in line_groups(stream, ITEM_BYTES):
            size += group.size
            causes = [cause for cause, _ in group.bad.values()]
            if size > FILE_BYTES or any(cause.startswith("too_large") for cause in causes):
                raise _too_large(path)
            if causes:
                raise ValueError(causes[0])
            yield from group.lines


def _too_large(path: Path) -> InputError:
    return InputError(
        f"{path}: unpacks to an item of more than {ITEM_BYTES:,} bytes, or to more than {FILE_BYTES:,} in all: no "
        "benchmark. Remedy: give its items, one a line"
    )


def _check_keys(path: Path, keys: Sequence[str], present: Sequence[str] | dict[str, Any]) -> None:
    missing = [key for key in keys if key not in present]
    if missing:
        raise InputError(f"{path}: no key {missing[0]!r}; there are {', '.join(present)}. Remedy: name one of these")


def _strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(column, string) of every string in a row; a part of a column is `column.part`, by the role of a message."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        role = value.get("role")
        inside = f"{name}.{role}" if isinstance(role, str) and name else name
        for key, part in value.items():
            yield from _strings(part, f"{inside}.{key}" if inside else str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part, name)
