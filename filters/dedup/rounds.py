"""Phases `round-1` to `round-4` and `settle`: which documents stay, given the pairs that are alike.

The pairs make a graph whose edges lead from the better document to the worse one, so it has no cycles. What stays is
what a sequential reader would keep who goes through all documents from best to worst and removes those that are like
one they have kept: the lexicographically first maximal independent set. It is the only assignment in which a document
is removed if, and only if, a better neighbour is kept; for of the best document on which two such assignments differ,
all better neighbours are alike in both.

Every document has a home (the part of the smallest document it shares a bucket with, so that most pairs have one home).
A round decides there all that follows from what is known (`filters.kernels.pairs`), however long the chains are that
lie within a home, and sends what it decided to the homes of worse neighbours. A decision is only taken where nothing
that is still unknown could change it, so it is the one above, whatever the number of homes and rounds. Where copies
make small groups, one or two rounds decide everything (random orders need a logarithmic number: Blelloch et al. 2012).
A chain that goes from home to home in the order of ranks is left; `settle` takes the rest in one unit, from best to
worst in stretches that fit into `dedup.memory` (time-forward processing, Chiang et al. 1995). Where all that is left
fits into memory, there are no more rounds before it. What it holds does not
grow with the documents, save those that have the very same score and length, which are in one stretch.

A removed document is told of all better neighbours that are kept.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from filters.arrays import Bool, Int64, UInt8, UInt64
from filters.dedup.bands import partitions
from filters.dedup.candidates import COMPARE, EDGE_COLUMNS, EDGES, WITNESS_COLUMNS, WITNESSES
from filters.dedup.copies import part_of
from filters.kernels.pairs import KEPT, REMOVED, UNDECIDED, decide
from filters.phases.blocks import Outbox, Table, firsts, height, join_tables, letters, position, read_flushes, take
from filters.phases.phase import Job

ROUNDS = 4
SETTLE = "settle"
NEWS = "news.bin"
NEWS_COLUMNS = {"document": "<i8", "kept": "|u1"}
"""A document that is decided, and whether it stays."""
_ELSEWHERE = -1
"""Home of a document that is decided already."""
_REMOVED_COLUMNS = {"document": "<i8"}
_BYTES_PER_EDGE = 250
"""Memory an edge takes while it is decided."""
_EVERY = 997


def round_name(number: int) -> str:
    """Name of a round, from 1."""
    return f"round-{number}"


class Round:
    """witnesses.bin: removed documents and who they resemble, sent to their part. edges.bin: what is still undecided,
    for the next round. news.bin: decisions, sent to the homes of worse neighbours.

    Facts: undecided (edges that are left).

    Args:
        number: from 1.
    """

    def __init__(self, number: int) -> None:
        self.number, self.name = number, round_name(number)

    def units(self, job: Job) -> int:
        """The parts, while more is undecided than `settle` can hold."""
        return partitions(job) * needed(job, self.number)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Decide about the documents whose home is a part."""
        parts = partitions(job)
        edges = _edges(job, self.number - 1, unit)
        nodes = np.unique(np.concatenate([edges["better"], edges["worse"]]))
        better, worse = (position(nodes, edges[name]) for name in ("better", "worse"))
        here: Bool = np.zeros(len(nodes), np.bool_)
        here[better[edges["better_home"] == unit]] = True
        here[worse[edges["worse_home"] == unit]] = True
        status: UInt8 = np.zeros(len(nodes), np.uint8)
        for news in _news(job, self.number - 1, unit):
            known = np.isin(news["document"], nodes)
            rows = position(nodes, news["document"][known])
            status[rows] = np.where(news["kept"][known], KEPT, REMOVED)
        decide(better, worse, here, status)
        of_better, mine = status[better], edges["better_home"] == unit
        with Outbox(folder / WITNESSES, WITNESS_COLUMNS, parts) as box:
            _tell(box, take(edges, mine & (of_better == KEPT)), parts)
        with Outbox(folder / NEWS, NEWS_COLUMNS, parts) as box:
            away = mine & (of_better != UNDECIDED) & (edges["worse_home"] != unit) & (edges["worse_home"] >= 0)
            to, document, kept = edges["worse_home"][away], edges["better"][away], of_better[away] == KEPT
            order = np.lexsort((document, to))
            once = order[firsts(to[order]) | firsts(document[order])]
            box.add(to[once], document=document[once], kept=kept[once].astype(np.uint8))
        decided = status[worse] != UNDECIDED
        edges["worse_home"] = np.where(decided & (edges["worse_home"] == unit), _ELSEWHERE, edges["worse_home"])
        left = take(edges, (of_better == UNDECIDED) & (mine | ~decided))
        with Outbox(folder / EDGES, EDGE_COLUMNS, 1) as box:
            box.add(np.zeros(height(left), np.int64), **left)
        return {"undecided": height(left)}


