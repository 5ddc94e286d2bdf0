"""Hard caps in tokens, money and time, progress, and when failures stop a run.

What a request may cost at most is reserved before it is sent.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from filters.annotate.config import BudgetConfig, PriceConfig, StopConfig
from filters.annotate.store import Spending


class BudgetReachedError(Exception):
    """The next request might exceed a cap. Its only argument is the cap's key in the config."""


class Budget:
    """What all judges of a run may spend together.

    Args:
        config: the caps.
        spent: what earlier runs on the store have spent.

    Attributes:
        spent: so far, earlier runs included.
    """

    def __init__(self, config: BudgetConfig, spent: Spending, clock: Callable[[], float] = time.monotonic) -> None:
        self.config, self.spent = config, spent
        self._clock = clock
        self._deadline = None if config.max_seconds is None else clock() + config.max_seconds
        self._reserved = Spending()
        self._freed = asyncio.Event()

    def seconds_left(self) -> float | None:
        """Until the cap on time; None: no such cap."""
        return None if self._deadline is None else self._deadline - self._clock()

    async def reserve(self, tokens_in: int, tokens_out: int, price: PriceConfig) -> Spending:
        """Set aside what a request may cost, waiting for requests in flight where only they stand in the way.

        Returns:
            What is set aside. A request of unknown fate counts for it: it may have been served and billed.

        Raises:
            BudgetReachedError: it does not fit even when all of them have ended.
        """
        wanted = Spending(1, tokens_in, tokens_out, price.of(tokens_in, tokens_out))
        while (reached := self._exceeded(wanted, self._reserved)) is not None:
            if self._exceeded(wanted, Spending()) is not None or not self._reserved.requests:
                raise BudgetReachedError(reached)
            self._freed.clear()
            await self._freed.wait()
        self._reserved += wanted
        return wanted

    def settle(self, reserved: Spending, spent: Spending) -> None:
        """A request has ended, and this is what it cost."""
        left = self._reserved - reserved
        self._reserved = left if left.requests else Spending()  # without what rounding left
        self.spent += spent
        self._freed.set()

    def _exceeded(self, wanted: Spending, reserved: Spending) -> str | None:
        left = self.seconds_left()
        if left is not None and left <= 0:
            return "max_seconds"
        total, config = self.spent + reserved + wanted, self.config
        if config.max_tokens is not None and total.tokens_in + total.tokens_out > config.max_tokens:
            return "max_tokens"
        if config.max_money is not None and wanted.cost and total.cost > config.max_money:
            return "max_money"
        return None


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

    def add(self, cause: str | None) -> str | None:
        """Note that a page was answered (None), or failed of `cause`.

        Returns:
            The failures in words, where they are `config.max_failed_share` of a whole window; else None.
        """
        self._outcomes.append(cause)
        causes = Counter(one for one in self._outcomes if one is not None)
        size = self.config.window
        if cause is None or len(self._outcomes) < size or causes.total() < self.config.max_failed_share * size:
            return None
        most, count = causes.most_common(1)[0]
        return f"{causes.total()} of the last {size} pages failed, {count} times {most}"
