"""`finesieve filter` with 2 workers beside 1 worker, starting them included.

    python -m benchmarks.workers [--documents 160000] [--repeats 5]

On all processors there are: with fewer than two there is nothing to measure. The classifier has few buckets: every
worker reads it once, which is nothing in a dump's hours and would be much in this minute.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from loguru import logger

from benchmarks.corpus import vary
from benchmarks.filtering import FEW_BUCKETS, Job
from benchmarks.measure import Report, Row, arguments, in_turn, ratios

TRAINED_ON = 2000
WHAT = "`finesieve filter`, 2 workers"


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
            timings = in_turn(
                {n: lambda n=n: job.run("parquet", many, executor={"workers": n}) for n in (1, 2)},  # type: ignore[misc]
                options.repeats,
            )
        report.add(
            Row(row="filter.workers", what=WHAT, target=1.8, against="1 worker", **ratios(timings[2], timings[1]))
        )
    report.write(options.results)


if __name__ == "__main__":
    main()
