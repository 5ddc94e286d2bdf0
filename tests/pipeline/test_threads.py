from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from filters.errors import InputError
from filters.pipeline import threads
from filters.pipeline.threads import OrderedMap


def test_results_come_in_the_order_of_the_items() -> None:
    def slowly(item: int) -> int:
        time.sleep(0.002 if item % 3 == 0 else 0)
        return item * item

    squares = OrderedMap(range(300), [slowly] * 4, lambda item: 1)
    assert list(squares) == [item * item for item in range(300)]
    assert list(OrderedMap([], [slowly] * 2, lambda item: 1)) == []
    assert list(OrderedMap([5], [slowly] * 3, lambda item: 1)) == [25]


def test_every_function_works_and_none_in_two_threads() -> None:
    used: dict[str, set[int]] = {"a": set(), "b": set()}
    both = threading.Barrier(2, timeout=600)

    def working(name: str) -> None:
        if not used[name]:
            both.wait()  # passed only when the other one is at work too
        used[name].add(threading.get_ident())

    functions = [lambda item, name=name: working(name) for name in used]
    assert list(OrderedMap(range(50), functions, lambda item: 1)) == [None] * 50
    assert all(len(idents) == 1 for idents in used.values())
    assert used["a"] != used["b"]


def test_items_are_taken_by_one_thread_at_a_time() -> None:
    inside = 0

    def items() -> Iterator[int]:
        nonlocal inside
        for item in range(200):
            inside += 1
            assert inside == 1
            time.sleep(0.0002)
            inside -= 1
            yield item

    assert list(OrderedMap(items(), [lambda item: item] * 4, lambda item: 1)) == list(range(200))


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_comes_after_the_results_before_it(workers: int) -> None:
    def items() -> Iterator[int]:
        yield from range(40)
        raise InputError("dump.jsonl: gone")

    def fails(item: int) -> int:
        if item in (17, 18, 19):
            time.sleep(0.01 * (20 - item))  # the earliest is the last to fail
            raise ValueError(item)
        return item

    seen: list[int] = []
    with pytest.raises(InputError, match=r"dump\.jsonl: gone"):
        seen.extend(item for item in OrderedMap(items(), [lambda item: item] * workers, lambda item: 1))
    assert seen == list(range(40))
    seen.clear()
    with pytest.raises(ValueError, match="17"):
        for item in OrderedMap(items(), [fails] * workers, lambda item: 1):
            seen.append(item)  # noqa: PERF402
    assert seen == list(range(17))


def test_never_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(60):
            taken.append(item)
            yield item

    for given, _ in enumerate(OrderedMap(items(), [lambda item: item] * 2, lambda item: 1), start=1):
        time.sleep(0.001)
        assert len(taken) <= given + 2 * threads.ITEMS_AHEAD
    taken.clear()
    monkeypatch.setattr(threads, "WEIGHT_AHEAD", 100)
    for given, _ in enumerate(OrderedMap(items(), [lambda item: item] * 2, lambda item: 90), start=1):
        time.sleep(0.001)
        assert len(taken) <= given + 3  # 270 are the first to be over 200
    assert len(taken) == 60


def test_an_item_heavier_than_all_that_may_wait_is_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WEIGHT_AHEAD", 10)
    assert list(OrderedMap(range(20), [lambda item: item] * 2, lambda item: 1000)) == list(range(20))


def test_closing_stops_every_thread() -> None:
    before = threading.active_count()
    worked: list[int] = []
    results = iter(OrderedMap(iter(range(10**9)), [worked.append] * 3, lambda item: 1))
    next(results)
    assert threading.active_count() == before + 3
    results.close()
    assert threading.active_count() == before
    assert len(worked) <= 1 + 3 * threads.ITEMS_AHEAD
