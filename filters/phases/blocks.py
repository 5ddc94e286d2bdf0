"""Files of numbered blocks of arrays, each with its checksum, and the mail that units of phases send in them.

Who needs one block reads and checks that one alone:

    blocks back to back
    table   for each block uint64[2 * arrays + 2]: offset, lengths, checksums of the arrays, checksum of all these
    footer  uint64[5]: magic number, blocks, arrays, where the table begins, checksum of these

All numbers are little-endian, all checksums xxh3-64. What blocks and arrays mean is the writer's and reader's affair.

Mail is a table whose rows a unit of one phase sends to numbered units of a later one. An `Outbox` writes, each time it
is flushed, a block for every address; the one who is addressed reads its blocks of all senders' files.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xxhash

from filters.arrays import Bool, Int64
from filters.kernels.packed import Ragged
from filters.phases.phase import DamagedError, Job

MAGIC = int.from_bytes(b"FSBLOCK1", "little")
_FOOTER = 40


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._file:
            if kind is not None:
                return
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
            self._read_footer()
        except BaseException:
            self._file.close()
            raise

    def _read_footer(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        footer = _unsealed(self._read(max(size - _FOOTER, 0), _FOOTER), 0)
        if footer is None or footer[0] != MAGIC:
            raise BlockFileError(f"{self.path.name} is no block file, or was cut or changed at its end")
        self._blocks, arrays, self._start = footer[1:].tolist()
        self._width = (2 * arrays + 2) * 8
        if arrays != len(self._dtypes) or self._start + self._blocks * self._width + _FOOTER != size:
            raise BlockFileError(f"{self.path.name} has another kind of blocks, or was cut or changed")

    def _row(self, block: int) -> npt.NDArray[np.uint64]:
        if not 0 <= block < self._blocks:
            raise IndexError(f"{self.path.name} has {self._blocks} blocks, and no block {block}")
        row = _unsealed(self._read(self._start + block * self._width, self._width), block)
        if row is None:
            raise BlockFileError(f"{self.path.name}: the table does not match its checksum at block {block}")
        return row

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

    def __len__(self) -> int:
        return int(self._blocks)

    def lengths(self, block: int) -> list[int]:
        """Elements of each array of a block.

        Raises:
            BlockFileError: the block's row in the table is not what was written.
        """
        lengths: list[int] = self._row(block)[1 : len(self._dtypes) + 1].tolist()
        return lengths

    def read(self, block: int, array: int) -> npt.NDArray[Any]:
        """One array of one block, checked; read-only.

        Raises:
            BlockFileError: it is not what was written.
        """
        return self._array(self._row(block), block, array)

    def _array(self, row: npt.NDArray[np.uint64], block: int, array: int) -> npt.NDArray[Any]:
        arrays = len(self._dtypes)
        offset, *lengths = row[: arrays + 1].tolist()
        if not lengths[array]:
            return np.empty(0, self._dtypes[array])
        sizes = [length * dtype.itemsize for length, dtype in zip(lengths, self._dtypes, strict=True)]
        content = self._read(offset + sum(sizes[:array]), sizes[array])
        if xxhash.xxh3_64_intdigest(content) != int(row[arrays + 1 + array]):
            raise BlockFileError(f"{self.path.name}: block {block} does not match its checksum")
        return np.frombuffer(content, self._dtypes[array])

    def arrays(self, block: int) -> list[npt.NDArray[Any]]:
        """All arrays of one block, checked; read-only.

        Raises:
            BlockFileError: one is not what was written.
        """
        row = self._row(block)
        return [self._array(row, block, array) for array in range(len(self._dtypes))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _sealed(values: list[int], number: int) -> bytes:
    content = np.array(values, "<u8").tobytes()
    return content + xxhash.xxh3_64_intdigest(content, number).to_bytes(8, "little")


def _unsealed(content: bytes, number: int) -> npt.NDArray[np.uint64] | None:
    """The values of `_sealed`; None if they are not those. The number keeps rows from changing places unnoticed."""
    if xxhash.xxh3_64_intdigest(content[:-8], number) != int.from_bytes(content[-8:], "little"):
        return None
    return np.frombuffer(content[:-8], "<u8")


Columns = Mapping[str, str]
"""Name of each column and its dtype; "[u4]" is a column of rows of several values (`Ragged`)."""
Table = dict[str, Any]
"""Arrays, or `Ragged`s, of n rows by column."""

_WAITING = 16 * 2**20


class Outbox:
    """Writes a file of addressed rows. Use as a context manager; what waits is written at the end.

    Args:
        path: does not exist yet.
        columns: of the table.
        addresses: rows are sent to 0 to `addresses` - 1.
        flush: write by itself what waits when it is more than some 16 MiB.
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
            self.held += sum(_bytes(column) for column in rows.values()) * len(to) // max(1, height(rows))
            if self._own_flush and self.held > _WAITING:
                self.flush()

    def flush(self) -> None:
        """Write what waits as a block for every address."""
        to = np.concatenate([np.empty(0, self._kind), *(some for some, _, _ in self._waiting)])
        starts = np.cumsum([0, *(height(rows) for _, _, rows in self._waiting)])
        chosen = np.concatenate(
            [
                np.empty(0, np.int64),
                *(start + picked for start, (_, picked, _) in zip(starts.tolist(), self._waiting, strict=False)),
            ]
        )
        table = join_tables([rows for _, _, rows in self._waiting], self._columns)
        order = np.argsort(to, kind="stable")
        cuts = np.concatenate([[0], np.cumsum(np.bincount(to, minlength=self._addresses))]).tolist()
        ordered = take(table, chosen[order])
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._waiting:
            self.flush()
        self._blocks.__exit__(kind, error, traceback)


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
    dtypes = _dtypes(columns)
    widths = [np.dtype(dtype).itemsize for dtype in dtypes]
    with BlockReader(path, dtypes) as reader:
        blocks = range(address, len(reader), addresses)
        return sum(
            length * width for block in blocks for length, width in zip(reader.lengths(block), widths, strict=True)
        )


