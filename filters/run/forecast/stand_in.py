"""Documents that never were, for the phases that look at no text: what join, cluster and select cost, and with how many
copies, is measured on them.

A thousand documents of a dump have hardly a copy among them, and cost these phases less than opening their files does.
So the rows of a pilot's documents are drawn again and again, with keys of their own and with as many copies as one
wants, and the phases run over those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from filters.arrays import Int64, UInt64
from filters.dedup.band_file import BANDS, BandWriter
from filters.dedup.bands import partitions
from filters.phases.phase import Job
from filters.phases.rows import ATTRIBUTES, ROWS
from filters.phases.texts import TEXT, TextWriter
from filters.read.batch import Batch
from filters.storage.publish import xxh3

_BATCH = 1000
_EXACT = 0.2
"""Share of copies that are exact."""
_JITTER = {"bytes": np.int64, "tokens": np.int32, "score": np.float32}
"""Columns whose values would else come again and again, and compress as real ones do not."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """How many documents, and in what pieces.

    Attributes:
        documents: in all units together.
        units: of the input.
        partitions: hash ranges.
        copies: how many copies a document has among the others, on average.
    """

    documents: int
    units: int
    partitions: int
    copies: float


def write_stand_in(job: Job, rows: pa.Table, kind: StandIn, seed: int) -> None:
    """Write what the phase `attributes` would leave of such documents, as done.

    Args:
        job: with `kind.units` units and `kind.partitions` hash ranges; its work folder exists.
        rows: of the pilot, as in rows.arrow; at least one.
        kind: what is wanted.
        seed: of all that is drawn.
    """
    generator = np.random.default_rng(seed)
    near = job.config.dedup.near
    clusters = _clusters(kind, generator)
    bounds = np.linspace(0, kind.documents, kind.units + 1).astype(np.int64)
    for unit in range(kind.units):
        begin, end = int(bounds[unit]), int(bounds[unit + 1])
        table = _rows(rows, begin, end, generator)
        own = generator.integers(1, 2**63, end - begin, dtype=np.uint64)
        exact = np.where(generator.random(end - begin) < _EXACT, _mixed(clusters[begin:end]), own)
        bands = near.bands if near else 0
        keys = _mixed(clusters[begin:end, None] * np.int64(max(bands, 1)) + np.arange(bands))
        folder = job.folder(ATTRIBUTES, unit)
        folder.mkdir(parents=True)
        with pa.ipc.new_stream(
            str(folder / ROWS), table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
        ) as writer:
            for batch in table.to_batches(_BATCH):
                writer.write_batch(batch, custom_metadata={"source": job.units[unit].source})
        alive = table["reason"].is_null().to_numpy()
        with TextWriter(folder / TEXT, rejected=False) as texts:
            texts.write(_texts(clusters[begin:end], table, job.units[unit].source))
        with BandWriter(folder / BANDS, partitions(job)) as writer:
            writer.add(
                table["id"].combine_chunks(),
                alive,
                np.stack([exact, own], axis=1) if job.config.dedup.exact else None,
                keys if near else None,
                table["has_signature"].fill_null(False).to_numpy(),
            )
        files = {path.name: {"bytes": path.stat().st_size, "xxh3_128": xxh3(path)} for path in folder.iterdir()}
        n = table.num_rows
        facts: dict[str, Any] = {"rows": n, "records": n, "skipped": 0, "quarantined": {}}
        job.enter(ATTRIBUTES, unit, {"files": files, "facts": facts | {"reading": None, "columns": None}, "cost": {}})


def _texts(clusters: Int64, table: pa.Table, source: str) -> Batch:
    """Texts that are the same within a cluster, and short."""
    words = " ".join(f"{{0}}{letter}" for letter in "abcdefgh")
    texts = pa.array([words.format(number) for number in clusters.tolist()], pa.large_string())
    reason = np.array(table["reason"].to_pylist(), dtype=object)
    return Batch(source, table["position"].to_numpy(), table["id"].combine_chunks(), texts, reason, {})


def _clusters(kind: StandIn, generator: np.random.Generator) -> Int64:
    """int64[documents]: the cluster of each, the members of one anywhere in the run."""
    # The number of *other* documents like it is Poisson, so a cluster of size k has weight proportional to 1 / k.
    sizes = 1 + generator.poisson(kind.copies, 2 * kind.documents + 10)
    sizes = sizes[generator.random(len(sizes)) < 1 / sizes]
    while sizes.sum() < kind.documents:
        sizes = np.concatenate([sizes, sizes])
    numbers = np.repeat(np.arange(len(sizes)), sizes)[: kind.documents]
    return generator.permutation(numbers)


def _rows(rows: pa.Table, begin: int, end: int, generator: np.random.Generator) -> pa.Table:
    n = end - begin
    table = rows.take(pa.array(generator.integers(0, rows.num_rows, n)))
    # pyarrow's take leaves large strings in several chunks, and record batches are cut at them.
    table = table.combine_chunks()
    fresh = {
        "position": pa.array(np.arange(n, dtype=np.int64)),
        "id": pa.array([f"{number:032x}" for number in range(begin, end)]),
        "checksum": pa.array(generator.integers(0, 2**63, n, dtype=np.uint64)),
    }
    for name, kind in _JITTER.items():
        values = table[name].to_numpy(zero_copy_only=False) * generator.uniform(0.9, 1.1, n)
        missing = np.isnan(values)
        fresh[name] = pa.array(np.where(missing, 0, values).astype(kind), mask=missing)
    for name, column in fresh.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), column)
    return table


def _mixed(numbers: Int64) -> UInt64:
    """uint64 of the same shape: numbers spread over the whole range, one to one."""
    mixed = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
