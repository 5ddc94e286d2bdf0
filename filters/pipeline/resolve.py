"""The ordered half of a run, its decisions: unique ids, first-come deduplication, the keep rule, the ledger.

One task, all units in input order. Everything here depends on the order of documents alone, which is why the output is
the same for any number of workers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datatrove.pipeline.base import PipelineStep

from filters.config import DedupConfig, QuarantineConfig
from filters.dedup.bands import id_hashes
from filters.dedup.stream import StreamingDedup
from filters.kernels.index import HashIndex
from filters.pipeline.blocks import Batches
from filters.pipeline.ledger import Ledger, too_much_quarantined
from filters.read.batch import Batch
from filters.read.local import Reading


class Collect(PipelineStep):
    """Batches of all units, in input order.

    Attributes:
        readings: what was read of local input files, by source.
    """

    type = "FINESIEVE"
    name = "Collect"

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self.batches = batches
        self.readings: dict[str, list[Reading]] = {}

    def run(self, data: Batches | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield them."""
        for batch in self.batches:
            if batch.reading is not None:
                self.readings.setdefault(batch.source, []).append(batch.reading)
            yield batch


class UniqueIds(PipelineStep):
    """Give a document whose id is taken a suffix: "a", "a#2", "a#3". Attribute `renamed` (bool[n])."""

    type = "FINESIEVE"
    name = "Unique ids"

    def __init__(self) -> None:
        super().__init__()
        self._index = HashIndex()
        self._seen = 0
        self._suffix: dict[str, int] = {}

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches with unique ids."""
        for batch in data:
            with self.track_time("batch"):
                self._rename(batch)
            yield batch

    def _taken(self, ids: list[str]) -> npt.NDArray[np.bool_]:
        numbers = np.arange(self._seen, self._seen + len(ids), dtype=np.int64)
        self._seen += len(ids)
        return np.asarray(
            self._index.resolve(id_hashes(pa.array(ids, pa.string())), np.ones(len(ids), dtype=bool), numbers) >= 0
        )

    def _rename(self, batch: Batch) -> None:
        ids = batch.id.to_pylist()
        taken = self._taken(ids)
        batch.attributes["renamed"] = taken
        if not taken.any():
            return
        for row in np.flatnonzero(taken).tolist():
            given = ids[row]
            number = self._suffix.get(given, 1) + 1
            while self._taken([f"{given}#{number}"])[0]:
                number += 1
            self._suffix[given] = number
            ids[row] = f"{given}#{number}"
        batch.id = pa.array(ids, type=pa.string())


class Deduplicate(PipelineStep):
    """First come wins: later copies are removed with `exact_duplicate` or `near_duplicate`.

    Attributes `exact_cluster`, `near_cluster` (int64[n], -1 where none) and `duplicate_of` (object[n], survivor's id).
    """

    type = "FINESIEVE"
    name = "Deduplicate"

    def __init__(self, config: DedupConfig) -> None:
        super().__init__()
        self._stream = StreamingDedup(config.exact, config.near)
        self._ids: list[pa.Array] = []
        self._starts: list[int] = [0]

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches with duplicates removed."""
        for batch in data:
            with self.track_time("batch"):
                self._resolve(batch)
            yield batch

    def _resolve(self, batch: Batch) -> None:
        alive = batch.alive
        found = batch.attributes
        verdict = self._stream.add(found["exact"], found.get("keys"), found["has_signature"], alive)
        # `take` copies; a view would hold the unit's spool file, deleted or not, in memory and on disk.
        ids = batch.id.take(pa.array(np.flatnonzero(alive)))
        self._ids.append(ids)
        self._starts.append(self._starts[-1] + len(ids))
        exact = alive & (verdict.exact_root != verdict.number)
        near = alive & ~exact & (verdict.near_root != verdict.number)
        survivors = np.full(len(batch), None, dtype=object)
        for row in np.flatnonzero(exact | near).tolist():
            survivors[row] = self._id_of(int(verdict.near_root[row]))
        batch.remove(exact, "exact_duplicate")
        batch.remove(near, "near_duplicate")
        found["exact_cluster"], found["near_cluster"] = verdict.exact_root, verdict.near_root
        found["duplicate_of"] = survivors

    def _id_of(self, number: int) -> str:
        chunk = bisect_right(self._starts, number) - 1
        return str(self._ids[chunk][number - self._starts[chunk]])


class Select(PipelineStep):
    """Remove documents below the threshold with `low_score`; a score equal to it is kept (compared in float32)."""

    type = "FINESIEVE"
    name = "Select"

    def __init__(self, min_score: float) -> None:
        super().__init__()
        self.min_score = np.float32(min_score)

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches; what is alive after this step is kept."""
        for batch in data:
            batch.remove(~(batch.attributes["score"] >= self.min_score), "low_score")
            yield batch


class Book(PipelineStep):
    """Enter every batch into the ledger, and stop the run when too much is quarantined."""

    type = "FINESIEVE"
    name = "Ledger"

    def __init__(self, ledger: Ledger, config: QuarantineConfig, on_batch: Callable[[Batch], None]) -> None:
        super().__init__()
        self.ledger, self.config, self.on_batch = ledger, config, on_batch
        self._records = self._quarantined = 0

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches unchanged.

        Raises:
            RunError: more than the configured share of the records so far is quarantined.
        """
        for batch in data:
            self.ledger.add(batch, renamed=int(batch.attributes["renamed"].sum()))
            self._records += batch.records
            self._quarantined += len(batch.quarantined)
            self.on_batch(batch)
            if self._records >= self.config.grace:
                self._check_share(self._records)
            yield batch
        self._check_share(max(self._records, self.config.grace))

    def _check_share(self, records: int) -> None:
        if self._quarantined > self.config.max_share * records:
            raise too_much_quarantined(self.ledger, self._quarantined, self._records, self.config)
