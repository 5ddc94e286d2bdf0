"""The number of tokens of a text: estimated without a tokenizer, or counted by one."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from filters.arrays import Float64, Int32, UInt8
from filters.errors import ConfigError, MissingExtraError
from filters.kernels.packed import PackedText
from filters.kernels.vectors import (
    WINDOW,
    digits,
    letters,
    lowest,
    newlines,
    non_ascii,
    ones,
    spaces,
    trailing_zeros,
    upper_case,
)

LETTER, UPPER, DIGIT, SPACE, NEWLINE, PUNCTUATION = range(6)

LONGEST = 16
"""Words of this length and longer share one coefficient; each letter beyond it has its own."""

SCRIPTS: tuple[tuple[str, tuple[tuple[int, int], ...]], ...] = (
    ("other", ()),
    ("Latin", ((0xC0, 0x2FF), (0x1E00, 0x1EFF))),
    ("Latin-1 symbols", ((0x80, 0xBF),)),
    ("combining marks", ((0x300, 0x36F),)),
    ("Greek", ((0x370, 0x3FF), (0x1F00, 0x1FFF))),
    ("Cyrillic, of Russian", ((0x410, 0x44F), (0x401, 0x401), (0x451, 0x451))),
    ("Cyrillic, other", ((0x400, 0x400), (0x402, 0x40F), (0x450, 0x450), (0x452, 0x52F))),
    ("Armenian", ((0x530, 0x58F),)),
    ("Hebrew", ((0x590, 0x5FF),)),
    ("Arabic", ((0x600, 0x66F), (0x750, 0x77F))),
    ("Arabic, of Persian and Urdu", ((0x670, 0x6FF),)),
    ("Devanagari", ((0x900, 0x97F),)),
    ("Bengali", ((0x980, 0x9FF),)),
    ("Gurmukhi", ((0xA00, 0xA7F),)),
    ("Gujarati", ((0xA80, 0xAFF),)),
    ("Oriya", ((0xB00, 0xB7F),)),
    ("Tamil", ((0xB80, 0xBFF),)),
    ("Telugu", ((0xC00, 0xC7F),)),
    ("Kannada", ((0xC80, 0xCFF),)),
    ("Malayalam", ((0xD00, 0xD7F),)),
    ("Sinhala", ((0xD80, 0xDFF),)),
    ("Thai", ((0xE00, 0xE7F),)),
    ("Lao", ((0xE80, 0xEFF),)),
    ("Tibetan", ((0xF00, 0xFFF),)),
    ("Burmese", ((0x1000, 0x10BF),)),
    ("Georgian", ((0x10C0, 0x10FF),)),
    ("Ethiopic", ((0x1200, 0x13BF),)),
    ("Khmer", ((0x1780, 0x17FF),)),
    ("symbols", ((0x2000, 0x2FFF),)),
    ("punctuation of Han", ((0x3000, 0x303F), (0xFF00, 0xFFFF))),
    ("kana", ((0x3040, 0x30FF),)),
    ("Han", ((0x3400, 0x9FFF), (0xF900, 0xFAFF))),
    ("Hangul", ((0xAC00, 0xD7FF),)),
    ("four bytes", ()),
)
"""Names and code points of what has coefficients of its own outside ASCII; blocks of three-byte characters are whole
blocks of 64."""

FEATURES = (
    *(f"words of {length} letters" for length in range(1, LONGEST)),
    f"words of {LONGEST} letters and more",
    f"letters beyond {LONGEST}",
    "upper-case letters inside words",
    "digits",
    "runs of punctuation",
    "punctuation characters",
    "runs of newlines",
    "spaces after a space",
    *(f"words that end in {chr(letter)}" for letter in range(ord("a"), ord("z") + 1)),
    *(f"{name}: {what}" for name, _ in SCRIPTS for what in ("characters", "runs")),
)
"""What is counted; a word is a run of Latin letters. How words end tells languages apart."""

_BEYOND, _INNER_UPPER, _DIGITS, _RUNS, _PUNCTUATION, _NEWLINES, _SPACES, _ENDS = range(LONGEST, LONGEST + 8)
_SCRIPTS = _ENDS + 26
_FOUR = len(SCRIPTS) - 1
_LATIN = 1

_NO_SCRIPTS = {"Latin-1 symbols", "combining marks", "symbols", "punctuation of Han", "four bytes"}
MEASURED_SCRIPTS = frozenset(
    ("Arabic", "Bengali", "Cyrillic", "Greek", "Han", "Hangul", "Hebrew", "Latin", "Thai", "kana")
)
"""Scripts whose mean error per page is at most 15 % for both tokenizers. That of Devanagari and Tamil is above; of
others there were no pages."""

# fmt: off
COEFFICIENTS: Float64 = np.array([
    0, 0.52, 0.18, 0.49, 1.24, 1.37, 1.26, 1.39, 1.88, 1.73, 2.01, 2.31, 2.81, 3.85, 4.74, 6.87,
    0, 0.13, 0.74, 0.98, 0.41, 0, 0.31, 0.9, 2.28, -0.6, 0.51, -0.07, -0.6, -0.01, -0.6, 1.44,
    3.09, 1.23, -0.37, 0.73, 0.26, 0.09, -0.6, 0.34, 0.72, -0.04, 0.71, 1.82, 2.97, -0.07, -0.6, -0.6,
    1.59, 2.03, 0, 0, 0.91, 0.32, 0.87, 0.78, 0.78, 0.37, 0.5, 0.17, 0.98, 0, 0.9, 0.46,
    0, 0.43, 0.2, 0.39, 0, 0.69, 0, 0.32, 0.75, 0.38, 0.35, 0.74, 0, 0.62, 0, 0.97,
    0, 0.36, 0.79, 0.57, 0, 0.58, 0, 0.61, 0, 0.7, 0, 0.37, 0.95, 1.53, 0, 1.17,
    0, 0.68, 0, 0.52, 0, 1.8, 0, 0.82, 0, 0.94, 0.12, 0, 1.25, 0.59, 0, 0.67,
    0.56, 0.84, 0, 0.22, 4.06,
])
# fmt: on
COEFFICIENTS.flags.writeable = False
_ONE = np.uint64(1)


def token_estimate(packed: PackedText) -> Int32:
    """Estimated number of BPE tokens of each text, at most its bytes: int32[n].

    A linear fit by script (least absolute relative error) to the geometric mean of the counts of two byte-level
    tokenizers of many languages, o200k (200,000 entries) and DeepSeek V4 (128,000), on half of 16,094 pages in 46
    languages and 1,500 English ones; docs/languages.md has the error of each language on the other half.
    """
    found = np.rint(token_features(packed) @ COEFFICIENTS)
    return np.clip(found, packed.lengths > 0, packed.lengths).astype(np.int32)


def load_tokenizer(path: str | Path, key: str) -> Any:
    """The `tokenizers.Tokenizer` of a tokenizer.json, which is JSON and executes nothing; it cuts and pads nothing.

    Args:
        path: of the file.
        key: of the config that names it, for errors.

    Raises:
        ConfigError: the file is missing or no tokenizer.
        MissingExtraError: the tokenizers package is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError(key, "annotate", str(error)) from error
    if not Path(path).is_file():
        raise ConfigError(f"{key}: {path}: no such file. Remedy: give the model's tokenizer.json, or leave it out")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise ConfigError(f"{key}: {path}: not a tokenizer.json: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def exact_tokens(tokenizer: Any, packed: PackedText) -> Int32:
    """Tokens of each text by a tokenizer of `load_tokenizer`, without special ones: int32[n]."""
    texts = [packed[row].decode(errors="replace") for row in range(len(packed))]
    found = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return np.array([len(one.ids) for one in found], np.int32)


def token_features(packed: PackedText) -> Int32:
    """int32[n, len(FEATURES)]: what `token_estimate` is linear in."""
    features = np.zeros((len(packed), len(FEATURES)), np.int32)
    _count(packed.data, packed.offsets, _classes(), _scripts(), features)
    return features


def main_script(features: Int32) -> npt.NDArray[np.object_]:
    """object[n]: the script that most letters of each text are of ("Cyrillic"), from `token_features`."""
    families = [name.partition(",")[0] for name, _ in SCRIPTS]
    names = sorted({*families} - _NO_SCRIPTS)
    counts = np.zeros((len(features), len(names)), np.int64)
    for number, family in enumerate(families):
        if family in names:
            counts[:, names.index(family)] += features[:, _SCRIPTS + 2 * number]
    lengths = np.arange(1, LONGEST + 1)
    counts[:, names.index("Latin")] = features[:, :LONGEST] @ lengths + features[:, _BEYOND]
    return np.asarray(np.array(names, object)[counts.argmax(axis=1)])


@functools.cache
def _scripts() -> UInt8:
    """uint8[65536]: the number in `SCRIPTS` of a character by its first byte, times 256, and its second."""
    scripts = np.zeros((256, 256), np.uint8)
    scripts[0xF0:] = _FOUR
    for number, (_, blocks) in enumerate(SCRIPTS):
        for first, last in blocks:
            for code in range(first, last + 1, 64 if first >= 0x800 else 1):
                lead, second = chr(code).encode("utf-8", "surrogatepass")[:2]
                scripts[lead, second] = number
    found = scripts.reshape(-1)
    found.flags.writeable = False
    return found


@functools.cache
def _classes() -> UInt8:
    """uint8[128]: the class of each ASCII character."""
    classes = np.full(128, PUNCTUATION, np.uint8)
    for code in range(128):
        character = chr(code)
        if character.isalpha():
            classes[code] = UPPER if character.isupper() else LETTER
        elif character.isdigit():
            classes[code] = DIGIT
        elif character in "\n\r":
            classes[code] = NEWLINE
        elif character.isspace():
            classes[code] = SPACE
    classes.flags.writeable = False
    return classes


@numba.njit(nogil=True, cache=True)
def _count(data, offsets, classes, scripts, features):  # type: ignore[no-untyped-def]
    last = len(data) - WINDOW
    words = np.zeros(LONGEST * 32, np.int32)  # by length, and by the last letter if it is of ASCII
    for document in range(len(offsets) - 1):
        counts = features[document]
        words[:] = 0
        length = 0  # letters of the word we are in
        before = -1
        script = np.int64(-1)  # of the character before; -1 in ASCII and at the start
        position, end = offsets[document], offsets[document + 1]
        while position < end:
            byte = data[position]
            if byte < 0x80 and position <= last:
                # ASCII up to the end of the window, counted by the bits of each class.
                stop = min(trailing_zeros(non_ascii(data, position)), end - position)
                inside = lowest(stop)
                found = letters(data, position) & inside
                numbers = digits(data, position) & inside
                lines = newlines(data, position) & inside
                blanks = spaces(data, position) & inside & ~lines
                marks = inside & ~(found | numbers | lines | blanks)
                counts[_INNER_UPPER] += ones(
                    upper_case(data, position) & (found << _ONE | np.uint64(length > 0)) & inside
                )
                counts[_DIGITS] += ones(numbers)
                counts[_PUNCTUATION] += ones(marks)
                counts[_RUNS] += ones(marks & ~(marks << _ONE | np.uint64(before == PUNCTUATION)))
                counts[_NEWLINES] += ones(lines & ~(lines << _ONE | np.uint64(before == NEWLINE)))
                counts[_SPACES] += ones(blanks & (blanks << _ONE | np.uint64(before == SPACE)))
                rest = stop
                while True:
                    run = trailing_zeros(~found)
                    length += run
                    rest -= run
                    if rest == 0:
                        break
                    if length > 0:
                        _end_word(words, counts, length, data[np.uint64(position + stop - rest - 1)])
                        length = 0
                    found >>= np.uint64(run)
                    gap = min(trailing_zeros(found), rest)
                    rest -= gap
                    if rest == 0:
                        break
                    found >>= np.uint64(gap)
                position += stop
                before = int(classes[data[position - 1]])
                script = np.int64(-1)
                continue
            position += 1
            if byte < 0x80:
                kind = int(classes[byte])
                script = np.int64(-1)
                if kind <= UPPER:
                    if kind == UPPER and length > 0:
                        counts[_INNER_UPPER] += 1
                    length += 1
                    before = kind
                    continue
            elif byte < 0xC0:  # the rest of a character that is counted already
                continue
            else:
                second = data[position] if position < end else np.uint8(0)
                mine = np.int64(scripts[np.int64(byte) << 8 | np.int64(second)])
                counts[_SCRIPTS + 2 * mine] += 1
                counts[_SCRIPTS + 2 * mine + 1] += mine != script
                script = mine
                if mine == _LATIN:
                    length += 1
                    before = LETTER
                    continue
                kind = -1
            if length > 0:
                _end_word(words, counts, length, data[position - 2])
                length = 0
            if kind == DIGIT:
                counts[_DIGITS] += 1
            elif kind == PUNCTUATION:
                counts[_PUNCTUATION] += 1
                counts[_RUNS] += before != PUNCTUATION
            elif kind == NEWLINE:
                counts[_NEWLINES] += before != NEWLINE
            elif kind == SPACE:
                counts[_SPACES] += before == SPACE
            before = kind
        if length > 0:
            _end_word(words, counts, length, data[end - 1])
        for number in range(LONGEST):
            for letter in range(32):
                counts[number] += words[number << 5 | letter]
            for letter in range(26):
                counts[_ENDS + letter] += words[(number << 5) + letter + 1]


@numba.njit(nogil=True, cache=True, inline="always")
def _end_word(words, counts, length, last):  # type: ignore[no-untyped-def]
    """Count a word of `length` letters, of which `last` is the last byte."""
    # Indices without a sign are not looked at for being negative.
    letter = np.uint64(last & np.uint8(31)) if last < 128 else np.uint64(0)
    words[np.uint64(min(length, LONGEST) - 1) << np.uint64(5) | letter] += 1
    if length > LONGEST:
        counts[_BEYOND] += length - LONGEST
