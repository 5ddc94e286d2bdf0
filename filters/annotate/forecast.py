"""What the rest will cost, from what the pilot's documents cost: with an interval, by the bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 20


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bounds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one judge has still to do.

    Attributes:
        judge: its name.
        documents: of the sample that were measured.
        answers: still to be had.
        tokens_in: tokens of their prompts.
        tokens_out: tokens of their answers.
        cost: their money.
        seconds: at the pace of the pilot; None where it had none.
    """

    judge: str
    documents: int
    answers: int
    tokens_in: Interval
    tokens_out: Interval
    cost: Interval
    seconds: float | None


def forecast(
    judge: str, costs: npt.NDArray[np.float64], answers: int, seconds_per_answer: float | None = None
) -> Forecast:
    """Extrapolate to `answers` more answers.

    Documents are resampled, not answers, because the answers to one page cost alike. To the uncertainty of the mean
    comes the scatter of the remaining documents themselves, so that the interval is one for their actual sum.

    Args:
        judge: its name.
        costs: float64[n, 4] as `filters.annotate.store.Store.costs` gives them.
        answers: still to be had.
        seconds_per_answer: of the pilot, all requests in flight together.
    """
    random = np.random.default_rng(SEED)
    count = len(costs)
    if count == 0 or answers == 0:
        nothing = Interval(0.0, 0.0, 0.0)
        return Forecast(judge, count, answers, nothing, nothing, nothing, None)
    drawn = costs[random.integers(0, count, (RESAMPLES, count))]
    rate = drawn[:, :, 1:].sum(axis=1) / drawn[:, :, :1].sum(axis=1)
    documents = answers / costs[:, 0].mean()
    per_answer = costs[:, 1:] / costs[:, :1]
    scatter = per_answer.std(axis=0, ddof=1) if count > 1 else np.zeros(3)
    noise = random.standard_normal((RESAMPLES, 3)) * scatter / np.sqrt(max(documents, 1.0))
    totals = np.maximum(answers * (rate + noise), 0.0)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(totals, [tail, 100 - tail], axis=0)
    value = answers * costs[:, 1:].sum(axis=0) / costs[:, 0].sum()
    tokens_in, tokens_out, cost = (
        Interval(float(v), float(a), float(b)) for v, a, b in zip(value, low, high, strict=True)
    )
    seconds = None if seconds_per_answer is None else answers * seconds_per_answer
    return Forecast(judge, count, answers, tokens_in, tokens_out, cost, seconds)
