"""Resolve: from the keys of documents to what deduplication over the whole run says of each.

join                 hash ranges: documents that share a key (`filters.dedup.join`)
copies, exact        places, parts: what documents with copies are ranked by; the best of each set of exact copies
shingles, compare    places, parts: the true similarity of documents that share a band (`...candidates`)
round-*, settle      parts, one unit: which documents stay (`...rounds`)
witnesses, clusters  parts: who each removed document is a copy of, and how many copies each kept one has
verdicts             input units: all that, in the order of the input

A *place* is an input unit, or a file of an earlier run's shingles; a *part* holds documents by a hash of their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from filters.arrays import Bool, Float32, Int32, Int64
from filters.config.filter import RepeatConfig
from filters.dedup.bands import partitions
from filters.dedup.candidates import (
    COMPARE,
    CROWDED,
    CROWDED_COLUMNS,
    WITNESS_COLUMNS,
    Compare,
    Shingles,
)
from filters.dedup.copies import MEMBER_COLUMNS, Copies, Exact, members_of, part_of, ranked, renamed_ids
from filters.dedup.join import NAMES, NAMES_COLUMNS, Join, from_join, pairs_joined, places
from filters.dedup.rounds import ROUNDS, Round, Settle, witnesses_for
from filters.kernels.packed import Ragged
from filters.phases.blocks import (
    BlockFileError,
    BlockReader,
    BlockWriter,
    Outbox,
    Table,
    firsts,
    height,
    join_tables,
    letters,
    position,
    take,
)
from filters.phases.phase import DamagedError, Job, Phase
from filters.phases.rows import first_rows, read_rows

WITNESSES, CLUSTERS, VERDICTS = "witnesses", "clusters", "verdicts"
REMOVED, ROOTS, FOUND = "removed.bin", "roots.bin", "verdicts.bin"
REMOVED_COLUMNS = {"witness": "<i8", "document": "<i8", "root": "<i8", "similarity": "<f8"}
"""A removed document, its root, and the root it is a copy of."""
ROOT_COLUMNS = {"root": "<i8"}
VERDICT_COLUMNS = {
    "document": "<i8", "exact": "<i8", "cluster": "<i8", "size": "<i8", "similarity": "<f8", "reason": "|u1",
    "witness": "[u1]",
}  # fmt: skip
"""A document that has copies, see `Verdicts`; reason: a number in `REASONS`."""
REASONS = (None, "exact_duplicate", "near_duplicate", "in_earlier_run")
_KEPT, _EXACT, _NEAR, _EARLIER = range(4)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What deduplication over the whole run says of the n rows of an input unit.

    Attributes:
        id: string[n], unique in the run.
        renamed: bool[n], whether `id` got a suffix.
        exact_cluster: int64[n], number of the first document with the same normalised text; -1 for rows not alive.
        near_cluster: int64[n], number of the document that stays of the cluster; -1 for rows not alive. Where that is
            one of an earlier run: of the first copy.
        cluster_size: int32[n], documents in the near cluster (1 for a document without copies); 0 for rows not alive.
        duplicate_of: string[n], id of the document that a removed one is a copy of, null for a survivor; "RUN:ID" for a
            document of an earlier run.
        similarity: float64[n], how much the two resemble each other; null for a survivor.
        reason: string[n], "exact_duplicate", "near_duplicate", "in_earlier_run" or the reason the row had;
            null for a survivor.
    """

    id: pa.Array
    renamed: Bool
    exact_cluster: Int64
    near_cluster: Int64
    cluster_size: Int32
    duplicate_of: pa.Array
    similarity: pa.Array
    reason: pa.Array


