"""Phases `best` and `survivors` of a global run: which document of each cluster stays."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from filters.dedup.blocks import BlockWriter
from filters.dedup.components import best_first, firsts
from filters.dedup.fingerprints import offsets, open_earlier
from filters.kernels.arrays import Int64
from filters.pipeline.phases.bands import reading_blocks
from filters.pipeline.phases.cluster import read_names, read_nodes
from filters.pipeline.phases.phase import Job
from filters.pipeline.phases.rows import first_rows, read_rows

BEST, SURVIVORS = "best", "survivors"
FILES = {"near": "near.arrow", "exact": "exact.arrow"}
STAYS = "stays.bin"
_STAYS = ["<i8", "<i8", "<i8", "|u1"]
_BYTES_PER_CANDIDATE = 250
_SCHEMA = pa.schema(
    {"group": pa.int64(), "score": pa.float32(), "length": pa.int64(), "id": pa.large_string(), "document": pa.int64()}
)


class Best:
    """The best document that an input unit has of each cluster, and of each set of exact copies.

    near.arrow, exact.arrow: sorted by group, which is the number of its first document in the run.
    """

    name = BEST

    def units(self, job: Job) -> int:
        """The units of the input."""
        return len(job.units)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Look at the unit's documents that have a duplicate."""
        first, nodes = read_nodes(job, unit)
        rows = nodes.document - first
        about = read_rows(job, unit, ["score", "bytes", "id"]).take(pa.array(rows))
        ids = unique_ids(job, unit, about["id"].combine_chunks(), nodes.document)
        table = pa.table(
            [nodes.near, about["score"], about["bytes"], ids.cast(pa.large_string()), nodes.document], schema=_SCHEMA
        )
        chosen = {
            "near": table.filter(pa.array(nodes.earlier < 0)),
            "exact": table.set_column(0, "group", pa.array(nodes.exact)).filter(pa.array(nodes.copied)),
        }
        counts = {}
        for kind, some in chosen.items():
            best = _best(some)
            with pa.OSFile(str(folder / FILES[kind]), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
                writer.write_table(best)
            counts[kind] = best.num_rows
        return counts


class Survivors:
    """The best document of each cluster, sent to the input units that have a document of the cluster.

    stays.bin: a block for each input unit with, for each of its nodes, the number of the document that stays of its
    cluster (-1 where it is one of an earlier run) and of its set of exact copies, and the id of the former.
    """

    name = SURVIVORS

    def units(self, job: Job) -> int:
        """One."""
        return 1

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Merge the candidates in as many stretches as memory asks for, then look up each unit's nodes."""
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            best = {kind: _merge(job, kind, Path(scratch)) for kind in FILES}
            earlier = _earlier_ids(job)
            with BlockWriter(folder / STAYS, _STAYS) as blocks:
                for number in range(len(job.units)):
                    self._route(job, number, best, earlier, blocks)
            return {kind: len(table.group) for kind, table in best.items()}

    def _route(
        self, job: Job, unit: int, best: dict[str, _Table], earlier: tuple[Int64, pa.Array], blocks: BlockWriter
    ) -> None:
        _, nodes = read_nodes(job, unit)
        new = nodes.earlier < 0
        near, exact = np.full(len(nodes.document), -1, np.int64), nodes.document.copy()
        places = best["near"].places(nodes.near[new])
        near[new] = best["near"].document[places]
        exact[nodes.copied] = best["exact"].document[best["exact"].places(nodes.exact[nodes.copied])]
        ids = np.full(len(nodes.document), "", dtype=object)
        ids[new] = best["near"].ids.take(pa.array(places)).to_numpy(zero_copy_only=False)
        old = np.searchsorted(earlier[0], nodes.earlier[~new])
        ids[~new] = earlier[1].take(pa.array(old)).to_numpy(zero_copy_only=False)
        ids[near == nodes.document] = ""
        encoded = [i.encode() for i in ids.tolist()]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        blocks.write(near, exact, ends, np.frombuffer(b"".join(encoded), np.uint8))


@dataclass(frozen=True, slots=True)
class Stays:
    """What stays of the clusters of an input unit's nodes.

    Attributes:
        near: int64[n], number of the document that stays of the cluster, -1 for one of an earlier run.
        exact: int64[n], number of the document that stays of those with the same normalised text.
        ids: string[n], id of the former; "" where the node itself stays.
    """

    near: Int64
    exact: Int64
    ids: pa.Array


def read_survivors(job: Job, unit: int) -> Stays:
    """What stays of the clusters of an input unit's nodes, as `filters.pipeline.phases.cluster.read_nodes` gives them.

    Raises:
        DamagedError: what is read is missing or damaged.
    """
    with reading_blocks(job, SURVIVORS, 0, STAYS, _STAYS) as reader:
        near, exact, ends, text = reader.arrays(unit)
    ids = pa.LargeStringArray.from_buffers(len(near), pa.py_buffer(ends), pa.py_buffer(text))
    return Stays(near, exact, ids.cast(pa.string()))


def unique_ids(job: Job, unit: int, ids: pa.Array, documents: Int64) -> pa.Array:
    """Ids of some documents of an input unit (string[n], their numbers ascending), with the suffixes they get."""
    renamed, numbers = read_names(job, unit)
    if not len(renamed):
        return ids
    suffix = np.full(len(documents), 0, np.int64)
    places = np.searchsorted(renamed, documents)
    places[places == len(renamed)] = 0
    here = renamed[places] == documents
    suffix[here] = numbers[places[here]]
    values = ids.to_pylist()
    for row in np.flatnonzero(here).tolist():
        values[row] = f"{values[row]}#{suffix[row]}"
    return pa.array(values, ids.type)


def _best(table: pa.Table) -> pa.Table:
    """The best row of each group, sorted by group."""
    column = {name: table[name].to_numpy() for name in ("group", "score", "length", "document")}
    ids = table["id"].combine_chunks() if table.num_rows else pa.array([], pa.large_string())
    order = best_first(column["group"], column["score"], column["length"], ids, column["document"])
    return table.take(pa.array(order[firsts(column["group"][order])]))


@dataclass(frozen=True, slots=True)
class _Table:
    """The best document of every group, mapped from disk."""

    group: Int64
    document: Int64
    ids: pa.Array

    def places(self, groups: Int64) -> Int64:
        """int64[n]: row of each group."""
        found = np.searchsorted(self.group, groups)
        if len(groups) and not (len(self.group) and np.array_equal(self.group[found], groups)):
            raise ValueError("a cluster without a best document")
        return found


def _merge(job: Job, kind: str, scratch: Path) -> _Table:
    total = sum(int(job.facts(BEST, unit)[kind]) for unit in range(len(job.units)))
    stretches = max(1, -(-total * _BYTES_PER_CANDIDATE // job.config.dedup.memory))
    bounds = np.linspace(0, first_rows(job)[-1], stretches + 1).astype(np.int64)
    path = scratch / f"{kind}.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            parts = [_stretch(job, unit, kind, low, high) for unit in range(len(job.units))]
            writer.write_table(_best(pa.concat_tables([_SCHEMA.empty_table(), *parts])))
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    # One stretch is one record batch, mapped; several are gathered, which costs memory but no more than their number.
    table = table.combine_chunks()
    ids = table["id"].combine_chunks() if table.num_rows else pa.array([], pa.large_string())
    return _Table(table["group"].to_numpy(), table["document"].to_numpy(), ids)


def _stretch(job: Job, unit: int, kind: str, low: int, high: int) -> pa.Table:
    with pa.memory_map(str(job.file(BEST, unit, FILES[kind]))) as source:
        table = pa.ipc.open_file(source).read_all()
    start, stop = np.searchsorted(table["group"].to_numpy(), [low, high]).tolist()
    return table.slice(start, stop - start)


def _earlier_ids(job: Job) -> tuple[Int64, pa.Array]:
    """(numbers over all earlier runs, ascending; "RUN:ID") of the documents that this run has copies of."""
    runs = open_earlier(job.config.dedup)
    if not runs:
        return np.empty(0, np.int64), pa.array([], pa.string())
    numbers = np.unique(np.concatenate([read_nodes(job, unit)[1].earlier for unit in range(len(job.units))]))
    numbers = numbers[numbers >= 0]
    starts = offsets(runs)
    names: list[str] = []
    for run, (start, stop) in zip(runs, _spans(starts), strict=True):
        rows = numbers[(numbers >= start) & (numbers < stop)] - start
        names += [f"{run.path}:{i}" for i in run.ids(rows)]
    return numbers, pa.array(names, pa.string())


def _spans(starts: Int64) -> Iterator[tuple[int, int]]:
    yield from zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
