from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from filters.kernels import windows
from filters.kernels.windows import WINDOW

TEXT = np.frombuffer(bytes(range(256)) * 2, np.uint8)

CLASSES: dict[str, Callable[[int], bool]] = {
    "non_ascii": lambda byte: byte >= 128,
    "spaces": lambda byte: byte < 128 and chr(byte).isspace(),
    "word_characters": lambda byte: byte < 128 and (chr(byte).isalnum() or byte == ord("_")),
    "letters": lambda byte: byte < 128 and chr(byte).isalpha(),
    "upper_case": lambda byte: byte < 128 and chr(byte).isupper(),
    "digits": lambda byte: byte < 128 and chr(byte).isdigit(),
    "newlines": lambda byte: byte in b"\n\r",
    "fasttext_spaces": lambda byte: byte in b" \n\r\t\v\f\0",
}


@pytest.mark.parametrize("name", CLASSES)
def test_masks_of_every_byte_at_every_place(name: str) -> None:
    intrinsic: Any = getattr(windows, name)
    mask: Any = numba.njit(lambda data, position: intrinsic(data, position))
    for position in range(len(TEXT) - WINDOW + 1):
        window = TEXT[position : position + WINDOW].tolist()
        assert int(mask(TEXT, position)) == sum(1 << k for k, byte in enumerate(window) if CLASSES[name](byte))


def test_copies_in_lower_case() -> None:
    copy: Any = numba.njit(lambda data, position, target, place: windows.copy_lower(data, position, target, place))
    for position in range(128 - WINDOW + 1):
        target = np.full(WINDOW + 2, 255, np.uint8)
        copy(TEXT, position, target, 1)
        text = bytes(TEXT[position : position + WINDOW])
        expected = b"".join(b" " if chr(byte).isspace() else bytes([byte]).lower() for byte in text)
        assert target.tobytes() == b"\xff" + expected + b"\xff"


def test_words_of_eight_bytes() -> None:
    load: Any = numba.njit(lambda data, position: windows.load_word(data, position))
    for position in range(len(TEXT) - 8 + 1):
        assert int(load(TEXT, position)) == int.from_bytes(TEXT[position : position + 8].tobytes(), "big")


def test_bits() -> None:
    bits: Any = numba.njit(lambda x: (windows.trailing_zeros(x), windows.ones(x)))
    shift: Any = numba.njit(lambda x, count: (windows.lowest(count), windows.shifted(x, count)))
    for value in (0, 1, 2, 6, 1 << 63, 2**64 - 1, 0x8000000100000000):
        low = (value & -value).bit_length() - 1 if value else 64
        assert bits(np.uint64(value)) == (low, value.bit_count())
        for count in (0, 1, 5, 63, 64):
            lowest, shifted = shift(np.uint64(value), count)
            assert (int(lowest), int(shifted)) == ((1 << count) - 1, value >> count)