class Settle:
    """witnesses.bin: like those of the rounds, for what these left."""

    name = SETTLE

    def units(self, job: Job) -> int:
        """One, if anything is undecided."""
        return int(undecided(job, rounds_of(job)) > 0)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Go through what is left, from best to worst."""
        parts = partitions(job)
        with tempfile.TemporaryDirectory(prefix="settle-", dir=folder) as scratch:
            cuts = _cuts(job)
            stretches = len(cuts) + 1
            self._deal(job, Path(scratch), cuts)
            with Outbox(folder / WITNESSES, WITNESS_COLUMNS, parts) as box:
                for stretch in range(stretches):
                    edges = join_tables(
                        read_flushes(Path(scratch) / EDGES, EDGE_COLUMNS, stretch, stretches), EDGE_COLUMNS
                    )
                    nodes = np.unique(np.concatenate([edges["better"], edges["worse"]]))
                    status: UInt8 = np.zeros(len(nodes), np.uint8)
                    for sender in range(-1, stretch):
                        path = Path(scratch) / f"removed{sender}"
                        for gone in read_flushes(path, _REMOVED_COLUMNS, stretch, stretches):
                            found = gone["document"][np.isin(gone["document"], nodes)]
                            status[position(nodes, found)] = REMOVED
                    better, worse = (position(nodes, edges[name]) for name in ("better", "worse"))
                    decide(better, worse, np.ones(len(nodes), np.bool_), status)
                    alike = take(edges, status[better] == KEPT)
                    _tell(box, alike, parts)
                    with Outbox(Path(scratch) / f"removed{stretch}", _REMOVED_COLUMNS, stretches) as removed:
                        to = position(cuts, alike["worse_order"], behind=True)
                        removed.add(to[to > stretch], document=alike["worse"][to > stretch])
        return {"stretches": stretches}

    def _deal(self, job: Job, scratch: Path, cuts: UInt64) -> None:
        """Write each edge to the stretch of its better document, and what the last round's news remove to theirs."""
        stretches = len(cuts) + 1
        with (
            Outbox(scratch / EDGES, EDGE_COLUMNS, stretches) as box,
            Outbox(scratch / "removed-1", _REMOVED_COLUMNS, stretches) as removed,
        ):
            last = rounds_of(job)
            for part in range(partitions(job)):
                news = join_tables(_news(job, last, part), NEWS_COLUMNS)
                kept = news["document"][news["kept"] > 0]
                for edges in _left(job, last, part):
                    mine = edges["better_home"] == part
                    some = take(edges, mine)
                    box.add(position(cuts, some["order"], behind=True), **some)
                    some = take(edges, ~mine & np.isin(edges["better"], kept))
                    removed.add(position(cuts, some["worse_order"], behind=True), document=some["worse"])


@functools.lru_cache(maxsize=32)
def undecided(job: Job, number: int) -> int:
    """How many edges are undecided behind a round (0: behind `compare`)."""
    if job.config.dedup.near is None or job.config.dedup.keep == "none":
        return 0
    phase, fact = (round_name(number), "undecided") if number else (COMPARE, "alike")
    return sum(int(job.facts(phase, unit)[fact]) for unit in range(partitions(job)))


def needed(job: Job, number: int) -> bool:
    """Whether there is a round of this number; those before it are done."""
    before = number == 1 or needed(job, number - 1)
    return before and undecided(job, number - 1) * _BYTES_PER_EDGE > job.config.dedup.memory


def rounds_of(job: Job) -> int:
    """How many rounds there were before `settle`."""
    return sum(needed(job, number) for number in range(1, ROUNDS + 1))


def witnesses_for(job: Job, part: int) -> Iterator[Table]:
    """What `compare`, the rounds and `settle` say of the removed documents of a part.

    Raises:
        DamagedError: a file is missing or damaged.
    """
    parts = partitions(job)
    if job.config.dedup.near is None:
        return
    last = rounds_of(job)
    senders = [(COMPARE, parts), *((round_name(number), parts) for number in range(1, last + 1))]
    senders += [(SETTLE, 1)] if undecided(job, last) else []
    for phase, units in senders:
        yield from letters(job, phase, range(units), WITNESSES, WITNESS_COLUMNS, part, parts)


def _edges(job: Job, number: int, part: int) -> Table:
    """Undecided edges behind a round of which one end is at home in a part, each once."""
    edges = join_tables(_left(job, number, part), EDGE_COLUMNS)
    if number:
        return edges
    edges = take(edges, np.lexsort((edges["worse"], edges["better"])))
    return take(edges, firsts(edges["better"]) | firsts(edges["worse"]))


def _news(job: Job, number: int, part: int) -> Iterator[Table]:
    if not number:
        return iter(())
    parts = partitions(job)
    return letters(job, round_name(number), range(parts), NEWS, NEWS_COLUMNS, part, parts)


def _left(job: Job, number: int, part: int) -> Iterator[Table]:
    """The same in pieces; behind `compare`, some more than once."""
    if number:
        return letters(job, round_name(number), [part], EDGES, EDGE_COLUMNS, 0, 1)
    parts = partitions(job)
    return letters(job, COMPARE, range(parts), EDGES, EDGE_COLUMNS, part, parts)


def _cuts(job: Job) -> UInt64:
    """Borders, ascending, of stretches of the order of better documents whose edges fit into memory."""
    last = rounds_of(job)
    stretches = -(-undecided(job, last) * _BYTES_PER_EDGE // job.config.dedup.memory)
    drawn: list[UInt64] = []
    for part in range(partitions(job)) if stretches > 1 else ():
        drawn += [edges["order"][edges["better_home"] == part][::_EVERY] for edges in _left(job, last, part)]
    orders = np.sort(np.concatenate([np.empty(0, np.uint64), *drawn]))
    return np.unique(orders[[len(orders) * n // stretches for n in range(1, stretches)]])


def _tell(box: Outbox, edges: Table, parts: int) -> None:
    worse: Int64 = edges["worse"]
    box.add(part_of(worse, parts), document=worse, witness=edges["better"], similarity=edges["similarity"])
