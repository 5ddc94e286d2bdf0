"""Reading a judge's answer: strictly. What does not say a score on the scale is rejected with a cause, never guessed.

The mean of the score distribution, read from log-probabilities, tells a sure 3 from one that nearly was a 2; it beats
the written digit as a label (Liu et al. 2023, G-Eval).
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any, Self

from filters.annotate.endpoints import RequestError, refusal
from filters.annotate.rubric import Rubric, Scale

MIN_COVERAGE = 0.5
"""Least probability of all scores together; below it, the judge wanted to say something else."""
REWARD_SLACK = 1.0
"""A reward model regresses and may leave the scale by so much; beyond that its answer is on another scale."""

Token = Mapping[str, Any]
"""As the API gives it: token, logprob, top_logprobs."""

MOST_PROBABILITY = 1.05
"""The candidates for one token together have at most this probability, rounding included; else they are none."""

_DIGITS = re.compile(r"\s*([0-9]{1,3})\s*")
_NUMBER = r"([0-9]{1,3})(?![0-9]|[.,][0-9])"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPECIAL = r"<[^<>\s]{1,40}>|<\uff5c?end of sentence\uff5c?>|\[/?[A-Z_]{2,20}\]"
"""A special token that a server shows after the answer: <|im_end|>, </s>, [EOS]; DeepSeek's with blanks."""


class UnreadableError(Exception):
    """An answer without a score; `cause` says why it could not be read, in one word of snake case."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(cause)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says; see `filters.annotate.store.Answer` for the fields."""

    score: float
    expected: float
    entropy: float | None = None
    coverage: float | None = None
    distribution: Any = None
    attributes: dict[str, float] | None = None


# --- written scores


def read_score(text: str, rubric: Rubric) -> Reading:
    """An answer that is the score alone, or its label and the score, on its first line; of a rubric with attributes a
    line "name: score" for each.

    Raises:
        UnreadableError: empty_answer, no_score, not_whole, off_scale.
    """
    return _written([value for value, _ in _first_lines(text, rubric)], rubric)


def read_justified(text: str, rubric: Rubric) -> Reading:
    """An answer that reasons and ends with a line "label: score", or with one such line for each attribute.

    Raises:
        UnreadableError: empty_answer, no_score, not_whole, off_scale.
    """
    wanted = max(len(rubric.attributes), 1)
    return _written([value for value, _ in _values_of(_lines(text)[-wanted:], rubric, label_required=True)], rubric)


def _written(values: Sequence[int], rubric: Rubric) -> Reading:
    if not rubric.attributes:
        return Reading(float(values[0]), float(values[0]))
    found = {attribute.name: float(value) for attribute, value in zip(rubric.attributes, values, strict=True)}
    expected = rubric.combine(found)
    return Reading(float(round(expected)), expected, attributes=found)


def _first_lines(text: str, rubric: Rubric) -> list[tuple[int, int]]:
    """(value, where its digits begin in `text`) of the score, or of each attribute."""
    return _values_of(_lines(text)[: max(len(rubric.attributes), 1)], rubric, label_required=False)


def _lines(text: str) -> list[tuple[int, str]]:
    """(where it begins, line) of every line that is not blank, without decoration."""
    found = []
    for match in re.finditer(r"[^\r\n]+", text):
        line = match[0].rstrip(_DECORATION)
        bare = line.lstrip(_DECORATION)
        if bare:
            found.append((match.start() + len(line) - len(bare), bare))
    if not found:
        raise UnreadableError("empty_answer")
    return found


_DECORATION = " \t*_`#>"


