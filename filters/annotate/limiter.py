"""How many requests a server can take at once, found by trying.

Additive increase, multiplicative decrease (TCP's congestion control): the limit doubles until the first trouble comes,
then grows by one for each limit's worth of answers; 429, 503 and timeouts halve it, once for all requests that were
under way together. Growing latency without growing throughput takes a tenth off: the server only queues them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_LIMIT = 8
SLOWER = 2.0
"""Latency, relative to the best seen, at which throughput must have grown for the limit to stay."""
GAIN = 1.05
"""What counts as growth of throughput."""


class Limiter:
    """The limit on requests in flight at one server, between 1 and `most`.

    Attributes:
        limit: now.
        in_flight: requests begun and not ended.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.limit = float(min(FIRST_LIMIT, most))
        self.in_flight = 0
        self._clock = clock
        self._doubling = True
        self._decreased = -1.0
        self._window_start = clock()
        self._window_answers = 0
        self._window_seconds = 0.0
        self._best_latency = float("inf")
        self._best_rate = 0.0

    @property
    def free(self) -> bool:
        """Whether another request may begin."""
        return self.in_flight < int(self.limit)

    def begin(self) -> float:
        """A request is sent: the time of it, to be given back at its end."""
        self.in_flight += 1
        return self._clock()

    def answered(self, begun: float) -> None:
        """A request was answered."""
        self.in_flight -= 1
        self._window_answers += 1
        self._window_seconds += self._clock() - begun
        if self._doubling:
            self.limit = min(self.limit + 1, self.most)  # every answer adds one: the limit doubles per round
        if self._window_answers >= max(int(self.limit), FIRST_LIMIT):
            self._end_of_window()

    def overloaded(self, begun: float) -> None:
        """A request was turned away or timed out."""
        self.in_flight -= 1
        if begun > self._decreased:
            self._decreased = self._clock()
            self._shrink(0.5)

    def failed(self) -> None:
        """A request failed in a way that says nothing about load."""
        self.in_flight -= 1

    def _end_of_window(self) -> None:
        now = self._clock()
        latency = self._window_seconds / self._window_answers
        rate = self._window_answers / max(now - self._window_start, 1e-9)
        if latency > SLOWER * self._best_latency and rate < GAIN * self._best_rate and self.limit > FIRST_LIMIT:
            self._shrink(0.9)
        elif not self._doubling:
            self.limit = min(self.limit + 1, self.most)
        # Old records fade, so that a server whose answers have become longer is not compared with its past for ever.
        self._best_latency = min(self._best_latency * 1.02, latency)
        self._best_rate = max(self._best_rate * 0.98, rate)
        self._window_start, self._window_answers, self._window_seconds = now, 0, 0.0

    def _shrink(self, factor: float) -> None:
        self.limit = max(self.limit * factor, 1.0)
        self._doubling = False
