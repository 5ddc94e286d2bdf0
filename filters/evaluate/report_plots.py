"""Plots of the evaluation report as inline SVG: no scripts, no fonts to load, colours from the page's CSS variables."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from filters.errors import MissingExtraError
from filters.evaluate.report_schema import Report
from filters.terminal import printable
from filters.train.slices import Facet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# matplotlib writes these colours into the SVG, where they become the page's variables: one SVG for light and dark.
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--grid)",
    "#040404": "var(--model)",
    "#050505": "var(--other)",
    "#060606": "var(--alarm)",
}
INK, MUTED, GRID, MODEL, OTHER, ALARM = _COLOURS
_WIDTH = 6.4
_BARS = 24
_MIN_PAGES = 5


def plots(report: Report) -> dict[str, str]:
    """Name -> SVG element, in the order of the page; those that the report has no data for are left out.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    drawn: dict[str, str] = {}

    def add(name: str, height: float, draw: Callable[[Axes, Report], None]) -> None:
        drawn[name] = _svg(name, height, lambda axes: draw(axes, report))

    add("reliability", 4.2, _reliability)
    add("curve", 4.2, _curve)
    add("histogram", 3.2, _histogram)
    for facet in report.facets:
        bars = min(len(facet.slices), _BARS)
        drawn[f"slices {facet.facet}"] = _svg(
            f"slices-{facet.facet}", 1.0 + 0.24 * bars, partial(_slices, report, facet)
        )
    if report.probes:
        add("probes", 1.2 + 0.34 * len(report.probes), _probes)
    if report.conformal:
        add("conformal", 3.2, _conformal)
    return drawn


def _svg(name: str, height: float, draw: Callable[[Axes], None]) -> str:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("evaluate --html", "plots", str(error)) from error
    options: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.size": 9,
        "text.parse_math": False,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.titlesize": 10,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "legend.labelcolor": INK,
    }
    # rc_context and a Figure of its own: no global state, no window system.
    with matplotlib.rc_context(options), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name in a script that the font lacks is measured as boxes
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _embed(name, buffer.getvalue())


def _embed(name: str, document: str) -> str:
    """The svg element, with ids of its own and colours that follow the page."""
    element = document[document.index("<svg ") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    prefix = re.sub(r"[^a-z0-9]", "-", name.lower())
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", element)
    for colour, variable in _COLOURS.items():
        element = element.replace(colour, variable)
    return re.sub(
        r'(<svg [^>]*?)\s(?:width|height)="[^"]*"(.*?)\s(?:width|height)="[^"]*"', r'\1\2 role="img"', element, count=1
    )


def _reliability(axes: Axes, report: Report) -> None:
    bins = [part for part in report.reliability if part.rows >= _MIN_PAGES]
    x, y = [part.score for part in bins], [part.judge.value or 0.0 for part in bins]
    low = [value - (part.judge.low or 0.0) for value, part in zip(y, bins, strict=True)]
    high = [(part.judge.high or 0.0) - value for value, part in zip(y, bins, strict=True)]
    top = min(max([*x, *(part.judge.high or 0.0 for part in bins), report.min_score]) * 1.04, 5.0)
    axes.plot([0, top], [0, top], color=MUTED, linewidth=1, linestyle="--", label="perfect")
    axes.errorbar(
        x, y, yerr=[low, high], fmt="o", markersize=4, color=MODEL, elinewidth=1.2, capsize=2, label="bins of pages"
    )
    _threshold(axes, report)
    axes.set(xlabel="model's score", ylabel="judge's mean score", xlim=(0, top), ylim=(0, top))
    axes.legend(loc="upper left")


def _threshold(axes: Axes, report: Report) -> None:
    axes.axvline(report.min_score, color=ALARM, linewidth=1, linestyle=":", label=f"kept from {report.min_score:.4g}")


def _curve(axes: Axes, report: Report) -> None:
    axes.plot(
        [point.recall for point in report.curve], [point.precision for point in report.curve], color=MODEL, linewidth=2
    )
    share = report.sample["judge_kept_share"].value
    if share is not None:
        axes.axhline(share, color=MUTED, linewidth=1, linestyle="--", label="chance")
    precision, recall = report.sample["precision"].value, report.sample["recall"].value
    if precision is not None and recall is not None:
        axes.plot([recall], [precision], "o", color=ALARM, label="keep rule")
    if report.judge is not None:
        again = report.judge.metrics
        if again["precision"].value is not None and again["recall"].value is not None:
            axes.plot([again["recall"].value], [again["precision"].value], "D", color=OTHER, label="judge again")
    axes.set(xlabel="recall of the kept class", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.03))
    axes.legend(loc="lower left")


