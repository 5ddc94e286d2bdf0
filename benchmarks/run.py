"""All speed benchmarks, one after the other, each in a process of its own; then the floors.

    python -m benchmarks.run [--quick] [--results DIR] [--only SCRIPT ...]

What cannot run here (no real pages, a peer that does not install) says SKIPPED and why. Exit status 1: a script failed,
or a floor is missed. `--quick` shrinks everything, to see that it runs; its numbers go to runs/bench-quick and are held
to nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.floors import FLOORS, check, read_rows, targets
from benchmarks.measure import RESULTS
from benchmarks.peer import ENVIRONMENTS, PeerError, install

ROOT = Path(__file__).resolve().parents[1]
QUICK_RESULTS = ROOT / "runs" / "bench-quick"
TIME_LIMIT = 900
"""Seconds after which a script is given up."""
SCRIPTS: dict[str, tuple[str, ...]] = {
    "start": ("--repeats", "2"),
    "minhash_theory": ("--pairs", "1000"),
    "minhash_speed": ("--documents", "1000", "--stock-documents", "30", "--repeats", "2"),
    "fasttext_models": ("--documents", "1000", "--stock-documents", "100", "--repeats", "2"),
    "heads": ("--documents", "1000", "--repeats", "2"),
    "kernels": ("--documents", "1000", "--repeats", "2"),
    "pipeline": ("--documents", "1000", "--stock-documents", "100", "--repeats", "2"),
    "stages": ("--documents", "4000"),
    "formats": ("--documents", "4000", "--repeats", "2"),
    "decide": ("--documents", "4000", "--rows", "100000", "--repeats", "2"),
    "warc": ("--repeats", "1"),
    "end_to_end": ("--documents", "4000", "--stock-documents", "60", "--repeats", "2"),
    "workers": ("--documents", "20000", "--repeats", "2"),
    "growth": ("--largest", "50000", "--repeats", "2"),
}
"""Script -> its options with `--quick`; those that use the least come first, so that a fault shows early."""


def installed() -> None:
    """Make the peers' environments, so that no script waits for it."""
    for name in ENVIRONMENTS:
        try:
            install(name)
        except PeerError as error:
            print(f"  {error}: its rows will be SKIPPED", flush=True)


def one(script: str, options: Sequence[str]) -> bool:
    """Run a script; whether it succeeded."""
    try:
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{script}", *options], cwd=ROOT, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        print(f"  FAILED: {script} took more than {TIME_LIMIT} s", flush=True)
        return False
    if done.returncode:
        print(f"  FAILED: {script}, exit status {done.returncode}", flush=True)
    return done.returncode == 0


def main() -> int:
    """Exit status: 0, or 1 where a script failed or a floor is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small: to see that everything runs")
    parser.add_argument("--results", type=Path, help="folder of the results")
    parser.add_argument("--only", nargs="+", choices=list(SCRIPTS), default=list(SCRIPTS), metavar="SCRIPT")
    chosen = parser.parse_args()
    results = (chosen.results or (QUICK_RESULTS if chosen.quick else RESULTS)).resolve()
    start = time.perf_counter()
    print("peers", flush=True)
    installed()
    seconds = {"peers": time.perf_counter() - start}
    failed = []
    for number, script in enumerate(chosen.only, 1):
        print(f"[{number}/{len(chosen.only)}] {script}", flush=True)
        began = time.perf_counter()
        if not one(script, ["--results", str(results), *(SCRIPTS[script] if chosen.quick else ())]):
            failed.append(script)
            (results / f"{script}.json").unlink(missing_ok=True)  # what failed must not show old numbers
        seconds[script] = time.perf_counter() - began
    print("\nseconds")
    for script, taken in seconds.items():
        print(f"  {script:18} {taken:6.0f}")
    print(f"  {'all':18} {time.perf_counter() - start:6.0f}\n")
    rows = list(read_rows(results).values()) if any(results.glob("*.json")) else []
    for path in sorted(results.glob("*.json")):
        for what, why in json.loads(path.read_text())["skipped"].items():
            print(f"SKIPPED: {what}: {why}")
    for line in targets(rows):
        print(f"aim missed: {line}")
    wrong = [f"{script} failed" for script in failed] + ([] if chosen.quick else check(results, FLOORS))
    for line in wrong:
        print(f"bench: {line}", file=sys.stderr)
    print("bench: passed" if not wrong else "bench: not passed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
