"""Progress: one line that fits on a terminal, plain lines when piped."""

from __future__ import annotations

import io
import itertools
import re
from typing import cast

import pytest
from rich.console import Console

from filters.run import progress as module
from filters.run.plan import Plan
from filters.run.progress import progress


class FakePlan:
    """What progress looks at in a plan."""

    def __init__(self, input_bytes: int | None) -> None:
        self.input_bytes = input_bytes


@pytest.mark.parametrize("total", [10**7, None])
def test_piped_lines_are_plain_and_say_how_far(monkeypatch: pytest.MonkeyPatch, total: int | None) -> None:
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(module, "monotonic", itertools.count(0.0, 0.01).__next__)
    file = io.StringIO()
    with progress(Console(file=file, width=120)) as observer:
        observer.planned(cast(Plan, FakePlan(total)))
        observer.phase("attributes", 0, 10)
        for _ in range(5):
            observer.read(500, 10**6)
        observer.phase("attributes", 2, 10)
        shown = cast(module._Shown, observer).share
        observer.phase("join", 0, 2)
    lines = file.getvalue().splitlines()
    assert len(lines) == 9
    assert lines[0] == "0:00 attributes: 0 of 10 units"
    assert lines[5].startswith("0:00 attributes: 0 of 10 units, 2,500 docs, 5.0 MB, ")
    assert shown == (0.5 if total else 0.2)
    assert lines[6].startswith("0:00 attributes: 2 of 10 units, 2,500 docs, 5.0 MB, ")
    assert lines[7] == "0:00 join: 0 of 2 units"
    assert re.fullmatch(r"2,500 documents in 0:00, [\d,]+ docs/s", lines[8])
    assert "\x1b" not in file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (7325, "122:05")]
)
def test_times_are_minutes_and_seconds(seconds: float, text: str) -> None:
    assert module.minutes(seconds) == text


def test_a_short_run_says_what_it_took_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "monotonic", itertools.count(0.0, 0.01).__next__)
    file = io.StringIO()
    with progress(Console(file=file, width=80)) as observer:
        observer.planned(cast(Plan, FakePlan(10**7)))
        observer.read(500, 10**6)
        observer.phase("attributes", 1, 1)
    assert file.getvalue().startswith("500 documents in 0:00, ")
    assert file.getvalue().count("\n") == 1


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_live_line_never_wraps(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    with progress(console) as observer:
        observer.planned(cast(Plan, FakePlan(10**9)))
        for name in ("attributes", "join"):
            for done in range(30):
                observer.phase(name, done, 29)
                observer.read(5000, 10**8)
    lines = file.getvalue().split("\n")
    assert len(lines) == 3  # the live one, and what all of it took
    assert "300,000 documents in " in lines[1]


def test_phases_are_counted_with_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(module, "monotonic", itertools.count(0.0, 0.01).__next__)
    file = io.StringIO()
    with progress(Console(file=file, width=80)) as observer:
        for done in range(4, 7):
            observer.phase("attributes", done, 1000)
        observer.notice("[red]going on[/red] " + "x" * 90)
    lines = file.getvalue().splitlines()
    assert lines[0] == "0:00 attributes: 4 of 1,000 units"
    assert re.fullmatch(r"0:00 attributes: 6 of 1,000 units, about \d+:\d\d left", lines[2])
    assert lines[3] == "[red]going on[/red] " + "x" * 90


def test_the_plan_is_shown_once_it_is_made() -> None:
    shown: list[Plan] = []
    with progress(Console(file=io.StringIO()), shown.append) as observer:
        plan = cast(Plan, FakePlan(1))
        observer.planned(plan)
    assert shown == [plan]
