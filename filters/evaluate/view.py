"""An evaluation report to look at: as tables in a terminal of 80 columns, and with charts as a page of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from filters.evaluate.report import Report
from filters.evaluate.slices import OTHER, Facet
from filters.page import ASSETS, make_page, publish_page
from filters.statistics.agreement import correlation_bound
from filters.statistics.resampling import Estimate
from filters.terminal import make_table, printable
from filters.train.evaluation import COMPARED

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
LEAST = 5
"""Pages of a bin that the reliability diagram shows."""
_BARS = 24
_WEAKEST = 3
_BAR = '<div class="bar"><nav aria-label="Sections" id="nav"></nav></div>'

Rows = Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        bold: number of the row of the model itself; -1: none.
        terminal: numbers of the columns that a terminal has room for; none: the page alone has the table.
        width: most characters of a name in a terminal.
        foot: what must be known to read it.
        fold: on the page it opens under these words.
        text: numbers of the columns of the page that hold sentences.
    """

    columns: tuple[str, ...]
    rows: Rows
    bold: int = -1
    terminal: tuple[int, ...] = ()
    width: int = 40
    foot: str = ""
    fold: str = ""
    text: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Part:
    """A part of a report: a title, tables, and what only the page shows: a lead and charts (see `plots.js`)."""

    title: str
    tables: Sequence[Table]
    lead: str = ""
    charts: Sequence[dict[str, Any]] = ()


def report_view(report: Report) -> RenderableType:
    """What of a report fits a terminal; slices only in short."""
    parts: list[RenderableType] = [
        Text(heading(report), style="bold"),
        Text(protocol(report), style="bold red" if report.annotations.seen is None else ""),
        *(Text(f"note: {printable(note, 400)}") for note in report.notes),
    ]
    for part in _parts(report):
        for table in (table for table in part.tables if table.terminal):
            shown = make_table(part.title, *(table.columns[place] for place in table.terminal))
            shown.padding = (0, 1, 0, 0)
            for number, row in enumerate(table.rows):
                cells = [row[place] for place in table.terminal]
                style = "bold" if number == table.bold else None
                shown.add_row(Text(printable(cells[0], table.width)), *map(Text, cells[1:]), style=style)
            parts += [Text(), shown, *([Text(table.foot, style="dim")] if table.foot else [])]
    foot = f"{report.confidence:.0%} intervals: bootstrap over groups, {report.resamples:,} resamples"
    if report.annotations.groups == 1:
        foot = "no intervals: the texts are one group (a host, or near copies), and a bootstrap draws whole groups"
    return Group(*parts, Text(), Text(foot, style="dim"))


def page(report: Report) -> bytes:
    """The report as a page that holds everything it shows."""
    sections = [
        {
            "id": f"part-{number}",
            "title": part.title[0].upper() + part.title[1:],
            "lead": part.lead,
            "banner": None if number else {"alarm": report.annotations.seen is None, "text": protocol(report)},
            "notes": [] if number else [printable(note, 400) for note in report.notes],
            "tables": [
                {
                    "columns": table.columns,
                    "rows": table.rows,
                    "now": table.bold,
                    "text": table.text,
                    "foot": table.foot,
                    "fold": table.fold,
                }
                for table in part.tables
            ],
            "charts": part.charts,
        }
        for number, part in enumerate(_parts(report))
    ]
    data = {
        "format": "finesieve-evaluation-page",
        "version": 1,
        "finesieve": report.finesieve,
        "name": printable(report.subject.name, 60),
        "subtitle": heading(report),
        "threshold": report.min_score,
        "sections": sections,
    }
    return make_page(f"{data['name']}: evaluation", data, [ASSETS / "report.js"], bar=_BAR, skip="part-0")


def write_page(report: Report, path: Path) -> None:
    """Write the page of a report, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    publish_page(path, page(report))


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


def charts_of(report: Report) -> list[dict[str, Any]]:
    """Reliability, precision and recall, and the scores by the judge's decision, as charts of a page."""
    bins = [
        {"rows": part.rows, "score": part.score, "judge": judge.value, "low": judge.low, "high": judge.high}
        for part in report.reliability
        if part.rows >= LEAST and None not in ((judge := part.judge).value, judge.low, judge.high)
    ]
    points = [[point.threshold, round(point.precision, 4), round(point.recall, 4)] for point in report.curve]
    used = [number for number, part in enumerate(report.histogram) if part.judge_keeps or part.judge_drops]
    rows = [[part.low, part.judge_keeps, part.judge_drops] for part in report.histogram[: max(used, default=0) + 1]]
    return [chart("reliability", bins), chart("curve", points), chart("decisions", rows)]


