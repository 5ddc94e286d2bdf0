"""A pilot: the phases of a run over some of its documents, in a temporary folder, and what each of them cost.

The real phases do the work, in worker processes as a run has them. What looks at texts (attributes, shard) is measured
on documents of the input; what does not (join to select, side files) on stand-ins for them, of several shapes.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.arrays import Int64
from filters.config.filter import FilterConfig, KeepConfig
from filters.dedup.clusters import RESOLVE_PHASES, VERDICTS, verdicts
from filters.dedup.fingerprints import open_earlier
from filters.dedup.joins import pairs_joined
from filters.dedup.keep_fingerprints import FINGERPRINTS, SETS
from filters.errors import RunError
from filters.phases.phase import Job
from filters.phases.rows import ATTRIBUTES, ROWS, SCHEMA, SLICE, first_rows, read_rows
from filters.phases.texts import TEXT
from filters.read.sample import REPEATS, Sample
from filters.read.unit import Unit
from filters.run.forecast.stand_in import StandIn, write_stand_in
from filters.run.forecast.timings import EARLIER_KEYS, apart, read_through, seconds, spread, time_parts
from filters.run.phase_list import phase_named
from filters.run.plan import Plan
from filters.run.pool import WorkerPool
from filters.run.selection import SELECT_PHASES, decisions
from filters.run.shard import SHARD
from filters.run.worker import error_of

DOCUMENTS = 1000
SHAPES = (StandIn(2_000, 2, 2, 0.4), StandIn(60_000, 2, 2, 0.4), StandIn(60_000, 2, 2, 3.0), StandIn(2_000, 24, 1, 0.4),
          StandIn(2_000, 24, 24, 0.4))  # fmt: skip
"""Enough to tell what a document, one with copies, a unit, and a hash range of a unit cost."""
TIMES = 5
"""How often what is short is timed; the median counts."""
_ENOUGH_S = 6.0
"""CPU seconds of repetitions. Where they do for none, what it costs to begin is nothing beside the rest."""
_UNCUT = 2**40
"""Bytes of a shard that takes all documents of a pilot: there is one unit of documents and one of side files then."""
_ALL = -1e6
"""A threshold that keeps everything."""


@dataclass(slots=True)
class Observation:
    """What a phase cost on stand-ins.

    Attributes:
        kind: the shape of them.
        cpu_s: of all its units.
        bytes: of all files.
        peak: largest resident set.
        facts: of its units.
    """

    kind: StandIn
    cpu_s: float
    bytes: int
    peak: int
    facts: list[dict[str, Any]]


@dataclass(slots=True)
class Pilot:
    """What a pilot found. Seconds are of processor time.

    Attributes:
        sample: what was drawn.
        rows: of its documents, as in rows.arrow.
        group: int64[n], the draw each of them comes from.
        stays: bool[n], no copy of another one of the pilot.
        records, quarantined: of the pilot.
        unit_s, document_s: of the phase `attributes`.
        block_s: of the same, for each hash range of a unit.
        rows_bytes, text_bytes: of a document's row, and of its kept text (0 where none is kept).
        read_unit_s, read_s: of the phase `shard`: a unit and a document that are read again.
        kept_s: of the same: a byte of text that is written.
        kept_bytes: bytes in a shard for a byte of text.
        side_bytes: of a document's row in attributes/.
        shingle_s, compare_s, shingle_bytes: of a document in phase `shingles`, of a pair in `compare`.
        start_s: of starting a worker and loading its model.
        loading: what a phase's first unit in a process costs more than others, by phase.
        entry_s, hash_s, key_s: of reading a unit's entry, a byte's SHA-256, a key of an earlier run.
        earlier_keys, in_earlier: keys of earlier runs; share of the documents they have (None: not looked for).
        pairs: (near pairs in different draws, in the same); crowd: documents that are copies of two others and more.
        joins: (pairs of keys, of documents) that they came from.
        peaks: resident set by phase; base: of a worker that has loaded everything and does nothing.
        observed: by phase, on stand-ins.
        spread: relative standard deviation between repetitions.
        cpu_s: of the whole pilot.
    """

    sample: Sample
    rows: pa.Table
    group: Int64
    stays: np.ndarray[Any, np.dtype[np.bool_]]
    records: int
    quarantined: int
    unit_s: float = 0.0
    document_s: float = 0.0
    block_s: float = 0.0
    rows_bytes: float = 0.0
    text_bytes: float = 0.0
    read_unit_s: float = 0.0
    read_s: float = 0.0
    kept_s: float = 0.0
    kept_bytes: float = 0.0
    side_bytes: float = 0.0
    shingle_s: float = 0.0
    compare_s: float = 0.0
    shingle_bytes: float = 0.0
    start_s: float = 0.0
    loading: dict[str, float] = field(default_factory=dict)
    entry_s: float = 0.0
    hash_s: float = 0.0
    key_s: float = 0.0
    earlier_keys: int = 0
    in_earlier: float | None = None
    pairs: tuple[int, int] = (0, 0)
    crowd: int = 0
    joins: tuple[int, int] = (0, 0)
    peaks: dict[str, int] = field(default_factory=dict)
    base: int = 0
    observed: dict[str, list[Observation]] = field(default_factory=dict)
    spread: float = 0.0
    cpu_s: float = 0.0


def run_pilot(plan: Plan, sample: Sample, folder: Path, seed: int = 0) -> Pilot:
    """Run the phases over a sample and over stand-ins for more of it.

    Args:
        plan: of the run.
        sample: of its input.
        folder: to work in; its content is of no more use afterwards.
        seed: of the stand-ins.

    Raises:
        FinesieveError: what the run itself would end with; or a document killed the worker.
    """
    begin = time.process_time()
    children = _children_s()
    with WorkerPool(2, plan.config) as pool:
        bench = _Bench(plan, sample, folder, pool, seed)
        pilot = bench.attributes()
        bench.shards(pilot)
        bench.stand_ins(pilot)
    pilot.start_s = max((_children_s() - children - bench.spent) / 2, 0.0)
    time_parts(plan.config, bench.last, pilot, folder)
    pilot.cpu_s = time.process_time() - begin + _children_s() - children
    return pilot


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class _Bench:
    """Runs units in workers: documents in the first, stand-ins in the second, for either leaves memory behind."""

    def __init__(self, plan: Plan, sample: Sample, folder: Path, pool: WorkerPool, seed: int) -> None:
        self.plan, self.sample, self.folder, self.pool, self.seed = plan, sample, folder, pool, seed
        self.spent = 0.0
        self.last: Job

    def job(self, name: str, config: FilterConfig, units: Sequence[Unit], min_score: float = _ALL) -> Job:
        """A job in a folder of its own, or with files that lie there already."""
        work = self.folder / name
        work.mkdir(exist_ok=True)
        numbered = tuple(replace(unit, index=number) for number, unit in enumerate(units))
        job = Job(work, config, numbered, min_score)
        job.save()
        return job

    def do(self, worker: int, job: Job, phase: str, unit: int) -> dict[str, Any]:
        """Do a unit; its cost."""
        self.pool.send(worker, job, phase, unit)
        _, answer = self.pool.receive()
        if answer is None:
            raise RunError(
                f"the pilot's worker {self.pool.bury(worker)}; a run would look for the document that did it, "
                "and set it aside. Remedy: draw another pilot with --seed"
            )
        if "error" in answer:
            raise error_of(job.units[unit].source if phase == ATTRIBUTES else phase, answer)
        entry = job.entry(phase, unit)
        assert entry is not None
        cost: dict[str, Any] = entry["cost"]
        self.spent += cost["cpu_s"]
        return cost

    def config(self, **dedup: Any) -> FilterConfig:
        """The run's config without what only costs a pilot time: it keeps by score, and writes everything once."""
        config = self.plan.config
        changed = {"partitions": 1, "against": (), "keep_fingerprints": False, "max_source_loss": None} | dedup
        return config.model_copy(
            update={
                "dedup": config.dedup.model_copy(update=changed),
                "keep": KeepConfig(),
                "output": config.output.model_copy(update={"repeat": None, "buckets": None}),
            }
        )

    def attributes(self) -> Pilot:
        """The phase `attributes` over the sample, and over the sample several times in one unit."""
        config = self.config()
        job = self.job("attributes", config, self.sample.units)
        costs = [self.do(0, job, ATTRIBUTES, unit) for unit in range(len(job.units))]
        facts = [job.facts(ATTRIBUTES, unit) for unit in range(len(job.units))]
        names = [*SCHEMA.names, *(SLICE + name for name in config.slices)]
        rows = pa.concat_tables([read_rows(job, unit, names) for unit in range(len(job.units))])
        pilot = Pilot(
            self.sample,
            rows.combine_chunks(),
            self._groups(job),
            np.ones(rows.num_rows, np.bool_),
            sum(some["records"] for some in facts),
            sum(sum(some["quarantined"].values()) for some in facts),
        )
        n = max(rows.num_rows, 1)
        sizes = [job.entry(ATTRIBUTES, unit) or {"files": {}} for unit in range(len(job.units))]
        pilot.rows_bytes = sum(some["files"][ROWS]["bytes"] for some in sizes) / n
        pilot.text_bytes = sum(some["files"].get(TEXT, {"bytes": 0})["bytes"] for some in sizes) / n
        pilot.peaks[ATTRIBUTES] = max(cost["peak_bytes"] for cost in costs)
        once = sum(cost["cpu_s"] for cost in costs)
        again = self.sample.repeated
        times = min(TIMES, int(_ENOUGH_S / ((REPEATS + 1) * max(once, 1e-3))))
        if not times:
            pilot.document_s = once / n
        else:
            files = len(again)
            timing = self.job("timing", config, [*self.sample.units, *again])

            def costs_of(units: range) -> list[dict[str, Any]]:
                return [self.do(0, timing, ATTRIBUTES, unit) for unit in units]

            parts = range(files), range(files, 2 * files)
            first = sum(cost["cpu_s"] for cost in costs_of(parts[0]))
            short, long = [], []
            for _ in range(times):
                short.append(sum(cost["cpu_s"] for cost in costs_of(parts[0])))
                costs = costs_of(parts[1])
                long.append(sum(cost["cpu_s"] for cost in costs))
                pilot.peaks[ATTRIBUTES] = max([pilot.peaks[ATTRIBUTES], *(cost["peak_bytes"] for cost in costs)])
            pilot.document_s, begin_s = apart(statistics.median(short), statistics.median(long), n)
            pilot.unit_s = begin_s / files
            pilot.loading[ATTRIBUTES] = max(first - statistics.median(short), 0.0)
            pilot.spread = spread(long)
            reads = [
                [sum(seconds(partial(read_through, timing, unit)) for unit in part) for part in parts]
                for _ in range(TIMES)
            ]
            begun, through = np.median(np.array(reads), axis=0).tolist()
            pilot.read_s, begin_s = apart(begun, through, n)
            pilot.read_unit_s = begin_s / files
        if not pilot.read_s:
            pilot.read_s = sum([seconds(partial(read_through, job, unit)) for unit in range(len(job.units))]) / n
        return pilot

    def _groups(self, job: Job) -> Int64:
        """The draw that each row of the sample's files comes from."""
        # Records keep their order, and few of them are no documents: the share of the way tells the draw.
        taken = np.cumsum([drawn.taken for drawn in self.sample.drawn])
        rows = int(first_rows(job)[-1])
        places = (np.arange(rows) + 0.5) * (taken[-1] / max(rows, 1))
        return np.asarray(np.searchsorted(taken, places, side="right"), np.int64)

    def shards(self, pilot: Pilot) -> None:
        """The phases behind it over the same documents; keep all of them, and a tenth."""
        earlier = open_earlier(self.plan.config.dedup)
        pilot.earlier_keys = sum(run.count(kind, 0, 2**64 - 1) for run in earlier for kind in ("near", "exact"))
        look = 0 < pilot.earlier_keys <= EARLIER_KEYS
        config = self.config(against=self.plan.config.dedup.against if look else ())
        whole = {"rejected": False, "shard_size": _UNCUT}
        config = config.model_copy(update={"output": config.output.model_copy(update=whole)})
        shutil.copytree(self.folder / "attributes", self.folder / "all")
        job = self.job("all", config, self.sample.units)
        for phase in RESOLVE_PHASES:
            for unit in range(phase.units(job)):
                self.do(0, job, phase.name, unit)
        self.do_all(0, job, "tally")
        shutil.copytree(job.work, self.folder / "tenth")
        _look_at_copies(job, pilot)
        if look:
            removed = [job.facts(VERDICTS, unit)["removed"] for unit in range(len(job.units))]
            hits = sum(int(some.get("in_earlier_run", 0)) for some in removed)
            pilot.in_earlier = hits / max(int(pilot.rows["reason"].is_null().to_numpy().sum()), 1)
        scores = pilot.rows["score"].drop_null().to_numpy()
        top = float(np.quantile(scores, 0.9)) if len(scores) else 0.0
        costs, written = [], []
        for some in (job, self.job("tenth", config, self.sample.units, top)):
            self.do_all(0, some, "select")
            tries = [self.do(0, some, SHARD, 0) for _ in range(3)]
            costs.append(min(cost["cpu_s"] for cost in tries))
            pilot.loading.setdefault(SHARD, tries[0]["cpu_s"] - costs[0])
            pilot.peaks[SHARD] = max(pilot.peaks.get(SHARD, 0), *(cost["peak_bytes"] for cost in tries))
            sizes = [read_rows(some, unit, ["bytes"])["bytes"].to_numpy() for unit in range(len(some.units))]
            kept = [decisions(some, unit).copies > 0 for unit in range(len(some.units))]
            written.append(sum(int(size[keep].sum()) for size, keep in zip(sizes, kept, strict=True)))
        n = max(pilot.rows.num_rows, 1)
        if written[0] > written[1]:
            pilot.kept_s = max(costs[0] - costs[1], 0.0) / (written[0] - written[1])
        self.do(0, job, SHARD, 1)
        pilot.kept_bytes = _stored(job, 0) / max(written[0], 1)
        pilot.side_bytes = _side_bytes(_output_file(job, 1), n, own=False)
        self.last = job

    def do_all(self, worker: int, job: Job, phase: str) -> list[dict[str, Any]]:
        """Do all units of a phase."""
        return [self.do(worker, job, phase, unit) for unit in range(phase_named(phase).units(job))]

    def stand_ins(self, pilot: Pilot) -> None:
        """Every phase that looks at no text, over stand-ins."""
        if not pilot.rows.num_rows:
            return
        config = self.plan.config
        dedup = {"against": (), "max_source_loss": None}
        phases = [phase.name for phase in (*RESOLVE_PHASES, *SELECT_PHASES) if phase.name != SETS]
        if not config.dedup.keep_fingerprints:
            phases.remove(FINGERPRINTS)
        first: dict[str, float] = {}
        for number, kind in enumerate((SHAPES[0], *SHAPES)):  # the first time, kernels are loaded
            changed = config.dedup.model_copy(update=dedup | {"partitions": kind.partitions})
            keep = config.keep.model_copy(update={"tokens": config.keep.tokens and 100.0 * kind.documents})
            output = config.output.model_copy(update={"rejected": False})
            units = [Unit(0, "warc", f"stand-in-{unit}", "", size=1) for unit in range(kind.units)]
            some = config.model_copy(update={"dedup": changed, "keep": keep, "output": output})
            job = self.job(f"stand-in-{number}", some, units, self.plan.min_score)
            write_stand_in(job, pilot.rows, kind, self.seed + number)
            for name in phases:
                costs = self.do_all(1, job, name)
                again = self.do_all(1, job, name) if number else costs
                if not number:
                    pilot.base = pilot.base or costs[0]["peak_bytes"]
                    first[name] = sum(cost["cpu_s"] for cost in costs)
                    continue
                entries = [job.entry(name, unit) or {} for unit in range(len(costs))]
                pilot.observed.setdefault(name, []).append(
                    Observation(
                        kind,
                        min(sum(cost["cpu_s"] for cost in run) for run in (costs, again)),
                        sum(file["bytes"] for entry in entries for file in entry["files"].values()),
                        max((cost["peak_bytes"] for cost in costs), default=0),
                        [entry["facts"] for entry in entries],
                    )
                )
            side = phase_named(SHARD).units(job) - 1
            tries = [self.do(1, job, SHARD, side) for _ in range(2)]
            if number:
                stored = round(_side_bytes(_output_file(job, side), kind.documents, own=True) * kind.documents)
                best = min(tries, key=lambda cost: float(cost["cpu_s"]))
                found = Observation(kind, best["cpu_s"], stored, best["peak_bytes"], [])
                pilot.observed.setdefault(SHARD, []).append(found)
                if kind.units == max(shape.units for shape in SHAPES):
                    start = time.process_time()
                    first_rows(job)
                    pilot.entry_s = (time.process_time() - start) / kind.units
        for name, cost in first.items():
            pilot.loading[name] = max(cost - pilot.observed[name][0].cpu_s, 0.0)


