"""Trials for a forecast: the engine run over documents drawn from the input, in a temporary folder.

few      a quarter of the drawn documents, in as many hash ranges as the run has (up to eight)
many     all of them
twins    those of `few` twice, so that every document has a copy; none is kept
spread   those of `few` in many units and hash ranges
"""

from __future__ import annotations

import resource
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.arrays import Int64
from filters.config.filter import KeepConfig
from filters.dedup.bands import BANDS
from filters.dedup.earlier_runs import FINGERPRINTS, SETS, open_earlier
from filters.dedup.join import JOIN
from filters.phases.phase import Job
from filters.phases.rows import ATTRIBUTES, read_rows
from filters.phases.texts import TEXT
from filters.read.sample import InputSample
from filters.read.unit import Unit
from filters.run.engine import Engine
from filters.run.phase_list import PHASES
from filters.run.plan import Observer, Plan
from filters.run.selection import decisions
from filters.run.shard import SHARD
from filters.run.workers import ThreadPool, WorkerPool

EARLIER_KEYS = 2_000_000
"""Keys of earlier runs that a trial looks its documents up in, at most."""
CPU = "cpu_s"
WRITING = (FINGERPRINTS, SETS, SHARD)
"""Phases that take time and disk for documents that are kept."""
_PIECES = 8
"""Files of each input in `spread`."""
_FEW = 10
"""Documents that a budget keeps in a trial, at least."""
_NEVER = 1e9
"""A threshold that keeps nothing."""


@dataclass(slots=True)
class Trial:
    """What a run over drawn documents found and took.

    Attributes:
        inputs, ranges: units of the input; hash ranges.
        records, quarantined, documents, copies: of the input; documents that have a copy.
        table: arrays with a value for each document: bytes, tokens, alive (before deduplication), survives (it), kept,
            cluster (number of a document of its set of copies), earlier (removed because an earlier run has it).
        entries: keys in band files.
        units: of each phase.
        spent: (phase, `CPU`) to seconds, (phase, kind of file) to bytes.
        peaks: largest resident set of each phase, in bytes.
    """

    inputs: int
    ranges: int
    records: int
    quarantined: int
    documents: int
    copies: int
    table: dict[str, Any]
    entries: int
    units: dict[str, int]
    spent: defaultdict[tuple[str, str], float]
    peaks: dict[str, int]

    @property
    def sets(self) -> Int64:
        """int64[sets of copies]: documents in each; a document without copies is a set by itself."""
        _, counts = np.unique(self.table["cluster"][self.table["alive"]], return_counts=True)
        return counts


