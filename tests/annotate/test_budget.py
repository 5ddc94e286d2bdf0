"""Caps that are never exceeded, forecasts that hold, and a run that ends in good order."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from filters.annotate import terminal as shown_in
from filters.annotate.budget import Budget, BudgetReachedError
from filters.annotate.config import AnnotateConfig, BudgetConfig, PriceConfig
from filters.annotate.run import Hooks, forecast, plan_annotate, run_annotate
from filters.annotate.store import Spending, Store
from filters.annotate.terminal import show_progress
from tests.annotate.judge_server import Fault, Held, JudgeServer, Slow, reply
from tests.command import finesieve

Make = Callable[..., AnnotateConfig]
Serve = Callable[..., JudgeServer]
FREE = PriceConfig()
PATIENCE = 1200.0
"""Seconds after which something that must happen is given up; nothing is timed."""


def test_reservations_wait_for_each_other_and_then_end() -> None:
    async def main() -> list[str]:
        budget = Budget(BudgetConfig(max_tokens=100), Spending(0, 10, 0, 0.0))
        first = await budget.reserve(40, 10, FREE)
        seen: list[str] = []

        async def second() -> None:
            reservation = await budget.reserve(40, 10, FREE)
            seen.append("second")
            budget.settle(reservation, Spending(1, 40, 10, 0.0))

        task = asyncio.ensure_future(second())
        await asyncio.sleep(0)
        seen.append("waited")
        budget.settle(first, Spending(1, 20, 2, 0.0))
        await task
        with pytest.raises(BudgetReachedError, match="max_tokens"):
            await budget.reserve(40, 10, FREE)
        await budget.reserve(18, 0, FREE)
        return seen

    assert asyncio.run(main()) == ["waited", "second"]


def test_time_is_a_cap() -> None:
    now = [0.0]
    budget = Budget(BudgetConfig(max_seconds=10), Spending(), lambda: now[0])
    asyncio.run(budget.reserve(1, 1, FREE))
    now[0] = 10.0
    with pytest.raises(BudgetReachedError, match="max_seconds"):
        asyncio.run(budget.reserve(1, 1, FREE))


@pytest.mark.parametrize("cap", ["max_tokens", "max_money"])
def test_a_cap_is_never_exceeded_with_many_in_flight(config: Make, serve: Serve, cap: str) -> None:
    """The server bills as much as it possibly could, as many at once as it is asked."""

    def behave(n: int, body: dict[str, Any]) -> Any:
        made = reply()
        size = sum(len(message["content"].encode()) for message in body["messages"])
        made["usage"] = {"prompt_tokens": size + 40, "completion_tokens": 8}
        return Slow(0.01, made)

    server = serve(behave)
    limit = 40_000 if cap == "max_tokens" else 0.04
    made = config(server.url, 200, budget={cap: limit})
    result = run_annotate(made)
    assert (result.outcome, result.exit_status) == (cap, 3)
    spent = result.spent.tokens_in + result.spent.tokens_out if cap == "max_tokens" else result.spent.cost
    assert 0.9 * limit < spent <= limit
    asked = len(server.requests)
    assert run_annotate(made).outcome == cap
    assert len(server.requests) <= asked + 1
    raised = config(server.url, 200, budget={cap: limit * 20})
    assert run_annotate(raised).outcome == "complete"
    assert len(server.requests) == len(set(server.pages)) == 200


def test_the_time_cap_gives_up_what_would_end_later(config: Make, serve: Serve) -> None:
    server = serve(lambda n, body: Fault("hang"))
    result = run_annotate(config(server.url, 20, budget={"max_seconds": 1}))
    assert result.outcome == "max_seconds"
    assert result.spent.requests >= len(server.requests)


def test_a_forecast_holds() -> None:
    """Of 400 runs with known costs, the interval covers the true sum of the rest about as often as it says."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        tokens = random.gamma(4, 250, 200)
        costs = np.stack([np.ones(200), tokens, np.ones(200), tokens / 1e6], axis=1)
        made = forecast("j", costs[:20], 180)
        assert made.tokens.low is not None
        assert made.tokens.high is not None
        covered += made.tokens.low <= tokens[20:].sum() + 180 <= made.tokens.high
    assert 0.88 <= covered / 400 <= 0.99
    assert made.cost.value == pytest.approx(((made.tokens.value or 0) - 180) / 1e6)
    assert (made.documents, made.answers) == (20, 180)


def test_a_forecast_of_nothing() -> None:
    assert forecast("j", np.zeros((0, 4)), 5).cost.high == 0
    assert forecast("j", np.array([[1, 100, 1, 0.1]]), 10).tokens.low == 1010


