"""The same filter over 10 thousand, 100 thousand and 1 million documents: is a document as dear as before?

    python -m benchmarks.growth [--largest 1000000] [--repeats 3]

One worker, one core, every run a process of its own; the largest input is run once, the others `--repeats` times.
Documents are random sentences of the corpus, so that they are no duplicates. What a run costs before it reads its
first document (its start: the same filter over `FEW` documents) is stated apart and taken off before time is divided
by documents. Time counts from the call of `run_filter`; memory is the most that was resident.

Memory per document is what the peak grew by from one size to the next, divided by the documents that were added.
The classifier has few buckets, because reading a large one would hide what the documents take.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus import vary
from benchmarks.filtering import Job
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
    """Of each size, without the start."""
    return [(getattr(cost, of) - getattr(start, of)) / cost.documents for cost in costs]


def bytes_per_added_document(costs: Sequence[Cost]) -> list[float]:
    """What the peak grew by from each size to the next, per document added."""
    return [
        (large.peak - small.peak) / (large.documents - small.documents)
        for small, large in zip(costs, costs[1:], strict=False)
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
    options = arguments(__doc__, largest=1_000_000, repeats=3)
    report = Report("growth", "", bind_to_one_core())
    sizes = [options.largest // 100, options.largest // 10, options.largest]
    costs = {}
    with tempfile.TemporaryDirectory() as name:
        job = Job(Path(name), TRAINED_ON, bucket=20_000)
        dump = job.folder / "many.parquet"
        for size in (FEW, *sizes):
            report.corpus = vary(dump, size)
            repeats = 1 if size == options.largest else options.repeats
            runs = []
            for repeat in range(repeats):
                output = {"output": {"path": str(job.folder / f"run-{size}-{repeat}")}}
                runs.append(run(job.config("parquet", [dump], **output).model_dump_json()))
            costs[size] = cost(runs)
            print(f"  {size:9,} documents: {costs[size].wall:.1f} s, {costs[size].peak / 1e6:.0f} MB", flush=True)
    start, grown = costs[FEW], [costs[size] for size in sizes]
    seconds, cpu = (seconds_per_document(grown, start, of) for of in ("wall", "cpu"))
    added = bytes_per_added_document(grown)
    report.details = {
        "start": vars(start),
        "sizes": [
            {**vars(one), "microseconds_per_document": rounded(s * 1e6), "cpu_microseconds_per_document": rounded(c * 1e6)}
            for one, s, c in zip(grown, seconds, cpu, strict=True)
        ],
        "bytes_per_added_document": [round(value) for value in added],
    }  # fmt: skip
    shown = " / ".join(f"{size:,}" for size in sizes)
    report.add(
        Row(row="growth.time", what=f"time per document at {shown} documents: dearest over cheapest",
            against="flat", value=rounded(spread(seconds)), cpu=rounded(spread(cpu)), unit="x", better="lower",
            target=FLAT, held_to="floor", docs_per_s=round(1 / seconds[-1]), documents=options.largest),
        Row(row="growth.memory", what=f"resident memory a document adds, {sizes[1]:,} to {sizes[2]:,} documents",
            against="", value=round(added[-1]), unit="bytes per document", better="lower", held_to="floor",
            documents=options.largest),
        Row(row="growth.resident", what=f"largest resident set of the whole run, {options.largest:,} documents",
            against="", value=round(grown[-1].peak / 1e6), unit="MB", better="lower", held_to="floor",
            documents=options.largest,
            note=f"{start.peak / 1e6:.0f} MB of it for {FEW} documents"),
    )  # fmt: skip
    report.write(options.results)


if __name__ == "__main__":
    main()
