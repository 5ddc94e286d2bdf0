"""Files of numbered blocks of arrays, each with its checksum, and the mail that units of phases send in them.

Who needs one block reads and checks that one alone:

    blocks back to back
    table   for each block uint64[2 * arrays + 2]: offset, lengths, checksums of the arrays, checksum of all these
    footer  uint64[5]: magic number, blocks, arrays, where the table begins, checksum of these

All numbers are little-endian, all checksums xxh3-64.

Mail is a table whose rows a unit of one phase sends to numbered units of a later one. An `Outbox` writes, each time it
is flushed, a block for every address; the one who is addressed reads its blocks of all senders' files.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xxhash

from filters.arrays import Bool, Int64
from filters.kernels.packed import Ragged

MAGIC = int.from_bytes(b"FSBLOCK1", "little")
Columns = Mapping[str, str]
"""Name of each column and its dtype; "[u4]" is a column of rows of several values (`Ragged`)."""
Table = dict[str, Any]
"""Arrays, or `Ragged`s, of n rows by column."""

_FOOTER = 40
WAITING = 16 * 2**20
"""Bytes that wait in an `Outbox` until they are written."""


class BlockFileError(Exception):
    """A block file, or the part of it that was asked for, is not what was written."""


class BlockWriter:
    """Appends blocks to a new file. Use as a context manager; the table is written at the end.

    Args:
        path: does not exist yet.
        dtypes: of the arrays of every block, as numpy names them ("<u8").
    """

    def __init__(self, path: Path, dtypes: Sequence[str]) -> None:
        self._file = path.open("xb")
        self._dtypes = [np.dtype(dtype) for dtype in dtypes]
        self._table: list[bytes] = []

    def write(self, *arrays: npt.NDArray[Any]) -> int:
        """Append a block; its number. The arrays have one dimension and are cast to the file's types."""
        if len(arrays) != len(self._dtypes):
            raise ValueError(f"a block of this file has {len(self._dtypes)} arrays, not {len(arrays)}")
        row, checksums = [self._file.tell()], []
        for array, dtype in zip(arrays, self._dtypes, strict=True):
            content = np.ascontiguousarray(array, dtype).data.cast("B") if len(array) else b""
            self._file.write(content)
            row.append(len(array))
            checksums.append(xxhash.xxh3_64_intdigest(content))
        self._table.append(_sealed(row + checksums, len(self._table)))
        return len(self._table) - 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if kind is None:
                start = self._file.tell()
                self._file.writelines(self._table)
                self._file.write(_sealed([MAGIC, len(self._table), len(self._dtypes), start], 0))


