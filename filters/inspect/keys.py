"""Single keys from a terminal, or the first letter of each line of a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def reading_keys() -> Iterator[Callable[[], str]]:
    """A function that returns the next key, "" at the end of the input; the terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield _from_lines
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda: sys.stdin.read(1)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _from_lines() -> str:
    """The first letter of the next line that has one."""
    for line in sys.stdin:
        if line.strip():
            return line.strip()[0]
    return ""
