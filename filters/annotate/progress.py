"""Progress of a judge, and the rule that stops asking when too much fails."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field

from filters.annotate.config import StopConfig
from filters.annotate.records import Spending


@dataclass
class JudgeProgress:
    """The work that one judge has done in this run.

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
        """Start the clock of asking."""
        self.since = time.monotonic()

    def pause(self) -> None:
        """Stop it."""
        self._before, self.since = self.seconds, None

    @property
    def seconds(self) -> float:
        """Seconds spent asking in this run."""
        return self._before + (0.0 if self.since is None else time.monotonic() - self.since)

    @property
    def answered(self) -> int:
        """Answers of this run, rejected ones included."""
        return self.scores.total() + self.rejected.total()

    @property
    def seconds_per_answer(self) -> float | None:
        """Seconds of asking per answer; None before the first."""
        return self.seconds / self.answered if self.answered else None

    @property
    def left(self) -> int:
        """Answers still to be had."""
        return max(self.wanted - self.before - self.answered, 0)


class Window:
    """Outcomes of the last `config.window` pages of a judge."""

    def __init__(self, config: StopConfig) -> None:
        self.config = config
        self._outcomes: deque[str | None] = deque(maxlen=config.window)

    def add(self, cause: str | None) -> None:
        """A page was answered (None), or failed of `cause`."""
        self._outcomes.append(cause)

    @property
    def failed(self) -> str | None:
        """The failures in words, where they are `config.max_failed_share` of a whole window; else None."""
        causes = Counter(cause for cause in self._outcomes if cause is not None)
        size = self.config.window
        if len(self._outcomes) < size or causes.total() < self.config.max_failed_share * size:
            return None
        cause, count = causes.most_common(1)[0]
        return f"{causes.total()} of the last {size} pages failed, {count} times {cause}"