def chart(kind: str, data: Any) -> dict[str, Any]:
    """A chart of scores beside labels, with its caption."""
    caption = {
        "reliability": "Calibration: pages with about the same score. On the dashed line a score means what the judge "
        "says; bars are intervals.",
        "agreement": "The judge's score (across) and the model's (up); the stronger the colour, the more pages. The "
        "line is the threshold.",
        "curve": "Precision and recall of the kept class on labelled pages, at every threshold; the dot is the "
        "threshold.",
        "decisions": "Labelled pages by the model's score: coloured is what the judge keeps, grey what it drops.",
    }[kind]
    return {"kind": kind, "caption": caption, "data": data}


def _parts(report: Report) -> list[Part]:
    some = (_comparison(report), _probes(report), _conformal(report), _examples(report))
    return [_metrics(report), _yardsticks(report), _slices(report), *filter(None, some), _provenance(report)]


def _metrics(report: Report) -> Part:
    parts = [part for part in (report.sample, report.natural) if part]
    rows = [(label, *(str(part[name]) for part in parts)) for name, label in LABELS.items()]
    cells = report.confusion
    confusion = Table(
        ("pages", "model keeps", "model drops"),
        [
            ("judge keeps", f"{cells.kept_rightly:,.0f}", f"{cells.missed:,.0f}"),
            ("judge drops", f"{cells.kept_wrongly:,.0f}", f"{cells.dropped_rightly:,.0f}"),
        ],
    )
    metrics = Table(("metric", "sample", "natural mix")[: len(parts) + 1], rows, terminal=tuple(range(len(parts) + 1)))
    return Part("agreement with the judge", [metrics, confusion], charts=charts_of(report))


def _yardsticks(report: Report) -> Part:
    """The model between what it must beat and the judge's second rating."""
    measured = [(part.name, part.metrics) for part in report.baselines]
    measured.append((printable(report.subject.name, 40), report.sample))
    if report.judge is None:
        foot = "the annotations hold no second ratings: the judge's agreement with itself is unknown"
    else:
        measured.append(("judge again", report.judge.metrics))
        bound = correlation_bound(report.judge.metrics["spearman"]).value
        foot = (
            f"judge again: {report.judge.rows:,} texts rated twice ({printable(report.judge.source, 60)}); both "
            f"ratings are noisy, and a model can reach a Spearman of about {'-' if bound is None else f'{bound:.2f}'}, "
            "the square root"
        )
    names = ("f1", "pr_auc", "spearman", "best_f1")
    rows = [(name, *(str(metrics[metric]) for metric in names)) for name, metrics in measured]
    columns = ("", "F1", "PR-AUC", "Spearman", "best F1")
    meanings = "; ".join(f"{part.name}: {part.meaning}" for part in report.baselines)
    return Part(
        "between chance and the judge",
        [Table(columns, rows, bold=len(report.baselines), terminal=(0, 1, 2, 3), width=12, foot=foot)],
        lead=f"{meanings}. Baselines are put on the judge's scale with these very labels, which favours them.",
    )


def _comparison(report: Report) -> Part | None:
    if report.comparison is None:
        return None
    rows = []
    for name in COMPARED:
        row = report.comparison.metrics[name]
        first, second = ("-" if value is None else f"{value:.3f}" for value in (row.first, row.second))
        difference = row.difference.shown("{:+.3f}".format, "undefined")
        rows.append((LABELS[name], first, second, difference, f"{row.wins:.1%}"))
    columns = ("", "model", "other", "difference", "model wins")
    title = f"against {printable(report.comparison.subject.name, 30)}, on the same resamples"
    lead = "Paired bootstrap over groups. Ties count half."
    return Part(title, [Table(columns, rows, terminal=(0, 1, 2, 3, 4))], lead=lead)


def _slices(report: Report) -> Part:
    short: list[tuple[str, ...]] = []
    tables, charts = [], []
    for facet in report.facets:
        average = (facet.facet, str(facet.within_spearman), str(facet.within_pr_auc))
        for number, weak in enumerate(_weakest(facet) or [""]):
            short.append((*(("", "", "") if number else average), weak))
        rows = [
            (
                printable(part.name, 40),
                f"{part.rows:,}",
                f"{part.judge_kept_share:.1%}",
                f"{part.kept_share:.1%}",
                *(str(part.metrics[name]) for name in ("f1", "pr_auc", "spearman")),
            )
            for part in facet.slices
        ]
        columns = (facet.facet, "pages", "judge keeps", "model keeps", "F1", "PR-AUC", "Spearman")
        tables.append(Table(columns, rows, fold=f"All slices by {facet.facet}"))
        bars = [
            (f"{printable(part.name, 28)} ({part.rows})", ends)
            for part in facet.slices
            if (ends := _ends(part.metrics["spearman"])) is not None
        ]
        if facet.facet != "length":
            bars.sort(key=lambda bar: bar[1][0], reverse=True)
        overall = report.sample["spearman"].value
        about = {"label": "Spearman within the slice", "reference": overall, "format": ".1f"}
        caption = f"By {facet.facet} (number of pages). The line is Spearman over all pages."
        charts.append({"kind": "intervals", "caption": caption, "data": {"rows": bars[:_BARS], **about}})
    first = Table(
        ("slices of", "Spearman within", "PR-AUC within", "lowest Spearman"), short, terminal=(0, 1, 2, 3), text=(0, 3)
    )
    lead = (
        "A filter that only recognises topics ranks well over all pages and not at all within a topic. Averages are "
        "over slices, weighted by pages (PR-AUC: by pages the judge keeps)."
    )
    return Part("within slices", [first, *tables], lead=lead, charts=charts)


