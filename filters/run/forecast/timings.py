"""Timing what is too short to be a phase, and taking apart what was timed together. Seconds are of processor time."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from filters.config.filter import FilterConfig
from filters.dedup.band_file import BandWriter
from filters.dedup.fingerprints import open_earlier
from filters.dedup.near import shingles_of
from filters.kernels.packed import PackedText
from filters.kernels.shingles import similarities
from filters.phases.phase import Job
from filters.phases.texts import read_texts
from filters.read.sample import REPEATS
from filters.storage.publish import sha256

if TYPE_CHECKING:
    from filters.run.forecast.pilot import Pilot

EARLIER_KEYS = 2_000_000
"""Up to so many keys of earlier runs a pilot looks at; more would take it longer than everything else."""
_BLOCKS = 512


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.process_time()
    action()
    return time.process_time() - start


def read_through(job: Job, unit: int) -> None:
    """Read the texts of an input unit once more."""
    deque(read_texts(job, unit), maxlen=0)


def apart(one: float, many: float, documents: int) -> tuple[float, float]:
    """Seconds of a document and of beginning, from those of the sample once and `REPEATS` times."""
    each = max(many - one, many / 2) / ((REPEATS - 1) * documents)
    return each, max(one - documents * each, 0.0)


def spread(values: list[float]) -> float:
    """Standard deviation as a share of the mean."""
    return statistics.stdev(values) / statistics.mean(values) if len(values) > 1 and any(values) else 0.0


def time_parts(config: FilterConfig, job: Job, pilot: Pilot, folder: Path) -> None:
    """Fill in what no phase of a pilot shows by itself: files of many hash ranges, digests, shingles, earlier keys.

    Args:
        config: of the run.
        job: of the pilot, its phase `attributes` done.
        pilot: to be filled in.
        folder: to work in.
    """
    content = folder / "content"
    content.write_bytes(bytes(8 << 20))
    pilot.hash_s = seconds(lambda: sha256(content)) / (8 << 20)
    near = config.dedup.near
    keys = np.random.default_rng(0).integers(0, 2**63, (2000, near.bands if near else 0), dtype=np.uint64)
    ids, alive = pa.array([str(number) for number in range(2000)]), np.ones(2000, np.bool_)

    def bands(partitions: int) -> None:
        (folder / "bands").unlink(missing_ok=True)
        with BandWriter(folder / "bands", partitions) as writer:
            writer.add(ids, alive, None, keys, alive)

    bands(_BLOCKS)
    pilot.block_s = max(seconds(lambda: bands(_BLOCKS)) - seconds(lambda: bands(1)), 0.0) / _BLOCKS
    if near and pilot.rows.num_rows:
        batches = (batch for unit in range(len(job.units)) for _, batch in read_texts(job, unit))
        texts = pa.concat_arrays([batch.text for batch in batches])[:200]
        packed = PackedText.from_arrow(texts)
        sets = shingles_of(packed, near)
        pilot.shingle_s = seconds(lambda: shingles_of(packed, near)) / len(texts)
        pilot.shingle_bytes = sets.values.nbytes / len(texts)
        one = np.arange(len(texts))
        pilot.compare_s = seconds(lambda: similarities(sets, one, one)) / len(one)
    if pilot.earlier_keys:
        share = min(1.0, EARLIER_KEYS / 10 / pilot.earlier_keys)
        last = min(int(2**64 * share), 2**64 - 1)
        seen = 0
        start = time.process_time()
        for run in open_earlier(config.dedup):
            for kind in ("near", "exact"):
                seen += sum(len(some) for some, _ in run.keys(kind, 0, last))
        pilot.key_s = (time.process_time() - start) / max(seen, 1)
