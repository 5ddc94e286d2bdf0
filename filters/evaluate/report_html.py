"""The evaluation report as one HTML page: everything inline, no script, nothing loaded, all text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from filters.errors import InputError, MissingExtraError
from filters.evaluate.report_plots import plots
from filters.evaluate.report_schema import Report
from filters.evaluate.report_terminal import LABELS, heading, percent, protocol, signed
from filters.statistics.agreement import METRICS, correlation_bound
from filters.statistics.bootstrap import Estimate
from filters.storage.publish import publishing
from filters.terminal import printable
from filters.train.evaluation import COMPARED

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2330; --muted: #6a7383; --grid: #e3e6eb; --model: #2563a8;
  --other: #d9903d; --alarm: #b3261e; --soft: #f4f6f9; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171c; --ink: #e4e7ec; --muted: #98a1b0; --grid: #2c323b;
  --model: #6aa9f0; --other: #e0a458; --alarm: #ff8a80; --soft: #1c2027; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p { margin: .4rem 0; max-width: 46rem; } .muted, caption, figcaption { color: var(--muted); font-size: .87rem; }
.banner { border-left: 4px solid var(--model); background: var(--soft); padding: .6rem .9rem; margin: 1rem 0; }
.banner.alarm { border-color: var(--alarm); font-weight: 600; }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; }
.tile { background: var(--soft); padding: .7rem 1rem; min-width: 9.5rem; border-radius: .4rem; }
.tile b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th { font-weight: 600; }
th.text, td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 14rem; }
tr.model td { font-weight: 600; } .flag { color: var(--alarm); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1.5rem; }
figure { margin: .5rem 0; min-width: 0; } figure svg { width: 100%; height: auto; display: block; max-width: 44rem; }
svg text { font-family: system-ui, sans-serif !important; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--model); }
@media (max-width: 30rem) { .plots { grid-template-columns: 1fr; } }
@media print { :root { --paper: #fff; --ink: #000; --muted: #444; --grid: #ccc; --soft: #f4f4f4; --model: #2563a8;
  --other: #d9903d; --alarm: #b3261e; } body { max-width: none; padding: 0; font-size: 11px; }
  figure, table, .banner { break-inside: avoid; } h2 { break-after: avoid; } .scroll { overflow: visible; } }
"""


def check_page(path: Path) -> None:
    """Fail before the work if the page could not be written.

    Raises:
        InputError: the folder does not exist, or `path` is a folder.
        MissingExtraError: matplotlib is not installed.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"{path}: cannot write a page here. Remedy: name a file in a folder that exists")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("evaluate --html", "plots", str(error)) from error


def write_page(report: Report, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        InputError: it cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    content = page(report).encode("utf-8", "replace")
    try:
        with publishing(path) as temporary:
            temporary.write_bytes(content)
            temporary.chmod(0o644)
    except OSError as error:
        raise InputError(f"{path}: cannot write the report: {error}") from error


def page(report: Report) -> str:
    """The whole page."""
    drawn = plots(report)
    title = f"{printable(report.subject.name, 60)}: evaluation"
    sections = [
        _opening(report),
        _section("Agreement with the judge", _metrics(report), _confusion(report)),
        _section("Between chance and the judge", _yardsticks(report)),
        _comparison(report),
        _section(
            "Curves",
            f'<div class="plots">{_figure(drawn["reliability"], _RELIABILITY)}{_figure(drawn["curve"], _CURVE)}</div>',
            _figure(drawn["histogram"], "Scores of all pages, coloured by what the judge would do."),
        ),
        _slices(report, drawn),
        _probes(report, drawn),
        _conformal(report, drawn),
        _examples(report),
        _closing(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body>\n</html>\n"
    )


_RELIABILITY = (
    "Reliability: bins of pages with about the same score. On the dashed line the score means what it says; "
    "bars are intervals of the judge's mean. Bins of fewer than 5 pages are left out."
)
_CURVE = "Precision and recall of the kept class at every threshold."


def _section(title: str, *parts: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def _paragraph(text: str, style: str = "") -> str:
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], bold: int = -1) -> str:
    """A table of plain text; every cell is escaped here."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(
        ("<tr class='model'>" if number == bold else "<tr>") + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>\n"
        for number, row in enumerate(rows)
    )
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'


