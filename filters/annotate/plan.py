"""The plan of `finesieve annotate` and its cost: before any judge is asked, and after a pilot."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.annotate.config import AnnotateConfig
from filters.annotate.judge import answer_tokens, page_tokens
from filters.annotate.page import estimate_tokens, token_counter
from filters.annotate.prompt import Prompt
from filters.annotate.records import Spending
from filters.annotate.rubric import Rubric
from filters.annotate.store import Store
from filters.errors import as_shown
from filters.statistics.bootstrap import CONFIDENCE, Estimate

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
    model: str
    answers: int
    done: int
    tokens_in: int
    tokens_out: int
    cost: float


@dataclass(frozen=True, slots=True)
class AnnotatePlan:
    """What a run is going to do.

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
            plans.append(
                JudgePlan(judge.name, judge.mode, judge.model, int(missing.sum()), done, tokens_in, tokens_out, cost)
            )
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
