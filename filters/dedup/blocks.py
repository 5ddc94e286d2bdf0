"""Files of numbered blocks of arrays, each with its checksum: who needs one block reads and checks that one alone.

    magic, blocks back to back, table (int64[blocks, arrays + 1]: offset, lengths), checksums (uint64[blocks, arrays]),
    footer (uint64[4]: blocks, arrays, where the table begins, xxh3-64 of table and checksums)

All numbers are little-endian. What the blocks and arrays mean is the writer's and reader's affair.
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

MAGIC = b"FSBLOCK1"
_FOOTER = 32


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
        self._file.write(MAGIC)
        self._dtypes = [np.dtype(dtype) for dtype in dtypes]
        self._table: list[list[int]] = []
        self._checksums: list[list[int]] = []

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
        self._table.append(row)
        self._checksums.append(checksums)
        return len(self._table) - 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._file:
            if kind is not None:
                return
            arrays, start = len(self._dtypes), self._file.tell()
            table = np.array(self._table, "<i8").reshape(-1, arrays + 1).tobytes()
            table += np.array(self._checksums, "<u8").reshape(-1, arrays).tobytes()
            self._file.write(table)
            footer = np.array([len(self._table), arrays, start, xxhash.xxh3_64_intdigest(table)], "<u8")
            self._file.write(footer.tobytes())


class BlockReader:
    """Reads blocks of a file. Use as a context manager.

    Args:
        path: what a `BlockWriter` wrote.
        dtypes: as given to the writer.

    Raises:
        BlockFileError: the file is no such file, was cut or changed, or has other arrays.
    """

    def __init__(self, path: Path, dtypes: Sequence[str]) -> None:
        self.path = path
        self._dtypes = [np.dtype(dtype) for dtype in dtypes]
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise BlockFileError(f"{path.name} cannot be read: {error.strerror or error}") from error
        try:
            self._read_table()
        except BaseException:
            self._file.close()
            raise

    def _read_table(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if size < len(MAGIC) + _FOOTER or self._read(0, len(MAGIC)) != MAGIC:
            raise BlockFileError(f"{self.path.name} is no block file, or was cut")
        blocks, arrays, start, checksum = np.frombuffer(self._read(size - _FOOTER, _FOOTER), "<u8").tolist()
        length = blocks * (2 * arrays + 1) * 8
        if arrays != len(self._dtypes) or start + length + _FOOTER != size:
            raise BlockFileError(f"{self.path.name} has a damaged footer, or another kind of blocks")
        table = self._read(start, length)
        if xxhash.xxh3_64_intdigest(table) != checksum:
            raise BlockFileError(f"{self.path.name} has a damaged table")
        cut = blocks * (arrays + 1) * 8
        self._table = np.frombuffer(table[:cut], "<i8").reshape(blocks, arrays + 1)
        self._checksums = np.frombuffer(table[cut:], "<u8").reshape(blocks, arrays)

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
        return len(self._table)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[blocks, arrays]: elements of each array."""
        return self._table[:, 1:]

    def read(self, block: int, array: int) -> npt.NDArray[Any]:
        """One array of one block, checked; read-only.

        Raises:
            BlockFileError: it is not what was written.
        """
        offset, *lengths = self._table[block].tolist()
        sizes = [length * dtype.itemsize for length, dtype in zip(lengths, self._dtypes, strict=True)]
        content = self._read(offset + sum(sizes[:array]), sizes[array])
        if xxhash.xxh3_64_intdigest(content) != int(self._checksums[block, array]):
            raise BlockFileError(f"{self.path.name}: block {block} does not match its checksum")
        return np.frombuffer(content, self._dtypes[array])

    def arrays(self, block: int) -> list[npt.NDArray[Any]]:
        """All arrays of one block, checked; read-only.

        Raises:
            BlockFileError: one is not what was written.
        """
        return [self.read(block, array) for array in range(len(self._dtypes))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
