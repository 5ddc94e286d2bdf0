from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from filters.errors import InputError
from filters.pipeline.ahead import ahead


def threads() -> int:
    return sum(thread.name == "ahead" for thread in threading.enumerate())


def test_every_item_in_order() -> None:
    assert list(ahead(iter(range(1000)))) == list(range(1000))
    assert list(ahead([])) == []
    assert list(ahead([None, None])) == [None, None]
    assert threads() == 0


def test_an_error_comes_behind_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise InputError("dump.jsonl: gone")

    seen = []
    with pytest.raises(InputError, match=r"dump\.jsonl: gone"):
        for item in ahead(ahead(items())):
            seen.append(item)  # noqa: PERF402
    assert seen == [1, 2]
    assert threads() == 0


def test_never_far_ahead() -> None:
    made = []

    def items() -> Iterator[int]:
        for item in range(100):
            made.append(item)
            yield item

    for item in ahead(items(), most=3):
        time.sleep(0.001)
        assert len(made) <= item + 1 + 3 + 1  # at hand, in the queue, waiting for room in it


def test_closing_stops_every_thread() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    stream = ahead(ahead(items()))
    assert next(stream) == 0
    assert threads() == 2
    stream.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (threads(), closed) == (0, [True])
