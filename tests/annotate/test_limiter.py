"""The limit on requests in flight, against simulated servers in simulated time."""

from __future__ import annotations

import heapq

import pytest

from filters.annotate.limiter import FEW, Limiter


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def simulate(
    most: int, workers: int, seconds: float, *, refuse_above: int = 10**9, answers: int = 20_000
) -> list[float]:
    """Limits over time at a server of so many workers, each busy for `seconds` with a request; a queue takes the rest.

    A server that has more than `refuse_above` requests refuses the next one at once.
    """
    clock = Clock()
    limiter = Limiter(most, clock)
    free = [0.0] * workers
    pending: list[tuple[float, float, bool]] = []
    limits = []
    for _ in range(answers):
        while limiter.free:
            begun = limiter.begin()
            if limiter.in_flight > refuse_above:
                heapq.heappush(pending, (clock.now + 0.01 * seconds, begun, False))
                continue
            end = max(heapq.heappop(free), clock.now) + seconds
            heapq.heappush(free, end)
            heapq.heappush(pending, (end, begun, True))
        clock.now, begun, fine = heapq.heappop(pending)
        clock.now += 1e-6
        if fine:
            limiter.answered(begun)
        else:
            limiter.overloaded(begun)
        limits.append(limiter.limit)
    return limits


def test_a_server_without_limits_is_given_all() -> None:
    limits = simulate(256, 10_000, 0.1)
    assert limits[0] <= FEW
    assert limits[2000] == 256
    assert min(limits[2000:]) == 256


@pytest.mark.parametrize("workers", [4, 32, 128])
def test_a_queue_is_not_filled(workers: int) -> None:
    limits = simulate(2000, workers, 0.1)
    settled = limits[len(limits) // 2 :]
    assert min(settled) >= min(workers, FEW)
    assert max(settled) <= 5 * max(workers, FEW)
    assert sum(settled) / len(settled) > 0.9 * min(workers, 2000)


@pytest.mark.parametrize("taken", [6, 40, 150])
def test_refusals_hold_the_limit_where_the_server_has_it(taken: int) -> None:
    limits = simulate(1000, 10_000, 0.1, refuse_above=taken)
    settled = limits[len(limits) // 2 :]
    assert 0.45 * taken <= sum(settled) / len(settled) <= 1.1 * taken
    assert max(settled) <= 1.3 * taken + 2


def test_one_storm_halves_once() -> None:
    clock = Clock()
    limiter = Limiter(64, clock)
    limiter.limit = 64.0
    begun = [limiter.begin() for _ in range(64)]
    clock.now = 1.0
    for start in begun:
        limiter.overloaded(start)
    assert limiter.limit == 32
    assert limiter.in_flight == 0
    clock.now = 2.0
    limiter.overloaded(limiter.begin())
    assert limiter.limit == 16


def test_the_limit_is_never_below_one() -> None:
    clock = Clock()
    limiter = Limiter(8, clock)
    for _ in range(20):
        clock.now += 1
        begun = limiter.begin()
        clock.now += 1
        limiter.overloaded(begun)
    assert limiter.limit == 1
    assert limiter.free
