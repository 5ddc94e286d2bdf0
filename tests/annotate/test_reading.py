"""Answers of judges: scores that are there are read, everything else is rejected with its cause."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.annotate.reading import (
    MIN_COVERAGE,
    UnreadableError,
    goes_on,
    read_expected,
    read_justified,
    read_reward,
    read_score,
)
from filters.annotate.rubric import Rubric

BASE: dict[str, Any] = {
    "name": "t",
    "version": "1",
    "label": "Educational score",
    "prompt": "How good is this page? Say it.",
}
EDU = Rubric.model_validate(BASE | {"scale": {"min": 0, "max": 5}})
TEN = Rubric.model_validate(BASE | {"scale": {"min": 0, "max": 10}})
HUNDRED = Rubric.model_validate(BASE | {"scale": {"min": 1, "max": 100}})
PAIR = Rubric.model_validate(
    BASE | {"scale": {"min": 0, "max": 4}, "attributes": [{"name": "clear"}, {"name": "wordy", "weight": 0}]}
)


def token(piece: str, probability: float = 1.0, **others: float) -> dict[str, Any]:
    """A drawn token and its alternatives; in `others` an underscore stands for a space, "end" for an end token."""
    top = [(piece, probability)]
    top += [("<|end|>" if name == "end" else name.lstrip("n").replace("_", " "), p) for name, p in others.items()]
    return {
        "token": piece,
        "logprob": math.log(probability),
        "top_logprobs": [{"token": name, "logprob": math.log(p)} for name, p in sorted(top, key=lambda pair: -pair[1])],
    }


def cause_of(reader: Any, answer: Any, rubric: Rubric = EDU) -> str:
    with pytest.raises(UnreadableError) as caught:
        reader(answer, rubric)
    return caught.value.cause


def test_every_real_answer_parses_to_its_stored_score(shared_data: Path) -> None:
    table = pq.read_table(shared_data / "annotations" / "edu-da-train.parquet", columns=["judge_answer", "score"])
    rows = table.to_pylist()
    assert len(rows) == 1000
    assert [read_justified(row["judge_answer"], EDU).score for row in rows] == [row["score"] for row in rows]


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("It teaches.\n\nEducational score: 3", 3),
        ("Educational score: 5 of hers, she says.\nEducational score: 1", 1),
        ("Good.\n**Educational score: 4/5**\n", 4),
        ("Good.\n\n> educational score:  2 points.", 2),
        ("Fine.\r\n**Educational Score:** 0", 0),
    ],
)
def test_a_justified_score_is_the_last_line(answer: str, score: int) -> None:
    assert read_justified(answer, EDU).score == score


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ("", "empty_answer"),
        (" \n\t\n", "empty_answer"),
        ("3", "no_score"),
        ("Educational score: 3\nBut then again, who knows?", "no_score"),
        ("Educational score: 3 or 4", "no_score"),
        ("Educational score: three", "no_score"),
        ("Educational score: <N>", "no_score"),
        ("The educational score: 3", "no_score"),
        ("Educational score: 2.5", "not_whole"),
        ("Educational score: 7", "off_scale"),
        ("Educational score: -1", "off_scale"),
        ("Educational score: 4/10", "off_scale"),
        ("Educational score: 4 out of 10", "off_scale"),
        ("Educational score: 20245", "off_scale"),
        ("Educational score: ３", "no_score"),
        ("Educational score: 3" + "0" * 5000, "off_scale"),
    ],
)
def test_what_is_no_justified_score_is_rejected(answer: str, cause: str) -> None:
    assert cause_of(read_justified, answer) == cause


@pytest.mark.parametrize(
    ("answer", "score"),
    [("3", 3), (" 4\n", 4), ("Educational score: 2", 2), ("1\n\nThe page is", 1), ("5/5", 5), ("0.", 0)],
)
def test_a_written_score(answer: str, score: int) -> None:
    assert read_score(answer, EDU).score == read_score(answer, EDU).expected == score


@pytest.mark.parametrize(
    ("answer", "cause"), [("I think 3", "no_score"), ("3 to 4", "no_score"), ("2.5", "not_whole"), ("9", "off_scale")]
)
def test_what_is_no_written_score_is_rejected(answer: str, cause: str) -> None:
    assert cause_of(read_score, answer) == cause


@given(st.text(max_size=200))
def test_no_answer_breaks_the_parser(answer: str) -> None:
    for reader in (read_score, read_justified, read_reward):
        for rubric in (EDU, PAIR):
            try:
                reading = reader(answer, rubric)
            except UnreadableError:
                continue
            assert rubric.scale.min <= reading.expected <= rubric.scale.max


def test_the_mean_of_the_distribution() -> None:
    reading = read_expected([token("3", 0.5, n2=0.25, n4=0.25), token("<|end|>")], EDU)
    assert reading.score == 3
    assert reading.expected == pytest.approx(3)
    assert reading.distribution == [0, 0, 0.25, 0.5, 0.25, 0]
    assert reading.entropy == pytest.approx(1.5 * math.log(2))
    assert reading.coverage == pytest.approx(1)


def test_spaces_labels_and_spellings_of_a_digit() -> None:
    reading = read_expected([token(" 3", 0.4, n3=0.2, _2=0.2, The=0.1, n7=0.05)], EDU)
    assert reading.expected == pytest.approx((3 * 0.6 + 2 * 0.2) / 0.8)
    assert reading.coverage == pytest.approx(0.8)
    labelled = [token("Educational"), token(" score"), token(":"), token(" "), token("1", 0.7, n0=0.3)]
    assert read_expected(labelled, EDU).expected == pytest.approx(0.7)
    glued = [token("Educational"), token(" score"), token(": 1", 0.6, **{":_2": 0.4})]
    assert read_expected(glued, EDU).expected == pytest.approx(1.4)


def test_scale_tokens_missing_among_the_candidates() -> None:
    few = token("2", 0.6, n3=0.3)
    assert read_expected([few], EDU).distribution == pytest.approx([0, 0, 2 / 3, 1 / 3, 0, 0], abs=1e-6)
    alone = {"token": "2", "logprob": math.log(0.9), "top_logprobs": []}
    assert read_expected([alone], EDU).expected == 2
    assert read_expected([alone], EDU).coverage == pytest.approx(0.9)
    assert cause_of(read_expected, [token("2", 0.3, I=0.25, The=0.25, A=0.2)]) == "low_coverage"
    assert cause_of(read_expected, [{"token": "2", "logprob": None}]) == "low_coverage"
    assert cause_of(read_expected, [{"token": "2", "logprob": float("nan")}]) == "low_coverage"


@pytest.mark.parametrize(
    ("pieces", "cause"),
    [
        (["I", " think", " 3"], "no_score"), ([], "empty_answer"), (["\n"], "empty_answer"), (["7"], "off_scale"),
        (["2", ".", "5"], "not_whole"), (["1", "2"], "off_scale"), (["-", "1"], "off_scale"),
    ],
)  # fmt: skip
def test_answers_that_do_not_begin_with_a_score(pieces: list[str], cause: str) -> None:
    assert cause_of(read_expected, [token(piece) for piece in pieces]) == cause


def test_a_number_of_two_tokens() -> None:
    one = token("1", 0.6, n9=0.4)
    reading = read_expected([one, token("0", 0.75, end=0.25)], TEN)
    assert reading.distribution == pytest.approx([0, 0.15, 0, 0, 0, 0, 0, 0, 0, 0.4, 0.45])
    reading = read_expected([one, token("<|end|>", 0.75, n0=0.25)], TEN)
    assert (reading.distribution[1], reading.distribution[10]) == pytest.approx((0.45, 0.15))
    # Not drawn: whether it would have become 1 or 10 is not known, and not guessed.
    reading = read_expected([token("9", 0.6, n1=0.4)], TEN)
    assert reading.distribution[9] == 1
    assert reading.coverage == pytest.approx(0.6)
    assert read_expected([token("10", 0.5, n9=0.5)], TEN).expected == pytest.approx(9.5)


def test_a_vocabulary_that_merges_digits_shows_that_1_is_1() -> None:
    merged = {"9": 0.4, "1": 0.35, "10": 0.25}

    def drawn(piece: str) -> list[dict[str, Any]]:
        return [token(piece, merged[piece], **{f"n{other}": p for other, p in merged.items() if other != piece})]

    for piece in ("9", "10"):
        reading = read_expected(drawn(piece), TEN)
        assert (reading.expected, reading.coverage) == (pytest.approx(6.45), pytest.approx(1))
    # Drawn, and followed by an end or by a digit: then it is seen what becomes of it.
    ended = read_expected([*drawn("1"), token("<|end|>", 0.8, n0=0.2)], TEN)
    assert ended.distribution == pytest.approx([0, 0.28, 0, 0, 0, 0, 0, 0, 0, 0.4, 0.32])
    # On a scale to 100 one candidate of two digits shows the same for all.
    reading = read_expected([token("85", 0.5, n8=0.2, n100=0.1, n1=0.2)], HUNDRED)
    assert reading.expected == pytest.approx(0.5 * 85 + 0.2 * 8 + 0.1 * 100 + 0.2)
    # "0" and "00" are no values of this scale, and say nothing of the mass of others.
    assert read_expected([token("5", 0.5, n0=0.3, n00=0.2)], HUNDRED).coverage == pytest.approx(0.5)


def test_numbers_behind_sentencepiece_blanks() -> None:
    pieces = [token("\u2581", 1.0), token("9", 0.6, n10=0.3, n1=0.1), token("</s>")]
    assert read_expected(pieces, TEN).expected == pytest.approx(0.6 * 9 + 0.3 * 10 + 0.1)
    one = token("\u25811", 0.6, **{"n\u25819": 0.4})
    assert read_expected([one, token("0", 0.75, end=0.25)], TEN).expected == pytest.approx(0.45 * 10 + 0.15 + 0.4 * 9)
    newline = [token("<0x0A>"), token("3", 0.7, n2=0.3), token("<0x0A>"), token("\u2581So")]
    assert read_expected(newline, EDU).expected == pytest.approx(2.7)


def test_what_follows_the_score_must_not_make_it_another() -> None:
    for pieces in (["4", " criteria", " hold"], ["3", " to", " 4"], ["4", " points", " of", " 10"], ["3", "rd"]):
        assert cause_of(read_expected, [token(piece) for piece in pieces]) == "no_score"
    for pieces in (["4", "/", "5"], ["4", " points", "."], ["**", "4", "**"], ["4", "\n\n", "5", " holds"]):
        assert read_expected([token(piece) for piece in pieces], EDU).score == 4


def test_a_number_that_was_cut_off_may_go_on() -> None:
    assert goes_on("1", TEN.scale)
    assert goes_on("Educational score: 1", TEN.scale)
    assert not goes_on("10", TEN.scale)
    assert not goes_on("1\n", TEN.scale)
    assert not goes_on("1", EDU.scale)
    assert goes_on("10", HUNDRED.scale)


def test_a_number_of_three_tokens() -> None:
    tokens = [token("1", 0.9, n2=0.1), token("0", 0.5, n5=0.5), token("0", 0.8, end=0.2)]
    reading = read_expected(tokens, HUNDRED)
    assert reading.distribution[99] == pytest.approx(0.36 / 0.9)
    assert reading.distribution[9] == pytest.approx(0.09 / 0.9)
    assert reading.distribution[14] == pytest.approx(0.45 / 0.9)


@given(st.lists(st.floats(0.001, 1), min_size=6, max_size=6), st.floats(0.51, 1))
def test_any_distribution_comes_back(weights: list[float], covered: float) -> None:
    assert covered > MIN_COVERAGE
    truth = [weight / sum(weights) for weight in weights]
    drawn = max(range(6), key=lambda value: truth[value])
    top = [{"token": str(value), "logprob": math.log(p * covered)} for value, p in enumerate(truth)]
    reading = read_expected([top[drawn] | {"top_logprobs": top}], EDU)
    assert reading.distribution == pytest.approx(truth, abs=1e-5)
    assert reading.expected == pytest.approx(sum(value * p for value, p in enumerate(truth)), abs=1e-4)
    assert reading.coverage == pytest.approx(covered, abs=1e-5)


def test_attributes_by_line_and_by_token() -> None:
    reading = read_justified("It is so.\nclear: 3\nwordy: 1", PAIR)
    assert (reading.attributes, reading.expected) == ({"clear": 3, "wordy": 1}, 3)
    assert cause_of(read_justified, "wordy: 1\nclear: 3", PAIR) == "no_score"
    assert cause_of(read_score, "clear: 3", PAIR) == "no_score"
    tokens = [
        token("clear"),
        token(":"),
        token(" 3", 0.5, _2=0.5),
        token("\n"),
        token("wordy"),
        token(": "),
        token("4"),
    ]
    reading = read_expected(tokens, PAIR)
    assert reading.attributes == pytest.approx({"clear": 2.5, "wordy": 4})
    assert reading.expected == pytest.approx(2.5)
    assert reading.distribution["wordy"] == [0, 0, 0, 0, 1]
    assert cause_of(read_expected, tokens[:3], PAIR) == "no_score"


def test_reward_models() -> None:
    helpsteer = Rubric.load(Path(__file__).parents[2] / "configs" / "rubrics" / "helpsteer.yaml")
    answer = "helpfulness:1.6171875,correctness:1.6484375,coherence:3.3125,complexity:0.546875,verbosity:0.515625"
    reading = read_reward(answer, helpsteer)
    assert reading.attributes is not None
    assert reading.attributes["coherence"] == 3.3125
    assert reading.expected == pytest.approx(0.4 * 1.6171875 + 0.3 * 1.6484375 + 0.3 * 3.3125)
    assert read_reward(answer.replace("3.3125", "4.25"), helpsteer).attributes["coherence"] == 4.25  # type: ignore[index]
    for damaged, cause in (
        ("", "empty_answer"), ("reward:-3.5", "other_attributes"), (answer + ",reward:1", "other_attributes"),
        (answer.replace("3.3125", "33125"), "off_scale"), (answer.replace("3.3125", "nan"), "no_score"),
        (answer + "," + answer, "no_score"), ("I like it", "no_score"),
    ):  # fmt: skip
        assert cause_of(read_reward, damaged, helpsteer) == cause