class BlockReader:
    """Reads blocks of a file. Use as a context manager.

    Args:
        path: what a `BlockWriter` wrote.
        dtypes: as given to the writer.

    Raises:
        BlockFileError: the file is no such file, was cut or changed at its end, or has other arrays.
    """

    def __init__(self, path: Path, dtypes: Sequence[str]) -> None:
        self.path = path
        self._dtypes = [np.dtype(dtype) for dtype in dtypes]
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise BlockFileError(f"{path.name} cannot be read: {error.strerror or error}") from error
        try:
            size = os.fstat(self._file.fileno()).st_size
            footer = self._numbers(max(size - _FOOTER, 0), _FOOTER, 0)
            if footer is None or footer[0] != MAGIC:
                raise BlockFileError(f"{path.name} is no block file, or was cut or changed at its end")
            self._blocks, arrays, self._start = footer[1:].tolist()
            self._width = (2 * arrays + 2) * 8
            if arrays != len(dtypes) or self._start + self._blocks * self._width + _FOOTER != size:
                raise BlockFileError(f"{path.name} has another kind of blocks, or was cut or changed")
        except BaseException:
            self._file.close()
            raise

    def _read(self, offset: int, length: int) -> bytes:
        try:
            content = os.pread(self._file.fileno(), length, offset)
            while len(content) < length:  # pread gives at most 2 GiB at a time
                more = os.pread(self._file.fileno(), length - len(content), offset + len(content))
                if not more:
                    break
                content += more
        except OSError as error:
            raise BlockFileError(f"{self.path.name} cannot be read: {error.strerror or error}") from error
        return content

    def _numbers(self, offset: int, length: int, number: int) -> npt.NDArray[np.uint64] | None:
        """What `_sealed` made; None if it is not that. The number keeps rows from changing places unnoticed."""
        content = self._read(offset, length)
        if xxhash.xxh3_64_intdigest(content[:-8], number) != int.from_bytes(content[-8:], "little"):
            return None
        return np.frombuffer(content[:-8], "<u8")

    def _row(self, block: int) -> tuple[int, list[int], list[int]]:
        """(offset, lengths, checksums) of a block."""
        if not 0 <= block < self._blocks:
            raise IndexError(f"{self.path.name} has {self._blocks} blocks, and no block {block}")
        row = self._numbers(self._start + block * self._width, self._width, block)
        if row is None:
            raise BlockFileError(f"{self.path.name}: the table does not match its checksum at block {block}")
        offset, *others = row.tolist()
        return offset, others[: len(self._dtypes)], others[len(self._dtypes) :]

    def __len__(self) -> int:
        return int(self._blocks)

    def lengths(self, block: int) -> list[int]:
        """Elements of each array of a block.

        Raises:
            BlockFileError: the block's row in the table is not what was written.
        """
        return self._row(block)[1]

    def arrays(self, block: int, chosen: Sequence[int] | None = None) -> list[npt.NDArray[Any]]:
        """All arrays of one block, or those chosen by number; checked, read-only.

        Raises:
            BlockFileError: one is not what was written.
        """
        start, lengths, checksums = self._row(block)
        sizes = [length * dtype.itemsize for length, dtype in zip(lengths, self._dtypes, strict=True)]
        found = []
        for array in range(len(sizes)) if chosen is None else chosen:
            content = self._read(start + sum(sizes[:array]), sizes[array]) if sizes[array] else b""
            if xxhash.xxh3_64_intdigest(content) != checksums[array]:
                raise BlockFileError(f"{self.path.name}: block {block} does not match its checksum")
            found.append(np.frombuffer(content, self._dtypes[array]))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _sealed(values: list[int], number: int) -> bytes:
    content = np.array(values, "<u8").tobytes()
    return content + xxhash.xxh3_64_intdigest(content, number).to_bytes(8, "little")


class Outbox:
    """Writes a file of addressed rows. Use as a context manager; what waits is written at the end.

    Args:
        path: does not exist yet.
        columns: of the table.
        addresses: rows are sent to 0 to `addresses` - 1.
        flush: write by itself what waits when it is more than `WAITING`.
    """

    def __init__(self, path: Path, columns: Columns, addresses: int, *, flush: bool = True) -> None:
        self._blocks = BlockWriter(path, _dtypes(columns))
        self._columns, self._addresses, self._own_flush = columns, addresses, flush
        # Addresses of a small type, which numpy sorts by counting.
        self._kind = np.min_scalar_type(addresses)
        self._waiting: list[tuple[npt.NDArray[Any], Int64, Table]] = []
        self.held = 0

    def add(
        self, to: npt.NDArray[np.integer[Any]], chosen: npt.NDArray[np.integer[Any]] | None = None, /, **rows: Any
    ) -> None:
        """Send n rows.

        Args:
            to: integers[n], their addresses.
            chosen: integers[n], which of `rows` goes to each; None: they go in order.
            rows: a column each.
        """
        if len(to):
            picked = np.arange(len(to)) if chosen is None else np.asarray(chosen, np.int64)
            self._waiting.append((to.astype(self._kind), picked, rows))
            self.held += sum(column.nbytes for column in rows.values()) * len(to) // max(1, height(rows))
            if self._own_flush and self.held > WAITING:
                self.flush()

    def flush(self) -> None:
        """Write what waits as a block for every address."""
        to = np.concatenate([np.empty(0, self._kind), *(some for some, _, _ in self._waiting)])
        starts = np.cumsum([0, *(height(rows) for _, _, rows in self._waiting)]).tolist()
        picked = [start + rows for start, (_, rows, _) in zip(starts, self._waiting, strict=False)]
        order = np.argsort(to, kind="stable")
        table = join_tables([rows for _, _, rows in self._waiting], self._columns)
        ordered = take(table, np.concatenate([np.empty(0, np.int64), *picked])[order])
        cuts = np.concatenate([[0], np.cumsum(np.bincount(to, minlength=self._addresses))]).tolist()
        for start, stop in itertools.pairwise(cuts):
            arrays: list[npt.NDArray[Any]] = []
            for column in ordered.values():
                if isinstance(column, Ragged):
                    bounds = column.offsets
                    arrays += [column.lengths[start:stop], column.values[bounds[start] : bounds[stop]]]
                else:
                    arrays.append(column[start:stop])
            self._blocks.write(*arrays)
        self._waiting, self.held = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None:
        if kind is None and self._waiting:
            self.flush()
        self._blocks.__exit__(kind, *others)


