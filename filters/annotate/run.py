"""A run of `finesieve annotate`: draw the sample, try a pilot, forecast, ask the rest, and end in good order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from filters.annotate.budget import Budget, BudgetReachedError, JudgeProgress
from filters.annotate.config import AnnotateConfig
from filters.annotate.endpoints import JudgeStoppedError, StoppingError
from filters.annotate.judge import Judge, answer_tokens, page_tokens
from filters.annotate.page import estimate_tokens, token_counter
from filters.annotate.rubric import Prompt, Rubric
from filters.annotate.store import LAST, Spending, Store
from filters.errors import RunError, as_shown
from filters.statistics.resampling import CONFIDENCE, Estimate

Outcome = Literal[
    "complete", "failures", "declined", "interrupted", "max_tokens", "max_money", "max_seconds", "stopped"
]
EXIT: dict[Outcome, int] = {"complete": 0, "stopped": 1, "interrupted": 130}
"""Exit status; of any other outcome it is 3: answers are missing, and another run may bring them."""


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
        return EXIT.get(self.outcome, 3)


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
        keys, name = (judge.record.number, judge.rubric_number), judge.config.name
        counts = (self.store.score_counts(*keys), *self.store.causes(*keys))
        return JudgeResult(name, judge.progress, *counts, self.errors.get(name))

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
            judge.endpoints.stop()

    @contextlib.asynccontextmanager
    async def _shown(self, judges: Sequence[Judge], budget: Budget) -> AsyncIterator[None]:
        async def refreshing() -> None:
            while True:
                await asyncio.sleep(0.25)
                refresh()

        with self.hooks.progress(judges, budget) as refresh:
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


RESAMPLES, SEED = 2000, 20


@dataclass(frozen=True, slots=True)
class JudgePlan:
    """What a judge is going to be asked; tokens and money are estimates made without asking anybody.

    Attributes:
        answers: still to be had.
        done: answers that the store has.
        tokens_in: of the prompts, by the estimate of `filters.kernels.tokens`.
        tokens_out: at most.
    """

    name: str
    mode: str
    answers: int
    done: int
    tokens_in: int
    tokens_out: int
    cost: float


@dataclass(frozen=True, slots=True)
class AnnotatePlan:
    """The plan of a run: pages, judges and their cost.

    Attributes:
        documents: in the sample.
        lines: the sample in words.
        spent: what earlier runs on the store have cost.
    """

    rubric: Rubric
    documents: int
    lines: tuple[str, ...]
    judges: tuple[JudgePlan, ...]
    spent: Spending


def plan_annotate(config: AnnotateConfig, echo: Callable[[str], None] = lambda line: None) -> AnnotatePlan:
    """What `run_annotate` would do, and about what it would cost. Writes nothing and asks no judge.

    Raises:
        FinesieveError: anything in the config that would stop the run at its start.
    """
    from filters.kernels.packed import PackedText
    from filters.kernels.tokens import token_estimate

    rubric = Rubric.load(config.rubric, config.language)
    prompts = [Prompt(rubric, judge.mode) for judge in config.judges]
    path = Path(config.store)
    with contextlib.ExitStack() as stack:
        known = stack.enter_context(Store(path, create=False)) if path.is_file() else None
        sample = None if known is None else known.find_sample(describe_sample(config))
        if known is None or sample is None:
            drawn = stack.enter_context(Store(":memory:"))
            sample, lines = draw_sample(drawn, config, echo)
            texts = [document.text for _, document in drawn.drawn(sample)]
        else:
            texts = [document.text for _, document in known.drawn(sample)]
            lines = [f"{len(texts):,} documents, drawn by an earlier run"]
        lines += unsure_scripts(config, texts)
        sizes = np.asarray(token_estimate(PackedText.from_strings(texts)), np.int64)
        plans = []
        for judge, prompt in zip(config.judges, prompts, strict=True):
            missing = np.full(len(texts), judge.answers, np.int64)
            if known is not None:
                missing = known.missing(texts, judge.name, rubric, judge.answers)
            done = len(texts) * judge.answers - int(missing.sum())
            page = np.minimum(sizes, page_tokens(judge, prompt, token_counter(judge.tokenizer)))
            fixed = estimate_tokens(prompt.fixed_text) + estimate_tokens(prompt.question)
            tokens_in = int(((page + fixed) * missing).sum())
            tokens_out = int(missing.sum()) * answer_tokens(judge, rubric)
            cost = judge.price.of(tokens_in, tokens_out)
            plans.append(JudgePlan(judge.name, judge.mode, int(missing.sum()), done, tokens_in, tokens_out, cost))
        spent = Spending() if known is None else known.spent()
    return AnnotatePlan(rubric, len(texts), tuple(lines), tuple(plans), spent)


def unsure_scripts(config: AnnotateConfig, texts: Iterable[str]) -> list[str]:
    """A warning, if pages are in scripts whose tokens cannot be estimated well, for the judges without a tokenizer."""
    from filters.kernels.packed import PackedText
    from filters.kernels.tokens import MEASURED_SCRIPTS, main_script, token_features

    judges = [judge.name for judge in config.judges if judge.tokenizer is None]
    if not judges:
        return []
    counts: Counter[str] = Counter()
    rest = iter(texts)
    while part := list(itertools.islice(rest, 1000)):
        counts.update(main_script(token_features(PackedText.from_strings(part))).tolist())
    unsure = {script: count for script, count in counts.most_common() if script not in MEASURED_SCRIPTS}
    if not unsure:
        return []
    shown = ", ".join(f"{script} {count:,}" for script, count in unsure.items())
    return [
        f"pages in scripts whose number of tokens is estimated with an error above 15 %: {shown}. Remedy: give "
        f"`tokenizer` (the model's tokenizer.json) for {', '.join(judges)}"
    ]


def describe_sample(config: AnnotateConfig) -> dict[str, Any]:
    """What a sample depends on; equal descriptions are the same sample."""
    inputs = [one.model_dump(mode="json", exclude={"storage_options", "retries"}) for one in config.reads]
    return {
        "inputs": as_shown(inputs),
        "extract": config.extract.model_dump(mode="json"),
        "sample": config.sample.model_dump(mode="json"),
    }


def draw_sample(store: Store, config: AnnotateConfig, echo: Callable[[str], None]) -> tuple[int, list[str]]:
    """Read the input, draw from it, and enter the draws -> (number of the sample, the sample in words)."""
    from filters.annotate.sampling import draw

    echo("reading the input to draw the sample")
    drawn = draw(config.reads, config.extract, config.sample)
    number = store.begin_sample(describe_sample(config))
    store.draw(number, drawn.documents)
    return number, drawn.lines()


@dataclass(frozen=True, slots=True)
class Forecast:
    """The work that one judge still has to do.

    Attributes:
        judge: its name.
        documents: of the sample that were measured.
        answers: still to be had.
        tokens: of their prompts and answers.
        cost: their money.
        seconds: at the pace of the pilot; None where it had none.
    """

    judge: str
    documents: int
    answers: int
    tokens: Estimate
    cost: Estimate
    seconds: float | None


def forecast(
    judge: str, costs: npt.NDArray[np.float64], answers: int, seconds_per_answer: float | None = None
) -> Forecast:
    """Extrapolate the costs of a pilot to `answers` more answers.

    Documents are resampled, not answers, because the answers to one page cost alike. To the uncertainty of the mean
    comes the scatter of the remaining documents themselves, so that the interval is one for their actual sum.

    Args:
        judge: its name.
        costs: float64[n, 4] as `filters.annotate.store.Store.costs` gives them.
        answers: still to be had.
        seconds_per_answer: of the pilot, all requests in flight together.
    """
    count = len(costs)
    if count == 0 or answers == 0:
        nothing = Estimate(value=0, low=0, high=0)
        return Forecast(judge, count, answers, nothing, nothing, None)
    random = np.random.default_rng(SEED)
    spent = np.stack([costs[:, 1] + costs[:, 2], costs[:, 3]], axis=1)
    drawn = random.integers(0, count, (RESAMPLES, count))
    rate = spent[drawn].sum(axis=1) / costs[drawn, :1].sum(axis=1)
    documents = answers / costs[:, 0].mean()
    scatter = (spent / costs[:, :1]).std(axis=0, ddof=1) if count > 1 else np.zeros(2)
    noise = random.standard_normal((RESAMPLES, 2)) * scatter / np.sqrt(max(documents, 1.0))
    totals = np.maximum(answers * (rate + noise), 0.0)
    tail = (1 - CONFIDENCE) / 2
    ends = np.quantile(totals, [tail, 1 - tail], axis=0)
    value = answers * spent.sum(axis=0) / costs[:, 0].sum()
    tokens, cost = (Estimate(value=v, low=low, high=high) for v, low, high in np.vstack([value, ends]).T.tolist())
    seconds = None if seconds_per_answer is None else answers * seconds_per_answer
    return Forecast(judge, count, answers, tokens, cost, seconds)
