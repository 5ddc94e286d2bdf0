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


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one request may cost at most."""

    tokens_in: int
    tokens_out: int
    cost: float

    def spending(self) -> Spending:
        """Tokens and money that a request of unknown fate counts for: it may have been served and billed."""
        return Spending(1, self.tokens_in, self.tokens_out, self.cost)


class Budget:
    """What all judges of a run may spend together.

    Args:
        config: the caps.
        spent: what earlier runs on the store have spent.

    Attributes:
        spent: so far, earlier runs included.
    """

    def __init__(self, config: BudgetConfig, spent: Spending, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.spent = spent
        self._clock = clock
        self._deadline = None if config.max_seconds is None else clock() + config.max_seconds
        self._reserved: dict[int, Reservation] = {}
        self._tokens = 0
        self._money = 0.0
        self._freed = asyncio.Event()

    def seconds_left(self) -> float | None:
        """Until the cap on time; None: no such cap."""
        return None if self._deadline is None else self._deadline - self._clock()

    async def reserve(self, tokens_in: int, tokens_out: int, price: PriceConfig) -> Reservation:
        """Set aside what a request may cost, waiting for requests in flight where only they stand in the way.

        Raises:
            BudgetReachedError: it does not fit even when all of them have ended.
        """
        wanted = Reservation(tokens_in, tokens_out, price.of(tokens_in, tokens_out))
        while True:
            reached = self._exceeded(wanted, self._tokens, self._money)
            if reached is None:
                break
            if self._exceeded(wanted, 0, 0.0) is not None or not self._reserved:
                raise BudgetReachedError(reached)
            self._freed.clear()
            await self._freed.wait()
        self._reserved[id(wanted)] = wanted
        self._tokens += tokens_in + tokens_out
        self._money += wanted.cost
        return wanted

    def settle(self, reservation: Reservation, spent: Spending) -> None:
        """A request has ended, and this is what it cost."""
        del self._reserved[id(reservation)]
        self._tokens -= reservation.tokens_in + reservation.tokens_out
        self._money = 0.0 if not self._reserved else self._money - reservation.cost
        self.spent += spent
        self._freed.set()

    def _exceeded(self, wanted: Reservation, tokens: int, money: float) -> str | None:
        config, spent = self.config, self.spent
        left = self.seconds_left()
        if left is not None and left <= 0:
            return "max_seconds"
        total = spent.tokens_in + spent.tokens_out + tokens + wanted.tokens_in + wanted.tokens_out
        if config.max_tokens is not None and total > config.max_tokens:
            return "max_tokens"
        if config.max_money is not None and wanted.cost and spent.cost + money + wanted.cost > config.max_money:
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