class Witnesses:
    """removed.bin: the documents of a part that are removed as near copies, each with all that have the same text, sent
    to the part of the document they are a copy of: of all that stay the one most like it. roots.bin: their roots.

    Facts: crowded (documents in crowded buckets).
    """

    name = WITNESSES

    def units(self, job: Job) -> int:
        """The parts, where near copies are looked for."""
        return partitions(job) * (job.config.dedup.near is not None)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Choose the witness of each removed document."""
        parts = partitions(job)
        best = join_tables([], WITNESS_COLUMNS)
        for some in witnesses_for(job, unit):
            best = join_tables([best, some], WITNESS_COLUMNS)
            best = take(best, np.lexsort((best["witness"], -best["similarity"], best["document"])))
            best = take(best, firsts(best["document"]))
        removed: Int64 = best["document"]
        with (
            Outbox(folder / REMOVED, REMOVED_COLUMNS, parts) as box,
            Outbox(folder / ROOTS, ROOT_COLUMNS, 1) as own,
        ):
            own.add(np.zeros(len(removed), np.int64), root=removed)
            for members in members_of(job, unit) if len(removed) else ():
                at = position(removed, members["root"])
                at[at == len(removed)] = 0
                here = removed[at] == members["root"]
                rows = take(best, at[here])
                witness = rows["witness"]
                box.add(
                    part_of(witness, parts), witness=witness, document=members["document"][here],
                    root=members["root"][here], similarity=rows["similarity"],
                )  # fmt: skip
        crowded = [
            some["document"] for some in letters(job, COMPARE, range(parts), CROWDED, CROWDED_COLUMNS, unit, parts)
        ]
        return {"crowded": len(np.unique(np.concatenate([np.empty(0, np.int64), *crowded])))}


class Clusters:
    """verdicts.bin: what becomes of the documents that have a copy, sent to their places.

    Facts: clusters (kept documents that others are copies of), documents (in them).
    """

    name = CLUSTERS

    def units(self, job: Job) -> int:
        """The parts."""
        return partitions(job)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Gather the copies of the documents of a part."""
        parts, where = partitions(job), places(job)
        none = job.config.dedup.keep == "none"
        members = join_tables(members_of(job, unit), MEMBER_COLUMNS)
        members = take(members, ranked(job, members["root"], members))
        starts = np.flatnonzero(firsts(members["root"]))
        roots, best = members["root"][starts], members["document"][starts]
        group = np.cumsum(firsts(members["root"])) - 1
        gone: Bool = np.zeros(len(roots), np.bool_)
        near = join_tables([], REMOVED_COLUMNS)
        if job.config.dedup.near is not None:
            own = join_tables(letters(job, WITNESSES, [unit], ROOTS, ROOT_COLUMNS, 0, 1), ROOT_COLUMNS)
            gone[position(roots, own["root"])] = True
            near = join_tables(
                letters(job, WITNESSES, range(parts), REMOVED, REMOVED_COLUMNS, unit, parts), REMOVED_COLUMNS
            )
        counts = np.diff(np.append(starts, len(group)))
        here = ~gone[group] & (counts[group] > 1)
        other = starts[group] + (none & (best[group] == members["document"]))  # of the best, the second
        first = members["document"] == best[group]
        rows = {
            "document": np.concatenate([members["document"][here], near["document"]]),
            "exact": np.concatenate([members["root"][here], near["root"]]),
            "similarity": np.concatenate([np.where(first & ~np.bool_(none), np.nan, 1.0)[here], near["similarity"]]),
        }
        cluster = np.concatenate([group[here], position(roots, near["witness"])])
        witness = np.concatenate([other[here], starts[cluster[int(here.sum()) :]]])
        stays = np.concatenate([first[here] & ~np.bool_(none), np.zeros(height(near), np.bool_)])
        # A kept document without exact copies of its own is in its cluster too.
        alone = np.setdiff1d(cluster, group[here])
        alone = alone[~gone[alone]]
        rows["document"] = np.concatenate([rows["document"], best[alone]])
        rows["exact"] = np.concatenate([rows["exact"], roots[alone]])
        rows["similarity"] = np.concatenate([rows["similarity"], np.full(len(alone), np.nan)])
        cluster, witness = np.concatenate([cluster, alone]), np.concatenate([witness, starts[alone]])
        stays = np.concatenate([stays, np.ones(len(alone), np.bool_)])
        reason = np.full(len(cluster), _EXACT, np.uint8)
        reason[int(here.sum()) :] = _NEAR
        reason[members["document"][witness] < 0] = _EARLIER
        reason[stays] = _KEPT
        new = rows["document"] >= 0
        size = np.bincount(cluster[new], minlength=len(roots))
        # A cluster goes by the document that stays. One of an earlier run has no number here: the first copy lends its.
        label = best.copy()
        smallest = np.full(len(roots), np.iinfo(np.int64).max)
        np.minimum.at(smallest, cluster[new], rows["document"][new])
        label[best < 0] = smallest[best < 0]
        exact = np.where(rows["exact"] < 0, label[cluster], rows["exact"])
        nobody = Ragged(np.empty(0, np.uint8), np.zeros(2, np.int64))
        ids = Ragged.joined([members["id"], nobody], np.uint8).take(np.where(stays, len(group), witness))
        found: Table = {
            "document": rows["document"], "exact": exact, "cluster": label[cluster], "size": size[cluster],
            "similarity": rows["similarity"], "reason": reason, "witness": ids,
        }  # fmt: skip
        found = take(found, new)
        with Outbox(folder / FOUND, VERDICT_COLUMNS, len(where)) as box:
            box.add(where.of(found["document"]), **found)
        return {"clusters": int((size > 1).sum()), "documents": height(found)}


