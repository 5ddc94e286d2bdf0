"""Reading a judge's answer: strictly. What does not say a score on the scale is rejected with a cause, never guessed.

The mean of the score distribution, read from log-probabilities, tells a sure 3 from one that nearly was a 2; it beats
the written digit as a label (Liu et al. 2023, G-Eval).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from filters.annotate.rubric import Rubric, Scale

MIN_COVERAGE = 0.5
"""Where the scale holds less probability than this, the judge wanted to say something else."""
REWARD_SLACK = 1.0
"""A reward model regresses and may leave the scale by so much; beyond that its answer is on another scale."""

Token = Mapping[str, Any]
"""As the API gives it: token, logprob, top_logprobs."""

_DIGITS = re.compile(r"\s*([0-9]{1,3})\s*")
_NUMBER = r"([0-9]{1,3})(?![0-9]|[.,][0-9])"


class UnreadableError(Exception):
    """An answer without a score. Its only argument is the cause, one word of snake case."""

    @property
    def cause(self) -> str:
        """Why it could not be read."""
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says; see `filters.annotate.records.Answer` for the fields."""

    score: float
    expected: float
    entropy: float | None = None
    coverage: float | None = None
    distribution: Any = None
    attributes: dict[str, float] | None = None


# --- written scores


def read_score(text: str, rubric: Rubric) -> Reading:
    """An answer that is the score alone, or its label and the score, on its first line.

    Raises:
        UnreadableError: empty_answer, no_score, not_whole, off_scale.
    """
    lines = _lines(text)
    if rubric.attributes:
        return _attributes(lines[: len(rubric.attributes)], rubric)
    return _single(lines[0], rubric, label_required=False)


def read_justified(text: str, rubric: Rubric) -> Reading:
    """An answer that reasons and ends with a line "label: score", or with one such line for each attribute.

    Raises:
        UnreadableError: empty_answer, no_score, not_whole, off_scale.
    """
    lines = _lines(text)
    if rubric.attributes:
        return _attributes(lines[-len(rubric.attributes) :], rubric)
    return _single(lines[-1], rubric, label_required=True)


