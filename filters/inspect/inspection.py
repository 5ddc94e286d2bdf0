"""The findings of `finesieve inspect RUN`, as data and as views, from one pass over the side files where possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType

from filters.errors import ConfigError, ModelError, RunError
from filters.inspect import terminal
from filters.inspect.extrapolate import (
    FEWEST_FILES,
    SampleInterval,
    sample_interval,
    seen_in,
)
from filters.inspect.query import Cell, cross_table
from filters.inspect.samples import extremes
from filters.inspect.thresholds import WhatIf, thresholds, what_if
from filters.model.reliability import Reliability
from filters.scores.finished_run import Ruled, Run
from filters.scores.histogram import SlicedHistogram
from filters.scores.summary import GROUPS, Summary
from filters.scores.threshold import Solution, Target

LARGEST = 12
"""Slices that are shown."""
HOSTS = 5
MOST_FILES = 20_000
"""Input files that intervals of a sample are drawn from: half a gigabyte of histograms."""


@dataclass(frozen=True)
class Inspection:
    """A run, looked at.

    Attributes:
        run: the run.
        summary: of its side files.
        what_if: what thresholds keep.
        solution: the threshold asked for.
        estimate: how sure it is, where the run is a sample.
        slices: histograms by the column asked for.
        columns: two columns asked for.
        cells: counts by both.
        examples: how many of the best and worst documents to show.
        ruled: what the rule that was asked for keeps.
    """

    run: Run
    summary: Summary
    what_if: list[WhatIf]
    solution: Solution | None
    estimate: SampleInterval | None
    slices: SlicedHistogram | None
    columns: tuple[str, str] | None
    cells: list[Cell]
    examples: int
    ruled: Ruled | None

    @property
    def min_score(self) -> float:
        """The threshold that views mark: the one solved for, or else the run's."""
        if self.solution is None or self.solution.target.by is not None:
            return self.run.min_score
        return self.solution.threshold

    def to_json(self) -> dict[str, Any]:
        """Plain types: everything the views show, and the histograms bin by bin."""
        found: dict[str, Any] = {
            "run": str(self.run.path),
            "min_score": self.run.min_score,
            "ledger": self.run.ledger,
            "histogram": self.summary.histograms.total.to_json(),
            "what_if": [asdict(row) for row in self.what_if],
            "clusters": {str(size): count for size, count in self.summary.clusters.sizes.items()},
            "hosts": len(self.summary.groups["host"]),
        }
        if self.solution is not None:
            found["solution"] = self.solution.to_json()
        if self.ruled is not None:
            found["rule"] = self.ruled.to_json()
        if self.estimate is not None:
            found["estimate"] = asdict(self.estimate)
        if self.slices is not None:
            found["slices"] = {"by": self.slices.by, "values": self.slices.to_json()}
        if self.columns is not None:
            found["cells"] = {"by": self.columns, "values": [asdict(cell) for cell in self.cells]}
        return found

    def views(
        self, bins: int | None = None, weight: str = "documents", *, unicode: bool = True, brief: bool = False
    ) -> Iterator[RenderableType]:
        """What a terminal shows; what was asked for comes last, where it is still on the screen.

        Args:
            bins: bars of the histogram; None: as many as there are documents for.
            weight: what they count.
            unicode: whether the terminal can show more than ASCII.
            brief: only the answer, or without a question what thresholds keep.
        """
        summary, examples = self.summary, self.examples
        if brief:
            yield self._answer(unicode)
            return
        yield terminal.histogram_view(summary.histograms.total, self.min_score, bins, weight, unicode=unicode)
        yield terminal.what_if_view(self.what_if, self.min_score, unicode=unicode)
        if (slices := self.slices) is not None:
            shown = {value: slices[value] for value in slices.largest(LARGEST, weight)}
            hidden = len(slices) - len(shown)
            yield terminal.slices_view(slices.by, shown, self.min_score, unicode=unicode, hidden=hidden)
        if self.columns is not None:
            yield terminal.cross_view(self.columns, self.cells, self.run.score_columns)
        yield terminal.ledger_view(self.run.manifest)
        if len(summary.groups["host"]):
            yield terminal.groups_view(summary.groups["host"], HOSTS)
        yield terminal.clusters_view(summary.clusters, unicode=unicode)
        if examples:
            for name, documents in zip(("best", "worst"), extremes(self.run, summary), strict=True):
                yield terminal.extremes_view(f"the {examples} {name}", documents)
        if self.solution is not None or self.ruled is not None:
            yield self._answer(unicode)

    def _answer(self, unicode: bool) -> RenderableType:
        ruled = [] if self.ruled is None else [terminal.rule_view(self.ruled)]
        if self.solution is not None:
            return Group(*ruled, terminal.solution_view(self.solution, self.estimate))
        return Group(*ruled) if ruled else terminal.what_if_view(self.what_if, self.min_score, unicode=unicode)


