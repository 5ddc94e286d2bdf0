"""Bytes per document that streaming deduplication remembers while it grows to a million different documents.

    python -m benchmarks.index_memory [--documents 1000000]

Near duplicates alone, and with exact ones; band keys and hashes are random, so nothing is joined but by accident.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.measure import Report, Row, arguments
from filters.config.filter import NearConfig
from filters.dedup.stream import StreamingDedup

STEP = 10_000


def remembered(exact: bool, documents: int) -> dict[str, Any]:
    """Bytes per document at the end, the most there were in the second half, and documents joined by accident."""
    near = NearConfig()
    dedup, draw = StreamingDedup(exact, near), np.random.default_rng(0)
    largest, falsely = 0.0, 0
    for first in range(0, documents, STEP):
        n = min(STEP, documents - first)
        keys = draw.integers(0, 2**64, (n, near.bands), np.uint64)
        hashes = draw.integers(0, 2**64, (n, 2), np.uint64)
        verdict = dedup.add(hashes, keys, np.ones(n, bool), np.ones(n, bool))
        falsely += int((verdict.near_root != verdict.number).sum())
        if first + n > documents // 2:
            largest = max(largest, dedup.nbytes / (first + n))
    return {
        "bytes_per_document": round(dedup.nbytes / documents, 1),
        "at_most_in_the_second_half": round(largest, 1),
        "joined_by_accident": falsely,
    }


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, documents=1_000_000)
    report = Report("index_memory", f"{options.documents:,} documents of random band keys")
    for row, exact, what in (("near", False, "near"), ("both", True, "near and exact")):
        found = remembered(exact, options.documents)
        report.details[row] = found
        report.add(
            Row(row=f"index.{row}", what=f"index of {what} duplicates at {options.documents:,} documents", against="",
                value=found["bytes_per_document"], unit="bytes per document", better="lower", target=200,
                held_to="target", documents=options.documents)
        )  # fmt: skip
    report.write(options.results)


if __name__ == "__main__":
    main()