def letters(
    job: Job, phase: str, senders: Iterable[int], name: str, columns: Columns, address: int, addresses: int
) -> Iterator[Table]:
    """The rows that finished units of a phase sent to an address, in the order of the units; no table is empty.

    Raises:
        DamagedError: what is read is missing or damaged.
    """
    for unit in senders:
        path = job.folder(phase, unit) / name  # each block has a checksum, and many are read: no look at the entry
        try:
            yield from (rows for rows in read_flushes(path, columns, address, addresses) if height(rows))
        except BlockFileError as error:
            raise DamagedError(phase, unit, str(error)) from error


def join_tables(tables: Iterable[Table], columns: Columns) -> Table:
    """The rows of all tables, one after the other."""
    every = list(tables)
    joined: Table = {}
    for name, dtype in columns.items():
        if dtype.startswith("["):
            joined[name] = Ragged.joined([table[name] for table in every], dtype.strip("[]"))
        else:
            joined[name] = np.concatenate([np.empty(0, dtype), *(table[name] for table in every)]).astype(dtype)
    return joined


def take(table: Table, rows: npt.NDArray[Any]) -> Table:
    """Some rows of a table, by number (in any order) or by mask. Columns may be those of the table."""
    numbers = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
    if len(numbers) == height(table) and np.array_equal(numbers, np.arange(len(numbers))):
        return dict(table)  # all of them as they are: no copy
    return {
        name: column.take(numbers) if isinstance(column, Ragged) else column[numbers] for name, column in table.items()
    }


def height(table: Table) -> int:
    """Rows of a table."""
    return len(next(iter(table.values())))


def _dtypes(columns: Columns) -> list[str]:
    found: list[str] = []
    for dtype in columns.values():
        found += ["<i8", dtype.strip("[]")] if dtype.startswith("[") else [dtype]
    return found


def _bytes(column: Any) -> int:
    return int(column.values.nbytes + column.offsets.nbytes if isinstance(column, Ragged) else column.nbytes)


def position(ascending: npt.NDArray[Any], wanted: npt.NDArray[Any], *, behind: bool = False) -> Int64:
    """int64[n]: where each value belongs in an ascending array, before those that equal it or behind them."""
    return np.searchsorted(ascending, wanted, side="right" if behind else "left").astype(np.int64, copy=False)


def firsts(group: npt.NDArray[Any]) -> Bool:
    """bool[n]: whether a row is the first of its group; `group` is sorted."""
    return np.concatenate([np.ones(min(len(group), 1), np.bool_), group[1:] != group[:-1]])
