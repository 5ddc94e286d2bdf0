"""What is shown of a run: rate, money, time left, scores; a line when piped, a display on a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from filters.annotate import terminal as shown_in
from filters.annotate.config import AnnotateConfig
from filters.annotate.progress import JudgeProgress
from filters.annotate.run import Hooks, run_annotate
from filters.annotate.terminal import score_bars, show_progress
from tests.annotate.judge_server import JudgeServer, Slow, reply

Make = Callable[..., AnnotateConfig]
Serve = Callable[..., JudgeServer]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_while_a_run_goes_on(
    config: Make, serve: Serve, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(shown_in, "PLAIN_SECONDS", 0.1)
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=80, highlight=False, markup=False)

    def behave(n: int, body: dict[str, Any]) -> Any:
        return Slow(0.2, reply("no" if n == 3 else str(n % 3)))

    made = config(serve(behave).url, 60, {"max_concurrency": 10}, budget={"max_money": 5}, pilot=5)
    run_annotate(made, Hooks(progress=lambda judges, budget: show_progress(console, judges, budget)))
    shown = written.getvalue()
    for expected in ("judge ", "/60", "docs/s", "of 5.00 spent", "left"):
        assert expected in shown
    if terminal:
        for expected in ("in flight", "1 rejected", "█"):
            assert expected in shown
        assert "\x1b[?25h" in shown  # the cursor is back
    else:
        assert "\x1b" not in shown


def test_scores_as_bars() -> None:
    progress = JudgeProgress()
    assert score_bars(progress, range(6)) == ""
    progress.scores.update({0: 8, 1: 16, 3: 1})
    assert score_bars(progress, range(6)) == "0▄ 1█ 2  3▁ 4  5 "
    assert score_bars(progress, range(6), unicode=False) == "0:32% 1:64% 2:0% 3:4% 4:0% 5:0%"
    assert score_bars(progress, range(101)) == "mean score 0.8"
