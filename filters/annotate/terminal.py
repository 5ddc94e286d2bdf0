"""What a run of annotate prints: the plan, the forecast, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from filters.annotate.config import BudgetConfig
from filters.annotate.forecast import Forecast, Interval
from filters.annotate.plan import AnnotatePlan
from filters.annotate.run import AnnotateResult, JudgeResult, Outcome
from filters.inspect.terminal import BAR, BLOCKS
from filters.terminal import printable

OUTCOMES: dict[Outcome, str] = {
    "complete": "every page of the sample has its answers",
    "failures": "some requests brought no answer; start again to ask only for those",
    "declined": "not confirmed; the pilot's answers are kept",
    "interrupted": "interrupted; answers so far are kept, start again to go on",
    "max_tokens": "budget.max_tokens is reached; raise it and start again to go on",
    "max_money": "budget.max_money is reached; raise it and start again to go on",
    "max_seconds": "budget.max_seconds is reached; start again to go on",
    "stopped": "a judge stopped; answers so far are kept, start again to go on",
}


def plan_view(plan: AnnotatePlan, budget: BudgetConfig, store: str) -> RenderableType:
    """What is going to be asked, and an estimate of what it costs."""
    lines = [Text("\n".join(plan.lines))]
    rubric = plan.rubric
    told = f", told that pages are in {rubric.language}" if rubric.language else ""
    lines.append(
        Text(
            f"rubric {rubric.name} version {rubric.version} ({rubric.digest[:12]}), {_scale(plan)}{told}", no_wrap=True
        )
    )
    table = Table(title="estimate, before anybody is asked", title_justify="left", box=None, pad_edge=False)
    for name in ("judge", "mode"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=24)
    for name in ("done", "to ask", "tokens in", "out, at most", "money"):
        table.add_column(name, justify="right", no_wrap=True)
    for judge in plan.judges:
        counts = [f"{n:,}" for n in (judge.done, judge.answers, judge.tokens_in, judge.tokens_out)]
        table.add_row(printable(judge.name, 64), judge.mode, *counts, f"{judge.cost:,.2f}")
    caps = [f"{key} {value:,}" for key, value in budget.model_dump().items() if value is not None]
    spent = plan.spent
    notes = [
        f"caps: {', '.join(caps) or 'none'}",
        f"store: {store}"
        + (f", {spent.requests:,} requests and {spent.cost:,.2f} spent by earlier runs" if spent.requests else ""),
    ]
    return Group(*lines, table, Text("\n".join(notes)))


def _scale(plan: AnnotatePlan) -> str:
    scale = plan.rubric.scale
    names = ", ".join(attribute.name for attribute in plan.rubric.attributes)
    return f"{scale.min} to {scale.max}" + (f" for each of {names}" if names else "")


def forecast_view(forecasts: Sequence[Forecast]) -> RenderableType:
    """What the rest will cost, with intervals."""
    table = Table(
        title="forecast for the rest, 95 % interval by bootstrap over pages answered so far",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("judge", no_wrap=True, overflow="ellipsis", max_width=20)
    for name in ("so far", "to ask", "tokens", "money", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in forecasts:
        tokens = Interval(
            part.tokens_in.value + part.tokens_out.value,
            part.tokens_in.low + part.tokens_out.low,
            part.tokens_in.high + part.tokens_out.high,
        )
        table.add_row(
            printable(part.judge, 64),
            f"{part.documents:,}",
            f"{part.answers:,}",
            f"{_short(tokens.value)} [{_short(tokens.low)}, {_short(tokens.high)}]",
            f"{part.cost.value:,.2f} [{part.cost.low:,.2f}, {part.cost.high:,.2f}]" if part.cost.high else "none",
            "" if part.seconds is None else f"~{timedelta(seconds=round(part.seconds))}",
        )
    return table


def _short(number: float) -> str:
    """1,234 as it is, 123k, 12.3M."""
    if number < 10_000:
        return f"{number:,.0f}"
    return f"{number / 1e3:,.0f}k" if number < 1e7 else f"{number / 1e6:,.1f}M"


def result_view(result: AnnotateResult, *, unicode: bool = True) -> RenderableType:
    """What every judge has answered, its scores, and what is missing."""
    parts: list[RenderableType] = []
    for judge in result.judges:
        parts += [_judge(judge), *_bars(judge, result.rubric.scale.values, unicode=unicode), Text()]
    spent = result.spent
    money = f", money {spent.cost:,.4f}" if spent.cost else ""
    parts.append(
        Text(
            f"all runs on this store: {spent.requests:,} requests, {spent.tokens_in:,} tokens in, "
            f"{spent.tokens_out:,} out{money}"
        )
    )
    parts.append(Text(OUTCOMES[result.outcome], style="bold"))
    return Group(*parts)


def _judge(judge: JudgeResult) -> RenderableType:
    tally = judge.tally
    pace = f", {1 / tally.seconds_per_answer:,.1f} a second" if tally.seconds_per_answer else ""
    done = tally.before + tally.answered
    lines = [
        f"judge {printable(judge.name, 64)}: {done:,} of {tally.wanted:,} answers, {tally.answered:,} of them now{pace}"
    ]
    for what, causes in (("rejected", judge.rejected), ("without an answer", judge.failed)):
        for cause, count in causes.items():
            words = f" ({printable(tally.words[cause], 300)})" if cause in tally.words else ""
            lines.append(f"  {count:>9,}  {what}: {cause}{words}")
    lines += [f"  stopped: {printable(judge.error, 600)}"] if judge.error else []
    return Text("\n".join(lines))


def _bars(judge: JudgeResult, values: range, *, unicode: bool) -> list[Text]:
    scores = judge.scores
    if not scores or len(values) > 21:
        return []
    top, total = max(scores.values()), sum(scores.values())
    lines = []
    for value in values:
        count = scores.get(value, 0)
        full, part = divmod(round(count / top * BAR * 8), 8)
        bar = BLOCKS[8] * full + BLOCKS[part].strip() if unicode else "#" * round(count / top * BAR)
        lines.append(Text(f"  {value:>2} {bar:<{BAR}} {count:>9,} {count / total:6.1%}"))
    return lines
