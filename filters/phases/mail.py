"""Mail: tables that units of one phase send to numbered units of a later phase.

A file of a unit holds, for each time it was flushed, a block for every address; who is asked reads its blocks of all
senders' files and nothing else. Each block is checked as it is read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from filters.arrays import Int64
from filters.kernels.ragged import Ragged
from filters.phases.blocks import BlockFileError, BlockReader, BlockWriter
from filters.phases.phase import DamagedError, Job

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
