"""The same filter over 10 thousand, 100 thousand and 1 million documents: is a document as dear as before?

    python -m benchmarks.growth [--largest 1000000] [--repeats 5]

One worker, one core, every run a process of its own; the largest input is run once, the next half of `--repeats`.
Documents are random sentences of the corpus, so that they are no duplicates. What a run costs before it reads its
first document (its start: the same filter over `FEW` documents) is stated apart and taken off before time is divided
by documents. Time counts from the call of `run_filter`; memory is the most that was resident.

Memory per document is what the peak grew by from one size to the next, divided by the documents that were added.
The classifier has few buckets, because reading a large one would hide what the documents take.
"""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus import vary
from benchmarks.filtering import FEW_BUCKETS, Job
from benchmarks.measure import Report, Row, arguments, bind_to_one_core, rounded

FEW = 100
TRAINED_ON = 2000
FLAT = 1.15
"""A document may cost so many times what it costs at another size."""
RUN = """
import json, re, resource, sys, time
from filters import FilterConfig, run_filter
start = time.perf_counter()
records = run_filter(FilterConfig.model_validate_json(sys.argv[1])).ledger.total.records
wall = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_SELF)
status = open("/proc/self/status").read()
peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", status).group(1)) * 1024
print(json.dumps({"documents": records, "wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": peak}))
"""


@dataclass(frozen=True)
class Cost:
    """What the filter took over so many documents: medians of its runs.

    Attributes:
        wall, cpu: seconds.
        peak: largest resident set, bytes.
    """

    documents: int
    wall: float
    cpu: float
    peak: float


def seconds_per_document(costs: Sequence[Cost], start: Cost, of: str = "wall") -> list[float]:
    """Of each size, without the start; at least a nanosecond, where the start varies by more than all of it."""
    return [max((getattr(cost, of) - getattr(start, of)) / cost.documents, 1e-9) for cost in costs]


def bytes_per_document(costs: Sequence[Cost], start: Cost) -> list[float]:
    """Of each size, without what is resident for few documents; at least 1, where that hides all of it."""
    return [max((cost.peak - start.peak) / cost.documents, 1.0) for cost in costs]


def bytes_per_added_document(costs: Sequence[Cost]) -> list[float]:
    """What the peak grew by from each size to the next, per document added."""
    return [
        (large.peak - small.peak) / (large.documents - small.documents) for small, large in itertools.pairwise(costs)
    ]


def spread(values: Sequence[float]) -> float:
    """The dearest as a multiple of the cheapest."""
    return max(values) / min(values)


def run(config: str) -> dict[str, float]:
    """Filter in a process of its own.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run([sys.executable, "-c", RUN, config], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"a run failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def cost(runs: Sequence[Mapping[str, float]]) -> Cost:
    """Medians of runs over the same documents."""
    wall, cpu, peak = (statistics.median(one[name] for one in runs) for name in ("wall", "cpu", "peak"))
    return Cost(int(runs[0]["documents"]), wall, cpu, peak)


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, largest=1_000_000, repeats=5)
    report = Report("growth", "", bind_to_one_core())
    sizes = [options.largest // 100, options.largest // 10, options.largest]
    costs = {}
    with tempfile.TemporaryDirectory() as name:
        job = Job(Path(name), TRAINED_ON, FEW_BUCKETS)
        dump = job.folder / "many.parquet"
        for size in (FEW, *sizes):
            report.corpus = vary(dump, size)
            # A run over many documents varies less, and takes long.
            repeats = {options.largest: 1, sizes[1]: (options.repeats + 1) // 2}.get(size, options.repeats)
            runs = []
            for repeat in range(repeats):
                output = job.folder / f"run-{repeat}"
                runs.append(run(job.config("parquet", [dump], output={"path": str(output)}).model_dump_json()))
                shutil.rmtree(output)
            costs[size] = cost(runs)
            print(f"  {size:9,} documents: {costs[size].wall:.1f} s, {costs[size].peak / 1e6:.0f} MB", flush=True)
    start, grown = costs[FEW], [costs[size] for size in sizes]
    seconds, cpu = (seconds_per_document(grown, start, of) for of in ("wall", "cpu"))
    memory, added = bytes_per_document(grown, start), bytes_per_added_document(grown)
    report.details = {
        "start": vars(start),
        "sizes": [
            {
                **vars(one),
                "microseconds_per_document": rounded(wall * 1e6),
                "cpu_microseconds_per_document": rounded(processor * 1e6),
                "bytes_per_document": round(held),
            }
            for one, wall, processor, held in zip(grown, seconds, cpu, memory, strict=True)
        ],
        "bytes_per_added_document": [round(value) for value in added],
    }
    shown = " / ".join(f"{size:,}" for size in sizes)
    begun = f"without its start: {start.wall:.1f} s, {start.peak / 1e6:.0f} MB"
    report.add(
        Row(row="growth.time", what=f"time per document, {shown} documents: dearest over cheapest",
            against="flat", value=rounded(spread(seconds)), cpu=rounded(spread(cpu)), unit="x", better="lower",
            target=FLAT, docs_per_s=round(1 / seconds[-1]), documents=options.largest, note=begun),
        Row(row="growth.memory", what=f"memory per document at {sizes[2]:,} documents",
            against=f"at {sizes[1]:,}", value=rounded(memory[2] / memory[1]), unit="x", better="lower", target=FLAT,
            documents=options.largest, note=begun),
        Row(row="growth.added", what=f"resident memory a document adds from {sizes[1]:,} to {sizes[2]:,} documents",
            against="", value=round(added[-1]), unit="bytes", better="lower", documents=options.largest),
        Row(row="growth.resident", what=f"largest resident set of the whole run, {options.largest:,} documents",
            against="", value=round(grown[-1].peak / 1e6), unit="MB", better="lower", documents=options.largest),
    )  # fmt: skip
    report.write(options.results)


if __name__ == "__main__":
    main()
