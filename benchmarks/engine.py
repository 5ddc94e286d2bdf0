"""What a run costs beside the same run by another state of finesieve: in turn, on one machine, in processor time.

    git worktree add /tmp/before 32f252f
    python -m benchmarks.engine /tmp/before --their-dedup '{"scope": "stream"}' [--documents 100000] [--repeats 5]
    python -m benchmarks.engine ... --documents 1000000 --copies 0.05 --repeats 1 --verify

The corpus is web pages, of which more than two thirds are near copies of each other beyond some ten thousand; or with
`--copies` documents of random sentences, such a share of them near copies. `--verify` compares every near copy that
was removed again with the document it names.

Local Parquet, the model edu-en, exact and near deduplication. Every run is a process of its own; its time is that of
itself and its workers (user and system), from start to end, so that other work on the machine does not count. Repeats
alternate; a ratio is the median of the ratios of the pairs. Memory is the largest resident set of the command. With
`--workers 2` also what a second worker brings, in seconds on the clock. Results, by corpus:
benchmarks/results/engine.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.corpus import build, machine, vary

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "engine.json"
LIMIT = 1.25
RUN = """
import sys
from filters import FilterConfig, run_filter
run_filter(FilterConfig.model_validate_json(sys.argv[1]))
# What rusage calls the largest resident set would be that of the process that started this one.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


class Side:
    """A state of finesieve.

    Args:
        root: of its checkout.
        dedup: what its section `dedup` says.
        workers: of its runs.
    """

    def __init__(self, root: Path, dedup: dict[str, Any], workers: int) -> None:
        self.root, self.dedup, self.workers = root, dedup, workers

    def run(self, folder: Path) -> dict[str, float]:
        """Filter the dump in a folder once: processor and wall seconds, megabytes."""
        output = folder / "run"
        shutil.rmtree(output, ignore_errors=True)
        config = {
            "input": {"kind": "parquet", "paths": [str(folder / "dump.parquet")], "id_key": "id"},
            "dedup": self.dedup,
            "keep": {"min_score": 0.5},
            "output": {"path": str(output)},
            "executor": {"workers": self.workers},
        }
        start = time.perf_counter()
        environment = os.environ | {"PYTHONPATH": str(self.root)}
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", RUN, json.dumps(config)],
            env=environment,
            cwd=self.root,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        peak = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"a run by {self.root} failed")
        return {
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "wall_s": time.perf_counter() - start,
            "memory_mb": int(peak) / 1024,
        }


def verify(run: Path) -> dict[str, Any]:
    """`finesieve verify --all-witnesses` of a run: what it says of witnesses, processor seconds, megabytes."""
    command = [sys.executable, "-P", "-m", "filters", "verify", str(run), "--all-witnesses"]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [" ".join(line.split()) for line in process.stdout if "near cop" in line or "witness" in line]
    _, status, usage = os.wait4(process.pid, 0)
    return {
        "status": status,
        "says": lines,
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "memory_mb": round(usage.ru_maxrss / 1024, 1),
    }


def main() -> None:
    """Measure, print, write the JSON; status 1 where the limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("beside", type=Path, help="the other checkout")
    parser.add_argument("--their-dedup", type=json.loads, default={}, help="its section `dedup`, as JSON")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--copies", type=float, help="random sentences instead of pages, such a share near copies")
    parser.add_argument("--verify", action="store_true", help="all witnesses of our last run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="more than 1: also beside one worker")
    arguments = parser.parse_args()
    sides = {
        "ours": Side(ROOT, {}, 1),
        "theirs": Side(arguments.beside.resolve(), arguments.their_dedup, 1),
    }
    if arguments.workers > 1:
        sides["workers"] = Side(ROOT, {}, arguments.workers)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = folder / "small"
        small.mkdir()
        build(small / "dump.parquet", 2000)
        for side in sides.values():  # kernels are compiled
            side.run(small)
        if arguments.copies is None:
            kind = build(folder / "dump.parquet", arguments.documents)
        else:
            kind = vary(folder / "dump.parquet", arguments.documents, copies=arguments.copies)
        # Ours last, for `--verify`.
        turns = [{name: sides[name].run(folder) for name in reversed(sides)} for _ in range(arguments.repeats)]
        verified = verify(folder / "run") if arguments.verify else None

    def ratio(one: str, other: str, what: str) -> float:
        return round(statistics.median(turn[one][what] / turn[other][what] for turn in turns), 3)

    found: dict[str, Any] = {
        "corpus": f"{arguments.documents} x about 3,200 characters of {kind}",
        "repeats": arguments.repeats,
        "machine": machine(),
        "limit": LIMIT,
        "ratio_cpu": ratio("ours", "theirs", "cpu_s"),
        "ratio_memory": ratio("ours", "theirs", "memory_mb"),
    }
    if "workers" in sides:
        found["workers"] = {"count": arguments.workers, "faster": ratio("ours", "workers", "wall_s")}
    for side in sides:
        found[side] = {what: round(statistics.median(turn[side][what] for turn in turns), 2) for what in turns[0][side]}
    if verified:
        found["verify"] = verified
    print(json.dumps(found, indent=1))
    every = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(every | {found["corpus"]: found}, indent=1) + "\n")
    if found["ratio_cpu"] > LIMIT:
        sys.exit(f"a run costs {found['ratio_cpu']} times as much as by {arguments.beside}; at most {LIMIT} is allowed")


if __name__ == "__main__":
    main()
