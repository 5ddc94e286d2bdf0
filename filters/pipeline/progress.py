"""Progress of a run: a live line on a terminal, plain lines when piped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from filters.read.batch import Batch

PLAIN_SECONDS = 10.0
"""Seconds between plain lines."""


class _Meter:
    def __init__(self) -> None:
        self.started = time.monotonic()
        self.records = self.kept = self.input_bytes = 0

    def add(self, batch: Batch) -> None:
        self.records += batch.records
        self.kept += int(batch.alive.sum())
        self.input_bytes += batch.input_bytes

    def __str__(self) -> str:
        rate = self.records / max(time.monotonic() - self.started, 1e-9)
        share = self.kept / max(self.records, 1)
        return (
            f"{self.records:,} documents, {self.input_bytes / 1e6:,.1f} MB read, {rate:,.0f} docs/s, {share:.1%} kept"
        )


@contextmanager
def progress(console: Console, total_bytes: int | None) -> Iterator[Callable[[Batch], None]]:
    """A callback for `run_filter(on_batch=...)` that shows how far the run is.

    Args:
        console: where to; a live line if it is a terminal.
        total_bytes: stored bytes of all input, None if unknown (then no share and no time left).
    """
    meter = _Meter()
    if not console.is_terminal:
        yield _plain(console, meter, total_bytes)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as live:
        task = live.add_task("reading", total=total_bytes)

        def on_batch(batch: Batch) -> None:
            meter.add(batch)
            live.update(task, completed=meter.input_bytes, description=str(meter))

        yield on_batch


def _plain(console: Console, meter: _Meter, total_bytes: int | None) -> Callable[[Batch], None]:
    last = meter.started

    def on_batch(batch: Batch) -> None:
        nonlocal last
        meter.add(batch)
        now = time.monotonic()
        if now - last >= PLAIN_SECONDS:
            last = now
            left = ""
            if total_bytes and meter.input_bytes:
                seconds = (now - meter.started) * (total_bytes / meter.input_bytes - 1)
                left = f", {min(meter.input_bytes / total_bytes, 1):.0%}, about {max(seconds, 0):,.0f} s left"
            console.print(f"{meter}{left}")

    return on_batch
