"""Block files: what is read is what was written, or it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from filters.phases.blocks import BlockFileError, BlockReader, BlockWriter

DTYPES = ["<u8", "<i4", "|u1"]


def write(path: Path) -> list[list[np.ndarray]]:
    draw = np.random.default_rng(0)
    blocks = [
        [draw.integers(0, 2**64, n, np.uint64), np.arange(n // 2, dtype=np.int32), np.ones(n % 3, np.uint8)]
        for n in (0, 1, 5, 1000)
    ]
    with BlockWriter(path, DTYPES) as writer:
        assert [writer.write(*block) for block in blocks] == [0, 1, 2, 3]
    return blocks


def test_blocks_come_back(tmp_path: Path) -> None:
    blocks = write(tmp_path / "file")
    with BlockReader(tmp_path / "file", DTYPES) as reader:
        assert len(reader) == 4
        assert [reader.lengths(n) for n in range(4)] == [[len(array) for array in block] for block in blocks]
        with pytest.raises(IndexError, match="no block 4"):
            reader.arrays(4, [0])
        for number in (3, 0, 2, 1):
            for array, expected in zip(reader.arrays(number), blocks[number], strict=True):
                assert array.tolist() == expected.tolist()
                assert array.dtype == expected.dtype


def test_an_empty_file(tmp_path: Path) -> None:
    with BlockWriter(tmp_path / "file", DTYPES):
        pass
    with BlockReader(tmp_path / "file", DTYPES) as reader:
        assert len(reader) == 0


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with BlockWriter(path, DTYPES) as writer:
        writer.write(np.arange(3), np.arange(2), np.arange(5))
        writer.write(np.arange(1), np.arange(1), np.arange(1))
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        with pytest.raises(BlockFileError), BlockReader(path, DTYPES) as reader:
            for number in range(len(reader)):
                reader.arrays(number)


def test_a_cut_or_missing_file_and_other_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(BlockFileError, match="cannot be read"):
        BlockReader(path, DTYPES)
    write(path)
    with pytest.raises(BlockFileError, match="another kind"):
        BlockReader(path, DTYPES[:2])
    content = path.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(BlockFileError):
            BlockReader(path, DTYPES)


def test_a_block_with_arrays_missing_is_refused(tmp_path: Path) -> None:
    with BlockWriter(tmp_path / "file", DTYPES) as writer, pytest.raises(ValueError, match="3 arrays"):
        writer.write(np.arange(3))


def test_a_writer_that_fails_leaves_no_readable_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), BlockWriter(tmp_path / "file", DTYPES) as writer:
        writer.write(np.arange(3), np.arange(3), np.arange(3))
        raise RuntimeError
    with pytest.raises(BlockFileError):
        BlockReader(tmp_path / "file", DTYPES)
