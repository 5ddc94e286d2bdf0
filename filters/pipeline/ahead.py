"""Work that is done before it is asked for, in a thread: kernels, Arrow and files let other threads run meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

_GRACE = 5.0
"""Seconds to wait for a thread that is to stop and may be waiting for a server."""


def ahead(items: Iterable[T], most: int = 2) -> Iterator[T]:
    """The items, in order; a thread makes the next ones, `most` of them and the one at hand at most.

    The iterable is run through in that thread alone. Closing the generator stops the thread behind the item at hand.

    Raises:
        BaseException: whatever the iterable raises, after the items before it.
    """
    made: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(most)
    stopped = threading.Event()

    def put(item: tuple[T] | BaseException | None) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                made.put(item, timeout=0.1)
                return

    def make() -> None:
        try:
            for item in items:
                put((item,))
                if stopped.is_set():
                    return
        except BaseException as error:
            put(error)
        else:
            put(None)
        finally:
            if isinstance(items, Generator):
                items.close()  # which stops the thread that may be ahead of this one

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        stopped.set()
        thread.join(_GRACE)
