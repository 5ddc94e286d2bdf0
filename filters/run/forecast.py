"""What a run will take: what the engine took for drawn documents (`filters.run.trials`), scaled to the whole input.

A phase costs (seconds of processor time, bytes of disk) so much for a unit, for a document, for a document with copies
(where the phase writes what is kept: for a kept one), and for each hash range of an input unit: four numbers, which the
four trials tell apart.

A sample shows few of the copies that a dump has. Of a page that comes again and again, one stays: the documents that
go, for each one that stays, grow in proportion to the documents where pages differ in how often they come as in a Yule
process; of a template they are as many at any size. So these odds are a line through what the trials of two sizes show.
Where they show too little, and for larger dumps, a share is assumed, which the user may set.
"""

from __future__ import annotations

import math
import resource
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from filters.arrays import Float64
from filters.config.filter import FilterConfig
from filters.dedup.bands import BYTES_PER_ENTRY, partitions_for
from filters.dedup.candidates import COMPARE
from filters.dedup.clusters import RESOLVE_PHASES
from filters.dedup.join import JOIN
from filters.errors import ConfigError, InputError
from filters.phases.rows import ATTRIBUTE_ROWS, ATTRIBUTES
from filters.read.sample import InputSample, draw_sample
from filters.read.unit import ROWS_PER_UNIT, Unit
from filters.run.plan import Plan
from filters.run.selection import shard_bytes
from filters.run.shard import SHARD
from filters.run.steps import threads_will_do
from filters.run.trials import CPU, WRITING, Trials, cpu_s
from filters.run.writers import ROW_GROUP_BYTES
from filters.statistics.resampling import Estimate, interval
from filters.terminal import printable, short

LARGE = (10**9, 10**10)
"""Documents of the dumps that a forecast is made for beside the one at hand."""
DOCUMENTS, SLOW_DOCUMENTS = 8000, 1000
"""Drawn documents; fewer where Python or an encoder does the work."""
DUPLICATES = 0.3
"""Share of the documents with a copy, where nothing is known: about what near deduplication finds in a crawl."""
MIN_REMOVED = 5
"""So many copies a trial must have found for their number to say anything."""
_NONE = 1e-9
"""Documents gone for each that stays, where none is."""
MIN_COPIES = 100
"""Documents with copies in a trial, from which on what they cost is measured on them and not on twins."""
MIN_UNIT = 20_000
"""Documents in a unit of a large dump, at least: such a dump does not come in files of a few pages."""
PUBLISHED = ("output", "side_files", "fingerprints")
"""Kinds of files that stay when a run is published."""
RESAMPLES = 1000
MIN_DRAWS = 4
"""With fewer draws, documents are resampled in their place."""
_COPIES = tuple(phase.name for phase in RESOLVE_PHASES if phase.name != JOIN)
"""Phases that cost nothing for a document without copies."""
_BYTES_PER_NODE, _BYTES_PER_ROW, _BYTES_PER_UNIT = 300, 150, 2_000
"""Memory of a document with copies where it is ranked, of a row that is looked at, of a unit a process knows of."""


@dataclass(slots=True)
class Column:
    """The forecast for one dump.

    Attributes:
        documents, tokens: of the input; kept, kept_tokens: of what is written.
        survivors: documents that deduplication leaves.
        units, partitions: of the input; hash ranges.
        duplicates: share of the documents that have a copy.
        cpu_s: seconds of processor time by phase, and "workers": of starting them; cpu: their sum.
        wall_s: seconds at least, if each of `processes` has a core of its own.
        peaks: bytes of memory of the largest process, by phase.
        disk: bytes by kind of file: rows, bands, texts, resolve (phases join to select), and those of `PUBLISHED`.
    """

    documents: Estimate
    tokens: Estimate
    kept: Estimate
    kept_tokens: Estimate
    survivors: float
    units: int
    partitions: int
    duplicates: float
    cpu_s: dict[str, float]
    cpu: Estimate
    wall_s: float
    processes: int
    peaks: dict[str, float]
    disk: dict[str, float]

    @property
    def work_bytes(self) -> float:
        """Disk that is free again when the run is published."""
        return sum(size for kind, size in self.disk.items() if kind not in PUBLISHED)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast for a run.

    Attributes:
        pilot_documents, draws, seed: drawn documents, the places they are from, and the seed of the draw.
        pilot_cpu_s: seconds of processor time of drawing and of all trials.
        quarantined: share of the records; stops: the run would stop for them.
        columns: this dump, then those of `LARGE`.
        assumed: what the forecast rests on, in sentences.
    """

    pilot_documents: int
    draws: int
    seed: int
    pilot_cpu_s: float
    quarantined: float
    stops: bool
    columns: tuple[Column, ...]
    assumed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The forecast as plain types."""
        columns = [
            {name: value.model_dump() if isinstance(value, Estimate) else value for name, value in asdict(one).items()}
            for one in self.columns
        ]
        return asdict(self) | {"columns": columns}


