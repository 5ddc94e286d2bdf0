"""The evaluation report in a terminal, at 80 columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from filters.evaluate.report_schema import Report
from filters.statistics.agreement import correlation_bound
from filters.statistics.bootstrap import Estimate
from filters.terminal import printable
from filters.train.evaluation import COMPARED
from filters.train.slices import OTHER, Slice

LABELS = {
    "precision": "precision of the kept",
    "recall": "recall of the kept",
    "f1": "F1 of the kept",
    "best_f1": "best F1 of the kept",
    "best_threshold": "at threshold",
    "pr_auc": "PR-AUC of the kept",
    "roc_auc": "ROC-AUC",
    "spearman": "Spearman",
    "qwk": "QWK",
    "mae": "mean absolute error",
    "calibration_error": "calibration error",
    "kept_share": "share kept",
    "judge_kept_share": "share the judge keeps",
}
_WEAKEST = 3
_NAME = 12  # beside three estimates, two of them with signs


def heading(report: Report) -> str:
    """What was measured against what, in a sentence."""
    source, subject = report.annotations, report.subject
    return (
        f"{printable(subject.name, 60)} ({subject.kind}) against {printable(source.name, 80)}: {source.rows:,} "
        f"texts in {source.groups:,} group{'s' * (source.groups != 1)}, kept at {report.min_score:.4g}"
    )


def protocol(report: Report) -> str:
    """How the scores came about, and what that means for the numbers."""
    if report.protocol == "cross-validated":
        return (
            f"Cross-validated ({report.predictions} repetition{'s' if report.predictions > 1 else ''}): every page was "
            "scored by models that have not seen it, nor a page of its host, nor a near copy."
        )
    if report.annotations.seen is None:
        return (
            "Scored by the finished model. Which texts it was trained on its folder does not say: if some are among "
            "these, the numbers are too good."
        )
    left_out = f" {report.annotations.seen:,} others are left out." if report.annotations.seen else ""
    return f"Scored by the finished model, which was trained on none of these texts, nor on near copies.{left_out}"


def report_view(report: Report) -> RenderableType:
    """Every part of the report that fits a terminal; slices only in short."""
    parts: list[RenderableType] = [
        Text(heading(report), style="bold"),
        Text(protocol(report), style="bold red" if report.annotations.seen is None else ""),
        *(Text(f"note: {printable(note, 400)}") for note in report.notes),
        Text(),
        _metrics(report),
        Text(),
        _yardsticks(report),
        Text(),
        _facets(report),
    ]
    for part in (_comparison(report), _probes(report), _conformal(report)):
        if part is not None:
            parts += [Text(), part]
    foot = f"{report.confidence:.0%} intervals: bootstrap over groups, {report.resamples:,} resamples"
    if report.annotations.groups == 1:
        foot = "no intervals: the texts are one group (a host, or near copies), and a bootstrap draws whole groups"
    return Group(*parts, Text(), Text(foot, style="dim"))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1))
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table


def _metrics(report: Report) -> Table:
    columns = ["metric", "sample"] + (["natural mix"] if report.natural else [])
    table = _table("agreement with the judge", *columns)
    for name, label in LABELS.items():
        parts = [part for part in (report.sample, report.natural) if part]
        table.add_row(label, *(str(part[name]) for part in parts))
    return table


def _yardsticks(report: Report) -> RenderableType:
    """The model between what it must beat and the judge's second rating."""
    table = _table("between chance and the judge", "", "F1", "PR-AUC", "Spearman")
    rows = [(baseline.name, baseline.metrics) for baseline in report.baselines]
    rows.append((report.subject.name, report.sample))
    if report.judge is not None:
        rows.append(("judge again", report.judge.metrics))
    for name, metrics in rows:
        style = "bold" if metrics is report.sample else None
        label = Text(printable(name, _NAME))
        table.add_row(label, *(str(metrics[metric]) for metric in ("f1", "pr_auc", "spearman")), style=style)
    if report.judge is None:
        return table
    bound = _short(correlation_bound(report.judge.metrics["spearman"]))
    foot = (
        f"judge again: {report.judge.rows:,} texts rated twice ({report.judge.source}); both ratings are noisy, and a "
        f"model can reach a Spearman of about {bound}, the square root"
    )
    return Group(table, Text(foot, style="dim"))


def _facets(report: Report) -> Table:
    table = _table("within slices", "slices of", "Spearman within", "PR-AUC within", "lowest Spearman")
    for facet in report.facets:
        # Sorted by the upper end, so that a small slice is not called weak for its noise.
        known = [part for part in facet.slices if _high(part) is not None and part.name != OTHER]
        known.sort(key=lambda part: _high(part) or 0.0)
        weakest = [f"{printable(part.name, 17)} {_short(part.metrics['spearman'])}" for part in known[:_WEAKEST]]
        for number, line in enumerate(weakest or [""]):
            first = (facet.facet, str(facet.within_spearman), str(facet.within_pr_auc)) if number == 0 else ("", "", "")
            table.add_row(*first, Text(line))
    return table


def _high(part: Slice) -> float | None:
    return part.metrics["spearman"].high


def _short(estimate: Estimate) -> str:
    return "-" if estimate.value is None else f"{estimate.value:.2f}"


def _comparison(report: Report) -> Table | None:
    if report.comparison is None:
        return None
    other = printable(report.comparison.subject.name, 30)
    table = _table(f"against {other}, on the same resamples", "", "model", "other", "difference", "model wins")
    for name in COMPARED:
        row = report.comparison.metrics[name]
        first, second = ("-" if value is None else f"{value:.3f}" for value in (row.first, row.second))
        table.add_row(LABELS[name], first, second, signed(row.difference), f"{row.wins:.1%}")
    return table


def signed(estimate: Estimate) -> str:
    """An estimate of a difference."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "undefined"
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def percent(estimate: Estimate) -> str:
    """An estimate of a share."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def _probes(report: Report) -> Group | None:
    if report.probes is None:
        return None
    table = _table("decisions that flip", "probe", "flips", "near threshold", "gained", "lost", "shift")
    for result in report.probes:
        shift = "-" if result.shift.value is None else f"{result.shift.value:+.2f}"
        table.add_row(
            ("! " if result.above_reference else "  ") + result.probe,
            percent(result.flips),
            percent(result.near),
            f"{result.gained:.1%}",
            f"{result.lost:.1%}",
            shift,
        )
    foot = (
        f"! above {report.probe_reference:.0%}, what a style rewrite flips in the FineWeb-Edu classifier; "
        f"near: within {report.probe_near:g} of the threshold"
    )
    return Group(table, Text(foot, style="dim"))


def _conformal(report: Report) -> Table | None:
    if not report.conformal:
        return None
    table = _table(
        "conformal bands on unseen hosts", "asked", "coverage", "width", "keep", "undecided", "drop", "wrong keeps"
    )
    for row in report.conformal:
        wrong = "-" if row.wrong_keep.value is None else f"{row.wrong_keep.value:.1%}"
        table.add_row(
            f"{1 - row.alpha:.0%}",
            percent(row.coverage),
            f"{row.width:.2f}",
            f"{row.keep:.1%}",
            f"{row.undecided:.1%}",
            f"{row.drop:.1%}",
            wrong,
        )
    return table