def read_flushes(path: Path, columns: Columns, address: int, addresses: int) -> Iterator[Table]:
    """The rows for an address in a file of an `Outbox`: a table for each flush, which may be empty.

    Raises:
        BlockFileError: what is read is missing or damaged.
    """
    with BlockReader(path, _dtypes(columns)) as reader:
        for block in range(address, len(reader), addresses):
            arrays = iter(reader.arrays(block))
            table: Table = {}
            for name, dtype in columns.items():
                first = next(arrays)
                table[name] = Ragged.of_lengths(next(arrays), first) if dtype.startswith("[") else first
            yield table


def bytes_for(path: Path, columns: Columns, address: int, addresses: int) -> int:
    """Bytes of all that `read_flushes` would give.

    Raises:
        BlockFileError: the table of the file is damaged, or the file is missing.
    """
    widths = [np.dtype(dtype).itemsize for dtype in _dtypes(columns)]
    with BlockReader(path, _dtypes(columns)) as reader:
        blocks = range(address, len(reader), addresses)
        return sum(int(np.dot(reader.lengths(block), widths)) for block in blocks)


def join_tables(tables: Iterable[Table], columns: Columns) -> Table:
    """The rows of all tables, one after the other."""
    every = list(tables)
    joined: Table = {}
    for name, dtype in columns.items():
        parts = [table[name] for table in every]
        if dtype.startswith("["):
            joined[name] = Ragged.joined(parts, dtype.strip("[]"))
        else:
            joined[name] = np.concatenate([np.empty(0, dtype), *parts]).astype(dtype, copy=False)
    return joined


def take(table: Table, rows: npt.NDArray[Any]) -> Table:
    """Some rows of a table, by number (in any order) or by mask. Columns may be those of the table."""
    numbers = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
    if len(numbers) == height(table) and np.array_equal(numbers, np.arange(len(numbers))):
        return dict(table)  # all of them as they are: no copy
    return {
        name: column.take(numbers) if isinstance(column, Ragged) else column[numbers] for name, column in table.items()
    }


def ordered_by(table: Table, *names: str) -> Table:
    """The rows of a table in ascending order of columns, the first of them first; ties stay as they are."""
    return take(table, np.lexsort([table[name] for name in reversed(names)]))


def height(table: Table) -> int:
    """Rows of a table."""
    return len(next(iter(table.values())))


def position(ascending: npt.NDArray[Any], wanted: npt.NDArray[Any], *, behind: bool = False) -> Int64:
    """int64[n]: where each value belongs in an ascending array, before those that equal it or behind them."""
    return np.searchsorted(ascending, wanted, side="right" if behind else "left").astype(np.int64, copy=False)


def find(ascending: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> tuple[Int64, Bool]:
    """(int64[n]: where each value is in an ascending array, 0 where it is not; bool[n]: whether it is in there)."""
    at = position(ascending, wanted)
    at[at == len(ascending)] = 0
    return at, ascending[at] == wanted if len(ascending) else np.zeros(len(wanted), np.bool_)


def firsts(*groups: npt.NDArray[Any]) -> Bool:
    """bool[n]: whether a row is the first of its group: rows that are equal in each array; they lie side by side."""
    first = np.ones(len(groups[0]), np.bool_)
    first[1:] = np.any([group[1:] != group[:-1] for group in groups], axis=0)
    return first


def _dtypes(columns: Columns) -> list[str]:
    found: list[str] = []
    for dtype in columns.values():
        found += ["<i8", dtype.strip("[]")] if dtype.startswith("[") else [dtype]
    return found
