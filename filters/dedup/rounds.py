"""Phases `round-1` to `round-4` and `settle`: which documents stay, given the pairs that are alike.

The pairs make a graph whose edges lead from the better document to the worse one, so it has no cycles. What stays is
what a sequential reader would keep who goes through all documents from best to worst and removes those that are like
one they have kept: the lexicographically first maximal independent set. It is the only assignment in which a document
is removed if, and only if, a better neighbour is kept: of the best document on which two such assignments differ, all
better neighbours have the same fate in both, so it has too.

Every document has a home (the part of the smallest document it shares a bucket with, so that most pairs have one home).
A round decides there all that follows from what is known (`filters.kernels.pairs.decide`), however long the chains are
that lie within a home, and sends what it decided to the homes of worse neighbours. A decision is only taken where
nothing that is still unknown could change it, so it is the one above, whatever the number of homes and rounds. Where
copies make small groups, one or two rounds decide everything (random orders need a logarithmic number: Blelloch et al.
2012).

A chain that goes from home to home in the order of ranks is left. `settle` takes what is left in one unit, from best to
worst, in stretches that fit into `dedup.memory` (time-forward processing, Chiang et al. 1995); where all of it fits,
there are no more rounds before it. Its memory does not grow with the documents, save that documents of the very same
score and length are in one stretch.

A removed document is told of all better neighbours that are kept.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from filters.arrays import Int64, UInt8, UInt64
from filters.dedup.bands import partitions
from filters.dedup.candidates import COMPARE, EDGES, WITNESSES
from filters.dedup.copies import part_of
from filters.dedup.join import Mail
from filters.kernels.pairs import KEPT, REMOVED, UNDECIDED, decide
from filters.phases.blocks import (
    Outbox,
    Table,
    find,
    firsts,
    height,
    join_tables,
    ordered_by,
    position,
    read_flushes,
    take,
)
from filters.phases.phase import Job

ROUNDS = 4
SETTLE = "settle"
_ELSEWHERE = -1
"""Home of a document that is decided already."""
_GONE_COLUMNS = {"document": "<i8"}
_BYTES_PER_EDGE = 250
"""Memory an edge takes while it is decided."""
_EVERY = 997


def round_name(number: int) -> str:
    """Name of a round, from 1."""
    return f"round-{number}"


def _told(phase: str, senders: int | None = None) -> Mail:
    """Removed documents and who they resemble, which a phase (of so many units) sends to their part."""
    count = partitions if senders is None else lambda job: senders
    return Mail(phase, WITNESSES.name, WITNESSES.columns, senders=count)


def _news(number: int) -> Mail:
    """Documents that a round decided, and whether they stay; sent to the homes of worse neighbours."""
    return Mail(round_name(number), "news.bin", {"document": "<i8", "kept": "|u1"})


def _undecided(number: int) -> Mail:
    """Edges that a round left, for the same part of the next."""
    return Mail(round_name(number), EDGES.name, EDGES.columns, addresses=lambda job: 1)


class Round:
    """Decides what can be decided; writes witnesses, news and undecided edges.

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
        edges = join_tables(_left(job, self.number - 1, unit), EDGES.columns)
        if self.number == 1:  # of what `compare` sent, some may have come twice
            edges = ordered_by(edges, "better", "worse")
            edges = take(edges, firsts(edges["better"], edges["worse"]))
        nodes, better, worse = _graph(edges)
        mine = edges["better_home"] == unit
        here = np.zeros(len(nodes), np.bool_)
        here[better[mine]] = True
        here[worse[edges["worse_home"] == unit]] = True
        status: UInt8 = np.zeros(len(nodes), np.uint8)
        for news in _news(self.number - 1).letters(job, unit) if self.number > 1 else ():
            at, known = find(nodes, news["document"])
            status[at[known]] = np.where(news["kept"][known], KEPT, REMOVED)
        decide(better, worse, here, status)
        of_better = status[better]
        with _told(self.name).outbox(job, folder) as box:
            _tell(box, take(edges, mine & (of_better == KEPT)), partitions(job))
        with _news(self.number).outbox(job, folder) as box:
            away = mine & (of_better != UNDECIDED) & (edges["worse_home"] != unit) & (edges["worse_home"] >= 0)
            news = {
                "to": edges["worse_home"],
                "document": edges["better"],
                "kept": (of_better == KEPT).astype(np.uint8),
            }
            news = ordered_by(take(news, away), "to", "document")
            news = take(news, firsts(news["to"], news["document"]))
            box.add(news.pop("to"), **news)
        decided = status[worse] != UNDECIDED
        edges["worse_home"] = np.where(decided & (edges["worse_home"] == unit), _ELSEWHERE, edges["worse_home"])
        left = take(edges, (of_better == UNDECIDED) & (mine | ~decided))
        with _undecided(self.number).outbox(job, folder) as box:
            box.add(np.zeros(height(left), np.int64), **left)
        return {"undecided": height(left)}