class VerdictsOfUnit:
    """verdicts.bin: what deduplication says of the documents of an input unit that have a copy, ascending, and the
    suffixes of ids.

    Facts: removed (documents by reason).
    """

    name = VERDICTS

    def units(self, job: Job) -> int:
        """The units of the input."""
        return len(job.units)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Gather what was sent to an input unit."""
        where = places(job)
        place = unit + len(where.parts)
        found = join_tables(
            letters(job, CLUSTERS, range(partitions(job)), FOUND, VERDICT_COLUMNS, place, len(where)), VERDICT_COLUMNS
        )
        found = take(found, np.argsort(found["document"], kind="stable"))
        names = join_tables(from_join(job, NAMES, NAMES_COLUMNS, place), NAMES_COLUMNS)
        names = take(names, np.argsort(names["document"], kind="stable"))
        with BlockWriter(folder / FOUND, VERDICT_DTYPES) as blocks:
            blocks.write(
                found["document"], found["exact"], found["cluster"], found["size"], found["similarity"],
                found["reason"], found["witness"].lengths, found["witness"].values, names["document"], names["suffix"],
            )  # fmt: skip
        reasons = np.bincount(found["reason"], minlength=len(REASONS)).tolist()
        removed = {name: count for name, count in zip(REASONS, reasons, strict=True) if name and count}
        return {"removed": removed}


VERDICT_DTYPES = ["<i8", "<i8", "<i8", "<i8", "<f8", "|u1", "<i8", "|u1", "<i8", "<i8"]


def _read(job: Job, unit: int) -> tuple[int, Table, Table]:
    """(number of the first document of an input unit, its verdicts, its suffixes)."""
    path = job.file(VERDICTS, unit, FOUND, verify=False)
    try:
        with BlockReader(path, VERDICT_DTYPES) as reader:
            *plain, lengths, ids, renamed, suffix = reader.arrays(0)
    except BlockFileError as error:
        raise DamagedError(VERDICTS, unit, str(error)) from error
    found: Table = dict(zip(VERDICT_COLUMNS, [*plain, Ragged.of_lengths(ids, lengths)], strict=True))
    return int(first_rows(job)[unit]), found, {"document": renamed, "suffix": suffix}


def verdicts(job: Job, unit: int) -> Verdicts:
    """What deduplication says of the documents of an input unit.

    Raises:
        DamagedError: a file of an earlier phase is missing or damaged.
    """
    first, found, names = _read(job, unit)
    columns = read_rows(job, unit, ["id", "reason"]).combine_chunks()
    n = columns.num_rows
    rows = found["document"] - first
    numbers = np.arange(first, first + n, dtype=np.int64)
    reason = np.array(columns["reason"].to_numpy(zero_copy_only=False), dtype=object)
    alive = np.asarray(columns["reason"].is_null().to_numpy())
    exact: Int64 = np.where(alive, numbers, -1)
    near: Int64 = exact.copy()
    size: Int32 = alive.astype(np.int32)
    exact[rows], near[rows], size[rows] = found["exact"], found["cluster"], found["size"]
    removed = found["reason"] != _KEPT
    witness = np.full(n, None, dtype=object)
    witness[rows[removed]] = found["witness"].take(np.flatnonzero(removed)).strings().to_numpy(zero_copy_only=False)
    similarity = np.full(n, np.nan)
    similarity[rows[removed]] = found["similarity"][removed]
    reason[rows[removed]] = np.array(REASONS, dtype=object)[found["reason"][removed]]
    renamed = np.zeros(n, np.bool_)
    renamed[names["document"] - first] = True
    ids = columns["id"].chunk(0) if n else pa.array([], pa.string())
    return Verdicts(
        id=renamed_ids(ids, names["document"] - first, names["suffix"]),
        renamed=renamed,
        exact_cluster=exact,
        near_cluster=near,
        cluster_size=size,
        duplicate_of=pa.array(witness, pa.string()),
        similarity=pa.array(similarity, mask=np.isnan(similarity)),
        reason=pa.array(reason, pa.string()),
    )


def survivors(job: Job, unit: int, alive: Bool) -> tuple[Bool, Int64]:
    """Which documents of an input unit stay, and the sizes of their clusters.

    Args:
        job: of the run.
        unit: of the input.
        alive: bool[n], documents that take part in deduplication.

    Returns:
        bool[n] and int64[n].

    Raises:
        DamagedError: a file of an earlier phase is missing or damaged.
    """
    first, found, _ = _read(job, unit)
    rows = found["document"] - first
    stay, size = alive.copy(), alive.astype(np.int64)
    stay[rows] = found["reason"] == _KEPT
    size[rows] = found["size"]
    return stay, size


def unique_ids(job: Job, unit: int, ids: pa.Array, rows: Int64) -> pa.Array:
    """Ids of some rows of an input unit (string[n], rows ascending), with the suffixes they get."""
    first, _, names = _read(job, unit)
    documents = rows + first
    chosen = np.isin(names["document"], documents)
    return renamed_ids(ids, position(documents, names["document"][chosen]), names["suffix"][chosen])


def dedup_summary(job: Job) -> dict[str, Any]:
    """Summary of deduplication for the manifest.

    pairs: of keys met, by kind. near: pairs compared and found alike; crowded buckets and the documents in them, which
    were compared with the best of the bucket only. clusters: kept documents with copies; documents_with_copies: all in
    them, the kept ones too.

    Raises:
        DamagedError: a unit of these phases has no entry.
    """
    parts = range(partitions(job))
    found: dict[str, Any] = {"pairs": pairs_joined(job)}
    if job.config.dedup.near is not None:
        facts = [job.facts(COMPARE, part) for part in parts]
        near = {name: sum(int(some[name]) for some in facts) for name in ("compared", "alike")}
        near["crowded_buckets"] = sum(int(some["crowded"]) for some in facts)
        near["documents_in_crowded_buckets"] = sum(int(job.facts(WITNESSES, part)["crowded"]) for part in parts)
        found["near"] = near
    facts = [job.facts(CLUSTERS, part) for part in parts]
    found["clusters"] = sum(int(some["clusters"]) for some in facts)
    found["documents_with_copies"] = sum(int(some["documents"]) for some in facts)
    return found


RESOLVE_PHASES: tuple[Phase, ...] = (
    Join(), Copies(), Exact(), Shingles(), Compare(), *(Round(n) for n in range(1, ROUNDS + 1)), Settle(),
    Witnesses(), Clusters(), VerdictsOfUnit(),
)  # fmt: skip


def times_written(config: RepeatConfig, sizes: Int64, scores: Float32, ids: pa.Array) -> Int64:
    """int64[n]: times to write each document (upsampling), from 1 to `config.max`.

    Where the curve gives a fraction, 1.3 say, 30 % of the documents are written twice and 70 % once: those whose id
    has a hash (xxh3-64 over the range of uint64) below the fraction. So it depends on a document's id alone.

    Args:
        config: the curve and the cap.
        sizes: int64[n], documents in the cluster.
        scores: float32[n].
        ids: string[n], unique.
    """
    place = (sizes if config.by == "cluster_size" else scores).astype(np.float64)
    times = place
    if config.curve:
        points = np.array(config.curve, np.float64)
        times = np.interp(place, points[:, 0], points[:, 1])
    times = np.clip(times, 1, config.max)
    whole = np.floor(times)
    drawn = times > whole
    whole[drawn] += _uniform(ids.filter(pa.array(drawn))) < (times - whole)[drawn]
    return whole.astype(np.int64)


def _uniform(ids: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(i.encode()) / 2**64 for i in ids.to_pylist()), np.float64, len(ids))
