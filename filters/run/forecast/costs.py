"""Costs of the phases of a run for a dump of any size, from the measurements of a pilot.

Each phase costs so much for a unit, for a hash range of a unit, for a document, for a document with copies, for a byte
written. Runs of several shapes tell these apart (least squares, nothing negative). Memory is what a worker has loaded
and what the phase holds besides: CONTRIBUTING.md says of what that depends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from filters.arrays import Float64
from filters.dedup.join import BYTES_PER_ENTRY
from filters.dedup.rounds import ROUNDS, round_name
from filters.phases.columns import ATTRIBUTE_ROWS
from filters.run.forecast.pilot import Observation, Pilot
from filters.run.plan import Plan
from filters.run.shards import ROW_GROUP_BYTES

_ROUNDS = tuple(round_name(number) for number in range(1, ROUNDS + 1))
PHASES = ("attributes", "join", "copies", "exact", "shingles", "compare", *_ROUNDS, "settle", "witnesses", "clusters",
          "verdicts", "counts", "losses", "tally", "select", "fingerprints", "sets", "shard", "publish")  # fmt: skip
SINGLE = frozenset({"select", "publish"})
"""Phases of one unit."""
RANGES = frozenset({"join", "exact", "compare", *_ROUNDS, "settle", "witnesses", "clusters", "losses", "fingerprints"})
"""Phases with a unit for each hash range; `settle`, which is one, leaves to rounds what would keep it long."""
_NEAR = frozenset({"shingles", "compare", *_ROUNDS, "settle", "witnesses"})
"""Phases that have nothing to do where near copies are not looked for."""
_RESOLVE = ("copies", "exact", *_NEAR, "clusters", "verdicts")
MIN_PAIRS = 5
"""Pairs of copies a pilot must have found for their number to say anything."""
_SHARED = 0.7
"""Share of the bands that two near copies have in common, where nothing is known."""
_TABLE_BYTES = 144
"""Of a hash range in a unit's band file, beside its entries."""
_ENTRY_BYTES = 12
_BYTES_PER_NODE = 300
"""Memory of a document with copies, with its id, where it is ranked."""
_BYTES_PER_UNIT = 2_000
"""Memory of a unit that a process knows of."""


@dataclass(frozen=True, slots=True)
class Size:
    """A dump, in the terms that costs are made of.

    Attributes:
        units, partitions: of the input; hash ranges.
        stored: bytes of the input, 0 where that is not known.
        alive: documents that reach deduplication; nodes: those with a copy; clusters: those these make.
        entries: of the band files and of earlier runs.
        survivors, kept: documents behind deduplication, written.
        kept_bytes, rejected_bytes: their text; text of the others, where it is written.
    """

    documents: float
    units: float
    partitions: int
    stored: float
    alive: float
    entries: float
    nodes: float
    clusters: float
    survivors: float
    kept: float
    kept_bytes: float
    rejected_bytes: float