class Settle:
    """Decides what the rounds left; writes witnesses."""

    name = SETTLE

    def units(self, job: Job) -> int:
        """One, if anything is undecided."""
        return int(undecided(job, rounds_of(job)) > 0)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Go through what is left, from best to worst."""
        with tempfile.TemporaryDirectory(prefix="settle-", dir=folder) as name:
            scratch, cuts = Path(name), _cuts(job)
            stretches = len(cuts) + 1
            self._deal(job, scratch, cuts)
            with _told(SETTLE).outbox(job, folder) as box:
                for stretch in range(stretches):
                    flushes = read_flushes(scratch / EDGES.name, EDGES.columns, stretch, stretches)
                    edges = join_tables(flushes, EDGES.columns)
                    nodes, better, worse = _graph(edges)
                    status: UInt8 = np.zeros(len(nodes), np.uint8)
                    for sender in range(-1, stretch):
                        for gone in read_flushes(scratch / f"removed{sender}", _GONE_COLUMNS, stretch, stretches):
                            at, known = find(nodes, gone["document"])
                            status[at[known]] = REMOVED
                    decide(better, worse, np.ones(len(nodes), np.bool_), status)
                    alike = take(edges, status[better] == KEPT)
                    _tell(box, alike, partitions(job))
                    with Outbox(scratch / f"removed{stretch}", _GONE_COLUMNS, stretches) as removed:
                        to = position(cuts, alike["worse_order"], behind=True)
                        removed.add(to[to > stretch], document=alike["worse"][to > stretch])
        return {"stretches": stretches}

    def _deal(self, job: Job, scratch: Path, cuts: UInt64) -> None:
        """Write each edge to the stretch of its better document, and what the last round's news remove to theirs."""
        stretches, last = len(cuts) + 1, rounds_of(job)
        with (
            Outbox(scratch / EDGES.name, EDGES.columns, stretches) as box,
            Outbox(scratch / "removed-1", _GONE_COLUMNS, stretches) as removed,
        ):
            for part in range(partitions(job)):
                kept = np.empty(0, np.int64)
                if last:
                    news = _news(last).table(job, part)
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
    if job.config.dedup.near is None:
        return
    last = rounds_of(job)
    senders = [WITNESSES, *(_told(round_name(number)) for number in range(1, last + 1))]
    senders += [_told(SETTLE, 1)] if undecided(job, last) else []
    for mail in senders:
        yield from mail.letters(job, part)


def _graph(edges: Table) -> tuple[Int64, Int64, Int64]:
    """(documents, ascending; the better and the worse of each edge, by their place among these)."""
    nodes = np.unique(np.concatenate([edges["better"], edges["worse"]]))
    return nodes, position(nodes, edges["better"]), position(nodes, edges["worse"])


def _left(job: Job, number: int, part: int) -> Iterator[Table]:
    """Undecided edges behind a round of which one end is at home in a part; behind `compare`, some more than once."""
    return _undecided(number).letters(job, 0, [part]) if number else EDGES.letters(job, part)


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
