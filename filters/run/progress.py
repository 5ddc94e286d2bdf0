"""Progress of a run: a live line on a terminal, plain lines when piped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from filters.phases.rows import ATTRIBUTES
from filters.run.plan import Observer, Plan

PLAIN_SECONDS = 10.0
"""Seconds between plain lines."""


def minutes(seconds: float) -> str:
    """A duration as m:ss."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


class _Shown(Observer):
    """Shows the plan, notices, and how far the phase at hand is: by bytes read where that is known, else by units."""

    def __init__(self, console: Console, show_plan: Callable[[Plan], None]) -> None:
        self.console, self.show_plan = console, show_plan
        self._total_bytes: int | None = None
        self._name, self._done, self._units, self._first = "", 0, 1, 0
        self._records = self._bytes = 0
        self._began = self._first_began = monotonic()

    def planned(self, plan: Plan) -> None:
        self._total_bytes = plan.input_bytes
        self.show_plan(plan)

    def notice(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def phase(self, name: str, done: int, units: int) -> None:
        if name != self._name:
            if not self._name:  # plan and model are there: what follows is work
                self._first_began = monotonic()
            self._name, self._first, self._began = name, done, monotonic()
            self._begin()
        self._done, self._units = done, units
        self._show()

    def read(self, records: int, input_bytes: int) -> None:
        self._records += records
        self._bytes += input_bytes
        self._show()

    @property
    def share(self) -> float:
        """How much of the phase is done."""
        by_units = self._done / max(self._units, 1)
        if self._name != ATTRIBUTES or not self._total_bytes or self._first:  # of resumed units no byte was read
            return by_units
        return max(by_units, min(self._bytes / self._total_bytes, 1.0))

    @property
    def elapsed(self) -> str:
        """Time since the first document, as m:ss."""
        return minutes(monotonic() - self._first_began)

    def __str__(self) -> str:
        text = f"{self._name}: {self._done:,} of {self._units:,} units"
        if self._name != ATTRIBUTES or not self._records:
            return text
        rate = self._records / max(monotonic() - self._began, 1e-9)
        return f"{text}, {self._records:,} docs, {self._bytes / 1e6:,.1f} MB, {rate:,.0f} docs/s"

    def close(self) -> None:
        """Say what the whole run took."""
        if self._records:
            rate = self._records / max(monotonic() - self._first_began, 1e-9)
            self.console.print(f"{self._records:,} documents in {self.elapsed}, {rate:,.0f} docs/s", soft_wrap=True)

    def _begin(self) -> None:
        """Begin to show another phase."""

    def _show(self) -> None:
        """Show how far it is."""


class _Live(_Shown):
    """A line that changes, for terminals."""

    def __init__(self, console: Console, show_plan: Callable[[Plan], None], live: Progress) -> None:
        super().__init__(console, show_plan)
        self._live = live
        self._task: TaskID | None = None

    def _begin(self) -> None:
        if self._task is not None:
            self._live.remove_task(self._task)
        self._task = self._live.add_task(self._name, total=1.0)

    def _show(self) -> None:
        if self._task is not None:
            self._live.update(self._task, completed=self.share, description=f"{self.elapsed} {self}")


class _Plain(_Shown):
    """A line now and then, for pipes and log files."""

    def __init__(self, console: Console, show_plan: Callable[[Plan], None]) -> None:
        super().__init__(console, show_plan)
        self._last = monotonic()

    def _show(self) -> None:
        now = monotonic()
        if now - self._last < PLAIN_SECONDS:
            return
        self._last = now
        new = self.share - self._first / max(self._units, 1)
        left = (now - self._began) * (1 - self.share) / new if new > 0 else 0.0
        self.console.print(f"{self.elapsed} {self}" + (f", about {minutes(left)} left" if left else ""))


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
        plain = _Plain(console, show_plan)
        yield plain
        plain.close()
        return
    # A line that wraps would leave its pieces behind at every refresh.
    text = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    with Progress(
        text, BarColumn(bar_width=16), TimeRemainingColumn(compact=True), console=console, transient=True, expand=True
    ) as live:
        shown = _Live(console, show_plan, live)
        yield shown
    shown.close()