def _values_of(lines: Sequence[tuple[int, str]], rubric: Rubric, *, label_required: bool) -> list[tuple[int, int]]:
    """(value, where its digits begin) of each line, which must be the score, or an attribute, and nothing else."""
    optional = "" if label_required or rubric.attributes else "?"
    label = "[ _]+".join(re.escape(word) for word in rubric.label.split())
    labels = [attribute.name for attribute in rubric.attributes] or [label]
    if len(lines) < len(labels):
        raise UnreadableError("no_score")
    most, found = rubric.scale.max, []
    for label, (start, line) in zip(labels, lines, strict=True):
        head = re.match(rf"(?:{label}[ *_]*:[ *_]*){optional}", line, re.IGNORECASE)
        place = head.end() if head else len(line)
        rest = line[place:]
        match = re.fullmatch(rf"{_NUMBER}(?: ?/ ?{most}| out of {most})?(?: points?)?[ *_.]*", rest, re.IGNORECASE)
        if match is None:
            other = _OTHER_SCALE.fullmatch(rest.rstrip(" *_."))
            part = re.match(r"[0-9]+[.,][0-9]", rest)
            raise UnreadableError("not_whole" if part else "off_scale" if other else "no_score")
        if int(match[1]) not in rubric.scale.values:
            raise UnreadableError("off_scale")
        found.append((int(match[1]), start + place))
    return found


_OTHER_SCALE = re.compile(r"-[0-9]+|[0-9]+ ?(?:/|out of) ?[0-9]+|[0-9]{4,}", re.IGNORECASE)
"""A number on another scale: "-1", "4/10", "2024"."""


def goes_on(text: str, scale: Scale) -> bool:
    """Whether an answer that was cut off here may have been about to write a larger number: "1" of "10"."""
    match = re.search(r"(?<![0-9])[0-9]{1,3}\Z", text)
    return match is not None and bool(_continued(scale.min, scale.max, match[0])[1])


# --- reward models


def read_reward(text: str, rubric: Rubric) -> Reading:
    """The attribute scores of a reward model: "helpfulness:1.6171875,correctness:1.6484375,...".

    Raises:
        UnreadableError: empty_answer, no_score, other_attributes, off_scale.
    """
    if not text.strip():
        raise UnreadableError("empty_answer")
    found: dict[str, float] = {}
    for part in re.split(r"[,\n]", text.strip()):
        match = re.fullmatch(r"\s*([A-Za-z_]+)\s*:\s*(-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?)\s*", part)
        if match is None or match[1].lower() in found:
            raise UnreadableError("no_score")
        found[match[1].lower()] = float(match[2])
    if found.keys() != {attribute.name for attribute in rubric.attributes}:
        raise UnreadableError("other_attributes")
    scale = rubric.scale
    if not all(scale.min - REWARD_SLACK <= value <= scale.max + REWARD_SLACK for value in found.values()):
        raise UnreadableError("off_scale")
    expected = rubric.combine(found)
    return Reading(float(round(expected)), expected, attributes=found)


# --- log-probabilities


def spelling(token: Token) -> str:
    """A token's text, as it stands in an answer: SentencePiece and byte-level vocabularies write blanks in their own
    way, and newlines as bytes."""
    text = str(token.get("token", ""))
    byte = _BYTE.fullmatch(text)
    if byte is not None:
        return chr(int(byte[1], 16)) if int(byte[1], 16) < 0x80 else "\ufffd"
    return text.translate(_BLANKS)


_BLANKS = str.maketrans({"\u2581": " ", "\u0120": " ", "\u010a": "\n"})


def read_expected(tokens: Sequence[Token], rubric: Rubric) -> Reading:
    """The distribution over the scale that the candidates for the score's tokens give.

    Args:
        tokens: of the answer alone, as `choices[0].logprobs.content` has them. What they spell must be readable by
            `read_score`.
        rubric: whose scale, and whose attributes, are answered.

    Raises:
        UnreadableError: empty_answer, no_score, not_whole, off_scale, low_coverage (the scale is missing among
            the server's candidates or hold less than `MIN_COVERAGE`), odd_logprobs (they are no probabilities).
    """
    pieces = [spelling(token) for token in tokens]
    while pieces and re.fullmatch(SPECIAL, pieces[-1].strip()):
        pieces.pop()
    scale = rubric.scale
    found = [_distribution(tokens, pieces, start, scale) for _, start in _first_lines("".join(pieces), rubric)]
    means = [math.fsum(map(mul, scale.values, shares)) / math.fsum(shares) for shares, _ in found]
    entropy = sum(math.fsum(-p * math.log(p) for p in shares if p > 0) for shares, _ in found) / len(found)
    coverage = min(coverage for _, coverage in found)
    if not rubric.attributes:
        shares = found[0][0]
        return Reading(float(scale.min + shares.index(max(shares))), means[0], entropy, coverage, shares)
    names = [attribute.name for attribute in rubric.attributes]
    attributes = dict(zip(names, means, strict=True))
    expected = rubric.combine(attributes)
    distributions = {name: shares for name, (shares, _) in zip(names, found, strict=True)}
    return Reading(float(round(expected)), expected, entropy, coverage, distributions, attributes)


