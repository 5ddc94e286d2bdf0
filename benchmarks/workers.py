"""`finesieve filter` with 2 workers beside 1 worker, starting them included.

    python -m benchmarks.workers [--documents 160000] [--repeats 5]

On all processors there are: with fewer than two there is nothing to measure. The classifier has few buckets: every
worker reads it once, which is nothing in a dump's hours and would be much in this minute.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import orjson
import pyarrow.parquet as pq
from loguru import logger

from benchmarks.corpus import vary
from benchmarks.filtering import FEW_BUCKETS, Job
from benchmarks.measure import Report, Row, arguments, in_turn, ratios

TRAINED_ON = 2000
WHAT = "`finesieve filter`, 2 workers"


def as_lines(parquet: Path) -> Path:
    """The documents of a Parquet file as one file of JSON lines."""
    path = parquet.with_suffix(".jsonl")
    with path.open("wb") as file:
        for batch in pq.ParquetFile(parquet).iter_batches():
            file.writelines(orjson.dumps(row) + b"\n" for row in batch.to_pylist())
    return path


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, documents=160_000, repeats=5)
    logger.remove()
    report = Report("workers", f"{options.documents:,} ")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        report.skip(WHAT, "this machine has one processor")
    else:
        with tempfile.TemporaryDirectory() as name:
            job = Job(Path(name), TRAINED_ON, FEW_BUCKETS)
            many = job.folder / "many.parquet"
            report.corpus += vary(many, options.documents)
            files = {"parquet": many, "jsonl": as_lines(many)}
            timings = in_turn(
                {
                    (kind, n): lambda kind=kind, n=n: job.run(kind, files[kind], executor={"workers": n})  # type: ignore[misc]
                    for kind in files
                    for n in (1, 2)
                },
                options.repeats,
            )
        for kind, row, where in (
            ("parquet", "filter.workers", ""),
            ("jsonl", "filter.workers-jsonl", ", one JSON lines file"),
        ):
            beside = ratios(timings[kind, 2], timings[kind, 1])
            report.add(Row(row=row, what=WHAT + where, target=1.8, against="1 worker", **beside))
    report.write(options.results)


if __name__ == "__main__":
    main()
