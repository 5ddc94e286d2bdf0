"""Tokens, look-ups and features of static embeddings against plain Python."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pytest

from filters.arrays import Int64, UInt64
from filters.errors import ModelError
from filters.kernels.packed import PackedText
from filters.kernels.static import StaticTable, _find, pair_hashes, static_features, static_tokens
from filters.kernels.unicode import CLUSTER, IGNORED, SPACE, WORD, class_of, tables
from tests.kernels.hostile import TEXTS

MODULUS = 2**64


@numba.njit
def rows_of(slots, hashes):  # type: ignore[no-untyped-def]
    return np.array([_find(slots, key) for key in hashes])


def look_up(table: StaticTable, hashes: UInt64) -> Int64:
    """The row of each hash; -1: it is not in the table."""
    return np.asarray(rows_of(table.slots, hashes))


class Token(NamedTuple):
    kind: str  # L: word, D: number, N: line break, O: another character
    hash: int
    last: int  # the first byte of its last character
    letters: int
    text: str


def finish(h: int) -> int:
    h = ((h ^ (h >> 32)) * 0xD6E8FEB86659FD93) % MODULUS
    return h ^ (h >> 32)


def step(h: int, code: int) -> int:
    return ((h ^ code) * 0x9E3779B97F4A7C15) % MODULUS


def placed_characters(text: bytes) -> list[tuple[int, str]]:
    """Each character and the position of its first byte; U+FFFD for a byte that is in no valid sequence."""
    placed, position = [], 0
    while position < len(text):
        for size in (1, 2, 3, 4):
            try:
                placed.append((position, text[position : position + size].decode()))
            except UnicodeDecodeError:
                continue
            break
        else:
            size = 1
            placed.append((position, "\ufffd"))
        position += size
    return placed


def kind_of(character: str, after: str) -> str:
    """L: letter, A: apostrophe before a letter of ASCII, D: digit, N: line break, B: blank, I: ignored, O: other."""
    if character in "'\u2019" and after.isascii() and after.isalpha():
        return "A"
    if character.isascii():
        if character in "\n\r":
            return "N"
        return "L" if character.isalpha() else "D" if character.isdigit() else "B" if character.isspace() else "O"
    return {WORD: "L", CLUSTER: "L", SPACE: "B", IGNORED: "I"}.get(int(class_of(ord(character), tables()[0])), "O")


def expected_tokens(text: bytes) -> list[Token]:
    raw = placed_characters(text)
    after = [character for _, character in raw[1:]] + [""] * bool(raw)
    kinds = [kind_of(character, then) for (_, character), then in zip(raw, after, strict=True)]
    placed = [(kind, *place) for kind, place in zip(kinds, raw, strict=True) if kind != "I"]
    tokens = []
    for match in re.finditer("L+(?:AL+)*|D+|N[NB]*|[AO]", "".join(kind for kind, _, _ in placed)):
        run = placed[match.start() : match.end()]
        kind, (_, first, character), (_, last, _) = match[0][0].replace("A", "O"), run[0], run[-1]
        h = 0xCBF29CE484222325
        if kind == "L":
            for one, _, letter in run:
                code = 39 if one == "A" else ord(letter)
                h = step(h, int(tables()[1][code]) if code < 65536 else code)
        elif kind == "O":
            h = step(h, ord(character))
        else:
            h = step(0, 0xD1617 + min(len(run), 5) if kind == "D" else 0xB4EA4)
        letters = match[0].count("L") if kind == "L" else 0
        content = "".join(letter for _, _, letter in run)
        tokens.append(Token(kind, finish(h), first if kind == "N" else last, letters, content))
    return tokens


def expected_pairs(tokens: list[Token]) -> list[int]:
    hashes = [token.hash for token in tokens]
    return [finish((one * 0xA24BAED4963EE407 + two) % MODULUS) for one, two in itertools.pairwise(hashes)]


EXPECTED = [expected_tokens(text) for text in TEXTS]


def random_table(width: int, depth: int) -> tuple[list[int], int, StaticTable, dict[str, npt.NDArray[np.float64]]]:
    """Keys, how many are of single tokens, and a table of every other token and every third pair of `TEXTS`."""
    singles = sorted({token.hash for tokens in EXPECTED for token in tokens})[::2]
    pairs = sorted({pair for tokens in EXPECTED for pair in expected_pairs(tokens)} - set(singles))[::3]
    keys = singles + pairs
    rng = np.random.default_rng(width)
    arrays = {
        "grams": rng.integers(-127, 128, (len(keys), width)).astype(np.int8),
        "gram_scales": rng.uniform(0.001, 0.01, len(keys)).astype(np.float32),
        "idf": rng.uniform(1, 9, len(keys)).astype(np.float32),
        "words": rng.integers(-127, 128, (len(singles), depth)).astype(np.int8),
        "word_scales": rng.uniform(0.001, 0.01, len(singles)).astype(np.float32),
        "weights": rng.uniform(0.1, 1, len(singles)).astype(np.float32),
    }
    table = StaticTable.build(np.array(keys, np.uint64), **arrays)
    return keys, len(singles), table, {name: array.astype(np.float64) for name, array in arrays.items()}


def test_tokens_are_those_of_plain_python() -> None:
    tokens = static_tokens(PackedText.from_bytes(TEXTS))
    for number, (start, end) in enumerate(zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)):
        assert tokens.hashes[start:end].tolist() == [token.hash for token in EXPECTED[number]], TEXTS[number]
        # Positions in the packed bytes, of which the text's own begin with its offset.
        begin = sum(map(len, TEXTS[:number]))
        assert (tokens.last[start:end] - begin).tolist() == [token.last for token in EXPECTED[number]], TEXTS[number]


def test_pairs_are_those_of_plain_python() -> None:
    hashes = np.array([token.hash for token in EXPECTED[-1]], np.uint64)
    assert pair_hashes(hashes[:-1], hashes[1:]).tolist() == expected_pairs(EXPECTED[-1])


def test_what_is_looked_up_is_found_and_nothing_else() -> None:
    keys, _, table, _ = random_table(3, 2)
    assert look_up(table, np.array(keys, np.uint64)).tolist() == list(range(len(keys)))
    others = np.random.default_rng(0).integers(1, 2**63, 50_000).astype(np.uint64)
    assert (look_up(table, others) == -1).all()
    # In the slot of a key, or beside it, with other upper bits.
    near = np.array(keys, np.uint64) ^ (np.uint64(1) << np.uint64(63))
    assert (look_up(table, near) == -1).all()


def test_keys_that_begin_in_one_slot_are_told_apart() -> None:
    keys = (np.arange(1, 41, dtype=np.uint64) << np.uint64(32)) | np.uint64(0x7F)  # the last slot of 128
    none, vectors = np.ones(40, np.float32), np.zeros((40, 1), np.int8)
    table = StaticTable.build(keys, vectors, none, none, vectors, none, none)
    assert len(table.slots) == 128
    assert look_up(table, keys).tolist() == list(range(40))
    assert look_up(table, keys + (np.uint64(64) << np.uint64(32))).tolist() == [-1] * 40
    assert look_up(table, np.array([0, 1, 0x7F], np.uint64)).tolist() == [-1] * 3


def test_more_tokens_than_grams_are_refused() -> None:
    one, two = np.ones(1, np.float32), np.ones(2, np.float32)
    with pytest.raises(ModelError, match="2 tokens"):
        StaticTable.build(
            np.ones(1, np.uint64), np.zeros((1, 3), np.int8), one, one, np.zeros((2, 3), np.int8), two, two
        )


@pytest.mark.parametrize(("width", "depth"), [(64, 64), (5, 130), (0, 1), (200, 70)])
def test_features_are_those_of_plain_python(width: int, depth: int) -> None:
    keys, singles, table, arrays = random_table(width, depth)
    rows = {key: row for row, key in enumerate(keys)}
    features = static_features(PackedText.from_bytes(TEXTS), table)
    assert features.shape == (len(TEXTS), width + depth + 8)
    for number, tokens in enumerate(EXPECTED):
        found = [rows[key] for key in [token.hash for token in tokens] + expected_pairs(tokens) if key in rows]
        times = Counter(found)
        used = np.array(list(times), np.int64)
        counts = np.array(list(times.values()), np.float64)
        logs = 1 + np.log(np.minimum(counts, 1023))
        factors = arrays["idf"][used] * logs
        summed = (factors * arrays["gram_scales"][used]) @ arrays["grams"][used]
        words = used[used < singles]
        weights = arrays["weights"][words] * counts[used < singles]
        mean = (weights * arrays["word_scales"][words]) @ arrays["words"][words]
        kinds = Counter(token.kind for token in tokens)
        size = max(len(tokens), 1)
        shape = [
            np.log(size),
            kinds["N"] / size,
            kinds["O"] / size,
            sum(len(token.text) for token in tokens if token.kind == "D") / size,
            sum(token.letters for token in tokens) / max(kinds["L"], 1),
            sum(row < singles for row in found) / size,
            sum(token.text == "," for token in tokens) / size,
            sum(token.text == "?" for token in tokens) / size,
        ]
        expected = np.r_[summed / max(np.sqrt(factors @ factors), 1e-6), mean / max(weights.sum(), 1e-6), shape]
        np.testing.assert_allclose(features[number], expected, rtol=1e-4, atol=1e-5, err_msg=repr(TEXTS[number][:200]))


def test_features_of_a_text_are_the_same_in_any_company() -> None:
    _, _, table, _ = random_table(64, 70)
    together = static_features(PackedText.from_bytes(TEXTS), table)
    for number in range(0, len(TEXTS), 7):
        alone = static_features(PackedText.from_bytes(TEXTS[number : number + 1]), table)
        np.testing.assert_array_equal(alone[0], together[number])
