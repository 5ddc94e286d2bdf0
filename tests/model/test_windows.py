from __future__ import annotations

import numpy as np
import pytest

from filters.kernels.packed import PackedText
from filters.model.folder import KeepRule
from filters.model.windows import MAX_WINDOWS, WindowRule, pool, split


def windows(texts: list[str], rule: WindowRule, size: int) -> list[tuple[int, str]]:
    found = split(PackedText.from_strings(texts), rule, size)
    assert found.characters.tolist() == [len(text.decode()) for text in found.packed]
    return [(row, text.decode()) for row, text in zip(found.document.tolist(), found.packed, strict=True)]


def test_consecutive_windows_are_cut_between_characters() -> None:
    texts = ["æøå€𝄞abcdef", "", "short"]
    expected = [(0, "æøå€"), (0, "𝄞abc"), (0, "def"), (1, ""), (2, "shor"), (2, "t")]
    assert windows(texts, "max", 4) == expected
    assert windows(texts, "length-weighted", 5) == [(0, "æøå€𝄞"), (0, "abcde"), (1, ""), (2, "short")]


def test_a_rest_below_a_quarter_of_a_window_is_left_out() -> None:
    assert windows(["abcdefghi"], "max", 8) == [(0, "abcdefgh")]
    assert windows(["abcdefghij"], "max", 8) == [(0, "abcdefgh"), (0, "ij")]


def test_begin_middle_and_end() -> None:
    assert windows(["0123456789", "abc"], "begin-middle-end", 4) == [(0, "0123"), (0, "3456"), (0, "6789"), (1, "abc")]


def test_a_long_text_costs_a_bounded_number_of_windows() -> None:
    assert len(windows(["a" * 10_000], "max", 10)) == MAX_WINDOWS


def test_scores_are_pooled() -> None:
    found = split(PackedText.from_strings(["a" * 8 + "b" * 4, "", "c"]), "max", 8)
    scores = np.float32([1, 4, 7, 2])
    assert pool(found, scores, "max").tolist() == [4, 7, 2]
    assert pool(found, scores, "begin-middle-end").tolist() == [2.5, 7, 2]
    assert pool(found, scores, "length-weighted").tolist() == [2, 7, 2]


def test_windows_of_several_columns_are_pooled_column_by_column() -> None:
    found = split(PackedText.from_strings(["ab", "c", ""]), "max", 1)
    scores = np.array([[1, 5], [3, 2], [4, 4], [0, 1]], np.float32)
    assert pool(found, scores, "max").tolist() == [[3, 5], [4, 4], [0, 1]]
    assert pool(found, scores, "length-weighted").tolist() == [[2, 3.5], [4, 4], [0, 1]]
    empty = split(PackedText.from_strings([]), "max", 1)
    assert pool(empty, np.empty(0, np.float32), "max").tolist() == []


def test_a_window_has_characters() -> None:
    with pytest.raises(ValueError, match="at least one"):
        split(PackedText.from_strings(["a"]), "max", 0)


@pytest.mark.parametrize("least", [1, 2, 3, 4, 5])
def test_rounding_half_to_even_is_a_threshold(least: int) -> None:
    rule = KeepRule(rounded=least)
    half = np.float32(least - 0.5)
    steps = [half, np.nextafter(half, np.float32(0)), np.nextafter(half, np.float32(9))]
    scores = np.float32([*steps, *np.linspace(0, 5, 2001)])
    np.testing.assert_array_equal(rule.keep(scores), np.rint(scores) >= least)
    # The pipeline compares with min_score alone.
    np.testing.assert_array_equal(scores >= np.float32(rule.min_score), np.rint(scores) >= least)
    assert KeepRule.model_validate(rule.model_dump(mode="json")) == rule


def test_the_two_rules_of_fineweb_edu_differ_at_two_and_a_half() -> None:
    scores = np.float32([2.49, 2.5, 2.51, 3.5])
    assert KeepRule(min_score=2.5).keep(scores).tolist() == [False, True, True, True]
    assert KeepRule(rounded=3).keep(scores).tolist() == [False, False, True, True]
    assert KeepRule(rounded=4).keep(scores).tolist() == [False, False, False, True]
    assert (str(KeepRule(rounded=3)), str(KeepRule(min_score=2.5))) == (
        "score rounded half to even >= 3",
        "score >= 2.5",
    )
    with pytest.raises(ValueError, match="two rules"):
        KeepRule(rounded=3, min_score=2.5)
