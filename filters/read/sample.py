"""A sample of the documents of an input, spread over its units, written as small files of the same kind.

Units are drawn with probability proportional to their stored bytes, at even distances from a random start; of each,
documents are drawn at random (Parquet: from row groups drawn like the units; else from places spread evenly over what
is gone through of the file). A compressed file cannot be entered in its middle, and nobody wants to read a terabyte to
know what it will cost to read: it is gone through from its beginning, `AHEAD` times as far as bytes are kept.
"""

from __future__ import annotations

import bz2
import gzip
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.read.decompress import MemberStream
from filters.read.jsonl import line_groups, line_stream
from filters.read.parquet import TooLarge, group_batches, read_columns
from filters.read.unit import Unit, open_input
from filters.read.warc import BadRecord, RecordStream
from filters.storage.remote import describe, is_local

DRAWS = 16
"""Places of the input that the sample comes from."""
LOCAL_BYTES, REMOTE_BYTES = 16 << 20, 4 << 20
"""Bytes, decompressed, from which the documents of one draw are drawn."""
AHEAD = 8
"""So many times these bytes are gone through of a local file."""
_DAMAGE = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was looked at of one unit.

    Attributes:
        unit: its index.
        taken: records that went into the sample.
        records: records seen, bad ones too.
        bad: those that the reader would quarantine before they are documents (only what sampling itself noticed).
        stored: stored bytes they took.
        whole: the unit was read to its end.
    """

    unit: int
    taken: int
    records: int
    bad: int
    stored: int
    whole: bool


@dataclass(frozen=True, slots=True)
class _Part:
    """What was drawn from one input: rows of Parquet, or records. `unit` is the first drawn unit of the input."""

    unit: Unit
    content: pa.Table | list[bytes]
    compression: str = "none"


@dataclass(frozen=True, slots=True)
class InputSample:
    """A sample of an input.

    Attributes:
        drawn: where it comes from, in the order of its records.
    """

    drawn: tuple[Drawn, ...]
    _parts: tuple[_Part, ...]

    def write(self, folder: Path, *, every: int = 1, pieces: int = 1) -> list[Unit]:
        """Write every `every`-th record, the records of an input into `pieces` files.

        Returns:
            The files as units, numbered from 0.
        """
        units: list[Unit] = []
        for part in self._parts:
            # Whether a file is dear to read again is seen by its name.
            suffix = PurePath(part.unit.address).suffix if is_local(part.unit.address) else ".gz"
            chosen = np.arange(0, len(part.content), every)
            for rows in np.array_split(chosen, max(1, min(pieces, len(chosen)))):
                path = folder / f"sample-{len(units)}{suffix}"
                if isinstance(part.content, pa.Table):
                    table = part.content.take(pa.array(rows))
                    pq.write_table(table, path, compression="zstd", row_group_size=max(len(rows), 1))
                else:
                    _write_records(path, [part.content[row] for row in rows], part.compression, part.unit.kind)
                whole = replace(part.unit, start=None, stop=None, offset=None, stamp=None)
                units.append(replace(whole, index=len(units), address=str(path), size=path.stat().st_size))
        return units


def draw_sample(units: Sequence[Unit], inputs: Sequence[InputConfig], documents: int, seed: int) -> InputSample:
    """Draw about `documents` documents; fewer where the input has no more.

    The same seed draws the same documents.

    Args:
        units: of the inputs; not of kind "stream", which cannot be entered.
        inputs: their configs.
        documents: how many.
        seed: of the draw.

    Raises:
        InputError: a unit cannot be read at all.
    """
    generator = np.random.default_rng(seed)
    sizes = [unit.size or 0 for unit in units]
    if len(units) <= min(DRAWS, documents) and all(sizes):
        chosen = {number: size / sum(sizes) for number, size in enumerate(sizes)}
    else:
        draws = min(DRAWS, documents)
        chosen = {number: times / draws for number, times in _proportional(sizes, draws, generator).items()}
    found: dict[int, list[Any]] = {}
    first: dict[int, Unit] = {}
    drawn = []
    for number, share in sorted(chosen.items()):
        wanted = math.ceil(documents * share - 1e-9)
        budget = math.ceil(share * DRAWS * (LOCAL_BYTES if is_local(units[number].address) else REMOTE_BYTES))
        unit = units[number]
        records, seen = _FORMATS[unit.kind](unit, inputs[unit.input], wanted, budget, generator)
        found.setdefault(unit.input, []).extend(records)
        first.setdefault(unit.input, unit)
        drawn.append(seen)
    parts = []
    for place, unit in first.items():
        if unit.kind == "parquet":
            parts.append(_Part(unit, _joined(found[place])))
        else:
            with open_input(unit.address, inputs[place]) as file:
                parts.append(_Part(unit, found[place], MemberStream(file, unit.address).compression))
    return InputSample(tuple(drawn), tuple(parts))


def _proportional(weights: Sequence[int], draws: int, generator: np.random.Generator) -> dict[int, int]:
    """How often each place is drawn: at even distances along the weights, from a random start."""
    known = [weight for weight in weights if weight > 0]
    usual = sum(known) / len(known) if known else 1.0
    ends = np.cumsum([weight or usual for weight in weights])
    points = (np.arange(draws) + generator.random()) * (ends[-1] / draws)
    places, times = np.unique(np.searchsorted(ends, points, side="right"), return_counts=True)
    return dict(zip(np.minimum(places, len(weights) - 1).tolist(), times.tolist(), strict=True))


def _chosen(count: int, wanted: int, generator: np.random.Generator) -> list[int]:
    return sorted(generator.choice(count, min(count, wanted), replace=False).tolist())


def _from_parquet(
    unit: Unit, config: InputConfig, wanted: int, budget: int, generator: np.random.Generator
) -> tuple[list[pa.Table], Drawn]:
    start, stop = unit.start or 0, unit.stop
    with open_input(unit.address, config) as handle:
        try:
            file = pq.ParquetFile(handle, page_checksum_verification=True)
            metadata = file.metadata
            rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
            schema = file.schema_arrow
        except _DAMAGE:
            return [], Drawn(unit.index, 0, 1, 1, unit.size or 0, True)
        columns = read_columns(unit, schema, config)
        begins = np.cumsum([0, *rows])[:-1].tolist()
        inside = [group for group, begin in enumerate(begins) if begin >= start and (stop is None or begin < stop)]
        number = max(1, min(len(inside), wanted, budget // max(max(sizes, default=1), 1)))
        groups = [inside[place] for place in _proportional([rows[group] for group in inside], number, generator)]
        tables, bad, seen = [], 0, 0
        for group in groups:
            part, size, large = [], 0, 0
            try:
                for batch in group_batches(file, group, handle, columns, config.max_document_bytes):
                    if isinstance(batch, TooLarge):
                        large += 1
                        continue
                    part.append(batch)
                    size += batch.nbytes
                    if size >= budget // len(groups):
                        break
            except _DAMAGE:
                bad += rows[group] - sum(batch.num_rows for batch in part) - large
            bad += large
            if part:
                table = pa.Table.from_batches(part)
                seen += table.num_rows
                tables.append(table.take(pa.array(_chosen(table.num_rows, -(-wanted // len(groups)), generator))))
        taken = sum(table.num_rows for table in tables)
        return tables, Drawn(unit.index, taken, seen + bad, bad, unit.size or 0, len(groups) == len(inside))


class _Spread:
    """Every k-th of the records that are added; k doubles whenever those kept take more than a budget of bytes.

    Attributes:
        kept: in the order they came.
        seen: how many were added.
        bytes: of all that were added.
    """

    def __init__(self, budget: int) -> None:
        self.kept: list[bytes] = []
        self.seen = self.bytes = self._held = 0
        self._budget, self._every = budget, 1

    def add(self, record: bytes) -> None:
        if self.seen % self._every == 0:
            self.kept.append(record)
            self._held += len(record)
            while len(self.kept) > 1 and self._held > self._budget:
                self.kept, self._every = self.kept[::2], 2 * self._every
                self._held = sum(map(len, self.kept))
        self.seen += 1
        self.bytes += len(record)

    def drawn(
        self, unit: Unit, wanted: int, generator: np.random.Generator, bad: int, whole: bool, stored: int
    ) -> tuple[list[bytes], Drawn]:
        """`wanted` of those kept, and what was looked at."""
        chosen = [self.kept[row] for row in _chosen(len(self.kept), wanted, generator)]
        size = unit.size if whole and unit.size else stored
        return chosen, Drawn(unit.index, len(chosen), self.seen + bad, bad, size, whole)


def _far(unit: Unit, budget: int) -> int:
    """How many decompressed bytes of a unit are gone through."""
    return budget * AHEAD if is_local(unit.address) else budget


def _from_lines(
    unit: Unit, config: InputConfig, wanted: int, budget: int, generator: np.random.Generator
) -> tuple[list[bytes], Drawn]:
    found, bad, whole = _Spread(budget), 0, True
    with open_input(unit.address, config) as file:
        stream = line_stream(file, unit)
        for group in line_groups(stream, config.max_document_bytes):
            bad += len(group.bad)
            for row, line in enumerate(group.lines):
                if row not in group.bad:
                    found.add(line + b"\n")
            if found.bytes >= _far(unit, budget):
                whole = False
                break
        # What is after the last whole line was decompressed, but not counted.
        return found.drawn(
            unit, wanted, generator, bad, whole, stream.consumed * found.bytes // max(stream.produced, 1)
        )


def _from_warc(
    unit: Unit, config: InputConfig, wanted: int, budget: int, generator: np.random.Generator
) -> tuple[list[bytes], Drawn]:
    found, bad, whole, stored = _Spread(budget), 0, True, 0
    with open_input(unit.address, config) as file:
        stream = MemberStream(file, unit.address)
        records = RecordStream(stream, "conversion" if unit.kind == "wet" else "response", config.max_document_bytes)
        for record in records:
            stored = stream.consumed
            if isinstance(record, BadRecord):
                bad += 1
                continue
            headers = "".join(f"{name}: {value}\r\n" for name, value in record.headers.items())
            found.add(f"WARC/1.0\r\n{headers}\r\n".encode() + record.block + b"\r\n\r\n")
            if found.bytes >= _far(unit, budget):
                whole = False
                break
        return found.drawn(unit, wanted, generator, bad, whole, stored)


_FORMATS: dict[str, Callable[..., tuple[list[Any], Drawn]]] = {
    "parquet": _from_parquet,
    "jsonl": _from_lines,
    "warc": _from_warc,
    "wet": _from_warc,
}


def _joined(tables: list[pa.Table]) -> pa.Table:
    if not tables:
        raise InputError(
            "no row of the drawn row groups can be read. Remedy: look at the input files, or another --seed"
        )
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"the drawn Parquet files do not fit each other: {describe(error)}") from error


def _write_records(path: Path, records: list[bytes], compression: str, kind: str) -> None:
    """Lines in one compressed member, WARC records in a member each, as such files usually are."""
    compress: dict[str, Callable[[bytes], bytes]] = {
        "none": lambda content: content,
        "gzip": lambda content: gzip.compress(content, 6),
        "bz2": bz2.compress,
        "zstd": zstandard.ZstdCompressor(3).compress,
    }
    members: Iterator[bytes] = iter([b"".join(records)] if kind == "jsonl" else records)
    path.write_bytes(b"".join(map(compress[compression], members)))