def forecast(plan: Plan, *, documents: int | None = None, seed: int = 0, duplicates: float | None = None) -> Forecast:
    """Run the engine over a sample and scale what it took. Writes nothing but in a temporary folder.

    Args:
        plan: of the run.
        documents: drawn ones; None: `DOCUMENTS` or `SLOW_DOCUMENTS`.
        seed: of the draw.
        duplicates: share of the documents that have a copy; None: by those in the sample, or `DUPLICATES`.

    Raises:
        ConfigError: `documents` or `duplicates` is out of range.
        InputError: an input that cannot be sampled, or has no documents.
        FinesieveError: what the run itself would end with.
    """
    in_threads = threads_will_do(plan.config) and plan.in_threads
    if documents is None:
        documents = DOCUMENTS if in_threads else SLOW_DOCUMENTS
    if documents < 1:
        raise ConfigError(f"--pilot {documents}: at least 1 document, or leave the forecast out with --pilot 0")
    if duplicates is not None and not 0 <= duplicates < 1:
        raise ConfigError(f"--duplicates {duplicates}: a share from 0 to less than 1")
    streamed = next((unit.source for unit in plan.units if unit.kind == "stream"), None)
    if streamed is not None:
        raise InputError(
            f"{streamed}: rows that `datasets` streams cannot be counted or drawn from beforehand, so "
            "there is no forecast. Remedy: --pilot 0 for the plan alone, or an input of Parquet or JSON lines"
        )
    both = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    before = cpu_s(*both)
    sample = draw_sample(plan.units, plan.config.reads, documents, seed)
    records, _ = count_records(plan.units, sample)
    with tempfile.TemporaryDirectory(prefix="finesieve-forecast-") as name:
        ranges = partitions_for(plan.config.dedup, plan.input_bytes)
        trials = Trials(plan, sample, records, ranges, Path(name), in_threads=in_threads)
    if not trials.many.documents:
        raise InputError(
            f"{plan.units[0].source}: {trials.many.records + sum(drawn.bad for drawn in sample.drawn):,} records were "
            "drawn and not one is a document. Remedy: look at the input, or try another --seed"
        )
    return _Scaled(plan, sample, trials, duplicates, seed).forecast(cpu_s(*both) - before)


def count_records(units: list[Unit], sample: InputSample) -> tuple[float, bool]:
    """Records of an input, and whether they were counted: by the files themselves, or read to their ends."""
    if all(unit.stop is not None for unit in units):
        return float(sum((unit.stop or 0) - (unit.start or 0) for unit in units)), True
    whole = {drawn.unit: drawn.records for drawn in sample.drawn if drawn.whole and units[drawn.unit].stop is None}
    if len(whole) == len(units):
        return float(sum(whole.values())), True
    known = [unit.size for unit in units if unit.size]
    records, stored = (sum(getattr(drawn, name) for drawn in sample.drawn) for name in ("records", "stored"))
    if not known or not stored:  # small units, read to their ends: so many each
        return records / len(sample.drawn) * len(units), False
    return records / stored * sum(known) / len(known) * len(units), False