def _look_at_copies(job: Job, pilot: Pilot) -> None:
    """Near copies among the pilot's documents, in the same draw and in different ones."""
    found = [verdicts(job, unit) for unit in range(len(job.units))]
    every = np.concatenate([some.near_cluster for some in found])
    document = np.flatnonzero(np.concatenate([some.cluster_size for some in found]) > 1)
    cluster = every[document]
    pilot.stays[document[cluster != document]] = False
    apart = within = 0
    for root in np.unique(cluster).tolist():
        _, counts = np.unique(pilot.group[document[cluster == root]], return_counts=True)
        size = int(counts.sum())
        if size > 2:
            pilot.crowd += size
            continue
        same = int((counts * (counts - 1) // 2).sum())
        within += same
        apart += size * (size - 1) // 2 - same
    pilot.pairs = apart, within
    pilot.joins = pairs_joined(job)["near"], len(document) - len(np.unique(cluster))


def _stored(job: Job, unit: int) -> int:
    """Bytes of what is in an output file, without what every file has once."""
    path = _output_file(job, unit)
    if path.suffix != ".parquet":
        return path.stat().st_size
    return sum(_columns(path).values())


def _output_file(job: Job, unit: int) -> Path:
    (path,) = job.folder(SHARD, unit).iterdir()
    return path


def _columns(path: Path) -> dict[str, int]:
    """Stored bytes of each column of a Parquet file."""
    metadata = pq.read_metadata(path)
    sizes: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            sizes[column.path_in_schema] = sizes.get(column.path_in_schema, 0) + column.total_compressed_size
    return sizes


_INVENTED = frozenset({"position", "bytes", "tokens", "score", "exact_cluster", "near_cluster", "keep", "reason",
                       "duplicate_of", "cluster_size", "copies", "bucket", "language", "language_score",
                       "source"})  # fmt: skip
"""Columns of the side files of which stand-ins have values as good as real ones; of more documents, so they count."""


def _side_bytes(path: Path, documents: int, *, own: bool) -> float:
    """Bytes of a document in the columns that stand-ins do (`own`) or do not show truly."""
    return sum(size for name, size in _columns(path).items() if (name in _INVENTED) == own) / documents
