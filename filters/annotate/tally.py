"""Counting what a judge has done, and noticing when nothing works any more."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field

from filters.annotate.config import StopConfig
from filters.annotate.records import Spending


@dataclass
class Tally:
    """What one judge has done in this run, for progress and the report.

    Attributes:
        wanted: answers to be had in all, those of earlier runs included.
        before: answers that earlier runs had brought.
        scores: readable answers by rounded expected score.
        rejected: unreadable answers by cause.
        failed: requests without an answer by cause.
        words: what the server said at last, by cause of a failure or of a reply that nobody could read.
        retries: requests sent again.
        spent: by this run.
        since: when asking began, by the monotonic clock; None: nobody is asked now.
    """

    wanted: int = 0
    before: int = 0
    scores: Counter[int] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    words: dict[str, str] = field(default_factory=dict)
    retries: int = 0
    spent: Spending = field(default_factory=Spending)
    since: float | None = None
    _before: float = 0.0

    def begin(self) -> None:
        """Asking begins."""
        self.since = time.monotonic()

    def pause(self) -> None:
        """Asking ends, for now."""
        self._before, self.since = self.seconds, None

    @property
    def seconds(self) -> float:
        """Spent asking in this run."""
        return self._before + (0.0 if self.since is None else time.monotonic() - self.since)

    @property
    def answered(self) -> int:
        """Answers of this run, rejected ones included."""
        return self.scores.total() + self.rejected.total()

    @property
    def seconds_per_answer(self) -> float | None:
        """Of the time spent asking; None before the first answer."""
        return self.seconds / self.answered if self.answered else None

    @property
    def left(self) -> int:
        """Answers still to be had."""
        return max(self.wanted - self.before - self.answered, 0)


class Window:
    """The outcomes of the last pages of a judge.

    Args:
        config: how many, and which share of failures is too much.
    """

    def __init__(self, config: StopConfig) -> None:
        self.config = config
        self._outcomes: deque[str | None] = deque(maxlen=config.window)

    def add(self, cause: str | None) -> None:
        """A page was answered (None), or failed of `cause`."""
        self._outcomes.append(cause)

    @property
    def full(self) -> bool:
        """Whether too much of a whole window has failed."""
        return len(self._outcomes) == self.config.window and (
            self._failures.total() >= self.config.max_failed_share * self.config.window
        )

    @property
    def _failures(self) -> Counter[str]:
        return Counter(cause for cause in self._outcomes if cause is not None)

    def __str__(self) -> str:
        cause, count = self._failures.most_common(1)[0]
        return f"{self._failures.total()} of the last {self.config.window} pages failed, {count} times {cause}"
