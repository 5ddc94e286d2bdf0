"""What a run of `finesieve annotate` is going to do and about what it will cost, without asking anybody."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.addresses import as_shown
from filters.annotate.config import AnnotateConfig
from filters.annotate.judge import answer_tokens, page_tokens
from filters.annotate.prompt import Prompt
from filters.annotate.records import Spending
from filters.annotate.rubric import Rubric
from filters.annotate.store import Store
from filters.annotate.tokens import token_counter


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
        sizes = _sizes(texts)
        plans = []
        for judge, prompt in zip(config.judges, prompts, strict=True):
            missing = np.full(len(texts), judge.answers, np.int64)
            if known is not None:
                missing = known.missing(texts, judge.name, rubric, judge.answers)
            done = len(texts) * judge.answers - int(missing.sum())
            page = np.minimum(sizes, page_tokens(judge, prompt, token_counter(judge.tokenizer)))
            tokens_in = int(((page + _fixed(prompt)) * missing).sum())
            tokens_out = int(missing.sum()) * answer_tokens(judge, rubric)
            cost = judge.price.of(tokens_in, tokens_out)
            plans.append(
                JudgePlan(judge.name, judge.mode, judge.model, int(missing.sum()), done, tokens_in, tokens_out, cost)
            )
        spent = Spending() if known is None else known.spent()
    return AnnotatePlan(rubric, len(texts), tuple(lines), tuple(plans), spent)


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


def _sizes(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    from filters.kernels.packed import PackedText
    from filters.kernels.tokens import token_estimate

    return np.asarray(token_estimate(PackedText.from_strings(texts)), np.int64)


def _fixed(prompt: Prompt) -> int:
    from filters.annotate.page import estimate_tokens

    return estimate_tokens(prompt.fixed_text) + estimate_tokens(prompt.question)
