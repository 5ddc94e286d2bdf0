"""Progress of a run, live on a terminal, as a line now and then when piped: rate, money, time left, scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from filters.annotate.budget import Budget
from filters.annotate.judge import Judge
from filters.annotate.tally import Tally
from filters.terminal import printable

PLAIN_SECONDS = 10.0
"""Seconds between plain lines."""
_BARS = " ▁▂▃▄▅▆▇█"


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
    unicode = console.encoding.startswith("utf")
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda: live.update(view(judges, budget, unicode=unicode), refresh=True)


def view(judges: Sequence[Judge], budget: Budget, *, unicode: bool = True) -> RenderableType:
    """Two lines for each judge."""
    lines: list[Text] = []
    for judge in judges:
        lines.append(Text(line(judge, budget), no_wrap=True, overflow="ellipsis"))
        shown = score_bars(judge.tally, judge.rubric.scale.values, unicode=unicode)
        lines.append(Text(f"  {shown}  {_trouble(judge)}".rstrip(), style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*lines)


def line(judge: Judge, budget: Budget) -> str:
    """How far a judge is: "judge 120/200, 35 docs/s, 0.42 of 5.00 spent, 3 s left"."""
    tally, caps = judge.tally, budget.config
    pace = tally.seconds_per_answer
    parts = [f"{printable(judge.config.name, 24)} {tally.before + tally.answered:,}/{tally.wanted:,}"]
    if pace:
        rate = 1 / pace / judge.repeats
        parts.append(f"{rate:,.0f} docs/s" if rate >= 10 else f"{rate:.2g} docs/s")
    if judge.config.price.input or judge.config.price.output:
        cap = "" if caps.max_money is None else f" of {caps.max_money:,.2f}"
        parts.append(f"{budget.spent.cost:,.2f}{cap} spent")
    else:
        cap = "" if caps.max_tokens is None else f" of {caps.max_tokens:,}"
        parts.append(f"{budget.spent.tokens_in + budget.spent.tokens_out:,}{cap} tokens")
    if pace and tally.left:
        parts.append(f"{timedelta(seconds=round(tally.left * pace))} left")
    return ", ".join(parts)


def score_bars(tally: Tally, values: range, *, unicode: bool = True) -> str:
    """The scores so far, a bar each ("0▂ 1█ 2▅ 3▁"), or their shares without `unicode` or on a long scale."""
    top, total = max(tally.scores.values(), default=0), tally.scores.total()
    if not top:
        return ""
    if len(values) > 11:
        mean = sum(score * count for score, count in tally.scores.items()) / total
        return f"mean score {mean:.1f}"
    if not unicode:
        return " ".join(f"{value}:{tally.scores[value] / total:.0%}" for value in values)
    return " ".join(f"{value}{_BARS[-(-tally.scores[value] * 8 // top)]}" for value in values)


def _trouble(judge: Judge) -> str:
    tally, parts = judge.tally, [f"{judge.endpoints.in_flight} of {judge.endpoints.limit} in flight"]
    parts += [f"{tally.rejected.total():,} rejected"] if tally.rejected else []
    parts += [f"{tally.failed.total():,} failed"] if tally.failed else []
    parts += [f"{tally.retries:,} retries"] if tally.retries else []
    return ", ".join(parts)
