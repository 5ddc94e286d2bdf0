"""Recomputing, from the texts of the input, how much removed near copies of a finished run resemble what stayed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.config.filter import FilterConfig
from filters.dedup.fingerprinter import similarity
from filters.kernels.packed import PackedText
from filters.read.unit import Unit
from filters.run.run_files import tables
from filters.run.steps import unit_batches, unit_steps
from filters.scores.summary import DUPLICATES
from filters.storage.location import Location

AT_A_TIME = 50_000
"""Pairs whose texts are held; for each so many, the input is read once."""
MAX_DIFFERENCE = 1e-9
_COLUMNS = ["id", "source", "position", "reason", "duplicate_of", "similarity"]
Row = dict[str, Any]


def near_copies(files: Sequence[Location], most: int | None, random: np.random.Generator) -> Iterator[list[Row]]:
    """Rows of removed near copies in side files, in lists of at most `AT_A_TIME`; a sample of `most`, or all."""
    counts = [
        sum(int(pc.sum(pc.equal(table["reason"], "near_duplicate")).as_py() or 0) for table in tables(file, ["reason"]))
        for file in files
    ]
    total = sum(counts)
    drawn = None if most is None else np.sort(random.choice(total, min(most, total), replace=False))
    seen = 0
    waiting: list[Row] = []
    for file, count in zip(files, counts, strict=True):
        for table in tables(file, _COLUMNS) if count else ():
            near = table.filter(pc.equal(table["reason"], "near_duplicate"))
            rows = np.arange(near.num_rows)
            if drawn is not None:
                rows = drawn[(drawn >= seen) & (drawn < seen + near.num_rows)] - seen
            seen += near.num_rows
            waiting += near.take(pa.array(rows, pa.int64())).to_pylist()
            while len(waiting) >= AT_A_TIME:
                yield waiting[:AT_A_TIME]
                waiting = waiting[AT_A_TIME:]
    if waiting:
        yield waiting


def wrong_witnesses(
    config: FilterConfig, files: Sequence[Location], units: Sequence[Unit], copies: Sequence[Row]
) -> Iterator[str]:
    """What is wrong with near copies and who they are said to be a copy of: a sentence each."""
    near = config.dedup.near
    if near is None:
        yield "near copies were not looked for, and there are some"
        return
    wanted = pa.array(sorted({str(row["duplicate_of"]) for row in copies}), pa.string())
    witnesses: dict[str, Row] = {}
    for file in files:
        for table in tables(file, _COLUMNS):
            found = table.filter(pc.is_in(table["id"], value_set=wanted))
            witnesses |= {row["id"]: row for row in found.to_pylist()}
    texts = _texts(config, units, [*copies, *witnesses.values()])
    pairs: list[tuple[Row, bytes, bytes]] = []
    for row in copies:
        witness = witnesses.get(row["duplicate_of"])
        if witness is None:
            yield f"{row['id']}: {row['duplicate_of']} is not in the side files"
            continue
        if config.dedup.keep != "none" and witness["reason"] in (*DUPLICATES, "in_earlier_run"):
            yield f"{row['id']}: {row['duplicate_of']}, whose copy it is said to be, was removed as {witness['reason']}"
        both = [texts.get((some["source"], some["position"])) for some in (row, witness)]
        if both[0] is None or both[1] is None:
            yield f"{row['id']}: its text or that of {row['duplicate_of']} is not in the input"
        else:
            pairs.append((row, both[0], both[1]))
    removed, kept = (PackedText.from_bytes(side) for side in ([pair[1] for pair in pairs], [pair[2] for pair in pairs]))
    for (row, _, _), value in zip(pairs, similarity(removed, kept, near).tolist(), strict=True):
        said = row["similarity"]
        if said is None or abs(said - value) > MAX_DIFFERENCE or value < near.similarity:
            limit = f"{said}; the limit is {near.similarity}"
            yield f"{row['id']}: {value:.4f} like {row['duplicate_of']}, said to be {limit}"


def _texts(config: FilterConfig, units: Sequence[Unit], rows: Sequence[Row]) -> dict[tuple[str, int], bytes]:
    """Texts as they were compared, by source and position."""
    wanted: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        wanted[row["source"]].add(row["position"])
    steps = unit_steps(config, units)[:-2]  # without fingerprints and scores
    texts: dict[tuple[str, int], bytes] = {}
    for number, unit in enumerate(units):
        positions = np.array(sorted(wanted.get(unit.source, ())), np.int64)
        if not len(positions):
            continue
        for batch in unit_batches(steps, number, len(units)):
            chosen = np.flatnonzero(np.isin(batch.position, positions))
            found = batch.text.take(pa.array(chosen)).to_pylist()
            places = batch.position[chosen].tolist()
            texts |= {(unit.source, place): text.encode() for place, text in zip(places, found, strict=True)}
    return texts
