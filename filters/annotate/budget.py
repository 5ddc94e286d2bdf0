"""Hard caps in tokens, money and time: what a request may cost at most is reserved before it is sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from filters.annotate.config import BudgetConfig, PriceConfig
from filters.annotate.records import Spending


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
