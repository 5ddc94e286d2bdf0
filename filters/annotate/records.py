"""Records of the answer store: documents, answers, failures, judges, and their cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from filters.annotate.rubric import Rubric

Design = Literal["random", "stratified", "active"]
Kind = Literal["model", "human"]
Status = Literal["ok", "rejected"]


@dataclass(frozen=True, slots=True)
class Document:
    """A document to annotate.

    Attributes:
        text: the page.
        probability: that the sampling design drew this document, in (0, 1]; its inverse is the natural weight.
        design: how it was drawn; "active" documents more often the more they looked like what was preferred.
        stratum: of a stratified design.
        columns: further columns of the input, JSON values.
    """

    text: str
    id: str | None = None
    url: str | None = None
    source: str | None = None
    position: int | None = None
    language: str | None = None
    probability: float = 1.0
    design: Design = "random"
    stratum: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a judge said about a document, read or rejected.

    Attributes:
        document: number in the store.
        repeat: from 0.
        status: "ok", or "rejected": paid for, kept, and without a score.
        cause: why it was rejected, one word of snake case.
        score: the judge's score: the mode of its distribution, or what it wrote; of a reward model, rounded.
        expected: mean of the distribution, or the score.
        entropy: of the distribution, in nats; None where there is none.
        coverage: probability the server's candidates gave to the scale before renormalising; None as above.
        distribution: probability of each value of the scale, ascending; with attributes, one such list for each.
        attributes: expected score of each attribute.
        raw: the answer as it came.
        mode: the mode it was read in; "sample" where a server had no log-probabilities for `expected`.
        tokens_in: tokens of the prompt as the server counted them, else an upper bound.
        cost: money.
        seconds: from sending to the last byte, of the attempt that succeeded.
        attempts: requests it took.
        text_cut: characters of the page that were shown where it was cut; None: all of it.
    """

    document: int
    repeat: int
    status: Status
    raw: str
    cause: str | None = None
    score: float | None = None
    expected: float | None = None
    entropy: float | None = None
    coverage: float | None = None
    distribution: Any = None
    attributes: dict[str, float] | None = None
    mode: str = "expected"
    model: str = ""
    endpoint: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    attempts: int = 1
    text_cut: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that brought no answer, after all retries. The next run asks again."""

    document: int
    repeat: int
    cause: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Spending:
    """What requests cost, answered or not; a request whose fate is unknown counts with its upper bound."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0

    def __add__(self, other: Spending) -> Spending:
        return Spending(
            self.requests + other.requests,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.cost + other.cost,
        )


@dataclass(frozen=True, slots=True)
class JudgeRecord:
    """A judge in the store.

    Attributes:
        logprobs: candidates per token its servers give: 0: none; None: not known yet.
    """

    number: int
    name: str
    kind: Kind
    model: str
    settings: dict[str, Any]
    logprobs: int | None


@dataclass(frozen=True, slots=True)
class RubricRecord:
    """A rubric in the store, with the number of answers under it."""

    number: int
    rubric: Rubric
    digest: str
    answers: int


@dataclass(frozen=True, slots=True)
class Ratings:
    """Readable answers of one judge under one rubric, ordered by document and repeat: arrays of n.

    Attributes:
        document: int64[n], numbers in the store.
        repeat: int64[n].
        score: float64[n].
        expected: float64[n].
    """

    document: npt.NDArray[np.int64]
    repeat: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    expected: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pending:
    """A document that a judge has not fully answered, the place of its draw, and which repeats are missing."""

    place: int
    document: int
    text: str
    repeats: tuple[int, ...]