def _distribution(
    tokens: Sequence[Token], pieces: Sequence[str], start: int, scale: Scale
) -> tuple[list[float], float]:
    """(probability of each value, normalised; the probability the candidates gave to the scale before that)."""
    index, offset = 0, start
    while offset >= len(pieces[index]):
        offset -= len(pieces[index])
        index += 1
    mass = dict.fromkeys(scale.values, 0.0)
    for value, probability in _values(tokens, index, pieces[index][:offset].strip(), "", 1.0, scale):
        mass[value] += probability
    coverage = sum(mass.values())
    if not coverage >= MIN_COVERAGE:
        raise UnreadableError("low_coverage")
    return [round(probability / coverage, 6) for probability in mass.values()], round(min(coverage, 1.0), 6)


def _values(
    tokens: Sequence[Token], index: int, prefix: str, digits: str, before: float, scale: Scale
) -> Iterator[tuple[int, float]]:
    """Values with their probabilities, from the candidates at `index` after `digits` have been written.

    Whether a candidate such as "1" on a scale to 10 goes on to "10" is seen if it is the token that was drawn. If
    another candidate has several digits, the vocabulary has numbers of several digits as single tokens, and "1" is 1.
    Else the mass of a candidate that was not drawn stays unassigned.
    """
    if index >= len(tokens):
        if digits and int(digits) in scale.values:
            yield int(digits), before
        return
    drawn = spelling(tokens[index])
    numbers = []
    for piece, probability in _candidates(tokens[index]):
        rest = piece.strip() if not digits else piece
        if prefix and not rest.startswith(prefix):
            continue
        match = _DIGITS.fullmatch(rest[len(prefix) :] if prefix else rest)
        if match is not None and not (digits and piece[:1].isspace()):
            numbers.append((piece, match[1], before * probability))
    merged = any(len(number) > 1 for _, number, _ in numbers)
    for piece, number, probability in numbers:
        written = digits + number
        whole, longer = _continued(scale.min, scale.max, written)
        if not longer or piece[-1:].isspace():
            if whole:
                yield int(written), probability
        elif piece == drawn:
            yield from _values(tokens, index + 1, "", written, probability, scale)
        elif whole and merged:
            yield int(written), probability
        elif not whole and len(longer) == 1:
            yield longer[0], probability
    if digits and _continued(scale.min, scale.max, digits)[0]:
        yield int(digits), max(before - sum(probability for _, _, probability in numbers), 0.0)


@functools.cache
def _continued(low: int, high: int, written: str) -> tuple[bool, tuple[int, ...]]:
    """(whether these digits are a value of the scale, the values of which they are only the beginning)."""
    values = range(low, high + 1)
    longer = tuple(value for value in values if str(value).startswith(written) and str(value) != written)
    return int(written) in values and str(int(written)) == written, longer


def _candidates(token: Token) -> list[tuple[str, float]]:
    """The drawn token and its alternatives, each once, with probabilities."""
    found: dict[str, float] = {}
    for candidate in (*(token.get("top_logprobs") or ()), token):
        probability = _probability(candidate.get("logprob"))
        if isinstance(candidate.get("token"), str) and probability is not None:
            found.setdefault(candidate["token"], probability)
    if sum(found.values()) > MOST_PROBABILITY:
        raise UnreadableError("odd_logprobs")
    return [(spelling({"token": piece}), probability) for piece, probability in found.items()]