def _lines(text: str) -> list[str]:
    lines = [line.strip(" \t*_`#>") for line in text.splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise UnreadableError("empty_answer")
    return lines


def _single(line: str, rubric: Rubric, *, label_required: bool) -> Reading:
    optional = "" if label_required else "?"
    value = float(_value(line, rf"(?:{_spaced(rubric.label)}[ *_]*:[ *_]*){optional}", rubric.scale))
    return Reading(value, value)


def _attributes(lines: Sequence[str], rubric: Rubric) -> Reading:
    found: dict[str, float] = {}
    for attribute, line in zip(rubric.attributes, lines, strict=False):
        found[attribute.name] = float(_value(line, rf"{attribute.name}[ *_]*:[ *_]*", rubric.scale))
    if len(found) < len(rubric.attributes):
        raise UnreadableError("no_score")
    expected = rubric.combine(found)
    return Reading(float(round(expected)), expected, attributes=found)


def _spaced(label: str) -> str:
    return "[ _]+".join(re.escape(word) for word in label.split())


def _value(line: str, before: str, scale: Scale) -> int:
    head = re.match(before, line, re.IGNORECASE)
    rest = line[head.end() :] if head else ""
    match = re.fullmatch(
        rf"{_NUMBER}(?: ?/ ?{scale.max}| out of {scale.max})?(?: points?)?[ *_.]*", rest, re.IGNORECASE
    )
    if match is None:
        raise UnreadableError(
            "not_whole" if re.match(r"[0-9]+[.,][0-9]", rest) else "off_scale" if _other(rest) else "no_score"
        )
    value = int(match[1])
    if value not in scale.values:
        raise UnreadableError("off_scale")
    return value


def _other(rest: str) -> bool:
    """Whether a number stands there that is on another scale: "-1", "4/10", "2024"."""
    return (
        re.fullmatch(r"-[0-9]+|[0-9]+ ?(?:/|out of) ?[0-9]+|[0-9]{4,}", rest.rstrip(" *_."), re.IGNORECASE) is not None
    )


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


def read_expected(tokens: Sequence[Token], rubric: Rubric) -> Reading:
    """The distribution over the scale that the candidates for the score's tokens give.

    Args:
        tokens: `choices[0].logprobs.content` of an answer that begins with the score.
        rubric: whose scale, and whose attributes, are answered.

    Raises:
        UnreadableError: empty_answer, no_score, not_whole, off_scale, low_coverage (the scale is missing among
            the server's candidates or hold less than `MIN_COVERAGE`).
    """
    pieces = [str(token.get("token", "")) for token in tokens]
    text = "".join(pieces)
    if not text.strip():
        raise UnreadableError("empty_answer")
    if not rubric.attributes:
        label = rf"\s*(?:{_spaced(rubric.label)}\s*:\s*)?"
        start = _number_at(text, re.compile(label, re.IGNORECASE), 0, rubric.scale)
        distribution, coverage = _distribution(tokens, pieces, start, rubric.scale)
        expected = _mean(distribution, rubric.scale)
        return Reading(_mode(distribution, rubric.scale), expected, _entropy(distribution), coverage, distribution)
    distributions: dict[str, list[float]] = {}
    coverages: list[float] = []
    position = 0
    for attribute in rubric.attributes:
        pattern = re.compile(rf"[\s*_-]*{attribute.name}[ *_]*:[ *_]*", re.IGNORECASE)
        start = _number_at(text, pattern, position, rubric.scale)
        distributions[attribute.name], coverage = _distribution(tokens, pieces, start, rubric.scale)
        coverages.append(coverage)
        position = start
        while position < len(text) and text[position] in "0123456789/*_. ,":
            position += 1
    means = {name: _mean(distribution, rubric.scale) for name, distribution in distributions.items()}
    expected = rubric.combine(means)
    entropy = sum(_entropy(distribution) for distribution in distributions.values()) / len(distributions)
    return Reading(float(round(expected)), expected, entropy, min(coverages), distributions, means)


def _number_at(text: str, before: re.Pattern[str], position: int, scale: Scale) -> int:
    """Where in `text` the number begins that follows `before` at `position`."""
    head = before.match(text, position)
    start = head.end() if head else len(text)
    match = re.compile(_NUMBER).match(text, start)
    if match is None:
        raise UnreadableError("not_whole" if re.match(r"[0-9]+[.,][0-9]", text[start:]) else "no_score")
    if int(match[1]) not in scale.values:
        raise UnreadableError("off_scale")
    return start


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

    What a candidate such as "1" on a scale to 10 goes on to is known only if it is the token that was drawn; of another
    one the mass stays unassigned.
    """
    if index >= len(tokens):
        if digits and int(digits) in scale.values:
            yield int(digits), before
        return
    drawn = str(tokens[index].get("token", ""))
    ended = before
    for piece, probability in _candidates(tokens[index]):
        rest = piece.strip() if not digits else piece
        if prefix and not rest.startswith(prefix):
            continue
        match = _DIGITS.fullmatch(rest[len(prefix) :] if prefix else rest)
        if match is None or (digits and piece[:1].isspace()):
            continue
        ended -= before * probability
        written = digits + match[1]
        whole, longer = _continued(scale.min, scale.max, written)
        if not longer or piece[-1:].isspace():
            if whole:
                yield int(written), before * probability
        elif piece == drawn:
            yield from _values(tokens, index + 1, "", written, before * probability, scale)
        elif not whole and len(longer) == 1:
            yield longer[0], before * probability
    if digits and _continued(scale.min, scale.max, digits)[0]:
        yield int(digits), max(ended, 0.0)


@functools.cache
def _continued(low: int, high: int, written: str) -> tuple[bool, tuple[int, ...]]:
    """(whether these digits are a value of the scale, the values of which they are only the beginning)."""
    values = range(low, high + 1)
    longer = tuple(value for value in values if str(value).startswith(written) and str(value) != written)
    return int(written) in values and str(int(written)) == written, longer


def _candidates(token: Token) -> Iterator[tuple[str, float]]:
    """The drawn token and its alternatives, each once, with probabilities."""
    seen: set[str] = set()
    for candidate in (*(token.get("top_logprobs") or ()), token):
        piece, logprob = candidate.get("token"), candidate.get("logprob")
        if isinstance(piece, str) and isinstance(logprob, int | float) and piece not in seen:
            seen.add(piece)
            yield piece, math.exp(min(logprob, 0.0))


def _mean(distribution: Sequence[float], scale: Scale) -> float:
    return math.fsum(value * p for value, p in zip(scale.values, distribution, strict=True)) / math.fsum(distribution)


def _mode(distribution: Sequence[float], scale: Scale) -> float:
    return float(scale.min + max(range(len(distribution)), key=lambda place: (distribution[place], -place)))


def _entropy(distribution: Sequence[float]) -> float:
    return math.fsum(-p * math.log(p) for p in distribution if p > 0)