def test_a_plan_asks_nobody_and_knows_what_is_done(config: Make, serve: Serve) -> None:
    server = serve()
    made = config(server.url, 30)
    plan = plan_annotate(made)
    assert (plan.documents, plan.judges[0].answers, plan.judges[0].done) == (30, 30, 0)
    assert plan.judges[0].tokens_in > 30 * 100
    assert plan.judges[0].cost == pytest.approx((plan.judges[0].tokens_in + 2 * 30 * 8) / 1e6)
    assert not Path(made.store).exists()
    assert server.requests == []
    run_annotate(made)
    after = plan_annotate(config(server.url, 30))
    assert (after.judges[0].answers, after.judges[0].done, after.spent.requests) == (0, 30, 30)


def written(made: AnnotateConfig, folder: Path) -> Path:
    path = folder / "judge.yaml"
    path.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_none=True)))
    return path


def start(made: AnnotateConfig, folder: Path) -> subprocess.Popen[str]:
    """The command in a process of its own, which a signal can reach."""
    command = [str(Path(sys.executable).parent / "finesieve"), "annotate", str(written(made, folder)), "--yes"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def stored(made: AnnotateConfig) -> int:
    """Answers that are in the store, while another process writes into it."""
    with contextlib.closing(sqlite3.connect(made.store)) as db, contextlib.suppress(sqlite3.OperationalError):
        return int(db.execute("SELECT count(*) FROM answers").fetchone()[0])
    return 0


def interrupt(process: subprocess.Popen[str], number: int) -> str:
    """Send a signal, and wait for the line that says so; returns what was written up to there."""
    assert process.stderr is not None
    process.send_signal(number)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "interrupted: waiting for" in line:
            return "".join(lines)
    raise AssertionError("it ended without a word: " + "".join(lines))


def test_an_interrupt_finishes_what_is_under_way(config: Make, serve: Serve, tmp_path: Path) -> None:
    told = threading.Event()
    server = serve(lambda n, body: reply() if n < 40 else Held(told.is_set))
    made = config(server.url, 300, {"max_concurrency": 8})
    process = start(made, tmp_path)
    wait_until(lambda: len(server.requests) > 40)
    said = interrupt(process, signal.SIGTERM)  # as Slurm sends it; Ctrl-C is the next test's
    told.set()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, out + err
    assert "answers so far are kept" in out
    assert "Traceback" not in said + err
    with Store(made.store) as store:
        assert 40 < len(list(store.answers(1))) == len(server.requests) < 300
    server.behave = lambda n, body: reply()
    assert run_annotate(made).outcome == "complete"
    assert len(server.requests) == len(set(server.pages)) == 300


def test_a_second_interrupt_gives_up_what_is_under_way(config: Make, serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda n, body: Fault("hang") if n > 30 else reply())
    made = config(server.url, 300, {"max_concurrency": 8})
    process = start(made, tmp_path)
    wait_until(lambda: stored(made) == 31 and len(server.requests) > 31)
    said = interrupt(process, signal.SIGINT)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, out + err
    assert "Traceback" not in said + err
    with Store(made.store) as store:
        assert len(list(store.answers(1))) == 31
        assert store.spent().requests == len(server.requests)


def test_a_killed_run_asks_again_only_for_what_was_under_way(config: Make, serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda n, body: Fault("hang") if n >= 120 else reply())
    made = config(server.url, 300, {"max_concurrency": 4})
    process = start(made, tmp_path)
    wait_until(lambda: stored(made) == 120 and len(server.requests) > 120)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    under_way = len(server.requests) - 120
    server.behave = lambda n, body: reply()
    assert run_annotate(made).outcome == "complete"
    assert len(set(server.pages)) == 300
    assert len(server.requests) == 300 + under_way <= 304


def test_the_command(config: Make, serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda n, body: reply(str(n % 3)))
    made = config(server.url, 60, export=str(tmp_path / "labels"), budget={"max_money": 1})
    path = written(made, tmp_path)
    out = finesieve("annotate", path, "--dry-run").stdout
    assert "estimate, before anybody is asked" in out
    assert "caps: max_money 1.0" in out
    assert "--yes" in finesieve("annotate", path, status=2).stderr
    assert not server.requests
    out = finesieve("annotate", path, "--yes").stdout
    assert "forecast for the rest" in out
    assert "60 of 60 answers" in out
    assert "every page of the sample has its answers" in out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 80
    assert (tmp_path / "labels" / "annotations.parquet").is_file()


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
        for expected in ("in flight", "1 rejected", "mean score 1.0"):
            assert expected in shown
        assert "\x1b[?25h" in shown  # the cursor is back
    else:
        assert "\x1b" not in shown
