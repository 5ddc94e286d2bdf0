"""Answers of judges: scores that are there are read, everything else is rejected with its cause."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.annotate.endpoints import RequestError
from filters.annotate.reading import (
    MIN_COVERAGE,
    MOST_TOKENS,
    Reply,
    UnreadableError,
    answer_start,
    goes_on,
    parse,
    read_expected,
    read_justified,
    read_reward,
    read_score,
    storable,
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


SCORE_RUBRIC = Rubric.model_validate(
    {
        "name": "t",
        "version": "1",
        "label": "Educational score",
        "prompt": "How good is this page?",
        "scale": {"min": 0, "max": 5},
    }
)


def reply_token(piece: str, **top: float) -> dict[str, Any]:
    """A drawn token; candidates are given as n2=.3."""
    others = [{"token": name[1:], "logprob": math.log(p)} for name, p in top.items()]
    drawn = 1 - sum(top.values())
    return {
        "token": piece,
        "logprob": math.log(drawn),
        "top_logprobs": [{"token": piece, "logprob": math.log(drawn)}, *others],
    }


def reply(content: Any, pieces: list[Any] | None = None, **choice: Any) -> Reply:
    tokens = [piece if isinstance(piece, dict) else reply_token(piece, nx=0.1) for piece in pieces or []]
    message = {"role": "assistant", "content": content}
    whole = {"choices": [{"message": message, "logprobs": {"content": tokens} if tokens else None} | choice]}
    return Reply.of(parse(json.dumps(whole).encode()), ("m",), 100, 8)


FOUR = ["4", " criteria", " hold", ",", " or", " 5", ".", " So", " 3", "?"]
TWO = reply_token("2", n3=0.25)


@pytest.mark.parametrize(
    ("content", "before", "after"),
    [
        ("2", [*FOUR, "</think>", "\n\n"], []),
        ("2", [*FOUR, "</think>", "\n\n"], ["<\uff5cend\u2581of\u2581sentence\uff5c>"]),
        ("2", ["<think>", *FOUR, "</think>", "\n\n"], ["<|im_end|>"]),
        ("<think>4 criteria hold, or 5. So 3?</think>\n\n2", ["<think>", *FOUR, "</think>", "\n\n"], ["</s>"]),
        ("4 criteria hold, or 5. So 3?</think>2", [*FOUR, "</think>"], []),
        ("2", ["[THINK]", *FOUR, "[/THINK]"], ["[EOS]"]),
        ("2", ["◁think▷", *FOUR, "◁/", "think", "▷"], []),
        ("2", ["<|channel|>", "analysis", "<|message|>", *FOUR, "<|channel|>", "final", "<|message|>"], ["<|return|>"]),
        ("2", [*FOUR, "\n"], ["\n"]),
        ("2", ["é\ufffd", "\ufffd 2", "\n"], []),
        ([{"type": "thinking", "thinking": "4"}, {"type": "text", "text": "2"}], [*FOUR, "</think>", "\n"], []),
        ("2<|im_end|>", [], ["<|im_end|>"]),
    ],
)
def test_the_tokens_of_the_answer_are_the_last_ones(content: Any, before: list[str], after: list[str]) -> None:
    got = reply(content, [*before, TWO, *after])
    assert got.text.strip() == "2"
    reading = read_expected(got.tokens, SCORE_RUBRIC)
    assert (reading.score, reading.expected) == (2, pytest.approx(2.25))


def test_sentencepiece_writes_blanks_and_newlines_in_its_own_way() -> None:
    got = reply(
        "Educational score: 2", ["\u2581Educational", "\u2581score", ":", reply_token("\u25812", **{"n\u25813": 0.25})]
    )
    assert read_expected(got.tokens, SCORE_RUBRIC).expected == pytest.approx(2.25)
    got = reply(
        "2\n\nEn forårsdag.", ["<0x0A>", TWO, "<0x0A>", "<0x0A>", "En", "\u2581for", "<0xC3>", "<0xA5>", "rsdag", "."]
    )
    assert read_expected(got.tokens, SCORE_RUBRIC).expected == pytest.approx(2.25)
    got = reply("2", ["\u010a", reply_token("\u01202", nĠ3=0.25)])
    assert read_expected(got.tokens, SCORE_RUBRIC).expected == pytest.approx(2.25)


@pytest.mark.parametrize(
    ("content", "pieces"),
    [
        ("3", [*FOUR, TWO]),  # another digit
        ("2", [*FOUR]),  # not there at all
        ("2", [*FOUR, "4", TWO]),  # the end of a number
        ("2", [*FOUR, "-", TWO]),
        ("2", [TWO, " criteria", " hold"]),  # only in front, where the reasoning is
        ("2", []),
    ],
)
def test_tokens_that_do_not_spell_the_answer_are_none(content: str, pieces: list[Any]) -> None:
    got = reply(content, pieces)
    assert (got.text, got.tokens, got.has_alternatives) == (content, (), False)


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("3", "3"), ("<think>5</think>3", "3"), ("<THINK>\n5\n</THINK>\n3", "\n3"),
        ("<think>5", ""), ("5</think> 3", " 3"),
        ("<think>1<think>2</think>4</think>3", "3"), ("<think>1<think>2</think>4", ""), ("3<think>why", ""),
        ("<think>5</think>4<think>2</think>3", "3"), ("<thinking>5</thinking>3", "3"), ("<thought>5</thought>3", "3"),
        ("<reasoning>5</reasoning>3", "3"), ("<seed:think>5</seed:think>3", "3"), ('<think budget="9">5</think>3', "3"),
        ("<|START_THINKING|>5<|END_THINKING|>3", "3"), ("[THINK]5[/THINK]3", "3"), ("◁think▷5◁/think▷3", "3"),
        ("<|channel|>analysis<|message|>5<|end|><|start|>assistant<|channel|>final<|message|>3", "3"),
        ("<analysis>5", ""), ("I <b>think</b> 3", "I <b>think</b> 3"), ("</think>", ""),
    ],
)  # fmt: skip
def test_the_answer_stands_behind_the_reasoning(written: str, answer: str) -> None:
    assert written[answer_start(written) :] == answer


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""), ("", ""), ([], ""), ([{"type": "text", "text": "3"}], "3"), (["3"], "3"), ([{"text": "3"}], "3"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "5"}]}, {"type": "text", "text": "3"}], "3"),
        ([{"type": "reasoning", "text": "5"}, {"type": "output_text", "text": "3"}], "3"),
        ([{"type": "text", "text": "4?"}, {"type": "thinking", "thinking": "?"}, {"type": "text", "text": "3"}], "3"),
        ([{"type": "thinking", "thinking": "5"}], ""),
    ],
)  # fmt: skip
def test_content_in_parts(content: Any, text: str) -> None:
    assert reply(content).text == text


@pytest.mark.parametrize(
    "content", [5, True, {"text": 3}, [5], [["3"]], [{"type": "text", "text": 5}], [{"type": 5, "text": []}]]
)
def test_content_that_is_no_text_is_rejected(content: Any) -> None:
    with pytest.raises(RequestError) as caught:
        reply(content)
    assert (caught.value.trouble, caught.value.cause, caught.value.billed) == ("unreadable", "odd_reply", True)


@pytest.mark.parametrize(
    "logprobs",
    [
        "junk", {"content": "junk"}, {"content": 5}, {"content": [5]}, {"content": [[]]}, {"content": [{"token": 3}]},
        {"content": [{"token": "3", "top_logprobs": {"3": -0.2}}]},
        {"content": [{"token": "3", "top_logprobs": ["3"]}]},
        {"content": [None]}, {"content": {"3": -0.2}},
    ],
)  # fmt: skip
def test_log_probabilities_in_no_known_form_are_rejected(logprobs: Any) -> None:
    with pytest.raises(RequestError) as caught:
        reply("3", logprobs=logprobs)
    assert (caught.value.trouble, caught.value.cause) == ("unreadable", "odd_logprobs")


@pytest.mark.parametrize("logprobs", [None, {}, [], {"content": None}, {"content": []}, {"tokens": ["3"]}])
def test_log_probabilities_that_are_absent_are_none(logprobs: Any) -> None:
    assert reply("3", logprobs=logprobs).tokens == ()


@pytest.mark.parametrize("logprob", [None, "-0.2", math.nan, math.inf, 7.5, 10**400, True, [], {}])
def test_a_junk_logprob_has_no_probability(logprob: Any) -> None:
    with pytest.raises(UnreadableError, match="low_coverage"):
        read_expected(
            [{"token": "3", "logprob": logprob, "top_logprobs": [{"token": "2", "logprob": logprob}]}], SCORE_RUBRIC
        )


def test_probabilities_that_add_up_to_more_than_one_are_none() -> None:
    top = [{"token": str(n), "logprob": 0.0} for n in range(6)]
    with pytest.raises(UnreadableError, match="odd_logprobs"):
        read_expected([{"token": "3", "logprob": 0.0, "top_logprobs": top}], SCORE_RUBRIC)
    low = [{"token": "3", "logprob": 1e-6}, {"token": "2", "logprob": -(10**400)}, {"token": "1", "logprob": -math.inf}]
    assert read_expected([low[0] | {"top_logprobs": low}], SCORE_RUBRIC).expected == 3


@pytest.mark.parametrize(
    "usage",
    [
        None, [], "100", {"prompt_tokens": 10**30, "completion_tokens": 2**64}, {"prompt_tokens": -1},
        {"prompt_tokens": "100", "completion_tokens": math.nan}, {"prompt_tokens": math.inf, "completion_tokens": True},
        {"prompt_tokens": -(10**400), "completion_tokens": MOST_TOKENS + 1},
    ],
)  # fmt: skip
def test_usage_that_cannot_be_is_the_upper_bound(usage: Any) -> None:
    got = Reply.of({"choices": [{"message": {"content": "3"}}], "usage": usage}, ("m",), 100, 8)
    assert (got.tokens_in, got.tokens_out) == (100, 8)


def test_usage_that_can_be_counts() -> None:
    usage = {"prompt_tokens": 90.0, "completion_tokens": 1200}
    got = Reply.of({"choices": [{"message": {"content": "3"}}], "usage": usage}, ("m",), 100, 8)
    assert (got.tokens_in, got.tokens_out) == (90, 1200)


def test_surrogates_can_be_stored() -> None:
    whole = {"choices": [{"message": {"content": "3 \ud800\udc00 \udfff"}}], "model": "m"}
    assert reply("3 \ud83d\ude00 \udc00").written == "3 \U0001f600 \ufffd"
    assert Reply.of(whole, ("m",), 1, 1).text == "3 \U00010000 \ufffd"


@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        (b"", "bad_answer"), (b"<html>", "bad_answer"), (b"[1]", "bad_answer"), (b"\xff", "bad_answer"),
        (b"null", "bad_answer"),
        (b'{"a": ' * 200_000, "unreadable"), (b'{"a": 1, "a": 2}', "unreadable"), (b"[" * 200_000, "unreadable"),
    ],
)  # fmt: skip
def test_what_is_no_json_object(body: bytes, trouble: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(body)
    assert caught.value.trouble == trouble
    assert len(str(caught.value)) < 400


def test_integers_of_any_length_are_read() -> None:
    whole = parse(b'{"a": ' + b"9" * 5000 + b', "b": -' + b"9" * 5000 + b', "c": 12}')
    assert whole == {"a": math.inf, "b": -math.inf, "c": 12}


ANY = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**40), 10**40) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["content", "message", "token", "logprob", "top_logprobs", "type", "text"]), inner
        )
    ),
    max_leaves=8,
)


@given(ANY, ANY, ANY, ANY)
def test_no_reply_breaks_the_reader(content: Any, logprobs: Any, usage: Any, model: Any) -> None:
    choice = {"message": {"content": content}, "logprobs": logprobs}
    for raw in ({"choices": [choice], "usage": usage, "model": model}, {"choices": content, "error": logprobs}):
        try:
            got = Reply.of(raw, ("m",), 100, 8)
            read_expected(got.tokens, SCORE_RUBRIC)
        except (RequestError, UnreadableError):
            continue


@given(st.text(max_size=60))
def test_no_text_breaks_the_search_for_the_answer(text: str) -> None:
    assert 0 <= answer_start(text) <= len(text)
    storable(text).encode()