def inspect_run(
    run: Run,
    *,
    target: Target | None = None,
    by: str | None = None,
    quotas: Mapping[str, float] | None = None,
    sample: float | None = None,
    examples: int = 0,
    where: str | None = None,
) -> Inspection:
    """Look at a run.

    Args:
        run: the run.
        target: what shall be kept, if a threshold is to be solved for.
        by: column to slice by, or two with a comma between, to count by both.
        quotas: value of `by` -> largest share of the target's budget.
        sample: share of the whole that the run is a sample of; the target is then meant of the whole.
        examples: how many of the best and worst documents to find.
        where: a condition, to see what it keeps; the target is then for what fulfils it.

    Raises:
        ConfigError: options that do not fit each other, or a rule that is none.
        RunError: the run's files are damaged, or it has no column `by`.
    """
    if quotas and (by is None or target is None):
        raise ConfigError("--quota: shares out a budget by a column; give --keep fraction=... or tokens=..., and --by")
    if sample is not None and (target is None or not 0 < sample <= 1):
        raise ConfigError("--sample: the share of the whole that this run is, above 0 and up to 1; needs --keep")
    if sample is not None and (where is not None or (target is not None and target.by is not None)):
        raise ConfigError("--sample: says how sure a threshold of the score is; leave out --where and by")
    names = () if by is None else tuple(name.strip() for name in by.split(","))
    if len(names) > 2 or (len(names) == 2 and (quotas or where is not None)):
        raise ConfigError(f"--by {by}: takes one column, or two without --quota and --where")
    rule = run.rule(where, target)
    ruled = None if rule is None else run.ruled(rule)
    for name in names:
        if len(names) == 1 or name not in run.score_columns:
            run.check_column(name)
    summary = run.summary(extremes=examples, groups=("host",))
    slices = columns = None
    if len(names) == 2:
        columns = names[0], names[1]
    elif by is not None:
        slices = run.histogram(by) if by in GROUPS else summary.histograms.slices[by]
        unknown = [value for value in quotas or () if value not in slices]
        if unknown:
            known = ", ".join(str(value) for value in slices.largest(8))
            raise ConfigError(f"--quota {unknown[0]}: no document has it as its {by}; the largest are {known}")
    solution = estimate = None
    if target is not None:
        scaled = Target("tokens", target.value * sample) if sample and target.rule == "tokens" else target
        solution = run.solve(scaled, by=by if quotas else None, quotas=quotas, where=where)
        if sample is not None:
            files = list(run.histogram("source", largest=MOST_FILES).values())
            seen = seen_in(run, by_file=len(files) >= FEWEST_FILES)
            estimate = sample_interval(target, files, sample, seen, solution)
    total = summary.histograms.total
    wanted = {
        *thresholds(total, run.min_score),
        run.min_score,
        *([solution.threshold] if solution and not solution.target.by else []),
    }
    table = what_if(total, wanted, reliability_of(run))
    threshold = None if solution is None or solution.target.by is not None else solution.threshold
    cells = [] if columns is None else cross_table(run, columns, threshold)
    return Inspection(run, summary, table, solution, estimate, slices, columns, cells, examples, ruled)


def reliability_of(run: Run) -> Reliability | None:
    """What the run's model says its scores are worth; None if it does not.

    Raises:
        RunError: the manifest holds no such thing under that name.
    """
    found = run.manifest["model"].get("reliability")
    try:
        return None if found is None else Reliability.from_json(found)
    except ModelError as error:
        raise RunError(f"{run.path / 'manifest.json'}: key model: {error}") from error


def parse_quotas(texts: list[str]) -> dict[str, float]:
    """Read ["en=0.8", "da=0.1"].

    Raises:
        ConfigError: one of them is not VALUE=SHARE.
    """
    quotas = {}
    for text in texts:
        value, separator, share = text.rpartition("=")
        try:
            quotas[value] = float(share)
        except ValueError:
            separator = ""
        if not separator or not value:
            raise ConfigError(f"--quota {text}: write VALUE=SHARE, for example --by language --quota en=0.8")
    return quotas
