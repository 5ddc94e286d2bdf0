"""The agreement report in a terminal, at 80 columns."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from filters.annotate.agreement import AgreementReport, Coefficients, JudgeSummary
from filters.annotate.learning_curve import LearningCurve
from filters.statistics.bootstrap import Estimate
from filters.terminal import printable

SHOWN = {"qwk": "QWK", "alpha": "alpha", "spearman": "Spearman", "f1": "F1 kept"}
SLICES = 8
_NAME = 18


def agreement_view(report: AgreementReport) -> RenderableType:
    """Every part of the report but the ordinal alphas."""
    about = (
        f"{printable(report.source, 60)}: {report.documents:,} documents in {report.groups:,} groups, kept at "
        f"{report.cut:g}"
    )
    parts: list[RenderableType] = [Text(about, style="bold")]
    if report.rubric is not None:
        parts.append(Text(f"rubric {printable(report.rubric, 70)}"))
    parts += [Text(f"note: {printable(note, 400)}") for note in report.notes]
    parts += [Text(), _judges(report), *_severities(report.judges), *_causes(report.judges)]
    for title, rows in (
        ("a judge against itself: pairs of its repeats", report.within),
        ("judges against each other", (*report.between, *([report.overall] if report.overall else []))),
        ("judges' keep decisions against people's", report.humans),
    ):
        if rows:
            parts += [Text(), _agreement(title, rows)]
    if report.slices:
        parts += [Text(), _slices(report)]
    parts += [Text(), *_consensus(report)]
    if report.curve is not None:
        parts += [Text(), _curve(report.curve)]
    foot = (
        f"{report.confidence:.0%} intervals: bootstrap over groups (host, near copies), {report.resamples:,} resamples"
    )
    return Group(*parts, Text(), Text(foot, style="dim"))


def short(estimate: Estimate) -> str:
    """An estimate in at most 16 characters."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{estimate.value:.2f} [{_bare(estimate.low)},{_bare(estimate.high)}]"


def _bare(value: float) -> str:
    """Three characters where there is no sign: .87, 1.0."""
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0") else f"{value:.1f}"


def _percent(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table


def _judges(report: AgreementReport) -> Table:
    low, high = report.scale
    scores = range(low, high + 1) if high - low < 8 else range(0)
    table = _table("judges", "", "answers", *map(str, scores), "mean", "kept")
    for judge in report.judges:
        counts = (f"{judge.scores.get(score, 0) / max(judge.documents, 1):.0%}" for score in scores)
        mean = "-" if judge.mean.value is None else f"{judge.mean.value:.2f}"
        kept = "-" if judge.kept_share.value is None else f"{judge.kept_share.value:.1%}"
        table.add_row(Text(printable(judge.name, _NAME)), f"{judge.answers:,}", *counts, mean, kept)
    return table


def _signed(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"


def _severities(judges: Iterable[JudgeSummary]) -> list[Text]:
    return [
        Text(f"severity of {printable(judge.name, _NAME)}: {_signed(judge.severity)} (below 0: strict)")
        for judge in judges
        if judge.severity is not None
    ]


def _causes(judges: Iterable[JudgeSummary]) -> list[Text]:
    lines = []
    for judge in judges:
        if judge.text_cut:
            lines.append(Text(f"{printable(judge.name, _NAME)}: of {judge.text_cut:,} pages it was shown a part only"))
        for what, causes in (("unreadable answers", judge.rejected), ("requests without an answer", judge.failed)):
            if causes:
                named = ", ".join(f"{count:,} {printable(cause, 30)}" for cause, count in causes.items())
                lines.append(
                    Text(f"{printable(judge.name, _NAME)}: {sum(causes.values()):,} {what}: {named}", style="yellow")
                )
    return lines


def _agreement(title: str, rows: Iterable[Coefficients]) -> RenderableType:
    """A line for who, and one for how far: four coefficients leave no room for names."""
    lines = [Text(title, style="bold"), Text(f"{'pages':>7}" + "".join(f"{name:>17}" for name in SHOWN.values()))]
    for row in rows:
        lines.append(Text(" and ".join(printable(part, 37) for part in row.name.split(" and "))))
        values = (short(row.coefficients[name]) for name in SHOWN)
        lines.append(Text(f"{row.documents:>7,}" + "".join(f"{value:>17}" for value in values)))
        if row.bound is not None:
            lines.append(Text(f"        correlation with one rating, at most: {short(row.bound)}, the root of alpha"))
    return Group(*lines)


def _slices(report: AgreementReport) -> Table:
    table = _table("within slices", "", "pages", "kept", "alpha", "F1 kept")
    by_facet: dict[str, int] = {}
    for part in report.slices:
        by_facet[part.facet] = by_facet.get(part.facet, 0) + 1
        if by_facet[part.facet] > SLICES:
            continue
        name = Text(printable(f"{part.facet}: {part.name}", 26))
        values = (short(part.coefficients[measure]) for measure in ("alpha", "f1"))
        table.add_row(name, f"{part.documents:,}", f"{part.kept_share:.0%}", *values)
    return table


def _consensus(report: AgreementReport) -> list[Text]:
    found = report.consensus
    lines = [
        Text("consensus", style="bold"),
        Text(f"model: {found.model}"),
        Text(f"kept of {found.documents:,} pages: {_percent(found.kept_share)}"),
    ]
    if found.noise is None or found.error is None or found.undecided_share is None:
        lines.append(Text(f"its uncertainty is unknown ({found.source})"))
    else:
        lines.append(
            Text(
                f"noise of a rating {found.noise:.2f} (from {found.source}); standard error of a page "
                f"{found.error:.2f}; {found.undecided_share:.1%} of the pages may lie on either side of the keep rule"
            )
        )
    if report.population is not None:
        whole = report.population
        lines.append(
            Text(
                f"of all {whole.size:,} documents the sample was drawn from ({whole.design}), kept: "
                f"{_percent(whole.kept_share)}, mean score {short(whole.mean)}"
            )
        )
    return lines


def _curve(curve: LearningCurve) -> RenderableType:
    table = _table("what more labels would buy", "labels", "Spearman", "best F1 of the kept")
    for point in curve.points:
        table.add_row(f"{point.labels:,}", *(str(point.measures[name]) for name in ("spearman", "best_f1")))
    return Group(table, Text(f"{curve.classifier}; {curve.method}", style="dim"))
