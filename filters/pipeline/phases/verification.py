"""True Jaccard similarity of candidate pairs, where `dedup.near.verify` asks for it.

    candidates  one unit: components of all near pairs; which component, and so which documents, go to which unit
    shingles    a unit for each input unit: reads its texts once more, keeps the shingles of candidate documents
    verify      a unit for each part of the components: compares documents that share a band

Only documents of this run are compared: a document that shares a band with one of an earlier run is taken for its copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from filters.dedup.blocks import BlockWriter
from filters.dedup.components import Clusters
from filters.kernels.arrays import Int64, UInt32
from filters.kernels.packed import PackedText
from filters.kernels.shingles import shingle_sets, verify_stars
from filters.kernels.words import word_hashes
from filters.pipeline.phases.bands import partitions, reading_blocks
from filters.pipeline.phases.joins import NEAR, pairs_of
from filters.pipeline.phases.phase import Job
from filters.pipeline.phases.rows import first_rows
from filters.pipeline.phases.texts import read_texts

CANDIDATES, SHINGLES, VERIFY = "candidates", "shingles", "verify"
NODES, PAIRS, SETS, VERIFIED = "nodes.bin", "pairs.bin", "sets.bin", "near.bin"
_NODES = ["<i8", "<i8", "<i8"]
_PAIRS = ["<i8", "<i8"]
_SETS = ["<i8", "<i8", "<u4"]
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


def is_asked_for(job: Job) -> bool:
    """Whether the config asks for verification."""
    return job.config.dedup.near is not None and job.config.dedup.near.verify is not None


class Candidates:
    """nodes.bin: a block for each input unit with its documents in near pairs and the part each belongs to.

    pairs.bin: for each chunk of pairs, a block for each part. Facts: components, nodes.
    """

    name = CANDIDATES

    def units(self, job: Job) -> int:
        """One, where pairs are verified."""
        return int(is_asked_for(job))

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Find the components and deal them out."""
        bounds, parts = first_rows(job), partitions(job)
        nothing: Callable[[], Iterator[Int64]] = lambda: iter(())  # noqa: E731
        clusters = Clusters(int(bounds[-1]), nothing, pairs_of(job, NEAR), nothing)
        components = 0
        with BlockWriter(folder / NODES, _NODES) as blocks:
            for first, nodes in zip(bounds[:-1], clusters.nodes(bounds), strict=True):
                blocks.write(np.array([first]), nodes.document, _part(nodes.near, parts))
                components += int((nodes.near == nodes.document).sum())
        with BlockWriter(folder / PAIRS, _PAIRS) as blocks:
            for chunk in pairs_of(job, NEAR)():
                pairs = np.unique(chunk, axis=0)
                part = _part(clusters.roots(pairs), parts)
                order = np.argsort(part, kind="stable")
                cuts = np.searchsorted(part[order], np.arange(parts + 1)).tolist()
                for number in range(parts):
                    some = pairs[order[cuts[number] : cuts[number + 1]]]
                    blocks.write(some[:, 0], some[:, 1])
        return {"components": components, "nodes": clusters.count}