def _opening(report: Report) -> str:
    alarm = " alarm" if report.annotations.seen is None else ""
    tiles = "".join(
        f'<div class="tile"><span class="muted">{escape(label)}</span><b>{_value(report.sample[name])}</b>'
        f'<span class="muted">{_range(report.sample[name])}</span></div>'
        for name, label in (
            ("f1", "F1 of the kept"),
            ("pr_auc", "PR-AUC of the kept"),
            ("spearman", "Spearman"),
            ("mae", "mean absolute error"),
            ("calibration_error", "calibration error"),
        )
    )
    notes = "".join(f"<li>{escape(printable(note, 400))}</li>" for note in report.notes)
    return (
        f"<header>\n<h1>{escape(printable(report.subject.name, 60))}</h1>\n{_paragraph(heading(report), 'muted')}\n"
        f'<div class="banner{alarm}">{escape(protocol(report))}</div>\n<div class="tiles">{tiles}</div>\n'
        + (f"<ul>{notes}</ul>\n" if notes else "")
        + "</header>"
    )


def _value(estimate: Estimate) -> str:
    return "-" if estimate.value is None else f"{estimate.value:.3f}"


def _range(estimate: Estimate) -> str:
    return "" if estimate.low is None or estimate.high is None else f"{estimate.low:.3f} to {estimate.high:.3f}"


def _metrics(report: Report) -> str:
    parts = [part for part in (report.sample, report.natural) if part]
    columns = ["metric", "sample", "natural mix"][: len(parts) + 1]
    rows = [(LABELS[name], *(str(part[name]) for part in parts)) for name in METRICS]
    return _table(columns, rows)


def _confusion(report: Report) -> str:
    cells = report.confusion
    rows = [
        ("judge keeps", f"{cells.kept_rightly:,.0f}", f"{cells.missed:,.0f}"),
        ("judge drops", f"{cells.kept_wrongly:,.0f}", f"{cells.dropped_rightly:,.0f}"),
    ]
    return _paragraph("Pages at the keep rule:", "muted") + _table(("", "model keeps", "model drops"), rows)


def _yardsticks(report: Report) -> str:
    names = ("f1", "best_f1", "pr_auc", "spearman")
    rows = [(part.name, part.metrics) for part in report.baselines]
    rows.append((printable(report.subject.name, 40), report.sample))
    if report.judge is not None:
        rows.append((f"judge again ({report.judge.rows:,} texts)", report.judge.metrics))
    meanings = "; ".join(f"{part.name}: {part.meaning}" for part in report.baselines)
    if report.judge is None:
        ceiling = "The annotations hold no second ratings, so the judge's agreement with itself is unknown."
    else:
        bound = correlation_bound(report.judge.metrics["spearman"])
        ceiling = (
            f"Judge again: a second rating against the first ({printable(report.judge.source, 60)}). Both are noisy: a "
            f"model can reach a Spearman of about {_value(bound)}, the square root."
        )
    return (
        _table(
            ("", *(LABELS[name] for name in names)),
            [(name, *(str(metrics[metric]) for metric in names)) for name, metrics in rows],
            bold=len(report.baselines),
        )
        + _paragraph(
            f"{meanings}. Baselines are put on the judge's scale with these very labels, which favours them.", "muted"
        )
        + _paragraph(ceiling, "muted")
    )


def _comparison(report: Report) -> str:
    if report.comparison is None:
        return ""
    other = printable(report.comparison.subject.name, 40)
    rows = []
    for name in COMPARED:
        row = report.comparison.metrics[name]
        first, second = ("-" if value is None else f"{value:.3f}" for value in (row.first, row.second))
        rows.append((LABELS[name], first, second, signed(row.difference), f"{row.wins:.1%}"))
    columns = ("metric", printable(report.subject.name, 40), other, "difference", "share of resamples won")
    caption = "Paired bootstrap: both are measured on the same resamples of groups. Ties count half."
    return _section(f"Compared with {other}", _table(columns, rows), _paragraph(caption, "muted"))


