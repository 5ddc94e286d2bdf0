"""A run of `finesieve annotate`: draw the sample, try a pilot, forecast, ask the rest, and end in good order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filters.annotate.budget import Budget, BudgetReachedError
from filters.annotate.config import AnnotateConfig
from filters.annotate.endpoints import JudgeStoppedError, StoppingError
from filters.annotate.judge import Judge, page_tokens
from filters.annotate.page import token_counter
from filters.annotate.plan import Forecast, describe_sample, draw_sample, forecast, unsure_scripts
from filters.annotate.progress import JudgeProgress
from filters.annotate.prompt import Prompt
from filters.annotate.records import Spending
from filters.annotate.rubric import Rubric
from filters.annotate.store import LAST, Store
from filters.errors import RunError, as_shown

Outcome = Literal[
    "complete", "failures", "declined", "interrupted", "max_tokens", "max_money", "max_seconds", "stopped"
]

EXIT: dict[Outcome, int] = {
    "complete": 0,
    "stopped": 1,
    "failures": 3,
    "declined": 3,
    "max_tokens": 3,
    "max_money": 3,
    "max_seconds": 3,
    "interrupted": 130,
}
"""Exit status: 3 means that answers are missing and that another run may bring them."""


@dataclass(frozen=True, slots=True)
class JudgeResult:
    """How a judge fared.

    Attributes:
        progress: in this run.
        scores: readable answers by rounded expected score, of all runs on the store, as the next two.
        rejected: unreadable answers by cause.
        failed: requests without an answer by cause.
        error: why it stopped, or None.
    """

    name: str
    progress: JudgeProgress
    scores: dict[int, int]
    rejected: dict[str, int]
    failed: dict[str, int]
    error: str | None


@dataclass(frozen=True, slots=True)
class AnnotateResult:
    """How a run ended. What it brought is in the store."""

    store: Path
    sample: int
    rubric: Rubric
    outcome: Outcome
    judges: tuple[JudgeResult, ...]
    spent: Spending

    @property
    def exit_status(self) -> int:
        """Exit status of the command."""
        return EXIT[self.outcome]


@dataclass
class Hooks:
    """How a run talks to its user.

    Attributes:
        echo: a line of information.
        confirm: told the forecasts, says whether to go on.
        progress: a context, and what is called in it a few times a second, to show how far the judges are.
    """

    echo: Callable[[str], None] = lambda line: None
    confirm: Callable[[Sequence[Forecast]], bool] = lambda forecasts: True
    progress: Callable[[Sequence[Judge], Budget], contextlib.AbstractContextManager[Callable[[], None]]] = field(
        default=lambda judges, budget: contextlib.nullcontext(lambda: None)
    )


def run_annotate(config: AnnotateConfig, hooks: Hooks | None = None) -> AnnotateResult:
    """Annotate what a config names, going on where the last run on its store ended.

    Raises:
        FinesieveError: anything that prevents it from starting, and a store that cannot be written.
    """
    hooks = hooks or Hooks()
    rubric = Rubric.load(config.rubric, config.language)
    for judge in config.judges:
        page_tokens(judge, Prompt(rubric, judge.mode), token_counter(judge.tokenizer))
    with Store(config.store) as store, store.writing():
        sample = store.find_sample(describe_sample(config))
        if sample is None:
            sample, lines = draw_sample(store, config, hooks.echo)
            for line in lines:
                hooks.echo(line)
        if not store.sample_size(sample):
            raise RunError("the input holds no document to annotate. Remedy: check `input` and `sample`")
        for line in unsure_scripts(config, (document.text for _, document in store.drawn(sample))):
            hooks.echo(f"warning: {line}")
        secret = {"storage_options"}  # may be
        settings = config.model_dump(mode="json", exclude={"input": secret, "inputs": {"__all__": secret}})
        run = store.begin_run(json.dumps(as_shown(settings)))
        outcome: Outcome = "stopped"
        try:
            result = asyncio.run(_Run(config, rubric, store, sample, run, hooks).run())
            outcome = result.outcome
            return result
        finally:
            store.end_run(run, outcome)


class _Run:
    """The asking half of a run."""

    def __init__(
        self, config: AnnotateConfig, rubric: Rubric, store: Store, sample: int, run: int, hooks: Hooks
    ) -> None:
        self.config, self.rubric, self.store = config, rubric, store
        self.sample, self.number, self.hooks = sample, run, hooks
        self.outcome: Outcome = "complete"
        self.errors: dict[str, str] = {}
        self.judges: list[Judge] = []

    async def run(self) -> AnnotateResult:
        budget = Budget(self.config.budget, self.store.spent())
        try:
            for judge in self.config.judges:
                self.judges.append(
                    Judge(judge, self.rubric, self.store, budget, self.config.stop, self.number, self.hooks.echo)
                )
            pilot = self.store.place(self.sample, self.config.pilot)
            await self._ask(budget, pilot)
            if self.outcome == "complete" and self._confirmed():
                await self._ask(budget, LAST)
        finally:
            for asked in self.judges:
                await asked.close()
        results = tuple(self._result(judge) for judge in self.judges)
        if self.outcome == "complete" and self.errors:
            self.outcome = "stopped"
        if self.outcome == "complete" and any(judge.progress.left for judge in self.judges):
            self.outcome = "failures"
        return AnnotateResult(self.store.path, self.sample, self.rubric, self.outcome, results, self.store.spent())

    def _confirmed(self) -> bool:
        forecasts = []
        for judge in self.judges:
            if judge.config.name in self.errors:
                continue
            left = judge.recount(self.sample)
            costs = self.store.costs(self.sample, judge.record.number, judge.rubric_number)
            forecasts.append(forecast(judge.config.name, costs, left, judge.progress.seconds_per_answer))
        if any(part.answers for part in forecasts) and not self.hooks.confirm(forecasts):
            self.outcome = "declined"
            return False
        return True

    def _result(self, judge: Judge) -> JudgeResult:
        rejected, failed = self.store.causes(judge.record.number, judge.rubric_number)
        scores = self.store.score_counts(judge.record.number, judge.rubric_number)
        name = judge.config.name
        return JudgeResult(name, judge.progress, scores, rejected, failed, self.errors.get(name))

    async def _ask(self, budget: Budget, until: int) -> None:
        judges = [judge for judge in self.judges if judge.config.name not in self.errors]
        left = budget.seconds_left()
        deadline = None
        if left is not None:
            deadline = asyncio.get_running_loop().call_later(max(left, 0.0), self._end, "max_seconds")
        try:
            async with self._interruptible(), self._shown(judges, budget):
                await asyncio.gather(*(self._ask_one(judge, until) for judge in judges))
        except asyncio.CancelledError:
            if self.outcome != "interrupted":
                raise
        finally:
            if deadline is not None:
                deadline.cancel()

    async def _ask_one(self, judge: Judge, until: int) -> None:
        try:
            await judge.ask(self.sample, until)
        except BudgetReachedError as error:
            self._end(error.args[0])
        except JudgeStoppedError as error:
            self.errors[judge.config.name] = str(error)
            self.hooks.echo(f"judge {judge.config.name} stopped: {error}")
        except StoppingError:
            pass

    def _end(self, outcome: Outcome) -> None:
        if self.outcome == "complete":
            self.outcome = outcome
        for judge in self.judges:
            judge.stop()

    @contextlib.asynccontextmanager
    async def _shown(self, judges: Sequence[Judge], budget: Budget) -> AsyncIterator[None]:
        with self.hooks.progress(judges, budget) as refresh:

            async def refreshing() -> None:
                while True:
                    await asyncio.sleep(0.25)
                    refresh()

            task = asyncio.ensure_future(refreshing())
            try:
                yield
            finally:
                task.cancel()
                refresh()

    @contextlib.asynccontextmanager
    async def _interruptible(self) -> AsyncIterator[None]:
        """Ctrl-C (and SIGTERM, as Slurm sends it) ends in good order; a second one gives up what is under way."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def interrupted() -> None:
            if self.outcome == "interrupted":
                task.cancel()
                return
            self.outcome = "complete"
            self._end("interrupted")
            under_way = sum(judge.endpoints.in_flight for judge in self.judges)
            self.hooks.echo(f"interrupted: waiting for {under_way:,} answers under way; once more to give them up")

        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in signals}
        for number in signals:
            loop.add_signal_handler(number, interrupted)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])