def _weakest(facet: Facet) -> list[str]:
    """Slices that rank worst, by the upper end, so that a small slice is not called weak for its noise."""
    known = [(part.metrics["spearman"].high, part) for part in facet.slices if part.name != OTHER]
    ordered = sorted(((high, part) for high, part in known if high is not None), key=lambda pair: pair[0])
    return [f"{printable(part.name, 17)} {part.metrics['spearman'].value or 0:.2f}" for _, part in ordered[:_WEAKEST]]


def _ends(estimate: Estimate) -> tuple[float, float, float] | None:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return None
    return estimate.value, estimate.low, estimate.high


def _probes(report: Report) -> Part | None:
    if report.probes is None:
        return None
    rows = [
        (
            f"{'! ' if result.above_reference else '  '}{result.probe}",
            result.flips.shown(),
            result.near.shown(),
            f"{result.gained:.1%}",
            f"{result.lost:.1%}",
            "-" if result.shift.value is None else f"{result.shift.value:+.2f}",
            result.natural.shown() if result.natural else "-",
            result.meaning,
        )
        for result in report.probes
    ]
    columns = ("probe", "flips", "near threshold", "gained", "lost", "shift", "natural mix", "what is changed")
    foot = (
        f"! above {report.probe_reference:.0%}, what a style rewrite flips in the FineWeb-Edu classifier "
        f"(arXiv 2605.23721); near: within {report.probe_near:g} of the threshold"
    )
    bars = [[result.probe, *filter(None, map(_ends, (result.flips, result.near)))] for result in report.probes]
    caption = "Decisions that flip, of all pages and (grey) near the threshold. The line is a style rewrite's share."
    about = {"label": "decisions that flip", "reference": report.probe_reference, "format": ".0%"}
    lead = "Share of keep/drop decisions that flip when a page says the same and looks different."
    return Part(
        "robustness: decisions that flip",
        [Table(columns, rows, terminal=(0, 1, 2, 3, 4, 5), foot=foot, text=(0, 7))],
        lead=lead,
        charts=[{"kind": "intervals", "caption": caption, "data": {"rows": bars, **about}}],
    )


def _conformal(report: Report) -> Part | None:
    if not report.conformal:
        return None
    rows = [
        (
            f"{1 - row.alpha:.0%}",
            row.coverage.shown(),
            f"{row.width:.2f}",
            f"{row.keep:.1%}",
            f"{row.undecided:.1%}",
            f"{row.drop:.1%}",
            "-" if row.wrong_keep.value is None else f"{row.wrong_keep.value:.1%}",
            row.wrong_drop.shown(),
        )
        for row in report.conformal
    ]
    columns = ("asked", "coverage", "width", "keep", "undecided", "drop", "wrong keeps", "wrong drops")
    lines = [
        {"asked": 1 - row.alpha, "points": [[(part.low + part.high) / 2, part.coverage] for part in row.bins]}
        for row in report.conformal
    ]
    caption = "Coverage by score; dashed: what was asked for."
    lead = (
        "Split-conformal bands round each score, with quantiles per bin of the score from other hosts. A page whose "
        "whole band lies on one side of the threshold is decided."
    )
    return Part(
        "conformal bands on unseen hosts",
        [Table(columns, rows, terminal=(0, 1, 2, 3, 4, 5, 6))],
        lead=lead,
        charts=[{"kind": "coverage", "caption": caption, "data": lines}],
    )


def _examples(report: Report) -> Part | None:
    rows = [(part.side, f"{part.score:.2f}", f"{part.judge:.1f}", part.excerpt) for part in report.examples]
    columns = ("at the keep rule", "model", "judge", "the page begins")
    return Part("largest disagreements", [Table(columns, rows, text=(0, 3))]) if rows else None


def _provenance(report: Report) -> Part:
    rows = [
        ("finesieve", report.finesieve),
        ("schema", f"{report.format} {report.version}"),
        ("model digest", report.subject.digest),
        ("annotations", printable(report.annotations.name, 80)),
        ("annotations sha256", report.annotations.sha256),
        ("compared with column", report.annotations.target),
        ("intervals", f"{report.confidence:.0%}, bootstrap over groups, {report.resamples:,} resamples"),
        ("random_state", str(report.random_state)),
    ]
    return Part("provenance", [Table(("", ""), rows, text=(0, 1))])