def _slices(report: Report, drawn: dict[str, str]) -> str:
    average = _table(
        ("slices of", "Spearman within", "PR-AUC within"),
        [(facet.facet, str(facet.within_spearman), str(facet.within_pr_auc)) for facet in report.facets],
    )
    text = _paragraph(
        "A filter that only recognises topics ranks well over all pages and not at all within a topic. Averages are "
        "over slices, weighted by pages (PR-AUC: by pages the judge keeps)."
    )
    names = ("f1", "pr_auc", "spearman")
    figures, tables = [], []
    for facet in report.facets:
        figures.append(_figure(drawn[f"slices {facet.facet}"], f"By {facet.facet} (number of pages)."))
        rows = [
            (
                printable(part.name, 40),
                f"{part.rows:,}",
                f"{part.judge_kept_share:.1%}",
                f"{part.kept_share:.1%}",
                *(str(part.metrics[name]) for name in names),
            )
            for part in facet.slices
        ]
        columns = (facet.facet, "pages", "judge keeps", "model keeps", *(LABELS[name] for name in names))
        summary = f"<summary>All slices by {escape(facet.facet)}</summary>"
        tables.append(f"<details>{summary}{_table(columns, rows)}</details>")
    return _section("Slices", text, average, f'<div class="plots">{"".join(figures)}</div>', *tables)


def _probes(report: Report, drawn: dict[str, str]) -> str:
    if report.probes is None:
        return ""
    rows = "".join(
        f'<tr><td class="text">{escape(result.probe)}<br><span class="muted">{escape(result.meaning)}</span></td>'
        f"<td class='{'flag' if result.above_reference else 'fine'}'>{escape(percent(result.flips))}</td>"
        f"<td>{escape(percent(result.natural)) if result.natural else '-'}</td>"
        f"<td>{escape(percent(result.near))}</td><td>{result.gained:.1%}</td><td>{result.lost:.1%}</td>"
        f"<td>{'-' if result.shift.value is None else f'{result.shift.value:+.2f}'}</td></tr>\n"
        for result in report.probes
    )
    columns = ("probe", "flips", "natural mix", "near threshold", "gained", "lost", "mean shift")
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>'
    caption = (
        "Share of keep/drop decisions that flip when a page says the same and looks different. For comparison, a "
        f"Wikipedia-style rewrite reverses about {report.probe_reference:.0%} of the FineWeb-Edu classifier's "
        "decisions (Klimaszewski and Andruszkiewicz 2026, arXiv 2605.23721); probes above that are marked."
    )
    return _section("Robustness", _paragraph(caption), _figure(drawn["probes"], ""), table)


def _conformal(report: Report, drawn: dict[str, str]) -> str:
    if not report.conformal:
        return ""
    rows = [
        (
            f"{1 - row.alpha:.0%}",
            percent(row.coverage),
            f"{row.width:.2f}",
            f"{row.keep:.1%}",
            f"{row.undecided:.1%}",
            f"{row.drop:.1%}",
            percent(row.wrong_keep),
            percent(row.wrong_drop),
        )
        for row in report.conformal
    ]
    columns = ("asked", "coverage", "mean width", "keep", "undecided", "drop", "wrong keeps", "wrong drops")
    caption = (
        "Split-conformal bands round each score, with quantiles per bin of the score from other hosts. A page whose "
        "whole band lies on one side of the threshold is decided."
    )
    figure = _figure(drawn["conformal"], "Coverage by score; dotted: what was asked for.")
    return _section("Conformal bands on unseen hosts", _paragraph(caption), _table(columns, rows), figure)


def _examples(report: Report) -> str:
    if not report.examples:
        return ""
    rows = "".join(
        f"<tr><td>{escape(part.side)}</td><td>{part.score:.2f}</td><td>{part.judge:.1f}</td>"
        f'<td class="text">{escape(printable(part.excerpt, 160))}</td></tr>\n'
        for part in report.examples
    )
    head = "<tr><th>at the keep rule</th><th>model</th><th>judge</th><th class='text'>the page begins</th></tr>"
    return _section(
        "Largest disagreements",
        f'<div class="scroll"><table><thead>{head}</thead><tbody>\n{rows}</tbody></table></div>',
    )


def _closing(report: Report) -> str:
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
    return _section("Provenance", _table(("", ""), rows))