def _probability(logprob: object) -> float | None:
    """None for what is no log-probability: not a number, NaN, infinite, or above 0 by more than rounding."""
    if isinstance(logprob, bool) or not isinstance(logprob, int | float) or not logprob <= 0.01:
        return None
    return math.exp(max(min(logprob, 0.0), -1e6))


MOST_TOKENS = 10_000_000
"""No model reads or writes more in one request: a usage above it, below 0, or of another kind is no count."""
_TEXT_PARTS = ("text", "output_text")

_NAMES = (
    r"(?:[a-z]{1,10}:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?(?:_content)?|analysis|reflection|scratch_?pad|cot|"
    r"inner_(?:monologue|thoughts)|chain_of_thought)"
)
_REASONING = re.compile(
    "|".join(
        (
            rf"<(?P<xml>/?)\s?{_NAMES}(?:\s[^<>]{{0,80}})?>",
            r"\[(?P<mistral>/?)THINK\]",
            r"◁(?P<kimi>/?)think▷",
            r"<\|(?P<cohere>START|END)_THINKING\|>",
            r"<\|channel\|>(?P<harmony>\w{1,20})(?:<\|message\|>)?",
        )
    ),
    re.IGNORECASE,
)
_ENDS = re.compile(rf"(?:\s|{SPECIAL})*")
_LAST_ENDS = re.compile(rf"(?:\s|{SPECIAL})+\Z")


@dataclass(frozen=True, slots=True)
class Reply:
    """A chat completion.

    Attributes:
        written: the message as it came, reasoning between tags included; a character that cannot be stored is U+FFFD.
        text: of the answer alone; "" where there is none.
        tokens: the answer's tokens with log-probabilities, as the API gives them; empty where the server has none, or
            they do not spell the answer.
        finish: the finish reason as given: "stop", "length", "content_filter", ...
        model: the server's name for the model that answered.
        tokens_in: tokens of the prompt as the server counted them; the bound given where it did not say.
        tokens_out: the same of the answer.
    """

    written: str
    text: str
    tokens: tuple[dict[str, Any], ...]
    finish: object
    model: str
    tokens_in: int
    tokens_out: int

    @classmethod
    def of(cls, raw: dict[str, Any], models: tuple[str, ...], most_in: int, most_out: int) -> Self:
        """Take it apart.

        Args:
            raw: the reply's JSON.
            models: names under which the wanted model may answer.
            most_in: bound on the tokens of the prompt.
            most_out: bound on the tokens of the answer.

        Raises:
            RequestError: it is no chat completion, an odd one, or another model's.
        """
        try:
            choice = raw["choices"][0]
            message = choice["message"]
            message = message[0] if isinstance(message, list) else message  # NVIDIA's reward models send a list
            content, logprobs = message.get("content"), choice.get("logprobs")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise refusal(200, raw) from error
        name = raw.get("model")
        model = storable(name[:1000]) if isinstance(name, str) else ""
        if not same_model(model, models):
            said = f"asked for {models[0]!r}, and {model[:100]!r} answered; if that is the same, add it to served_as"
            raise RequestError("fatal", "wrong_model", said, billed=True)
        written = storable(_text(content))
        answer = written[answer_start(written) :]
        ends = _LAST_ENDS.search(answer[-200:])  # special tokens, which some servers leave in the answer
        text = answer[: len(answer) - len(ends[0])] if ends else answer
        usage = raw.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        return cls(
            written,
            text,
            _of_the_answer(_tokens(logprobs), text),
            choice.get("finish_reason"),
            model,
            _count(usage.get("prompt_tokens"), most_in),
            _count(usage.get("completion_tokens"), most_out),
        )

    @property
    def has_alternatives(self) -> bool:
        """Whether log-probabilities of other tokens than the drawn ones are there."""
        return any(len(token.get("top_logprobs") or ()) > 1 for token in self.tokens)


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object of a reply.

    Raises:
        RequestError: it is none (tried again), or one that is nested too deeply or has a key twice (no answer at all).
    """
    try:
        try:
            raw = json.loads(body, object_pairs_hook=_once)
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise
        except ValueError:  # Python refuses integers of more than 4,300 digits
            raw = json.loads(body, object_pairs_hook=_once, parse_int=_integer)
    except RecursionError as error:
        raise RequestError("unreadable", "odd_reply", "JSON nested too deeply", billed=True) from error
    except ValueError as error:
        said = f"the reply is no JSON ({error}): {body[:200].decode(errors='replace')}"
        raise RequestError("bad_answer", "malformed_reply", said, billed=True) from error
    if not isinstance(raw, dict):
        raise RequestError("bad_answer", "malformed_reply", "the reply is no JSON object", billed=True)
    return raw


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RequestError("unreadable", "odd_reply", "a key stands twice in the reply's JSON", billed=True)
    return found


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 100 else math.copysign(math.inf, -1 if digits.startswith("-") else 1)


def storable(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which JSON can spell and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def answer_start(written: str) -> int:
    """Place at which the answer begins: after the last reasoning between tags, or at the end if one is still open."""
    depth = end = 0
    for match in _REASONING.finditer(written):
        closes = (
            match["xml"] or match["mistral"] or match["kimi"] or match["cohere"] or match["harmony"] or ""
        ).lower()
        depth = max(depth - 1, 0) if closes in ("/", "end", "final") else depth + 1
        end = match.end()
    return len(written) if depth else end


def _text(content: object) -> str:
    """A message's text: of parts the text after the last one that is something else, such as reasoning."""
    if content is None or isinstance(content, str):
        return content or ""
    texts: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text", "") if isinstance(part, dict) else part
        if kind not in _TEXT_PARTS and isinstance(kind, str):
            texts.clear()
        elif isinstance(text, str):
            texts.append(text)
        else:
            raise RequestError("unreadable", "odd_reply", "a message whose content is no text", billed=True)
    return "".join(texts)