class Costs:
    """What phases cost.

    Args:
        plan: of the run.
        pilot: over some of its documents; at least one.
    """

    def __init__(self, plan: Plan, pilot: Pilot) -> None:
        self.pilot, self.config = pilot, plan.config
        self.row_groups = plan.units[0].kind == "parquet"
        self.alive_share = float(pilot.rows["reason"].is_null().to_numpy().mean())
        self.bands = self.config.dedup.near.bands if self.config.dedup.near else 0
        self.shared_bands = _SHARED * self.bands
        if pilot.joins[1] >= MIN_PAIRS:
            self.shared_bands = pilot.joins[0] / pilot.joins[1]
        self._coefficients: dict[tuple[str, str], dict[str, float]] = {}

    def _coefficient(self, phase: str, what: str) -> dict[str, float]:
        """What a phase costs for each of its terms: seconds ("cpu_s") or bytes ("bytes"), from the stand-ins."""
        if (phase, what) not in self._coefficients:
            seen = self.pilot.observed.get(phase, [])
            names = _TERMS[phase]
            table = np.array([[self._stand_in_terms(some)[name] for name in names] for some in seen])
            values = np.array([float(getattr(some, what)) for some in seen])
            found = _least_squares(table, values) if seen else np.zeros(len(names))
            self._coefficients[phase, what] = dict(zip(names, found.tolist(), strict=True))
        return self._coefficients[phase, what]

    def _stand_in_terms(self, seen: Observation) -> dict[str, float]:
        kind = seen.kind
        alive = kind.documents * self.alive_share
        stored = sum(sum(fact["files"].values()) for fact in seen.facts if isinstance(fact.get("files"), dict))
        stay = -math.expm1(-kind.copies) / kind.copies
        keyed = alive * (self.bands + self.config.dedup.exact) + kind.documents
        return _terms(
            kind.documents, kind.units, kind.partitions, keyed, alive * -math.expm1(-kind.copies), alive * stay, stored
        )

    def _sum(self, phase: str, what: str, size: Size) -> float:
        stored = size.kept * (self.bands + self.config.dedup.exact)
        terms = _terms(size.documents, size.units, size.partitions, size.entries, size.nodes, size.survivors, stored)
        return sum(cost * terms[name] for name, cost in self._coefficient(phase, what).items())

    def cpu(self, phase: str, size: Size) -> float:
        """CPU seconds of a phase."""
        pilot, config = self.pilot, self.config
        near = config.dedup.near
        if phase == "attributes":
            ranges = size.units * size.partitions * pilot.block_s
            return self._loading(phase, size) + size.documents * pilot.document_s + size.units * pilot.unit_s + ranges
        if phase == "publish":
            return (size.kept_bytes * pilot.kept_bytes * 2 * pilot.hash_s) + size.units * 4 * pilot.entry_s
        if near is None and phase in _NEAR:
            return 0.0
        again = size.documents * pilot.read_s + size.units * pilot.read_unit_s
        if phase == "sets":
            return (again + size.kept * pilot.shingle_s) * (config.dedup.keep_fingerprints and near is not None)
        if phase in ("counts", "losses"):
            return size.units * size.partitions * pilot.entry_s * (config.dedup.max_source_loss is not None)
        if phase == "fingerprints" and not config.dedup.keep_fingerprints:
            return 0.0
        cost = self._loading(phase, size) + self._sum(phase, "cpu_s", size)
        if phase == "join":
            cost += pilot.earlier_keys * pilot.key_s
            if self._range_bytes(size) > config.dedup.memory:
                cost += self._coefficient("join", "cpu_s")["entries"] * size.entries  # spilled: twice the work
        if phase in ("shingles", "sets"):
            cost += again + size.nodes * pilot.shingle_s
        if phase == "compare":
            cost += (size.nodes - size.clusters) * pilot.compare_s
        if phase == "shard":
            files = max(size.documents / ATTRIBUTE_ROWS, 1)
            cost += again * (1 + config.output.rejected)
            cost += (size.kept_bytes + size.rejected_bytes) * pilot.kept_s
            cost += files * size.units * pilot.entry_s  # each side file counts the rows of all units
        return cost

    def _range_bytes(self, size: Size) -> float:
        return size.entries / size.partitions * BYTES_PER_ENTRY

    def disk(self, size: Size) -> dict[str, float]:
        pilot = self.pilot
        near = self.config.dedup.near
        resolve = 32 * (size.nodes * self.shared_bands + (size.nodes - size.clusters) * 0.2)
        for phase in (*_RESOLVE, "tally", "select"):
            resolve += self._sum(phase, "bytes", size) * (near is not None or phase not in _NEAR)
        resolve += size.nodes * pilot.shingle_bytes * (near is not None)
        kept = size.kept_bytes * pilot.kept_bytes
        return {
            "rows": size.documents * pilot.rows_bytes,
            "bands": (size.entries - pilot.earlier_keys) * _ENTRY_BYTES + size.units * size.partitions * _TABLE_BYTES,
            "texts": size.documents * pilot.text_bytes,
            "resolve": resolve,
            "output": kept + size.rejected_bytes * pilot.kept_bytes,
            "fingerprints": self._sum("fingerprints", "bytes", size) * self.config.dedup.keep_fingerprints,
            "side_files": size.documents * pilot.side_bytes + self._sum("shard", "bytes", size),
        }

    def memory(self, phase: str, size: Size) -> float:
        """Bytes of the largest process of a phase."""
        pilot, config = self.pilot, self.config
        base = pilot.base + size.units * _BYTES_PER_UNIT
        rows = size.documents / size.units
        bits = size.documents / 8
        nodes = size.nodes / size.units
        if phase == "attributes":
            # Entries wait, ordered, until there are enough to be written; a row group's stored bytes are read at once.
            entries = min(rows * size.entries / size.documents, 4e6)
            group = size.stored / size.units if self.row_groups else 0.0
            return pilot.peaks[phase] + entries * 24 + group / 2 + size.units * _BYTES_PER_UNIT
        if phase == "join":
            return base + min(self._range_bytes(size), config.dedup.memory)
        if phase == "compare":
            held = size.nodes * (3 * pilot.shingle_bytes + _BYTES_PER_NODE) / size.partitions
            return base + min(held, config.dedup.memory)
        if phase in RANGES - {"fingerprints"}:
            return base + size.nodes * _BYTES_PER_NODE / size.partitions
        if phase == "select":
            return base + bits + rows * 80
        if phase == "fingerprints":
            return base + bits + size.kept * self.bands / size.partitions * 64
        if phase == "shard":
            written = (size.kept_bytes + size.rejected_bytes) / max(size.units, 1)
            return max(pilot.peaks[phase], base) + min(written, ROW_GROUP_BYTES) * 2 + rows * 300
        if phase in ("shingles", "sets"):
            return max(base, pilot.peaks["shard"]) + nodes * (pilot.shingle_bytes + 24)
        return base + rows * 150 + nodes * 300

    @property
    def processes(self) -> int:
        """Workers that run at a time, at most."""
        executor = self.config.executor
        if executor.kind == "local":
            return executor.workers
        parallel = executor.slurm.parallel if executor.kind == "slurm" else executor.ray.parallel
        return min(executor.tasks, parallel or executor.tasks) * executor.workers

    def wall_s(self, cpu: Mapping[str, float], size: Size) -> float:
        """Seconds a run takes at least, if each process has a core."""
        starts = 1 if self.config.executor.kind == "local" else len(cpu)  # on a cluster, each phase has its own workers
        return starts * self.pilot.start_s + sum(
            cost / min(self.processes, self._units(name, size)) for name, cost in cpu.items()
        )

    def starts_s(self, phases: Iterable[str], size: Size) -> float:
        """CPU seconds of starting workers."""
        if self.config.executor.kind == "local":  # the command itself loads the model, too
            return (self.processes + 1) * self.pilot.start_s
        return sum(self._started(name, size) for name in phases) * self.pilot.start_s

    def _loading(self, phase: str, size: Size) -> float:
        return self._started(phase, size) * self.pilot.loading.get(phase, 0.0)

    def _started(self, phase: str, size: Size) -> float:
        """Workers that do a phase, one after the other or at a time."""
        executor = self.config.executor
        tasks = 1 if executor.kind == "local" else executor.tasks
        return min(tasks * executor.workers, self._units(phase, size))

    def _units(self, phase: str, size: Size) -> float:
        if phase in SINGLE:
            return 1.0
        return max(1.0, size.partitions if phase in RANGES else size.units)


