"""Progress: one line that fits on a terminal, plain lines when piped."""

from __future__ import annotations

import io
from typing import cast

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from filters.pipeline import progress as module
from filters.pipeline.plan import Plan
from filters.pipeline.progress import progress
from filters.read.batch import Batch


class FakePlan:
    """What progress looks at in a plan."""

    def __init__(self, input_bytes: int | None, sources: int) -> None:
        self.input_bytes = input_bytes
        self.sources = dict.fromkeys(range(sources))


def batch(source: str, n: int = 500, input_bytes: int = 10**6) -> Batch:
    return Batch(
        source=source,
        position=np.arange(n, dtype=np.int64),
        id=pa.array([str(row) for row in range(n)]),
        text=pa.array(["text"] * n, pa.large_string()),
        reason=np.full(n, None, dtype=object),
        records=n,
        input_bytes=input_bytes,
    )


@pytest.mark.parametrize("total", [10**7, None])
def test_piped_lines_are_plain_and_say_how_far(monkeypatch: pytest.MonkeyPatch, total: int | None) -> None:
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.0)
    file = io.StringIO()
    with progress(Console(file=file, width=80)) as observer:
        observer.planned(cast(Plan, FakePlan(total, 10)))
        for number in range(5):
            observer.batch(batch(f"file-{number}"))
    lines = file.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("2,500 docs, 5.0 MB, ")
    assert "100.0% kept" in lines[-1]
    assert ("50% done" if total else "40% done") in lines[-1]
    assert "\x1b" not in file.getvalue()


def test_nothing_is_printed_for_a_short_run() -> None:
    file = io.StringIO()
    with progress(Console(file=file, width=80)) as observer:
        observer.planned(cast(Plan, FakePlan(10**7, 1)))
        observer.batch(batch("a"))
        observer.phase("attributes", 1, 1)
    assert file.getvalue() == ""


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_live_line_never_wraps(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    with progress(console) as observer:
        observer.planned(cast(Plan, FakePlan(10**9, 1)))
        for _ in range(30):
            observer.batch(batch("a", 5000, 10**8))
        for name in ("attributes", "join"):
            for done in range(30):
                observer.phase(name, done, 29)
    assert file.getvalue().count("\n") == 1  # when it ends


def test_phases_are_counted_with_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.0)
    file = io.StringIO()
    with progress(Console(file=file, width=80)) as observer:
        for done in range(4, 7):
            observer.phase("attributes", done, 1000)
        observer.notice("[red]going on[/red] " + "x" * 90)
    lines = file.getvalue().splitlines()
    assert lines[0] == "attributes: 4 of 1,000 units"
    assert lines[2].startswith("attributes: 6 of 1,000 units, about ")
    assert lines[3] == "[red]going on[/red] " + "x" * 90


def test_the_plan_is_shown_once_it_is_made() -> None:
    shown: list[Plan] = []
    with progress(Console(file=io.StringIO()), shown.append) as observer:
        plan = cast(Plan, FakePlan(1, 1))
        observer.planned(plan)
    assert shown == [plan]
