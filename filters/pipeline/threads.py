"""A stream worked on by several threads and given on in order: kernels, Arrow and files let other threads run."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

ITEMS_AHEAD = 8
"""Items a thread may be ahead of whoever takes the results: enough for it to go on while a row group is written."""
WEIGHT_AHEAD = 64 * 2**20
"""Weight of these items, but for one."""
_NICENESS = 4
"""The results are taken by one thread, so that one is what all others wait for in the end."""
_GRACE = 5.0
"""Seconds to wait for a thread that is to stop and may be reading from a slow disk."""


class OrderedMap(Generic[T, R]):
    """What functions make of items, in the order of the items.

    Items are taken by whichever thread is free, one thread at a time. To be iterated once; closing the iterator stops
    the threads behind the items at hand.

    Args:
        items: run through by the threads, never by two of them at a time.
        functions: each runs in a thread of its own; they must give equal results for equal items.
        weigh: what an item takes of `WEIGHT_AHEAD`: the bytes it holds.
    """

    def __init__(self, items: Iterable[T], functions: Sequence[Callable[[T], R]], weigh: Callable[[T], int]) -> None:
        self._items, self._functions, self._weigh = iter(items), functions, weigh
        self._taking = threading.Lock()
        self._changed = threading.Condition()
        # All below is read and written with `_changed` held.
        self._results: dict[int, R] = {}
        self._weights: dict[int, int] = {}
        self._taken = self._given = 0
        self._end: int | None = None
        self._error: BaseException | None = None
        self._stopped = False

    def __iter__(self) -> Generator[R, None, None]:
        """The results.

        Raises:
            BaseException: what an item or a function raised, after the results before it.
        """
        threads = [threading.Thread(target=self._serve, args=(one,), daemon=True) for one in self._functions]
        for thread in threads:
            thread.start()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._given in self._results or self._given == self._end)
                    if self._given == self._end:
                        break
                    result = self._results.pop(self._given)
                    del self._weights[self._given]
                    self._given += 1
                    self._changed.notify_all()
                yield result
                del result
            if self._error is not None:
                raise self._error
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            for thread in threads:
                thread.join(_GRACE)

    def _serve(self, function: Callable[[T], R]) -> None:
        if sys.platform == "linux":  # where a thread has a niceness of its own
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            with self._taking:
                with self._changed:
                    self._changed.wait_for(self._has_room)
                    if self._stopped or self._end is not None:
                        return
                    number = self._taken
                try:
                    item = next(self._items)
                    weight = self._weigh(item)
                except StopIteration:
                    self._finish(number, None)
                    return
                except BaseException as error:
                    self._finish(number, error)
                    return
                with self._changed:
                    self._weights[number] = weight
                    self._taken += 1
            try:
                result = function(item)
            except BaseException as error:
                self._finish(number, error)
                return
            del item
            with self._changed:
                self._results[number] = result
                self._changed.notify_all()
            del result

    def _has_room(self) -> bool:
        ahead = self._taken - self._given
        light = sum(self._weights.values()) < WEIGHT_AHEAD * len(self._functions)
        return self._stopped or (ahead < ITEMS_AHEAD * len(self._functions) and (light or not ahead))

    def _finish(self, number: int, error: BaseException | None) -> None:
        """The stream ends before item `number`; an earlier item may end it earlier yet."""
        with self._changed:
            if self._end is None or number < self._end:
                self._end, self._error = number, error
            self._changed.notify_all()
