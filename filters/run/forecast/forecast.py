"""Forecasts a run from a pilot: documents, tokens, processor time and memory of each phase, disk.

Documents are counted where the input says how many it has (Parquet), else by the stored bytes that one took in the
pilot; what the phases cost, `costs.py` knows.

How many documents have a copy cannot be seen in a sample: of N documents a sample of n shows a pair of copies with
probability (n / N)^2. So pairs are counted and scaled up; where there are hardly any, or for dumps that are not this
one, a share is assumed, which the user may set. Copies are spread as by chance: Poisson.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from filters.arrays import Bool, Int64
from filters.dedup.bands import partitions_for
from filters.errors import ConfigError, InputError
from filters.phases.columns import rule_of, slice_names
from filters.read.sample import Sample, draw_sample
from filters.read.unit import ROWS_PER_UNIT, Unit
from filters.run.forecast.costs import MIN_PAIRS, PHASES, Costs, Size
from filters.run.forecast.pilot import DOCUMENTS, TIMES, Pilot, run_pilot
from filters.run.plan import Plan
from filters.run.selection import rule_table
from filters.scores.histogram import Histogram
from filters.scores.threshold import Scored, Target, solve

LARGE = (10**9, 10**10)
"""Dumps that a forecast is made for beside the one at hand."""
DUPLICATES = 0.3
"""Share of the documents with a copy, where nothing is known: about what near deduplication finds in a crawl."""
MIN_UNIT = 20_000
"""Documents in a unit of a large dump, at least: such a dump does not come in files of a few pages."""
PUBLISHED = ("output", "side_files", "fingerprints")
"""Of the disk a run takes, what stays."""
_Z = 1.96
_FEW = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and half the width of its 95 % interval, as a share of it; None where that is not known."""

    value: float
    within: float | None = None


@dataclass(slots=True)
class Column:
    """The forecast for a dump.

    Attributes:
        documents, tokens: of the input.
        survivors, kept, kept_tokens: behind deduplication; written.
        units, partitions: of the input; hash ranges.
        duplicates: share of the documents that reach deduplication which have a copy.
        cpu_s: by phase, and "workers": starting them.
        wall_s: at least, if every process has a core of its own; processes: how many there are at most.
        peaks: bytes of memory of one process, by phase.
        disk: bytes by what they are: rows, bands, texts, resolve (what join to select write), and those `PUBLISHED`.
        cpu_within: half the width of the 95 % interval of the sum of cpu_s, as a share.
    """

    documents: Estimate
    tokens: Estimate
    survivors: float
    kept: Estimate
    kept_tokens: float
    units: int
    partitions: int
    duplicates: float
    cpu_s: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    processes: int = 1
    peaks: dict[str, float] = field(default_factory=dict)
    disk: dict[str, float] = field(default_factory=dict)
    cpu_within: float | None = None

    @property
    def work_bytes(self) -> float:
        """Disk that is free again when the run is published."""
        return sum(size for name, size in self.disk.items() if name not in PUBLISHED)