_TERMS: Mapping[str, tuple[str, ...]] = {
    "join": ("ranges", "unit ranges", "entries"),
    "copies": ("units", "unit ranges", "nodes"),
    "exact": ("ranges", "unit ranges", "nodes"),
    "shingles": ("units", "unit ranges", "nodes"),
    "compare": ("ranges", "unit ranges", "nodes"),
    **dict.fromkeys(_ROUNDS, ("ranges", "nodes")),
    "settle": ("ranges", "nodes"),
    "witnesses": ("ranges", "nodes"),
    "clusters": ("ranges", "unit ranges", "nodes"),
    "verdicts": ("units", "unit ranges", "nodes"),
    "tally": ("units", "documents", "survivors"),
    "select": ("once", "units", "survivors"),
    "fingerprints": ("ranges", "unit ranges", "entries", "stored"),
    "shard": ("files", "units", "documents"),
}


def _terms(
    documents: float, units: float, partitions: int, entries: float, nodes: float, survivors: float, stored: float
) -> dict[str, float]:
    return {
        "once": 1.0,
        "files": max(documents / ATTRIBUTE_ROWS, 1.0),
        "units": units,
        "ranges": float(partitions),
        "unit ranges": units * partitions,
        "documents": documents,
        "entries": entries,
        "nodes": nodes,
        "survivors": survivors,
        "stored": stored,
    }


def _least_squares(table: Float64, values: Float64) -> Float64:
    """Coefficients, none negative: a term that would be is left out. Large and small values count alike."""
    weights = 1 / np.sqrt(np.maximum(values, values.max(initial=0) / 1000 + 1e-9))
    scale = np.maximum(np.abs(table).max(axis=0), 1e-12)
    used = list(range(table.shape[1]))
    found = np.zeros(table.shape[1])
    while used:
        some, *_ = np.linalg.lstsq(table[:, used] / scale[used] * weights[:, None], values * weights, rcond=None)
        if (some >= 0).all():
            found[used] = some / scale[used]
            break
        used.pop(int(np.argmin(some)))
    return found
