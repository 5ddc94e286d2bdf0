"""Progress of a run: a live line on a terminal, plain lines when piped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from filters.read.batch import Batch

PLAIN_SECONDS = 10.0
"""Seconds between plain lines."""


class _Meter:
    """Counts what has been decided.

    Attributes:
        share: how much of the input that is: by bytes where the input's size is known, else by files begun.
    """

    def __init__(self, total_bytes: int | None, sources: int) -> None:
        self.started = time.monotonic()
        self.total_bytes, self.sources = total_bytes, sources
        self.records = self.kept = self.input_bytes = 0
        self.seen: set[str] = set()

    def add(self, batch: Batch) -> None:
        self.records += batch.records
        self.kept += int(batch.alive.sum())
        self.input_bytes += batch.input_bytes
        self.seen.add(batch.source)

    @property
    def share(self) -> float:
        if self.total_bytes:
            return min(self.input_bytes / self.total_bytes, 1.0)
        return max(len(self.seen) - 1, 0) / max(self.sources, 1)

    def __str__(self) -> str:
        rate = self.records / max(time.monotonic() - self.started, 1e-9)
        kept = self.kept / max(self.records, 1)
        return f"{self.records:,} docs, {self.input_bytes / 1e6:,.1f} MB, {rate:,.0f} docs/s, {kept:.1%} kept"


@contextmanager
def progress(console: Console, total_bytes: int | None, sources: int) -> Iterator[Callable[[Batch], None]]:
    """A callback for `run_filter(on_batch=...)` that shows how far the run is.

    Args:
        console: where to; a live line if it is a terminal.
        total_bytes: stored bytes of all input, None if unknown.
        sources: number of input files.
    """
    meter = _Meter(total_bytes, sources)
    if not console.is_terminal:
        yield _plain(console, meter)
        return
    # A line that wraps would leave its pieces behind at every refresh.
    text = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    with Progress(
        text, BarColumn(bar_width=16), TimeRemainingColumn(compact=True), console=console, transient=True, expand=True
    ) as live:
        task = live.add_task("starting", total=1.0)

        def on_batch(batch: Batch) -> None:
            meter.add(batch)
            live.update(task, completed=meter.share, description=str(meter))

        yield on_batch


def _plain(console: Console, meter: _Meter) -> Callable[[Batch], None]:
    last = meter.started

    def on_batch(batch: Batch) -> None:
        nonlocal last
        meter.add(batch)
        now = time.monotonic()
        if now - last >= PLAIN_SECONDS:
            last = now
            left = (now - meter.started) * (1 / meter.share - 1) if meter.share else 0.0
            console.print(f"{meter}, {meter.share:.0%} done" + (f", about {left:,.0f} s left" if left else ""))

    return on_batch