def _histogram(axes: Axes, report: Report) -> None:
    lows = [part.low for part in report.histogram]
    width = lows[1] - lows[0]
    drops, keeps = [part.judge_drops for part in report.histogram], [part.judge_keeps for part in report.histogram]
    axes.bar(lows, drops, width=width * 0.92, align="edge", color=OTHER, label="judge drops")
    axes.bar(lows, keeps, width=width * 0.92, align="edge", bottom=drops, color=MODEL, label="judge keeps")
    _threshold(axes, report)
    axes.set(xlabel="model's score", ylabel="pages", xlim=(0, 5))
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper right")


def _slices(report: Report, facet: Facet, axes: Axes) -> None:
    known = [part for part in facet.slices if part.metrics["spearman"].value is not None]
    if facet.facet != "length":
        known.sort(key=lambda part: part.metrics["spearman"].value or 0.0, reverse=True)
    known = known[:_BARS][::-1]
    values = [part.metrics["spearman"].value or 0.0 for part in known]
    low = [value - (part.metrics["spearman"].low or 0.0) for value, part in zip(values, known, strict=True)]
    high = [(part.metrics["spearman"].high or 0.0) - value for value, part in zip(values, known, strict=True)]
    axes.barh(range(len(known)), values, height=0.7, color=MODEL)
    axes.errorbar(values, range(len(known)), xerr=[low, high], fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    overall = report.sample["spearman"].value
    if overall is not None:
        axes.axvline(overall, color=ALARM, linewidth=1, linestyle=":", label="over all pages")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.set_yticks(range(len(known)), [f"{printable(part.name, 28)} ({part.rows})" for part in known])
    axes.set(xlabel="Spearman within the slice", ylim=(-0.6, len(known) - 0.4))
    axes.grid(axis="y", visible=False)


def _probes(axes: Axes, report: Report) -> None:
    results = list(report.probes or ())[::-1]
    near = f"within {report.probe_near:g} of the threshold"
    for offset, colour, label, estimates in (
        (0.2, MODEL, "all pages", [result.flips for result in results]),
        (-0.2, OTHER, near, [result.near for result in results]),
    ):
        values = [100 * (estimate.value or 0.0) for estimate in estimates]
        low = [value - 100 * (estimate.low or 0.0) for value, estimate in zip(values, estimates, strict=True)]
        high = [100 * (estimate.high or 0.0) - value for value, estimate in zip(values, estimates, strict=True)]
        places = [number + offset for number in range(len(results))]
        axes.barh(places, values, height=0.36, color=colour, label=label)
        axes.errorbar(values, places, xerr=[low, high], fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    reference = 100 * report.probe_reference
    axes.axvline(reference, color=ALARM, linewidth=1, linestyle=":", label=f"{reference:g} % (FineWeb-Edu, restyled)")
    axes.set_yticks(range(len(results)), [result.probe for result in results])
    axes.set(xlabel="decisions that flip, %")
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8)


def _conformal(axes: Axes, report: Report) -> None:
    """Coverage by bins of the score at each error rate; the dotted lines are what was asked for."""
    for row, colour in zip(report.conformal, (MODEL, OTHER, INK, MUTED), strict=False):
        centres = [(part.low + part.high) / 2 for part in row.bins]
        axes.plot(centres, [100 * part.coverage for part in row.bins], "o-", markersize=4, color=colour, linewidth=1.2)
        axes.axhline(100 * (1 - row.alpha), color=colour, linewidth=1, linestyle=":")
    axes.set(xlabel="model's score", ylabel="judge inside the band, %")
