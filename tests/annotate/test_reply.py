"""Replies of servers: the answer is told from the reasoning, and its tokens from those of the reasoning."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.annotate.endpoints import RequestError
from filters.annotate.reading import UnreadableError, read_expected
from filters.annotate.reply import MOST_TOKENS, Reply, answer_start, parse, storable
from filters.annotate.rubric import Rubric

EDU = Rubric.model_validate(
    {
        "name": "t",
        "version": "1",
        "label": "Educational score",
        "prompt": "How good is this page?",
        "scale": {"min": 0, "max": 5},
    }
)


def token(piece: str, **top: float) -> dict[str, Any]:
    """A drawn token; candidates are given as n2=.3."""
    others = [{"token": name[1:], "logprob": math.log(p)} for name, p in top.items()]
    drawn = 1 - sum(top.values())
    return {
        "token": piece,
        "logprob": math.log(drawn),
        "top_logprobs": [{"token": piece, "logprob": math.log(drawn)}, *others],
    }


def reply(content: Any, pieces: list[Any] | None = None, **choice: Any) -> Reply:
    tokens = [piece if isinstance(piece, dict) else token(piece, nx=0.1) for piece in pieces or []]
    message = {"role": "assistant", "content": content}
    whole = {"choices": [{"message": message, "logprobs": {"content": tokens} if tokens else None} | choice]}
    return Reply.of(parse(json.dumps(whole).encode()), ("m",), 100, 8)


FOUR = ["4", " criteria", " hold", ",", " or", " 5", ".", " So", " 3", "?"]
TWO = token("2", n3=0.25)


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
    reading = read_expected(got.tokens, EDU)
    assert (reading.score, reading.expected) == (2, pytest.approx(2.25))


def test_sentencepiece_writes_blanks_and_newlines_in_its_own_way() -> None:
    got = reply(
        "Educational score: 2", ["\u2581Educational", "\u2581score", ":", token("\u25812", **{"n\u25813": 0.25})]
    )
    assert read_expected(got.tokens, EDU).expected == pytest.approx(2.25)
    got = reply(
        "2\n\nEn forårsdag.", ["<0x0A>", TWO, "<0x0A>", "<0x0A>", "En", "\u2581for", "<0xC3>", "<0xA5>", "rsdag", "."]
    )
    assert read_expected(got.tokens, EDU).expected == pytest.approx(2.25)
    got = reply("2", ["\u010a", token("\u01202", nĠ3=0.25)])
    assert read_expected(got.tokens, EDU).expected == pytest.approx(2.25)


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
        read_expected([{"token": "3", "logprob": logprob, "top_logprobs": [{"token": "2", "logprob": logprob}]}], EDU)


def test_probabilities_that_add_up_to_more_than_one_are_none() -> None:
    top = [{"token": str(n), "logprob": 0.0} for n in range(6)]
    with pytest.raises(UnreadableError, match="odd_logprobs"):
        read_expected([{"token": "3", "logprob": 0.0, "top_logprobs": top}], EDU)
    low = [{"token": "3", "logprob": 1e-6}, {"token": "2", "logprob": -(10**400)}, {"token": "1", "logprob": -math.inf}]
    assert read_expected([low[0] | {"top_logprobs": low}], EDU).expected == 3


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
            read_expected(got.tokens, EDU)
        except (RequestError, UnreadableError):
            continue


@given(st.text(max_size=60))
def test_no_text_breaks_the_search_for_the_answer(text: str) -> None:
    assert 0 <= answer_start(text) <= len(text)
    storable(text).encode()
