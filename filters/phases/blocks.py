"""Files of numbered blocks of arrays, each with its checksum: who needs one block reads and checks that one alone.

    blocks back to back
    table   for each block uint64[2 * arrays + 2]: offset, lengths, checksums of the arrays, checksum of all these
    footer  uint64[5]: magic number, blocks, arrays, where the table begins, checksum of these

All numbers are little-endian, all checksums xxh3-64. What blocks and arrays mean is the writer's and reader's affair.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xxhash

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
