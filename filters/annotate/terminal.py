"""Output of `finesieve annotate`: the plan, the forecast, progress, results, and the agreement report."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from filters.terminal import BAR, BLOCKS, make_table, printable, short

if TYPE_CHECKING:
    from filters.annotate.agreement import AgreementReport, Coefficients
    from filters.annotate.budget import Budget
    from filters.annotate.config import BudgetConfig
    from filters.annotate.judge import Judge
    from filters.annotate.run import AnnotatePlan, AnnotateResult, Forecast, JudgeResult, Outcome
    from filters.statistics.resampling import Estimate

PLAIN_SECONDS = 10.0
"""Seconds between plain lines of progress."""
COEFFICIENTS = {"qwk": "QWK", "alpha": "alpha", "spearman": "Spearman", "f1": "F1 kept"}
SLICES = 8
_NAME = 18
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
    rubric, scale = plan.rubric, plan.rubric.scale
    names = ", ".join(attribute.name for attribute in rubric.attributes)
    each = f" for each of {names}" if names else ""
    told = f", told that pages are in {rubric.language}" if rubric.language else ""
    about = (
        f"rubric {rubric.name} version {rubric.version} ({rubric.digest[:12]}), {scale.min} to {scale.max}{each}{told}"
    )
    columns = ("judge", "mode", "done", "to ask", "tokens in", "out, at most", "money")
    table = make_table("estimate, before anybody is asked", *columns)
    for judge in plan.judges:
        counts = [f"{n:,}" for n in (judge.done, judge.answers, judge.tokens_in, judge.tokens_out)]
        table.add_row(printable(judge.name, 24), judge.mode, *counts, f"{judge.cost:,.2f}")
    caps = [f"{key} {value:,}" for key, value in budget.model_dump().items() if value is not None]
    spent = plan.spent
    notes = [
        f"caps: {', '.join(caps) or 'none'}",
        f"store: {store}"
        + (f", {spent.requests:,} requests and {spent.cost:,.2f} spent by earlier runs" if spent.requests else ""),
    ]
    return Group(Text("\n".join(plan.lines)), Text(about, no_wrap=True), table, Text("\n".join(notes)))


def forecast_view(forecasts: Sequence[Forecast]) -> RenderableType:
    """What the rest will cost, with intervals."""
    table = make_table(
        "forecast for the rest, 95 % interval by bootstrap over pages answered so far",
        *("judge", "so far", "to ask", "tokens", "money", "time"),
    )
    for part in forecasts:
        table.add_row(
            printable(part.judge, 20),
            f"{part.documents:,}",
            f"{part.answers:,}",
            part.tokens.shown(short),
            part.cost.shown("{:,.2f}".format) if part.cost.high else "none",
            "" if part.seconds is None else f"~{timedelta(seconds=round(part.seconds))}",
        )
    return table


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
    progress = judge.progress
    pace = f", {1 / progress.seconds_per_answer:,.1f} a second" if progress.seconds_per_answer else ""
    done = progress.before + progress.answered
    now = f"{progress.answered:,} of them now{pace}"
    lines = [f"judge {printable(judge.name, 64)}: {done:,} of {progress.wanted:,} answers, {now}"]
    for what, causes in (("rejected", judge.rejected), ("without an answer", judge.failed)):
        for cause, count in causes.items():
            words = f" ({printable(progress.words[cause], 300)})" if cause in progress.words else ""
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


@contextmanager
def show_progress(console: Console, judges: Sequence[Judge], budget: Budget) -> Iterator[Callable[[], None]]:
    """A callback that shows the state of `judges`, to be called a few times a second.

    Args:
        console: where to; a live display if it is a terminal.
        judges: whose tallies are shown.
        budget: what has been spent of what.
    """
    if not console.is_terminal:
        last = time.monotonic()

        def plain() -> None:
            nonlocal last
            if time.monotonic() - last >= PLAIN_SECONDS:
                last = time.monotonic()
                for judge in judges:
                    console.print(line(judge, budget), soft_wrap=True)

        yield plain
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda: live.update(Group(*map(_state, judges, itertools.repeat(budget))), refresh=True)


def _state(judge: Judge, budget: Budget) -> Text:
    """Two lines: how far a judge is, and its requests and scores."""
    progress, parts = judge.progress, [f"{judge.endpoints.in_flight} of {judge.endpoints.limit} in flight"]
    counts = (progress.rejected.total(), "rejected"), (progress.failed.total(), "failed"), (progress.retries, "retries")
    parts += [f"{count:,} {what}" for count, what in counts if count]
    if total := progress.scores.total():
        parts.append(f"mean score {sum(score * n for score, n in progress.scores.items()) / total:.1f}")
    state = Text(line(judge, budget), no_wrap=True, overflow="ellipsis")
    return state.append("\n  " + ", ".join(parts), style="dim")


def line(judge: Judge, budget: Budget) -> str:
    """How far a judge is: "judge 120/200, 35 docs/s, 0.42 of 5.00 spent, 3 s left"."""
    progress, caps = judge.progress, budget.config
    pace = progress.seconds_per_answer
    parts = [f"{printable(judge.config.name, 24)} {progress.before + progress.answered:,}/{progress.wanted:,}"]
    if pace:
        rate = 1 / pace / judge.repeats
        parts.append(f"{rate:,.0f} docs/s" if rate >= 10 else f"{rate:.2g} docs/s")
    if judge.config.price.input or judge.config.price.output:
        cap = "" if caps.max_money is None else f" of {caps.max_money:,.2f}"
        parts.append(f"{budget.spent.cost:,.2f}{cap} spent")
    else:
        cap = "" if caps.max_tokens is None else f" of {caps.max_tokens:,}"
        parts.append(f"{budget.spent.tokens_in + budget.spent.tokens_out:,}{cap} tokens")
    if pace and progress.left:
        parts.append(f"{timedelta(seconds=round(progress.left * pace))} left")
    return ", ".join(parts)


def agreement_view(report: AgreementReport) -> RenderableType:
    """The agreement report at 80 columns."""
    about = (
        f"{printable(report.source, 60)}: {report.documents:,} documents in {report.groups:,} groups, kept at "
        f"{report.cut:g}"
    )
    parts: list[RenderableType] = [Text(about, style="bold")]
    parts += [Text(f"rubric {printable(report.rubric, 70)}")] if report.rubric is not None else []
    parts += [Text(f"note: {printable(note, 400)}") for note in report.notes]
    parts += [Text(), _judges(report), *_remarks(report)]
    for title, rows in (
        ("a judge against itself: pairs of its repeats", report.within),
        ("judges against each other", (*report.between, *([report.overall] if report.overall else []))),
        ("judges' keep decisions against people's", report.humans),
    ):
        parts += [Text(), *_coefficients(title, rows)] if rows else []
    parts += [Text(), _attributes(report)] if report.attributes else []
    parts += [Text(), _slices(report)] if report.slices else []
    parts += [Text(), *_consensus(report)]
    if report.curve is not None:
        table = make_table("what more labels would buy", "labels", "Spearman", "best F1 of the kept")
        for point in report.curve.points:
            table.add_row(f"{point.labels:,}", *(str(point.measures[name]) for name in ("spearman", "best_f1")))
        parts += [Text(), table, Text(f"{report.curve.classifier}; {report.curve.method}", style="dim")]
    foot = (
        f"{report.confidence:.0%} intervals: bootstrap over groups (host, near copies), {report.resamples:,} resamples"
    )
    return Group(*parts, Text(), Text(foot, style="dim"))


def _narrow(estimate: Estimate) -> str:
    """An estimate in at most 16 characters: 0.87 [.85,.90]."""

    def bare(value: float) -> str:
        text = f"{value:.2f}"
        return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0") else f"{value:.1f}"

    return (
        "-" if estimate.value is None else f"{estimate.value:.2f} {estimate.shown(bare, between=',').partition(' ')[2]}"
    )


def _judges(report: AgreementReport) -> Table:
    low, high = report.scale
    scores = range(low, high + 1) if high - low < 8 else range(0)
    table = make_table("judges", "", "answers", *map(str, scores), "mean", "kept")
    for judge in report.judges:
        counts = (f"{judge.scores.get(score, 0) / max(judge.documents, 1):.0%}" for score in scores)
        mean = "-" if judge.mean.value is None else f"{judge.mean.value:.2f}"
        kept = "-" if judge.kept_share.value is None else f"{judge.kept_share.value:.1%}"
        table.add_row(Text(printable(judge.name, _NAME)), f"{judge.answers:,}", *counts, mean, kept)
    return table


def _remarks(report: AgreementReport) -> list[Text]:
    """What is odd in single judges: severity, pages cut, answers missing."""
    severities, rest = [], []
    for judge in report.judges:
        name = printable(judge.name, _NAME)
        if judge.severity is not None:
            severities.append(Text(f"severity of {name}: {judge.severity.shown('{:+.2f}'.format)} (below 0: strict)"))
        if judge.text_cut:
            rest.append(Text(f"{name}: of {judge.text_cut:,} pages it was shown a part only"))
        for what, causes in (("unreadable answers", judge.rejected), ("requests without an answer", judge.failed)):
            if causes:
                named = ", ".join(f"{count:,} {printable(cause, 30)}" for cause, count in causes.items())
                rest.append(Text(f"{name}: {sum(causes.values()):,} {what}: {named}", style="yellow"))
    return severities + rest


def _coefficients(title: str, rows: Iterable[Coefficients]) -> list[Text]:
    """A line for who, and one for how far: four coefficients leave no room for names."""
    names = "".join(f"{name:>17}" for name in COEFFICIENTS.values())
    lines = [Text(title, style="bold"), Text(f"{'pages':>7}{names}")]
    for row in rows:
        lines.append(Text(" and ".join(printable(part, 37) for part in row.name.split(" and "))))
        values = "".join(f"{_narrow(row.coefficients[name]):>17}" for name in COEFFICIENTS)
        lines.append(Text(f"{row.documents:>7,}{values}"))
        if row.bound is not None:
            lines.append(Text(f"        correlation with one rating, at most: {_narrow(row.bound)}, the root of alpha"))
    return lines


def _attributes(report: AgreementReport) -> Table:
    """Each attribute: all judges, one pair, or the repeats of one judge."""
    table = make_table("attributes", "", "pages", "mean", "alpha", "F1 kept")
    for part in report.attributes:
        pooled = part.overall or next(iter((*part.between, *part.within)), None)
        mean = "-" if part.mean.value is None else f"{part.mean.value:.2f}"
        count = f"{pooled.documents:,}" if pooled else "-"
        values = (_narrow(pooled.coefficients[measure]) if pooled else "-" for measure in ("alpha", "f1"))
        table.add_row(Text(printable(part.name, 26)), count, mean, *values)
    return table


def _slices(report: AgreementReport) -> Table:
    table = make_table("within slices", "", "pages", "kept", "alpha", "F1 kept")
    shown: Counter[str] = Counter()
    for part in report.slices:
        shown[part.facet] += 1
        if shown[part.facet] <= SLICES:
            name = Text(printable(f"{part.facet}: {part.name}", 26))
            values = (_narrow(part.coefficients[measure]) for measure in ("alpha", "f1"))
            table.add_row(name, f"{part.documents:,}", f"{part.kept_share:.0%}", *values)
    return table


def _consensus(report: AgreementReport) -> list[Text]:
    found, whole = report.consensus, report.population
    lines = [f"model: {found.model}", f"kept of {found.documents:,} pages: {found.kept_share.shown()}"]
    if found.noise is None or found.error is None or found.undecided_share is None:
        lines.append(f"its uncertainty is unknown ({found.source})")
    else:
        lines.append(
            f"noise of a rating {found.noise:.2f} (from {found.source}); standard error of a page {found.error:.2f}; "
            f"{found.undecided_share:.1%} of the pages may lie on either side of the keep rule"
        )
    if whole is not None:
        lines.append(
            f"of all {whole.size:,} documents the sample was drawn from ({whole.design}), kept: "
            f"{whole.kept_share.shown()}, mean score {_narrow(whole.mean)}"
        )
    return [Text("consensus", style="bold"), *map(Text, lines)]
