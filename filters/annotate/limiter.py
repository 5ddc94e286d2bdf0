"""How many requests a server can take at once, found by trying.

In the manner of TCP's congestion control: the limit doubles until the first trouble, then grows by a twentieth for each
limit's worth of answers. 429, 503 and timeouts halve it, once for all requests that were under way together. Latency is
compared with that of few requests: at three times as much the limit stays, at four times it shrinks by a tenth, because
beyond that the server only queues. A server that has become slow for other reasons is measured anew at the bottom.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FEW = 4
"""Requests at the start, and those whose latency the others are compared with."""
STAY, SHRINK = 3.0, 4.0
GROWTH = 0.05


class Limiter:
    """The limit on requests in flight at one server, between 1 and `most`.

    Attributes:
        limit: now.
        in_flight: requests begun and not ended.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.limit = float(min(FEW, most))
        self.in_flight = 0
        self._clock = clock
        self._doubling = True
        self._decreased = -1.0
        self._answers = 0
        self._seconds = 0.0
        self._best = float("inf")

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
        self._answers += 1
        self._seconds += self._clock() - begun
        if self._answers >= max(int(self.limit), FEW):
            self._end_of_window(self._seconds / self._answers)
            self._answers, self._seconds = 0, 0.0

    def overloaded(self, begun: float) -> None:
        """A request was turned away or timed out."""
        self.in_flight -= 1
        if begun > self._decreased:
            self._decreased = self._clock()
            self._shrink(0.5)

    def failed(self) -> None:
        """A request failed in a way that says nothing about load."""
        self.in_flight -= 1

    def _end_of_window(self, latency: float) -> None:
        self._best = latency if self.limit <= FEW else min(self._best, latency)
        if latency > SHRINK * self._best:
            self._shrink(0.9)
        elif latency > STAY * self._best:
            self._doubling = False
        else:
            more = self.limit if self._doubling else max(GROWTH * self.limit, 1.0)
            self.limit = min(self.limit + more, self.most)

    def _shrink(self, factor: float) -> None:
        self.limit = max(self.limit * factor, 1.0)
        self._doubling = False
