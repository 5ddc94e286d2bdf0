"""`finesieve filter` over jsonl.gz and jsonl.zst beside the same documents in Parquet.

    python -m benchmarks.formats [--documents 20000] [--repeats 5]

One worker, one core. gzip at level 6, zstd at level 3, as pages are published. The classifier has few buckets: reading
a large one takes the same for every format, and would bring the times closer together than a dump's are.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import zstandard
from loguru import logger

from benchmarks.filtering import FEW_BUCKETS, Job
from benchmarks.measure import Report, Row, arguments, bind_to_one_core, in_turn, ratios


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, documents=20_000, repeats=5)
    logger.remove()
    with tempfile.TemporaryDirectory() as name:
        job = Job(Path(name), options.documents, FEW_BUCKETS)
        lines = b"".join(json.dumps(row).encode() + b"\n" for row in pq.read_table(job.dump).to_pylist())
        files = {"gz": job.folder / "dump.jsonl.gz", "zst": job.folder / "dump.jsonl.zst"}
        files["gz"].write_bytes(gzip.compress(lines, 6))
        files["zst"].write_bytes(zstandard.ZstdCompressor(level=3).compress(lines))
        report = Report("formats", job.corpus, bind_to_one_core())
        timings = in_turn(
            {
                "parquet": job.run,
                "gz": lambda: job.run("jsonl", files["gz"]),
                "zst": lambda: job.run("jsonl", files["zst"]),
            },
            options.repeats,
        )
        for kind in files:
            report.add(
                Row(row=f"filter.jsonl-{kind}", what=f"`finesieve filter`, jsonl.{kind} in", target=1.6,
                    against="the same, Parquet in", **ratios(timings[kind], timings["parquet"], of="time"))
            )  # fmt: skip
        report.write(options.results)


if __name__ == "__main__":
    main()
