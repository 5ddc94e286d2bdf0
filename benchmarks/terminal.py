"""`finesieve inspect` in a terminal on a run of 20 million documents: seconds of one core, and megabytes.

    python benchmarks/terminal.py FOLDER

FOLDER takes the synthetic run (about 2 GB; it is made once). Each command is a process of its own that may use one
core, with one thread; its processor time is what counts, as other work on the machine does not add to it. Medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from corpus import machine
from synthetic_run import build

RESULTS = Path(__file__).parent / "results" / "terminal.json"
COMMANDS = {
    "inspect RUN": [],
    "inspect RUN --keep fraction=0.1": ["--keep", "fraction=0.1"],
}
THREADS = {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1", "ARROW_IO_THREADS": "1"}


def measure(run: Path, options: list[str]) -> tuple[float, float]:
    """(processor seconds, peak megabytes) of one command."""
    command = [sys.executable, "-m", "filters", "inspect", str(run), *options]
    core = {min(os.sched_getaffinity(0))}
    process = subprocess.Popen(
        command,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
        stdout=subprocess.DEVNULL,
        env=os.environ | THREADS,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command}: status {status}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def main() -> None:
    """Measure every command and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=20_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    wanted = parser.parse_args()
    run = build(wanted.folder, wanted.documents)
    results: list[dict[str, Any]] = []
    for name, options in COMMANDS.items():
        measure(run, options)  # compiled kernels and the file cache are there from the second time on
        found = [measure(run, options) for _ in range(wanted.repeats)]
        results.append(
            {
                "command": name,
                "processor_seconds": round(statistics.median(seconds for seconds, _ in found), 2),
                "peak_memory_mb": round(statistics.median(megabytes for _, megabytes in found)),
            }
        )
        print(results[-1], flush=True)
    wanted.output.write_text(
        json.dumps({"documents": wanted.documents, "machine": machine(), "results": results}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
