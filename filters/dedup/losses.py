"""Phases `counts` and `losses`: what near copies take of each source, where `dedup.max_source_loss` asks for it.

A source is an input file, a host, or a value of a column in `input.slices`. The phases look at no limit: a run that
stopped for one goes on with another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from filters.dedup.bands import partitions
from filters.dedup.clusters import verdicts
from filters.dedup.join import Mail
from filters.errors import RunError
from filters.kernels.packed import Ragged
from filters.phases.blocks import Table, firsts, join_tables, take
from filters.phases.phase import Job
from filters.phases.rows import SLICE, read_rows
from filters.scores.hosts import hosts

LOSSES = "losses"
COUNTS = Mail(
    "counts",
    "counts.bin",
    {
        "source": "[u1]", "documents": "<i8", "lost": "<i8", "size": "<i8", "kept": "[u1]", "one": "[u1]",
        "other": "[u1]",
    },
    senders=lambda job: len(job.units),
)  # fmt: skip
"""A source, its documents and how many of these are near copies; of the largest cluster among them the documents, the
id of the one that stays, and of two that go ("" where there is no second)."""
FEWEST = 10
"""A source of fewer documents says nothing."""
_SHOWN = 10


class Counts:
    """Writes `COUNTS`: what the sources of an input unit lose, sent to a part by a hash of their names."""

    name = COUNTS.phase

    def units(self, job: Job) -> int:
        """The units of the input, where it is asked for."""
        return len(job.units) * (job.config.dedup.max_source_loss is not None)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Count documents and near copies."""
        parts = partitions(job)
        with COUNTS.outbox(job, folder) as box:
            for table in _counts(job, unit):
                names = table["source"].strings().to_pylist()
                hashes = np.array([xxhash.xxh3_64_intdigest(name.encode()) % parts for name in names], np.int64)
                box.add(hashes, **table)
        return {}


class Losses:
    """Facts: worst (sources of a part that lose the largest share, see `COUNTS`)."""

    name = LOSSES

    def units(self, job: Job) -> int:
        """The parts, where it is asked for."""
        return partitions(job) * (job.config.dedup.max_source_loss is not None)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Add up what the units of the input say of the sources of a part."""
        found = join_tables([], COUNTS.columns)
        for some in COUNTS.letters(job, unit):
            found = _added(join_tables([found, some], COUNTS.columns))
        found = take(found, (found["documents"] >= FEWEST) & (found["lost"] > 0))
        order = np.lexsort((-found["lost"], -found["lost"] / found["documents"]))
        shown = take(found, order[:_SHOWN])
        columns = {
            name: column.strings().to_pylist() if isinstance(column, Ragged) else column.tolist()
            for name, column in shown.items()
        }
        return {"worst": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def check_losses(job: Job, notice: Callable[[str], None]) -> None:
    """Stop a run, or say so, where a source loses more than `dedup.max_source_loss`.

    Raises:
        RunError: one does, and `dedup.on_source_loss` is stop.
    """
    found = losses(job)
    if not found:
        return
    more = f" ({len(found) - 1} more sources likewise)" * (len(found) > 1)
    said = f"{loss_line(found[0])}{more}: more than dedup.max_source_loss: {job.config.dedup.max_source_loss:g} allows"
    if job.config.dedup.on_source_loss == "stop":
        raise RunError(
            f"{said}. Nothing was published; what is done is kept. Remedy: look at these documents; raise "
            "dedup.near.similarity and start afresh with --force-new, or go on with dedup.on_source_loss: warn"
        )
    notice(said)


def loss_line(loss: dict[str, Any]) -> str:
    """What a source loses, in words."""
    members = " and ".join(name for name in (loss["one"], loss["other"]) if name)
    return (
        f"{loss['source']}: {loss['lost']:,} of {loss['documents']:,} documents go as near copies; the largest cluster "
        f"has {loss['size']:,} documents, of which document {loss['kept']} stays and {members} go"
    )


def losses(job: Job) -> list[dict[str, Any]]:
    """The sources that lose too much, those that lose most first; at most ten of each part.

    Raises:
        DamagedError: a unit of the phase has no entry.
    """
    most = job.config.dedup.max_source_loss
    if most is None:
        return []
    worst = [loss for part in range(partitions(job)) for loss in job.facts(LOSSES, part)["worst"]]
    worst = [loss for loss in worst if loss["lost"] > most * loss["documents"]]
    return sorted(worst, key=lambda loss: (-loss["lost"], loss["source"]))


def _counts(job: Job, unit: int) -> Iterator[Table]:
    slices = job.config.slices
    rows = read_rows(job, unit, ["reason", "url", *(SLICE + name for name in slices)])
    n = rows.num_rows
    found = verdicts(job, unit)
    alive = rows["reason"].is_null().to_numpy()
    columns = {"": pa.array([job.units[unit].source] * n, pa.string())}
    columns["host "] = hosts(rows["url"].combine_chunks()) if n else pa.array([], pa.string())
    columns |= {f"{name} ": rows[SLICE + name].combine_chunks() for name in slices}
    lost = np.flatnonzero(pc.fill_null(pc.equal(found.reason, "near_duplicate"), False).to_numpy(zero_copy_only=False))
    for kind, column in columns.items():
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        encoded = column.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        values = [f"{kind}{value}" for value in encoded.dictionary.to_pylist()]
        mine = lost[codes[lost] >= 0]
        cluster, sizes = found.near_cluster[mine], found.cluster_size[mine]
        mine = mine[np.lexsort((mine, cluster, -sizes, codes[mine]))]
        of = codes[mine]
        start = np.flatnonzero(firsts(of))
        second = np.minimum(start + 1, max(len(of) - 1, 0))
        has_second = (second > start) & (of[second] == of[start])
        has_second &= found.near_cluster[mine[second]] == found.near_cluster[mine[start]]
        size, kept = np.zeros(len(values), np.int64), np.full(len(values), "", object)
        one, other = kept.copy(), kept.copy()
        size[of[start]] = found.cluster_size[mine[start]]
        kept[of[start]] = found.duplicate_of.take(pa.array(mine[start])).to_pylist()
        one[of[start]] = found.id.take(pa.array(mine[start])).to_pylist()
        other[of[start[has_second]]] = found.id.take(pa.array(mine[second[has_second]])).to_pylist()
        yield {
            "source": _texts(values),
            "documents": np.bincount(codes[alive & (codes >= 0)], minlength=len(values)),
            "lost": np.bincount(of, minlength=len(values)),
            "size": size, "kept": _texts(kept), "one": _texts(one), "other": _texts(other),
        }  # fmt: skip


def _texts(values: Any) -> Ragged:
    return Ragged.of_strings(pa.array(list(values), pa.large_string()))


def _added(table: Table) -> Table:
    """A row for each source: sums, and the largest cluster of any row."""
    names = table["source"].strings().to_pylist()
    order = np.array(sorted(range(len(names)), key=lambda row: (names[row], -int(table["size"][row]))), np.int64)
    ordered = np.array([names[row] for row in order.tolist()], object)
    start = np.flatnonzero(firsts(ordered))
    added = take(table, order[start])
    for name in ("documents", "lost"):
        added[name] = np.add.reduceat(table[name][order], start)
    return added
