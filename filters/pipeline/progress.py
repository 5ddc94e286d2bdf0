"""Progress of a run: a live line on a terminal, plain lines when piped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from filters.pipeline.observer import Observer
from filters.pipeline.plan import Plan
from filters.read.batch import Batch

PLAIN_SECONDS = 10.0
"""Seconds between plain lines."""


class _Meter:
    """Counts what has been decided in a streaming run.

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


class _Shown(Observer):
    """Shows the plan, notices, and how far the run is."""

    def __init__(self, console: Console, show_plan: Callable[[Plan], None]) -> None:
        self.console, self.show_plan = console, show_plan
        self.meter = _Meter(None, 1)

    def planned(self, plan: Plan) -> None:
        self.show_plan(plan)
        self.meter = _Meter(plan.input_bytes, len(plan.sources))

    def notice(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)


class _Live(_Shown):
    """A line that changes, for terminals."""

    def __init__(self, console: Console, show_plan: Callable[[Plan], None], live: Progress) -> None:
        super().__init__(console, show_plan)
        self._live = live
        self._task: TaskID | None = None
        self._phase = ""

    def _update(self, share: float, text: str, *, begin: bool = False) -> None:
        if self._task is None or begin:
            if self._task is not None:
                self._live.remove_task(self._task)
            self._task = self._live.add_task(text, total=1.0)
        self._live.update(self._task, completed=share, description=text)

    def batch(self, batch: Batch) -> None:
        self.meter.add(batch)
        self._update(self.meter.share, str(self.meter))

    def phase(self, name: str, done: int, units: int) -> None:
        self._update(done / max(units, 1), f"{name}: {done:,} of {units:,} units", begin=name != self._phase)
        self._phase = name


class _Plain(_Shown):
    """A line now and then, for pipes and log files."""

    def __init__(self, console: Console, show_plan: Callable[[Plan], None]) -> None:
        super().__init__(console, show_plan)
        self._last = time.monotonic()
        self._phase, self._began, self._first = "", self._last, 0

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self._last < PLAIN_SECONDS:
            return False
        self._last = now
        return True

    def batch(self, batch: Batch) -> None:
        self.meter.add(batch)
        if self._due():
            share = self.meter.share
            left = (time.monotonic() - self.meter.started) * (1 / share - 1) if share else 0.0
            self._print(f"{self.meter}, {share:.0%} done", left)

    def phase(self, name: str, done: int, units: int) -> None:
        if name != self._phase:
            self._phase, self._began, self._first = name, time.monotonic(), done
        if self._due():
            new = done - self._first
            left = (time.monotonic() - self._began) / new * (units - done) if new else 0.0
            self._print(f"{name}: {done:,} of {units:,} units", left)

    def _print(self, text: str, left: float) -> None:
        self.console.print(text + (f", about {left:,.0f} s left" if left else ""), markup=False)


class _Quiet(Observer):
    """Shows notices alone."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def notice(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


@contextmanager
def progress(
    console: Console, show_plan: Callable[[Plan], None] = lambda plan: None, *, quiet: bool = False
) -> Iterator[Observer]:
    """An observer for `run_filter` that shows the plan and how far the run is.

    Args:
        console: where to; a live line if it is a terminal.
        show_plan: called with the plan once it is made.
        quiet: show neither, only what a user should know.
    """
    if quiet:
        yield _Quiet(console)
        return
    if not console.is_terminal:
        yield _Plain(console, show_plan)
        return
    # A line that wraps would leave its pieces behind at every refresh.
    text = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    with Progress(
        text, BarColumn(bar_width=16), TimeRemainingColumn(compact=True), console=console, transient=True, expand=True
    ) as live:
        yield _Live(console, show_plan, live)