def _tokens(logprobs: object) -> list[dict[str, Any]]:
    """`logprobs.content`; empty where there is none."""
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else logprobs
    if not tokens:
        return []
    if not isinstance(tokens, list) or not all(
        isinstance(token, dict)
        and isinstance(token.get("token"), str)
        and isinstance(token.get("top_logprobs") or [], list)
        and all(isinstance(candidate, dict) for candidate in token.get("top_logprobs") or [])
        for token in tokens
    ):
        raise RequestError("unreadable", "odd_logprobs", "log-probabilities in no known form", billed=True)
    return tokens


def _of_the_answer(tokens: list[dict[str, Any]], text: str) -> tuple[dict[str, Any], ...]:
    """Those of the tokens that spell the answer: the last ones, special tokens at the end left aside.

    What is not ASCII does not count, because a tokenizer may cut a character into several tokens.
    """
    pieces = [spelling(token) for token in tokens]
    plain = [_ascii(piece) for piece in pieces]
    spelt, wanted = "".join(plain), _ascii(spelling({"token": text})).strip()
    start = spelt.rfind(wanted) if wanted else -1
    if start < 0 or not _ENDS.fullmatch(spelt, start + len(wanted)):
        return ()
    index = 0
    while start >= len(plain[index]):
        start -= len(plain[index])
        index += 1
    before = "".join((*pieces[max(index - 8, 0) : index], plain[index][:start]))
    if before and not before[-1].isspace() and before[-1] not in ">]▷|":
        return ()
    return tuple(tokens[index:])


def _ascii(text: str) -> str:
    return text.encode("ascii", "ignore").decode()


def same_model(answered: str, asked: tuple[str, ...]) -> bool:
    """Whether a server's name for its model can mean the one asked for.

    It can be the same name, a path that ends in it, or a dated version of it ("-2024-07-18"); a server that gives no
    name is trusted.
    """
    name = _base(answered)
    return not name or any(re.fullmatch(re.escape(_base(other)) + r"(-[0-9]+)*", name) for other in asked)


def _base(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower().removesuffix(".gguf")


def _count(value: object, bound: int) -> int:
    """A usage count; the bound in the place of what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_TOKENS:
        return bound
    return int(value)