class Trials:
    """All trials.

    Args:
        plan: of the run.
        sample: of its input.
        documents, ranges: of its input; hash ranges.
        folder: to work in.
        in_threads: the run's workers would be threads.

    Attributes:
        first: `few`, before anything was loaded.
        against: `many` against earlier runs, None where there are none or they are large.
        earlier_keys: keys of earlier runs.
        fraction: of the survivors that a budget keeps in a trial.
        start_s: seconds of processor time to start a worker process.

    Raises:
        FinesieveError: what the run itself would end with.
    """

    def __init__(
        self, plan: Plan, sample: InputSample, documents: float, ranges: int, folder: Path, *, in_threads: bool
    ) -> None:
        self._plan, self._folder = plan, folder
        keep, dedup = plan.config.keep, plan.config.dedup
        runs = open_earlier(dedup)
        self.earlier_keys = sum(run.count(kind, 0, 2**64 - 1) for run in runs for kind in ("near", "exact"))
        self.fraction = 1.0
        before = cpu_s(resource.RUSAGE_CHILDREN)
        with ThreadPool(1) if in_threads else WorkerPool(1, plan.config) as self._pool:
            quarter = sample.write(self._new("quarter"), every=4)
            self.first = self._run("first", quarter)
            kept = self.first.table["kept"]
            if keep.tokens is not None:
                tokens = documents / max(len(kept), 1) * float(self.first.table["tokens"][kept].sum())
                self.fraction = keep.tokens / max(tokens, 1.0)
            elif keep.fraction is not None:
                self.fraction = keep.fraction
            self.fraction = min(1.0, max(self.fraction, _FEW / max(4 * int(kept.sum()), 1)))
            ranges = min(ranges, _PIECES)
            self.few = self._run("few", quarter, ranges)
            whole = sample.write(self._new("whole"))
            self.many = self._run("many", whole, ranges)
            self.twins = self._run("twins", quarter * 2, ranges, keep=False, exact=dedup.exact and dedup.near is None)
            pieces = sample.write(self._new("pieces"), every=4, pieces=_PIECES)
            self.spread = self._run("spread", pieces, len(pieces) + 1)
            looked_up = 0 < self.earlier_keys <= EARLIER_KEYS
            self.against = self._run("against", whole, against=dedup.against) if looked_up else None
        trials = [self.first, self.few, self.many, self.twins, self.spread, *([self.against] if self.against else [])]
        spent = sum(cost for trial in trials for (_, what), cost in trial.spent.items() if what == CPU)
        self.start_s = 0.0 if in_threads else max(cpu_s(resource.RUSAGE_CHILDREN) - before - spent, 0.0)

    def _new(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def _run(self, name: str, units: list[Unit], ranges: int = 1, *, keep: bool = True, **dedup: Any) -> Trial:
        config = self._plan.config
        rule = config.keep if keep else KeepConfig()
        if rule.fraction is not None or rule.tokens is not None:
            quota = None if rule.quota and rule.quota.by == "source" else rule.quota
            rule = rule.model_copy(update={"fraction": self.fraction, "tokens": None, "quota": quota})
        changed = {"partitions": ranges, "against": (), "on_source_loss": "warn"} | dedup
        sections = {
            "dedup": config.dedup.model_copy(update=changed),
            "keep": rule,
            "output": config.output.model_copy(update={"repeat": None}),
            "quarantine": config.quarantine.model_copy(update={"max_share": 1.0}),
        }
        numbered = tuple(replace(unit, index=index) for index, unit in enumerate(units))
        least = self._plan.min_score if keep else _NEVER
        job = Job(self._new(name), config.model_copy(update=sections), numbered, least, self._plan.scores)
        job = replace(job, loaded=self._plan.models)
        job.save()
        return Engine(job, self._pool, Observer()).run(lambda: _found(job, ranges))


def cpu_s(*who: int) -> float:
    """Seconds of processor time so far of this process, of its children, ..."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, who))


def _found(job: Job, ranges: int) -> Trial:
    columns: dict[str, list[Any]] = defaultdict(list)
    for unit in range(len(job.units)):
        rows, decided = read_rows(job, unit, ["bytes", "tokens", "reason"]), decisions(job, unit)
        reason = decided.verdicts.reason
        earlier, copies = (
            pc.is_in(reason, pa.array(names)).to_numpy(zero_copy_only=False)
            for names in (["in_earlier_run"], ["exact_duplicate", "near_duplicate", "in_earlier_run"])
        )
        alive = rows["reason"].is_null().to_numpy()
        columns["bytes"].append(rows["bytes"].to_numpy())
        columns["tokens"].append(rows["tokens"].fill_null(0).to_numpy())
        columns["alive"].append(alive)
        columns["survives"].append(alive & ~copies)
        columns["kept"].append(decided.copies > 0)
        columns["cluster"].append(decided.verdicts.near_cluster)
        columns["earlier"].append(earlier)
        columns["copies"].append(decided.verdicts.cluster_size > 1)
    table = {name: np.concatenate(values) for name, values in columns.items()}
    spent: defaultdict[tuple[str, str], float] = defaultdict(float)
    units: dict[str, int] = {}
    peaks: dict[str, int] = {}
    for phase in PHASES:
        units[phase.name] = phase.units(job)
        for unit in range(units[phase.name]):
            entry = job.entry(phase.name, unit) or {}
            spent[phase.name, CPU] += entry["cost"]["cpu_s"]
            peaks[phase.name] = max(peaks.get(phase.name, 0), entry["cost"]["peak_bytes"])
            for name, file in entry["files"].items():
                spent[phase.name, _kind(phase.name, name)] += file["bytes"]
    facts = [job.facts(ATTRIBUTES, unit) for unit in range(len(job.units))]
    keys = [job.facts(JOIN, unit)["entries"] for unit in range(ranges)]
    return Trial(
        inputs=len(job.units),
        ranges=ranges,
        records=sum(some["records"] for some in facts),
        quarantined=sum(sum(some["quarantined"].values()) for some in facts),
        documents=len(table["kept"]),
        copies=int(table["copies"].sum()),
        table=table,
        entries=sum(sum(some.values()) for some in keys) + len(table["kept"]),
        units=units,
        spent=spent,
        peaks=peaks,
    )


def _kind(phase: str, name: str) -> str:
    """What a file of a phase is, as the disk of a run is told apart."""
    if phase == ATTRIBUTES:
        return {BANDS: "bands", TEXT: "texts"}.get(name, "rows")
    if phase == SHARD:
        return "side_files" if name.startswith("attributes-") else "output"
    return "fingerprints" if phase in WRITING else "resolve"