class Shingles:
    """sets.bin: a block for each part: documents, offsets and sorted hashes of their shingles."""

    name = SHINGLES

    def units(self, job: Job) -> int:
        """The units of the input, where pairs are verified."""
        return len(job.units) * is_asked_for(job)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Read the texts of an input unit, if it has any candidates."""
        near = job.config.dedup.near
        assert near is not None
        with reading_blocks(job, CANDIDATES, 0, NODES, _NODES) as reader:
            first, documents, part = reader.arrays(unit)
        hashes, lengths = _sets(job, unit, documents - first[0], near.shingle)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        with BlockWriter(folder / SETS, _SETS) as blocks:
            for number in range(partitions(job)):
                rows = np.flatnonzero(part == number).tolist()
                chosen = [hashes[starts[row] : starts[row + 1]] for row in rows]
                ends = np.cumsum([0, *map(len, chosen)], dtype=np.int64)
                blocks.write(documents[rows], ends, np.concatenate([np.empty(0, np.uint32), *chosen]))
        return {}


class Verify:
    """near.bin: pairs of documents that belong together. Facts: candidates (distinct pairs that share a band),
    compared, false_joins (candidates whose documents end in different clusters), clusters.
    """

    name = VERIFY

    def units(self, job: Job) -> int:
        """The parts, where pairs are verified."""
        return partitions(job) * is_asked_for(job)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Compare the documents of the components of one part. Holds their shingles: 2 kB for a page of 500 words."""
        near, parts = job.config.dedup.near, partitions(job)
        assert near is not None
        assert near.verify is not None
        with reading_blocks(job, CANDIDATES, 0, PAIRS, _PAIRS) as reader:
            chunks = [np.stack(reader.arrays(block), axis=1) for block in range(unit, len(reader), parts)]
        pairs = np.unique(np.concatenate([np.empty((0, 2), np.int64), *chunks]), axis=0)
        documents, hashes, ends = [np.empty(0, np.int64)], [np.empty(0, np.uint32)], [np.zeros(1, np.int64)]
        held = 0
        for number in range(len(job.units)):
            with reading_blocks(job, SHINGLES, number, SETS, _SETS) as reader:
                some, offsets, shingles = reader.arrays(unit)
            documents.append(some)
            hashes.append(shingles)
            ends.append(offsets[1:] + held)
            held += len(shingles)
        every = np.concatenate(documents)
        places = np.searchsorted(every, pairs)
        joined, roots, compared = verify_stars(np.concatenate(hashes), np.concatenate(ends), places, near.verify)
        with BlockWriter(folder / VERIFIED, _PAIRS) as blocks:
            blocks.write(every[joined[:, 0]], every[joined[:, 1]])
        return {
            "candidates": len(pairs),
            "compared": compared,
            "false_joins": int((roots[places[:, 0]] != roots[places[:, 1]]).sum()),
            "clusters": len(every) - len(joined),  # every pair that was joined made two clusters one
        }


def near_pairs(job: Job) -> Callable[[], Iterator[Int64]]:
    """Chunks of the pairs that make near clusters, int64[m, 2]; may be called many times.

    Raises:
        DamagedError: a file is missing or damaged.
    """
    if not is_asked_for(job):
        return pairs_of(job, NEAR)

    def read() -> Iterator[Int64]:
        for unit in range(partitions(job)):
            with reading_blocks(job, VERIFY, unit, VERIFIED, _PAIRS) as reader:
                yield np.stack(reader.arrays(0), axis=1)

    return read


def false_joins(job: Job) -> dict[str, int] | None:
    """What verification did, over all parts; None where it was not asked for.

    candidates: pairs that share a band; false_joins: those whose documents ended in different clusters;
    documents_freed: documents that would have been removed as near duplicates without it.
    """
    if not is_asked_for(job):
        return None
    facts = [job.facts(VERIFY, unit) for unit in range(partitions(job))]
    total = {name: sum(int(some[name]) for some in facts) for name in ("candidates", "compared", "false_joins")}
    clusters = sum(int(some["clusters"]) for some in facts)
    return total | {"documents_freed": clusters - int(job.facts(CANDIDATES, 0)["components"])}


def _part(roots: Int64, parts: int) -> Int64:
    """int64[n]: the part a component belongs to, by a hash of its root."""
    mixed = roots.astype(np.uint64) * _MULTIPLIER
    return ((mixed >> _HALF) * np.uint64(parts) >> _HALF).astype(np.int64)


def _sets(job: Job, unit: int, rows: Int64, shingle: int) -> tuple[UInt32, Int64]:
    """(hashes, how many each has) of the shingle sets of some rows (ascending) of an input unit."""
    hashes, lengths = [np.empty(0, np.uint32)], [np.empty(0, np.int64)]
    row = 0
    for batch in read_texts(job, unit) if len(rows) else ():
        start, stop = np.searchsorted(rows, [row, row + len(batch)]).tolist()
        if stop > start:
            texts = PackedText.from_arrow(batch.text.take(pa.array(rows[start:stop] - row)))
            some, offsets = shingle_sets(word_hashes(texts), shingle=shingle)
            hashes.append(some)
            lengths.append(np.diff(offsets))
        row += len(batch)
    return np.concatenate(hashes), np.concatenate(lengths)