@dataclass(slots=True)
class _Size:
    """A dump, in what costs are proportional to. `copies`, `sets`: documents that have copies, and sets of copies that
    these make; `files`: output and side files; `stored`: bytes of the input."""

    documents: float
    copies: float
    sets: float
    kept: float
    kept_bytes: float
    units: float
    ranges: int
    files: float
    stored: float


class _Scaled:
    """What the trials say of dumps of any size. Arrays named after a number have it first as it was found, then as it
    is in each of `RESAMPLES` resamples of the draws."""

    def __init__(self, plan: Plan, sample: InputSample, trials: Trials, duplicates: float | None, seed: int) -> None:
        self.plan, self.config, self.sample, self.trials, self.seed = plan, plan.config, sample, trials, seed
        self.given, many, drawn = duplicates, trials.many, sample.drawn
        bad = sum(some.bad for some in drawn) / max(sum(some.records for some in drawn), 1)
        self.bad = bad + (1 - bad) * many.quarantined / max(many.records, 1)
        # Records keep their order, and few of them are no documents: the share of the way tells the draw.
        taken = np.cumsum([some.taken for some in drawn])
        ways = (np.arange(many.documents) + 0.5) * (taken[-1] / many.documents)
        draw = np.searchsorted(taken, ways, side="right")
        names, self._block = np.unique(draw, return_inverse=True)
        by_draw = len(names) >= MIN_DRAWS
        if not by_draw:
            names = self._block = np.arange(many.documents)
        random = np.random.default_rng(seed)
        resampled = random.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
        self._weights = np.vstack([np.ones(len(names)), resampled])
        records, self.counted = count_records(plan.units, sample)
        self.documents: Float64 = np.full(RESAMPLES + 1, records * (1 - self.bad))
        if not self.counted:
            seen = np.array([[drawn[name].records, drawn[name].stored or 1] for name in names] if by_draw else [[1, 1]])
            ratio = (self._weights @ seen[:, 0]) / (self._weights @ seen[:, 1]) if by_draw else np.full(1, np.nan)
            self.documents[1:] *= (ratio / ratio[0])[1:] if by_draw else np.nan
        sizes, counts = np.unique(many.sets, return_counts=True)
        found = np.vstack([counts, random.poisson(counts, (RESAMPLES, len(counts)))])
        self._stay_for_gone = 1 / np.maximum(found @ sizes / np.maximum(found.sum(axis=1), 1) - 1, _NONE)
        # Half of the documents are expected to have this much of them (rarefaction; Hurlbert 1971).
        half = 1 / np.maximum(found @ sizes / 2 / np.maximum(found @ (1 - 0.5**sizes), 0.5) - 1, _NONE)
        self._growing = np.clip(half - self._stay_for_gone, 0, self._stay_for_gone)
        # Copies in the same draw are as many in all that was looked at there, and no more in the rest of the dump.
        first = many.table["cluster"]
        other = many.table["alive"] & (first != np.arange(many.documents))
        self._close = float((draw[first[other]] == draw[other]).mean()) if other.any() else 0.0
        self._window = many.documents * sum(some.records for some in drawn) / max(taken[-1], 1)
        kinds = {trials.spread.inputs: "units", trials.spread.ranges: "ranges"}
        self._kind = {phase: kinds.get(count, "") for phase, count in trials.spread.units.items()} | {SHARD: "files"}
        self._costs = {key: self._coefficients(*key) for key in trials.many.spent.keys() | trials.spread.spent.keys()}

    def forecast(self, pilot_cpu_s: float) -> Forecast:
        """All columns."""
        units, many, keep = self.plan.units, self.trials.many, self.config.keep
        here = float(self.documents[0])
        measure = "stored bytes" if any(unit.size for unit in units) else "number of units"
        counted = "counted by the input itself" if self.counted else f"estimated from the drawn ones, by {measure}"
        stays, unique, why = self._copies(here)
        sizes = [unit.size for unit in units]
        stored = 0.0 if None in sizes else float(sum(size or 0 for size in sizes))
        columns = [self._column(self.documents, len(units), stored, stays, unique)]
        per_unit = max(here / len(units), ROWS_PER_UNIT if units[0].kind == "parquet" else MIN_UNIT)
        assumed = 1 - (DUPLICATES if self.given is None else self.given)
        if self.config.dedup.near or self.config.dedup.exact:
            unique = np.minimum(unique, assumed)
            stays = np.minimum(stays, math.sqrt(assumed))
        for documents in LARGE:
            many_like = np.full(RESAMPLES + 1, float(documents))
            columns.append(self._column(many_like, documents / per_unit, stored / here * documents, stays, unique))
        notes = [
            f"documents of this dump are {counted}",
            why,
            f"larger dumps: documents like these, {per_unit:,.0f} in a unit, {1 - unique[0]:.0%} with a copy",
        ]
        if self.trials.against:
            share = self.trials.against.table["earlier"].sum() / max(many.table["alive"].sum(), 1)
            notes.append(f"earlier runs have {share:.1%} of the documents")
        elif self.trials.earlier_keys:
            notes.append("how many documents earlier runs have is not looked for: none is taken off")
        if keep.quota and keep.quota.by == "source":
            notes.append("quotas of sources are not taken into account: output is at most this")
        if self.config.output.repeat:
            notes.append("repeats are counted as if every document were written once")
        stops = self.bad > self.config.quarantine.max_share and here / (1 - self.bad) >= self.config.quarantine.grace
        return Forecast(
            many.documents, len(self.sample.drawn), self.seed, pilot_cpu_s, self.bad, stops, tuple(columns),
            tuple(notes),
        )  # fmt: skip

    def _copies(self, documents: float) -> tuple[Float64, Float64, str]:
        """Shares of the documents that are the one that stays of a set of copies, and that have no copy."""
        many = self.trials.many
        went, one = int((many.sets - 1).sum()), np.ones(RESAMPLES + 1)
        if not (self.config.dedup.near or self.config.dedup.exact):
            return one, one, "no copies are looked for"
        if self.given is not None:
            text = f"{self.given:.0%} of the documents have a copy (--duplicates)"
            return one * math.sqrt(1 - self.given), one * (1 - self.given), text
        whole = many.documents >= 0.999 * documents
        if not whole and went < MIN_REMOVED:
            text = f"{DUPLICATES:.0%} of the documents are assumed to have a copy (--duplicates sets another share)"
            text += f": {went} of the drawn ones are copies of others, which says nothing"
            return one * math.sqrt(1 - DUPLICATES), one * (1 - DUPLICATES), text
        reach = max(self._close * self._window + (1 - self._close) * documents, many.documents)
        smaller = self._growing * (1 - many.documents / reach)
        stays = 1 / (1 + 1 / np.maximum(self._stay_for_gone - smaller, _NONE))
        total = max(many.sets.sum(), 1)
        alone, now = (many.sets == 1).sum() / total, max(len(many.sets), 1) / total
        unique = np.minimum(stays, alone * (stays / now) ** 2)
        text = f"{1 - unique[0]:.0%} of the documents have a copy: "
        text += "the drawn ones are the whole input" if whole else f"{went} copies are among the drawn ones, scaled up"
        return stays, unique, f"{text} (--duplicates sets another share)"

    def _column(self, documents: Float64, units: float, stored: float, stays: Float64, unique: Float64) -> Column:
        many, config, keep = self.trials.many, self.config, self.config.keep
        alive, text, tokens, n = (self._sum(name) for name in ("alive", "bytes", "tokens", None))
        kept, kept_text, kept_tokens, left = (
            self._sum(name, flag) for name, flag in ((None, "kept"), ("bytes", "kept"), ("tokens", "kept"),
                                                     (None, "survives"))
        )  # fmt: skip
        survivors = documents * (alive / n) * (unique if config.dedup.keep == "none" else stays)
        if self.trials.against:
            survivors *= 1 - self.trials.against.table["earlier"].sum() / max(many.table["alive"].sum(), 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = kept / left
            if keep.fraction is not None:
                share *= keep.fraction / self.trials.fraction
            elif keep.tokens is not None:
                share /= self.trials.fraction
                fitting = survivors * (share if keep.where else 1)
                share *= np.minimum(1, keep.tokens / (fitting * kept_tokens / kept))
            share = np.nan_to_num(np.minimum(share, 1))
            written = survivors * share
            each_text, each_tokens = (np.nan_to_num(some / kept) for some in (kept_text, kept_tokens))
        total, ranges = float(documents[0]), partitions_for(config.dedup, int(stored) or None)
        kept_bytes = float(written[0] * each_text[0])
        bytes_written = float(total * text[0] / n[0]) if config.output.rejected else kept_bytes
        shard = shard_bytes(config, float(survivors[0] * text[0] / n[0]))
        size = _Size(
            documents=total,
            copies=float(total * alive[0] / n[0] * (1 - unique[0])),
            sets=float(total * alive[0] / n[0] * (stays[0] - unique[0])),
            kept=float(written[0]),
            kept_bytes=kept_bytes,
            units=units,
            ranges=ranges,
            files=math.ceil(bytes_written / shard) + math.ceil(total / ATTRIBUTE_ROWS),
            stored=stored,
        )
        cpu = {phase: cost for phase in self._kind if (cost := self._cpu_s(phase, size)) > 0}
        processes = self._processes()
        peaks = {phase: self._peak(phase, size) for phase in cpu}
        wall = sum(cost / min(processes, max(self._units(phase, size), 1)) for phase, cost in cpu.items())
        if self.trials.start_s:  # on a cluster, each phase has its own workers
            executor = config.executor
            everywhere = executor.tasks * executor.workers
            each = [min(everywhere, self._units(phase, size)) for phase in cpu]
            starts = [executor.workers] if executor.kind == "local" else each
            wall += len(starts) * self.trials.start_s
            cpu["workers"] = sum(starts) * self.trials.start_s
        disk: dict[str, float] = {}
        for phase, kind in self._costs:
            if kind != CPU:
                disk[kind] = disk.get(kind, 0.0) + self._cost(phase, kind, size)
        return Column(
            documents=_estimate(documents),
            tokens=_estimate(documents * tokens / n),
            kept=_estimate(written),
            kept_tokens=_estimate(written * each_tokens),
            survivors=float(survivors[0]),
            units=math.ceil(units),
            partitions=ranges,
            duplicates=float(1 - unique[0]),
            cpu_s=cpu,
            cpu=_estimate(sum(cpu.values()) * (documents / total) * (text / n) / (text[0] / n[0])),
            wall_s=wall,
            processes=processes,
            peaks=peaks,
            disk=disk,
        )

    def _sum(self, name: str | None, where: str = "") -> Float64:
        """Sum of a column of the drawn documents (None: their number), of all or of those that have a flag."""
        table = self.trials.many.table
        values = np.ones(len(self._block)) if name is None else table[name].astype(np.float64)
        chosen = values * table[where] if where else values
        return np.asarray(self._weights @ np.bincount(self._block, chosen, self._weights.shape[1]))

    def _coefficients(self, phase: str, what: str) -> Float64:
        """What a phase costs for each of its terms; nothing is negative."""
        from scipy.optimize import nnls

        trials = [self.trials.few, self.trials.many, self.trials.spread]
        if phase not in _COPIES or self.trials.many.copies < MIN_COPIES:
            trials.append(self.trials.twins)
        costs = np.array([trial.spent[phase, what] for trial in trials])
        if not costs.any():
            return np.zeros(4)
        terms = []
        for trial in trials:
            several, kept = int((trial.sets > 1).sum()), int(trial.table["kept"].sum())
            size = _Size(trial.documents, trial.copies, several, kept, 0, trial.inputs, trial.ranges, 0, 0)
            terms.append(self._terms(phase, trial.units[phase], size))
        costs = np.maximum(costs, costs.max() / 1000)
        return np.asarray(nnls(np.array(terms) / costs[:, None], np.ones(len(costs)))[0])

    def _terms(self, phase: str, units: float, size: _Size) -> list[float]:
        """What the cost of a phase is proportional to."""
        cells = size.units * size.ranges if self._kind[phase] in ("units", "ranges") else 0.0
        if phase not in _COPIES:
            return [units, size.documents, size.kept if phase in WRITING else size.copies, cells]
        pairs = size.copies**2 / size.sets if size.sets and phase == COMPARE else 0.0
        return [units, pairs, size.copies, cells]

    def _units(self, phase: str, size: _Size) -> float:
        kinds = {"units": size.units, "ranges": size.ranges, "files": size.files}
        return kinds.get(self._kind[phase], self.trials.spread.units[phase])

    def _cost(self, phase: str, what: str, size: _Size) -> float:
        if phase == JOIN and what == CPU:  # a key of an earlier run costs what one of a document does
            keys = self.trials.many.entries / self.trials.many.documents
            size = replace(size, documents=size.documents + self.trials.earlier_keys / keys)
        return float(self._costs[phase, what] @ self._terms(phase, self._units(phase, size), size))

    def _cpu_s(self, phase: str, size: _Size) -> float:
        if (phase, CPU) not in self._costs:
            return 0.0
        cost = self._cost(phase, CPU, size)
        if phase == JOIN and self._range_bytes(size) > self.config.dedup.memory:
            cost *= 2  # spilled to disk and read again
        return cost

    def _range_bytes(self, size: _Size) -> float:
        entries = size.documents * self.trials.many.entries / self.trials.many.documents + self.trials.earlier_keys
        return entries / size.ranges * BYTES_PER_ENTRY

    def _processes(self) -> int:
        """Workers that run at a time, at most."""
        executor = self.config.executor
        if executor.kind == "local":
            return executor.workers
        parallel = executor.slurm.parallel if executor.kind == "slurm" else executor.ray.parallel
        return min(executor.tasks, parallel or executor.tasks) * executor.workers

    def _peak(self, phase: str, size: _Size) -> float:
        """Bytes of a process in a phase: what it took in `many`, and what grows with the dump."""
        memory, rows, several = self.config.dedup.memory, size.documents / size.units, size.copies / size.ranges
        if phase == ATTRIBUTES:  # keys wait until there are enough to be written; a row group is read at once
            keys = min(rows * self.trials.many.entries / self.trials.many.documents, 4e6)
            grows = keys * 24 + size.stored / size.units / 2 * (self.plan.units[0].kind == "parquet")
        elif phase == JOIN:
            grows = min(self._range_bytes(size), memory)
        elif phase == SHARD:
            grows = min(size.kept_bytes, ROW_GROUP_BYTES) * 2 + rows * 2 * _BYTES_PER_ROW
        elif self._kind[phase] == "ranges":
            shingles = 3 * float(self._costs.get(("shingles", "resolve"), np.zeros(4))[2])
            grows = min(several * (_BYTES_PER_NODE + shingles), memory)
        elif self._kind[phase] == "units":
            grows = rows * _BYTES_PER_ROW + size.copies / size.units * _BYTES_PER_NODE
        else:
            grows = size.documents / 8 + rows * _BYTES_PER_ROW
        return self.trials.many.peaks.get(phase, 0) + grows + size.units * _BYTES_PER_UNIT


def _estimate(values: Float64) -> Estimate:
    return interval(float(values[0]), values[1:])


_DISK = {
    "rows": "rows of documents",
    "bands": "band files",
    "texts": "texts",
    "resolve": "join to select",
    "output": "output",
    "side_files": "side files",
    "fingerprints": "fingerprints",
}


def forecast_view(forecast: Forecast, config: FilterConfig, *, unicode: bool = True) -> RenderableType:
    """What a run will take, for this dump and for larger ones."""
    pm = "±" if unicode else "+-"
    columns = forecast.columns
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in _names():
        table.add_column(name, justify="right", no_wrap=True)

    def row(name: str, *cells: str) -> None:
        table.add_row(name, *cells)

    def heading(text: str) -> None:
        row("")
        table.add_row(Text(text, style="bold"))

    for name in ("documents", "tokens", "kept", "kept_tokens"):
        estimates = [getattr(column, name) for column in columns]
        label = {"kept": "kept documents", "kept_tokens": "kept tokens"}.get(name, name)
        row(label, *(short(some.value) + _within(some, pm) for some in estimates))
    row("input units", *(f"{column.units:,}" for column in columns))
    row("hash ranges", *(f"{column.partitions:,}" for column in columns))
    heading("CPU hours")
    for name in columns[0].cpu_s:
        label = "starting workers" if name == "workers" else name
        row(f"  {label}", *(_hours(column.cpu_s[name]) for column in columns))
    row("  all", *(_hours(column.cpu.value or 0) + _within(column.cpu, pm) for column in columns))
    row("wall clock, at least", *(_duration(column.wall_s) for column in columns))
    heading("disk")
    for kind in [kind for kind in _DISK if any(column.disk.get(kind) for column in columns)]:
        row(f"  {_DISK[kind]}", *(_bytes(column.disk[kind]) for column in columns))
    row("  until it is published", *(_bytes(sum(column.disk.values())) for column in columns))
    row("  afterwards", *(_bytes(sum(column.disk.values()) - column.work_bytes) for column in columns))
    heading("peak memory of a process")
    for name in columns[0].peaks:
        row(f"  {name}", *(_bytes(column.peaks.get(name, 0.0)) for column in columns))
    title = (
        f"forecast from {forecast.pilot_documents:,} documents of {forecast.draws:,} input unit(s), "
        f"seed {forecast.seed}, {forecast.pilot_cpu_s:.0f} s of CPU"
    )
    notes = "\n".join(f"- {printable(line, 500)}" for line in _notes(forecast, config))
    return Group(Text(title, style="bold"), table, Text(notes))


def _names() -> list[str]:
    return ["this dump", *(f"10^{len(str(size)) - 1}" for size in LARGE)]


def _notes(forecast: Forecast, config: FilterConfig) -> list[str]:
    here = forecast.columns[0]
    kept = ", ".join(label for kind, label in _DISK.items() if kind not in PUBLISHED and here.disk.get(kind))
    notes = [
        *forecast.assumed,
        f"{kept}: in the work folder until the run is published",
        f"wall clock: CPU hours of a phase / ({here.processes:,} process(es) or its units, if fewer), a core to each, "
        "nothing waiting; processors as fast as this one",
    ]
    if forecast.pilot_documents < SLOW_DOCUMENTS / 2:
        notes.append(f"{forecast.pilot_documents:,} documents say little")
    memory = {"slurm": config.executor.slurm.memory_per_cpu, "ray": config.executor.ray.memory_per_cpu}
    limit = memory.get(config.executor.kind)
    for name, column in zip(_names(), forecast.columns, strict=True):
        large = [phase for phase, size in column.peaks.items() if limit and size > limit]
        if large:
            notes.append(
                f"{name}: {', '.join(large)} need more than executor.{config.executor.kind}.memory_per_cpu "
                f"({_bytes(limit or 0)})"
            )
    if forecast.quarantined:
        notes.append(f"{forecast.quarantined:.2%} of the records are quarantined")
    if forecast.stops:
        notes.append(
            f"THE RUN WOULD STOP: quarantine.max_share is {config.quarantine.max_share:.0%}. Look at the input first"
        )
    return notes


def _within(found: Estimate, pm: str) -> str:
    """Half the width of the interval, as a share of the value."""
    if not found.value or found.low is None or found.high is None or found.high == found.low:
        return ""
    return f" {pm}{(found.high - found.low) / 2 / found.value:.1%}"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    if hours >= 100:
        return f"{hours:,.0f}"
    return f"{hours:.2g}" if hours >= 0.0001 or not hours else "<0.0001"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.0f} h" if seconds < 72 * 3600 else f"{seconds / 86400:,.1f} days"


def _bytes(number: float) -> str:
    for size, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= size:
            return f"{number / size:.3g} {unit}" if number < 1000 * size else f"{number / size:,.0f} {unit}"
    return f"{number / 1e3:.0f} kB"
