"""Writes text to a terminal. Text from outside (names, keys, labels, pages, errors of libraries) may hold escape
sequences; they are removed, whoever prints it.
"""

from __future__ import annotations

import functools
import io
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff]"
)
"""Control characters but for tab and line feed, overrides of writing direction, line ends beyond ASCII, surrogates."""
_guards: list[_Harmless] = []
BAR = 40
"""Characters of the longest bar."""
BLOCKS = " ▏▎▍▌▋▊▉█"
"""Eighths of a character."""


def harmless(text: str) -> str:
    r"""`text` with each character that a terminal would obey written as JSON writes it (`\u001b`).

    JSON stays the same JSON.
    """
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class _Harmless(io.TextIOWrapper):
    """A standard stream through which only harmless text passes; `plain` is the stream itself."""

    def __init__(self, plain: io.TextIOWrapper) -> None:
        super().__init__(
            plain.buffer,
            encoding=plain.encoding,
            errors="backslashreplace",
            line_buffering=plain.line_buffering,
            write_through=True,
        )
        self.plain = plain

    def write(self, text: str) -> int:
        # Progress bars of libraries go back to the start of their line first.
        start = "\r" if text.startswith("\r") else ""
        super().write(start + harmless(text[len(start) :]))
        return len(text)


def guard_streams() -> None:
    """From here on nothing that this process prints to stdout or stderr controls a terminal; see `make_console`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, _Harmless):
            stream.reconfigure(write_through=True)  # both write to one buffer, in turn
            guard = _Harmless(stream)
            _guards.append(guard)  # one that is garbage would close its stream
            setattr(sys, name, guard)


def make_console(*, stderr: bool = False) -> Console:
    """A console that does not guess at markup or numbers in page text; 80 columns where there is no terminal.

    Its own colours and movements reach the terminal; those in what it is given do not. Where the output's encoding
    lacks a character of a page, "?" takes its place.
    """
    stream = sys.stderr if stderr else sys.stdout
    plain = stream.plain if isinstance(stream, _Harmless) else stream
    if isinstance(plain, io.TextIOWrapper):
        plain.reconfigure(errors="replace")
    file = plain if isinstance(stream, _Harmless) else None
    return _console_class()(file=file, stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=False)


@functools.cache
def _console_class() -> type[Console]:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class HarmlessConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(harmless(segment.text), segment.style)

    return HarmlessConsole


def make_table(title: str, *columns: str) -> Table:
    """A table without lines: the first column to the left, the others to the right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table


def printable(text: str, limit: int) -> str:
    """Page text for one line: control and format characters gone, at most `limit` characters."""
    shown = "".join(
        " " if character.isspace() else character
        for character in text[: limit * 4]
        if character.isspace() or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def path_end(name: str, limit: int) -> str:
    """A file name for one line; of a long one the end, which tells files apart."""
    shown = printable(name, 4096)
    return shown if len(shown) <= limit else f"...{shown[3 - limit :]}"


def short(number: float) -> str:
    """A count in at most six characters: 812, 45.3K, 1.30T."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            value = number / size
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}{unit}"
    return f"{number:.0f}"