@dataclass(slots=True)
class Forecast:
    """The forecast for a run.

    Attributes:
        pilot_documents, draws, seed: of the pilot.
        pilot_cpu_s: what it took.
        quarantined: share of the records.
        stops: so many records are quarantined that the run would stop.
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
        """Plain types."""
        return asdict(self)


def forecast(plan: Plan, *, documents: int = DOCUMENTS, seed: int = 0, duplicates: float | None = None) -> Forecast:
    """Run a pilot and work out what the whole run will take. Writes nothing but in a temporary folder.

    Args:
        plan: of the run.
        documents: of the pilot.
        seed: of the choice of documents.
        duplicates: share of the documents that have a copy; None: by the pairs in the pilot, or `DUPLICATES`.

    Raises:
        ConfigError: a share that is none, a pilot of no documents.
        InputError: an input that cannot be sampled, or has no documents.
        FinesieveError: what the run itself would end with.
    """
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
    with tempfile.TemporaryDirectory(prefix="finesieve-pilot-") as name:
        folder = Path(name)
        sample = draw_sample(plan.units, plan.config.reads, documents, seed, folder)
        (folder / "work").mkdir()
        pilot = run_pilot(plan, sample, folder / "work", seed)
    if not pilot.rows.num_rows:
        raise InputError(
            f"{plan.units[0].source}: the pilot met {pilot.records + _bad(sample):,} records and not one document. "
            "Remedy: look at the input, or try another --seed"
        )
    return Model(plan, pilot).forecast(seed, duplicates)


def _bad(sample: Sample) -> int:
    return sum(drawn.bad for drawn in sample.drawn)


class Model:
    """What a pilot says of dumps of any size."""

    def __init__(self, plan: Plan, pilot: Pilot) -> None:
        self.plan, self.pilot, self.config = plan, pilot, plan.config
        self.alive: Bool = pilot.rows["reason"].is_null().to_numpy()
        self.text: Int64 = pilot.rows["bytes"].to_numpy()
        self.tokens: Int64 = pilot.rows["tokens"].fill_null(0).to_numpy()
        self.records, self.exact_count, self.spread = _count(plan.units, pilot.sample)
        seen = sum(drawn.records for drawn in pilot.sample.drawn)
        self.bad = _bad(pilot.sample) / max(seen, 1)
        self.bad += (1 - self.bad) * pilot.quarantined / max(pilot.records, 1)
        sizes = [unit.size for unit in plan.units]
        self.stored = None if None in sizes else float(sum(size or 0 for size in sizes))
        self.costs = Costs(plan, pilot)
        self.scaled = False

    def forecast(self, seed: int, duplicates: float | None) -> Forecast:
        """All columns."""
        pilot, config = self.pilot, self.config
        here = self.records * (1 - self.bad)
        partners, why = self._partners(here, duplicates)
        assumed = [why]
        looked_for = self.costs.bands > 0 or config.dedup.exact
        large = max(partners, -math.log(1 - (DUPLICATES if duplicates is None else duplicates))) * looked_for
        columns = [self._column(here, len(self.plan.units), self.stored, partners, True)]
        per_unit = max(here / len(self.plan.units), MIN_UNIT)
        if self.plan.units[0].kind == "parquet":
            per_unit = max(per_unit, ROWS_PER_UNIT)
        for documents in LARGE:
            size = None if self.stored is None else self.stored / here * documents
            columns.append(self._column(documents, documents / per_unit, size, large, False))
        measure = "stored bytes" if any(unit.size for unit in self.plan.units) else "number of units"
        counted = "counted by the input itself" if self.exact_count else f"estimated from the pilot, by {measure}"
        assumed.insert(0, f"documents of this dump are {counted}")
        assumed.append(
            f"larger dumps: documents like these, {per_unit:,.0f} in a unit, {1 - math.exp(-large):.0%} with a copy"
        )
        if pilot.earlier_keys and pilot.in_earlier is None:
            assumed.append("how many documents earlier runs have is not looked for: none is taken off")
        elif pilot.in_earlier is not None:
            assumed.append(f"earlier runs have {pilot.in_earlier:.1%} of the documents")
        if config.keep.quota and config.keep.quota.by == "source":
            assumed.append("quotas of sources are not taken into account: output is at most this")
        if (rule := rule_of(config)) is not None and {"source", "cluster_size"} & set(rule.columns):
            assumed.append("for the rule every document is of the source '', and in no cluster")
        if config.output.repeat:
            assumed.append("repeats are counted as if every document were written once")
        limit = config.quarantine
        stops = self.bad > limit.max_share and self.records >= limit.grace
        return Forecast(
            pilot.rows.num_rows, len(pilot.sample.drawn), seed, pilot.cpu_s, self.bad, stops, tuple(columns),
            tuple(assumed),
        )  # fmt: skip

    def _partners(self, documents: float, duplicates: float | None) -> tuple[float, str]:
        """Copies that a document has, on average, and where that is known from."""
        if duplicates is not None:
            return -math.log(1 - duplicates), f"{duplicates:.0%} of the documents have a copy (--duplicates)"
        apart, within = self.pilot.pairs
        n = self.pilot.rows.num_rows
        drawn = self.pilot.sample.drawn
        if not (self.costs.bands or self.config.dedup.exact):
            return 0.0, "no copies are looked for"
        if n >= 0.999 * documents:
            found = 1 - float(self.pilot.stays[self.alive].mean()) if self.alive.any() else 0.0
            return _partners(1 - found), "the pilot is the whole input: copies are those it found"
        if apart + within + self.pilot.crowd < MIN_PAIRS:
            some = f"{DUPLICATES:.0%} of the documents are assumed to have a copy (--duplicates sets another share)"
            return -math.log(1 - DUPLICATES), f"{some}: the pilot has {apart + within} pair(s), which says nothing"
        self.scaled = True
        # Documents of one draw lie in the window that was looked at; those of different draws anywhere.
        close = 2 * within / n * sum(some.records for some in drawn) / max(sum(some.taken for some in drawn), 1)
        units = len(self.plan.units)
        far = 2 * apart / n * documents / n
        if units > len(drawn) > 1:
            far *= (1 - 1 / units) / (1 - 1 / len(drawn))
        # A page that the pilot has three times the dump has very often; its pairs say nothing about the others.
        rest = close + far
        alone = 1 - self.pilot.crowd / max(int(self.alive.sum()), 1)
        stay = alone * (-math.expm1(-rest) / rest if rest > 0 else 1.0)
        share = 1 - alone * math.exp(-rest)
        met = f"{apart + within} pairs and {self.pilot.crowd} documents in larger clusters"
        text = f"{share:.0%} of the documents have a copy: the pilot has {met}, scaled up"
        return _partners(max(stay, 1e-5)), f"{text} (--duplicates sets another share)"

    def _column(self, documents: float, units: float, stored: float | None, partners: float, here: bool) -> Column:
        config, pilot = self.config, self.pilot
        n = pilot.rows.num_rows
        stay = -math.expm1(-partners) / partners if partners > 0 else 1.0
        alive = documents * float(self.alive.mean())
        alive_new = alive * (1 - (pilot.in_earlier or 0.0))
        survivors = alive_new * stay
        chosen = self.alive & pilot.stays
        text, tokens = self.text[chosen], self.tokens[chosen]
        kept, share = self._kept(survivors)
        kept_tokens = survivors * share * float(tokens[kept].mean()) if kept.any() else 0.0
        partitions = partitions_for(config.dedup, None if stored is None else int(stored))
        signed = float(pilot.rows["has_signature"].fill_null(False).to_numpy().mean())
        keyed = signed * self.costs.bands + float(self.alive.mean()) * config.dedup.exact
        kept_bytes = survivors * share * float(text[kept].mean()) if kept.any() else 0.0
        size = Size(
            documents=documents,
            units=units,
            partitions=partitions,
            stored=stored or 0.0,
            alive=alive,
            entries=documents * (keyed + 1) + pilot.earlier_keys,
            nodes=alive * -math.expm1(-partners) + alive - alive_new,
            clusters=max(alive * (stay - math.exp(-partners)), 0.0),
            survivors=survivors,
            kept=survivors * share,
            kept_bytes=kept_bytes,
            rejected_bytes=(documents * float(self.text.mean()) - kept_bytes) * config.output.rejected,
        )
        groups = pilot.group
        counted = 0.0 if self.exact_count or not here else self.spread
        column = Column(
            documents=Estimate(documents, counted),
            tokens=Estimate(documents * float(self.tokens.mean()), _both(counted, _within(self.tokens, groups))),
            survivors=survivors,
            kept=Estimate(
                size.kept, _both(counted, _within(kept.astype(np.int64), groups[chosen]), self._stay_within(partners))
            ),
            kept_tokens=kept_tokens,
            units=math.ceil(units),
            partitions=partitions,
            duplicates=-math.expm1(-partners),
        )
        column.cpu_s = {name: cost for name in PHASES if (cost := self.costs.cpu(name, size)) > 0}
        column.disk = self.costs.disk(size)
        column.peaks = {name: self.costs.memory(name, size) for name in column.cpu_s}
        column.processes, column.wall_s = self.costs.processes, self.costs.wall_s(column.cpu_s, size)
        column.cpu_s["workers"] = self.costs.starts_s(column.cpu_s, size)
        column.cpu_within = _both(counted, _within(self.text, groups), _Z * pilot.spread / math.sqrt(TIMES))
        if n < 2:
            column.cpu_within = None
        return column

    def _stay_within(self, partners: float) -> float:
        """Half the 95 % interval of the share that survives, where pairs were counted: their number is Poisson."""
        pairs = sum(self.pilot.pairs)
        if not pairs or not self.scaled:
            return 0.0
        return _Z / math.sqrt(pairs) * abs(1 - partners / math.expm1(min(partners, 500.0)))

    def _kept(self, survivors: float) -> tuple[Bool, float]:
        """Which of the pilot's documents that stay are like those that are kept of so many survivors; their share.

        A budget may be for fewer than one of the pilot's documents: then the best few of them stand for what it keeps.
        """
        keep, rows = self.config.keep, self.pilot.rows
        chosen = self.alive & self.pilot.stays
        scores = rows["score"].to_numpy(zero_copy_only=False)[chosen].astype(np.float32)
        known = max(int((~np.isnan(scores)).sum()), 1)
        fits = np.ones(len(scores), np.bool_)
        if (rule := rule_of(self.config)) is not None:
            slices = dict(zip(self.config.slices, slice_names(self.config.slices), strict=True))
            about = rows.filter(pa.array(chosen))
            ruled = rule.decide(rule_table(rule, about, "", np.ones(about.num_rows, np.int64), slices))
            fits = ruled.keeps
            if keep.buckets is None:
                scores = np.where(fits & ~np.isnan(scores), scores if ruled.values is None else ruled.values, np.nan)
                scores = scores.astype(np.float32)
        whole = ~np.isnan(scores)
        values = None
        quota = keep.quota if keep.quota and keep.quota.by == "language" else None
        if quota:
            values = rows["language"].fill_null("").to_numpy(zero_copy_only=False)[chosen][whole]
        scored = Scored(scores[whole], self.tokens[chosen][whole], self.text[chosen][whole], values)
        histogram = Histogram()
        histogram.add(scored.scores, tokens=scored.tokens, text_bytes=scored.text_bytes)
        buckets = self.config.output.buckets
        if keep.buckets is not None and buckets is not None:
            ranks = np.argsort(np.argsort(scored.scores, kind="stable"), kind="stable") / max(len(scored.scores), 1)
            place = np.searchsorted(np.array(buckets.borders), ranks, side="right")
            decided = np.isin(place, [buckets.names.index(name) for name in keep.buckets]) & fits[whole]
        else:
            target = Target("min_score", self.plan.min_score)
            if keep.fraction is not None:
                target = Target("fraction", keep.fraction)
            elif keep.tokens is not None:
                target = Target("tokens", keep.tokens * known / max(survivors, 1))
            solution = solve(
                target, lambda: iter([scored]), histogram=histogram, by=quota.by if quota else None,
                quotas=quota.shares if quota else None,
            )  # fmt: skip
            decided = solution.keeps(scored.scores, values)
        share = float(decided.mean()) if len(decided) else 0.0
        if decided.sum() < _FEW and len(decided) and (keep.fraction is not None or keep.tokens is not None):
            decided = scored.scores >= np.sort(scored.scores)[-min(_FEW, len(decided))]
            share = keep.fraction or 0.0
            if keep.tokens is not None:
                fitting = survivors * len(scored.scores) / known
                share = min(1.0, keep.tokens / max(fitting * float(scored.tokens[decided].mean()), 1.0))
        found = np.zeros(len(scores), np.bool_)
        found[whole] = decided
        return found, share * float(whole.mean()) if len(whole) else 0.0


def _partners(stay: float) -> float:
    """Copies a document has on average, where such a share of the documents survives: 1 - exp(-x) = stay * x."""
    low, high = 0.0, 1e6
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if -math.expm1(-middle) > stay * middle else (low, middle)
    return low if stay < 1 else 0.0


def _count(units: list[Unit], sample: Sample) -> tuple[float, bool, float | None]:
    """Records of the input; whether that is counted; else half the 95 % interval as a share (None: not known)."""
    if all(unit.stop is not None for unit in units):
        return float(sum((unit.stop or 0) - (unit.start or 0) for unit in units)), True, 0.0
    whole = {drawn.unit: drawn.records for drawn in sample.drawn if drawn.whole and units[drawn.unit].stop is None}
    if len(whole) == len(units):
        return float(sum(whole.values())), True, 0.0
    sizes = [unit.size for unit in units]
    known = [size for size in sizes if size]
    records = np.array([drawn.records for drawn in sample.drawn], float)
    stored = np.array([drawn.stored for drawn in sample.drawn], float)
    if not known or not stored.sum():  # small units, read whole: so many each
        weights, scale = np.ones(len(records)), float(len(units))
    else:
        weights, scale = stored, sum(known) / len(known) * len(units)
    ratio = records.sum() / weights.sum()
    m = len(records)
    if m < 2:
        return ratio * scale, False, None
    residuals = records - ratio * weights
    error = math.sqrt(m / (m - 1) * float((residuals**2).sum())) / records.sum()
    return ratio * scale, False, _Z * error * math.sqrt(max(1 - len(sample.drawn) / len(units), 0.05))


def _within(values: Int64, groups: Int64) -> float | None:
    """Half the 95 % interval of a mean, as a share of it, from how draws differ (of one, documents)."""
    total = float(values.sum())
    if total == 0 or len(values) < 2:
        return None
    numbers, places = np.unique(groups, return_inverse=True)
    alone = float(values.std(ddof=1)) * math.sqrt(len(values)) / total
    if len(numbers) < 4:
        return _Z * alone
    sums = np.bincount(places, weights=values)
    counts = np.bincount(places)
    residuals = sums - total / len(values) * counts
    m = len(numbers)
    return _Z * max(alone, math.sqrt(m / (m - 1) * float((residuals**2).sum())) / total)


def _both(*shares: float | None) -> float | None:
    if any(share is None for share in shares):
        return None
    return math.sqrt(sum((share or 0.0) ** 2 for share in shares))
