"""Packed text and ragged rows, against lists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from filters.kernels.packed import PackedText, Ragged
from tests.kernels.hostile import TEXTS, characters


def test_from_bytes_round_trip() -> None:
    packed = PackedText.from_bytes(TEXTS)
    assert len(packed) == len(TEXTS)
    assert list(packed) == TEXTS
    assert packed[-1] == TEXTS[-1]
    with pytest.raises(IndexError):
        packed[len(TEXTS)]


def test_no_texts() -> None:
    for packed in (
        PackedText.from_strings([]),
        PackedText.from_bytes([]),
        PackedText.from_arrow(pa.array([], pa.string())),
    ):
        assert len(packed) == 0
        assert len(packed.head(5)) == 0


def test_lone_surrogates_become_replacement_characters() -> None:
    assert list(PackedText.from_strings(["a\ud800b", "\udfff", "\ud83d\ude00", "plain"])) == [
        "a\ufffdb".encode(),
        "\ufffd".encode(),
        "\U0001f600".encode(),
        b"plain",
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view()])
def test_from_arrow_with_nulls_and_slices(kind: pa.DataType) -> None:
    values = ["one", None, "", "zwölf", "日本", "end"]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        array = pa.array([None if value is None else value.encode() for value in values], kind)
    else:
        array = pa.array(values, kind)
    expected = [(value or "").encode() for value in values]
    assert list(PackedText.from_arrow(array)) == expected
    assert list(PackedText.from_arrow(array.slice(2, 3))) == expected[2:5]
    assert (
        list(PackedText.from_arrow(pa.chunked_array([array.slice(0, 2), array.slice(4)])))
        == expected[:2] + expected[4:]
    )
    assert list(PackedText.from_arrow(pa.chunked_array([], kind))) == []


def test_null_and_dictionary_arrays() -> None:
    assert list(PackedText.from_arrow(pa.nulls(2))) == [b"", b""]
    assert list(PackedText.from_arrow(pa.array(["a", "b", "a"]).dictionary_encode())) == [b"a", b"b", b"a"]


def test_from_arrow_does_not_copy_large_strings() -> None:
    array = pa.array(["one", "two", "three"], pa.large_string()).slice(1)
    packed = PackedText.from_arrow(array)
    assert packed.data.__array_interface__["data"][0] == array.buffers()[2].address
    assert packed.offsets.__array_interface__["data"][0] == array.buffers()[1].address + 8


def test_from_arrow_refuses_numbers() -> None:
    with pytest.raises(TypeError, match="int64"):
        PackedText.from_arrow(pa.array([1, 2]))


@pytest.mark.parametrize("offsets", [[0, 5], [3, 1], [-1, 2], []])
def test_offsets_out_of_bounds_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="offsets"):
        PackedText(np.zeros(4, np.uint8), np.array(offsets, np.int64))


@pytest.mark.parametrize("max_characters", [0, 1, 2, 7, 100, 10**9])
def test_head_is_a_prefix_of_so_many_code_points(max_characters: int) -> None:
    valid = [characters(text) for text in TEXTS]
    cut = PackedText.from_strings(valid).head(max_characters)
    assert list(cut) == [text[:max_characters].encode() for text in valid]


def test_head_of_invalid_text_counts_bytes_that_start_a_character() -> None:
    for text, head in zip(TEXTS, PackedText.from_bytes(TEXTS).head(3), strict=True):
        assert text.startswith(head)
        starts = sum(byte & 0xC0 != 0x80 for byte in head)
        assert starts == min(3, sum(byte & 0xC0 != 0x80 for byte in text))


def test_head_of_a_slice() -> None:
    packed = PackedText.from_arrow(pa.array(["skipped", "höher", "ab"], pa.large_string()).slice(1))
    assert list(packed.head(2)) == ["hö".encode(), b"ab"]


def test_head_refuses_a_negative_length() -> None:
    with pytest.raises(ValueError, match="negative"):
        PackedText.from_strings(["a"]).head(-1)


def _cache_folder(**environment: str) -> str:
    inherited = {key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    script = "import filters.kernels, numba; print(numba.config.CACHE_DIR)"
    ran = subprocess.run(
        [sys.executable, "-c", script], env=inherited | environment, capture_output=True, text=True, check=True
    )
    return ran.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="XDG folders")
def test_compiled_kernels_are_cached_in_the_users_cache_folder(tmp_path: Path) -> None:
    assert _cache_folder(XDG_CACHE_HOME=str(tmp_path)).startswith(str(tmp_path / "finesieve" / "numba-"))
    assert _cache_folder(XDG_CACHE_HOME=str(tmp_path), NUMBA_CACHE_DIR=str(tmp_path / "own")) == str(tmp_path / "own")
    (tmp_path / "file").write_text("no folder can be made here")
    fallback = _cache_folder(XDG_CACHE_HOME=str(tmp_path / "file"), TMPDIR=str(tmp_path))
    assert Path(fallback).is_dir()
    assert fallback.startswith(str(tmp_path / "finesieve-"))


def rows(ragged: Ragged) -> list[list[int]]:
    return [ragged.values[ragged.offsets[n] : ragged.offsets[n + 1]].tolist() for n in range(len(ragged))]


def test_rows_are_taken_in_any_order_and_joined() -> None:
    lists = [[1, 2, 3], [], [4], [], [5, 6]]
    ragged = Ragged.of_lengths(np.array([n for row in lists for n in row], np.uint32), np.array([3, 0, 1, 0, 2]))
    assert rows(ragged) == lists
    assert rows(ragged.take(np.array([4, 0, 0, 1]))) == [[5, 6], [1, 2, 3], [1, 2, 3], []]
    assert rows(ragged.take(np.empty(0, np.int64))) == []
    assert rows(Ragged.joined([ragged, ragged.take(np.array([2]))], np.uint32)) == [*lists, [4]]
    assert rows(Ragged.joined([], np.uint32)) == []


def test_strings_come_back() -> None:
    texts = ["", "a", "æøå", "水" * 50, ""]
    for array in (pa.array(texts), pa.array(texts, pa.large_string())[1:4], pa.chunked_array([texts[:2], texts[2:]])):
        assert Ragged.of_strings(array).strings().to_pylist() == array.to_pylist()
    assert Ragged.of_strings(pa.array([], pa.string())).strings().to_pylist() == []
