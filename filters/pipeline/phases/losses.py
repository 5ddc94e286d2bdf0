"""Phase `losses`: whether near copies take more of a source than `dedup.max_source_loss` allows.

A source is an input file, a host, or a value of a column in `input.slices`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from filters.dedup.order import firsts
from filters.errors import RunError
from filters.inspect.hosts import hosts
from filters.kernels.arrays import Int64
from filters.kernels.ragged import Ragged
from filters.pipeline.phases.bands import partitions
from filters.pipeline.phases.mail import Outbox, Table, height, join_tables, letters, take
from filters.pipeline.phases.phase import Job
from filters.pipeline.phases.rows import SLICE, first_rows, read_rows

LOSSES, COUNTS, VERDICTS = "losses", "losses.bin", "verdicts"
COUNT_COLUMNS = {
    "source": "[u1]", "documents": "<i8", "lost": "<i8", "size": "<i8", "kept": "[u1]", "one": "[u1]", "other": "[u1]",
}  # fmt: skip
"""A source, its documents and how many of these are near copies; of the largest cluster among them the documents, the
id of the one that stays, and of two that go ("" where there is no second)."""
FEWEST = 10
"""A source of fewer documents says nothing."""
_SHOWN = 10


class Losses:
    """Facts: sources (that lose too much), worst (some of them, see `COUNT_COLUMNS`)."""

    name = LOSSES

    def units(self, job: Job) -> int:
        """The parts, where it is asked for."""
        return partitions(job) * (job.config.dedup.max_source_loss is not None)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Add up what the units of the input say of the sources of a part.

        Raises:
            RunError: a source loses too much, and `dedup.on_source_loss` is stop.
        """
        most = job.config.dedup.max_source_loss
        assert most is not None
        found = join_tables([], COUNT_COLUMNS)
        for some in letters(job, VERDICTS, range(len(job.units)), COUNTS, COUNT_COLUMNS, unit, partitions(job)):
            found = _added(join_tables([found, some], COUNT_COLUMNS))
        over = take(found, (found["documents"] >= FEWEST) & (found["lost"] > most * found["documents"]))
        over = take(over, np.argsort(-over["lost"], kind="stable"))
        shown = take(over, np.arange(min(height(over), _SHOWN)))
        columns = {
            name: column.strings().to_pylist() if isinstance(column, Ragged) else column.tolist()
            for name, column in shown.items()
        }
        worst = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if worst and job.config.dedup.on_source_loss == "stop":
            more = f" ({height(over) - 1} more sources likewise)" * (height(over) > 1)
            raise RunError(
                f"{loss_line(worst[0])}{more}: more than dedup.max_source_loss: {most:g} allows. Nothing was "
                "published. Remedy: look at these documents; raise dedup.near.similarity, or set dedup.on_source_loss: "
                "warn if they are copies"
            )
        return {"sources": height(over), "worst": worst}


def loss_line(loss: dict[str, Any]) -> str:
    """What a source loses, in words."""
    members = " and ".join(name for name in (loss["one"], loss["other"]) if name)
    return (
        f"{loss['source']}: {loss['lost']:,} of {loss['documents']:,} documents go as near copies; the largest cluster "
        f"has {loss['size']:,} documents, of which {loss['kept']} stays and {members} go"
    )


def losses(job: Job) -> list[dict[str, Any]]:
    """The sources that lose too much, those that lose most first; at most ten of each part.

    Raises:
        DamagedError: a unit of the phase has no entry.
    """
    parts = range(partitions(job) * (job.config.dedup.max_source_loss is not None))
    worst = [loss for part in parts for loss in job.facts(LOSSES, part)["worst"]]
    return sorted(worst, key=lambda loss: (-loss["lost"], loss["source"]))


def send_counts(job: Job, unit: int, folder: Path, found: Table, near: Int64, ids: pa.Array) -> None:
    """Write losses.bin of an input unit: what its sources lose.

    Args:
        job: of the run.
        unit: of the input.
        folder: to write into.
        found: what the phase `clusters` says of the unit's documents.
        near: int64[n], rows of `found` that are near copies.
        ids: string[rows of the unit], unique.
    """
    parts = partitions(job)
    with Outbox(folder / COUNTS, COUNT_COLUMNS, parts) as box:
        for table in _counts(job, unit, found, near, ids):
            names = table["source"].strings().to_pylist()
            hashes = np.array([xxhash.xxh3_64_intdigest(name.encode()) % parts for name in names], np.int64)
            box.add(hashes, **table)


def _counts(job: Job, unit: int, found: Table, near: Int64, ids: pa.Array) -> Iterator[Table]:
    slices = job.config.input.slices
    rows = read_rows(job, unit, ["reason", "url", *(SLICE + name for name in slices)])
    n = rows.num_rows
    alive = rows["reason"].is_null().to_numpy()
    columns = {"": pa.array([job.units[unit].source] * n, pa.string())}
    columns["host "] = hosts(rows["url"].combine_chunks()) if n else pa.array([], pa.string())
    columns |= {f"{name} ": rows[SLICE + name].combine_chunks() for name in slices}
    lost = found["document"][near] - int(first_rows(job)[unit])
    for kind, column in columns.items():
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        encoded = column.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        values = [f"{kind}{value}" for value in encoded.dictionary.to_pylist()]
        mine = codes[lost] >= 0
        rows_lost, which = lost[mine], near[mine]
        order = np.lexsort((rows_lost, found["cluster"][which], -found["size"][which], codes[rows_lost]))
        rows_lost, which = rows_lost[order], which[order]
        of = codes[rows_lost]
        start = np.flatnonzero(firsts(of))
        second = np.minimum(start + 1, max(len(of) - 1, 0))
        has_second = (second > start) & (of[second] == of[start])
        has_second &= found["cluster"][which[second]] == found["cluster"][which[start]]
        size, kept = np.zeros(len(values), np.int64), np.full(len(values), "", object)
        one, other = kept.copy(), kept.copy()
        size[of[start]] = found["size"][which[start]]
        kept[of[start]] = found["witness"].take(which[start]).strings().to_pylist()
        one[of[start]] = ids.take(pa.array(rows_lost[start])).to_pylist()
        other[of[start[has_second]]] = ids.take(pa.array(rows_lost[second[has_second]])).to_pylist()
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
