"""Caps that are never exceeded, forecasts that hold, and a run that ends in good order."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from filters.annotate.budget import Budget, BudgetReachedError
from filters.annotate.config import AnnotateConfig, BudgetConfig, PriceConfig
from filters.annotate.forecast import forecast
from filters.annotate.plan import plan_annotate
from filters.annotate.records import Spending
from filters.annotate.run import run_annotate
from filters.annotate.store import Store
from tests.annotate.judge_server import JudgeServer, Slow, reply

Make = Callable[..., AnnotateConfig]
Serve = Callable[..., JudgeServer]
FREE = PriceConfig()


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
    server = serve(lambda n, body: Slow(30.0))
    begun = time.monotonic()
    result = run_annotate(config(server.url, 20, budget={"max_seconds": 1}))
    assert result.outcome == "max_seconds"
    assert time.monotonic() - begun < 10
    assert result.spent.requests > 0


def test_a_forecast_holds() -> None:
    """Of 400 runs with known costs, the interval covers the true sum of the rest about as often as it says."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        tokens = random.gamma(4, 250, 200)
        costs = np.stack([np.ones(200), tokens, np.ones(200), tokens / 1e6], axis=1)
        made = forecast("j", costs[:20], 180)
        covered += made.tokens_in.low <= tokens[20:].sum() <= made.tokens_in.high
    assert 0.88 <= covered / 400 <= 0.99
    assert made.cost.value == pytest.approx(made.tokens_in.value / 1e6)
    assert (made.documents, made.answers) == (20, 180)


def test_a_forecast_of_nothing() -> None:
    assert forecast("j", np.zeros((0, 4)), 5).cost.high == 0
    assert forecast("j", np.array([[1, 100, 1, 0.1]]), 10).tokens_in.low == 1000


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


def command(made: AnnotateConfig, folder: Path, *options: str) -> subprocess.Popen[str]:
    path = folder / "judge.yaml"
    path.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_none=True)))
    finesieve = [str(Path(sys.executable).parent / "finesieve"), "annotate", str(path), *options]
    return subprocess.Popen(
        finesieve, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )


def wait_for(server: JudgeServer, requests: int) -> None:
    end = time.monotonic() + 60
    while len(server.requests) < requests:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_interrupt_finishes_what_is_under_way(config: Make, serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda n, body: Slow(0.2))
    made = config(server.url, 300, {"max_concurrency": 8})
    process = command(made, tmp_path, "--yes")
    wait_for(server, 40)
    process.send_signal(signal.SIGTERM)  # as Slurm sends it; Ctrl-C is the next test's
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, out + err
    assert "interrupted: waiting for" in err
    assert "answers so far are kept" in out
    assert "Traceback" not in err
    with Store(made.store) as store:
        assert len(list(store.answers(1))) == len(server.requests) < 300
    server.behave = lambda n, body: reply()
    assert run_annotate(made).outcome == "complete"
    assert len(server.requests) == len(set(server.pages)) == 300


def test_a_second_interrupt_gives_up_what_is_under_way(config: Make, serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda n, body: Slow(60.0) if n > 30 else reply())
    made = config(server.url, 300, {"max_concurrency": 8, "timeout_seconds": 100})
    process = command(made, tmp_path, "--yes")
    wait_for(server, 35)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, out + err
    assert "Traceback" not in err
    with Store(made.store) as store:
        assert len(list(store.answers(1))) == 31
        assert store.spent().requests == len(server.requests)


def test_a_killed_run_asks_again_only_for_what_was_under_way(config: Make, serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda n, body: Slow(0.02))
    made = config(server.url, 300, {"max_concurrency": 4})
    process = command(made, tmp_path, "--yes")
    wait_for(server, 120)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert run_annotate(made).outcome == "complete"
    assert len(set(server.pages)) == 300
    assert len(server.requests) <= 300 + 8  # in flight, and answered in the last fiftieth of a second


def test_the_command(config: Make, serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda n, body: reply(str(n % 3)))
    made = config(server.url, 60, export=str(tmp_path / "labels"), budget={"max_money": 1})
    out, err = command(made, tmp_path, "--dry-run").communicate(timeout=60)
    assert "estimate, before anybody is asked" in out, err
    assert "caps: max_money 1.0" in out
    process = command(made, tmp_path)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, len(server.requests)) == (2, 0)
    assert "--yes" in err
    process = command(made, tmp_path, "--yes")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert "forecast for the rest" in out
    assert "60 of 60 answers" in out
    assert "every page of the sample has its answers" in out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 80
    assert (tmp_path / "labels" / "annotations.parquet").is_file()
