"""Kill a run with SIGKILL again and again, its parent and its workers, in every phase; then compare the bytes.

    python -m tests.run.kill_run [--kills 40] [--seed 0] [--results FILE]

Every other trial has its work done by threads, where there is a parent alone to be killed, and which goes on in
processes after that. A trial kills one run up to three times, resumes it after each death of the parent (a dead worker
is replaced by the run itself), and holds the finished tree against that of a run nobody disturbed. Ends with status 1
where they differ.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.run.conftest import digest, jsonl, page

PHASES = ("start", "attributes", "join", "copies", "exact", "shingles", "compare", "settle", "witnesses", "clusters",
          "verdicts", "tally", "select", "fingerprints", "sets", "shard", "publish")  # fmt: skip
KILLS_A_RUN = 3
LONGEST = 600.0
"""Seconds after which a run counts as hanging."""

RUN = """
import sys, time
from filters import FilterConfig, run_filter
from filters.read import jsonl
from filters.run import engine as run
from filters.run.plan import Observer
jsonl.BYTES_PER_UNIT, jsonl.SPLIT_FILES = 30_000, 1000  # each file becomes units of ranges of its lines
if sys.argv[2] == "processes":
    run.threads_will_do = lambda config: False
class Tell(Observer):
    last = ""
    def planned(self, plan):
        print("start", flush=True)
    def phase(self, name, done, units):
        if name != self.last:
            print(name, flush=True)
        self.last = name
        if name == "shard" and done == units:
            print("publish", flush=True)
run_filter(FilterConfig.model_validate_json(open(sys.argv[1]).read()), observer=Tell())
"""


def corpus(folder: Path) -> dict[str, Any]:
    """Small inputs with copies within and across files, bad records and clashing ids; the config of a run over them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(8):
        rows: list[Any] = [
            {"id": f"{n % 37}", "text": page((n + number * 40) * 7 % 911, 60 + n % 50)}
            for n in range(number, 120 + number)
        ]
        rows.insert(9, b"{broken")
        jsonl(folder / f"in-{number}.jsonl", rows)
    return {
        "input": {"kind": "jsonl", "paths": [str(folder / "*.jsonl")], "id_key": "id"},
        "keep": {"fraction": 0.6},
        "dedup": {"keep_fingerprints": True},
        "output": {"path": str(folder / "run"), "shard_size": 20_000, "rejected": True},
        "executor": {"workers": 2},
    }


class Run:
    """A run in a process of its own, which tells in which phase it is."""

    def __init__(self, config: Path, workers: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(config), workers], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait_for(self, phase: str) -> bool:
        """Wait until the run is in a phase; False if it ended before."""
        assert self.process.stdout is not None
        return any(line.strip() == phase for line in self.process.stdout)

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        pid = self.process.pid
        try:
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            return []

    def end(self) -> tuple[int, str]:
        """(exit status, what it said); one that hangs fails."""
        _, errors = self.process.communicate(timeout=LONGEST)
        return self.process.returncode, errors


def trial(
    config: Path, generator: random.Random, targets: list[tuple[str, str]], workers: str
) -> Counter[tuple[str, str]]:
    """Kill one run as told, (phase, "parent" or "worker") each, and let it finish; the kills that hit."""
    hits: Counter[tuple[str, str]] = Counter()
    run = Run(config, workers)
    for phase, victim in targets:
        if not run.wait_for(phase):
            break
        time.sleep(generator.random() * 0.1)
        pids = [run.process.pid] if victim == "parent" else run.workers()
        try:
            os.kill(generator.choice(pids), signal.SIGKILL)
        except (IndexError, ProcessLookupError):
            continue
        hits[phase, victim] += 1
        if victim == "parent":
            run.end()
            run = Run(config, workers)
    status, errors = run.end()
    if status and "holds a finished run" not in errors:  # killed behind the last step: it was finished
        raise AssertionError(f"the run that was to finish ended with status {status}: {errors}")
    return hits


def kill_and_compare(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill runs until so many kills hit; what was done and how many finished trees differed."""
    generator = random.Random(seed)
    settings = corpus(folder)
    config = folder / "config.json"
    config.write_text(json.dumps(settings))
    status, errors = Run(config, "threads").end()
    if status:
        raise AssertionError(errors)
    expected = digest(folder / "run")
    targets = [(phase, victim) for phase in PHASES for victim in ("parent", "worker")]
    order = itertools.cycle(generator.sample(targets, len(targets)))
    hits: Counter[tuple[str, str]] = Counter()
    trials = different = 0
    while hits.total() < kills:
        count = min(kills - hits.total(), generator.randint(1, KILLS_A_RUN))
        chosen = sorted(itertools.islice(order, count), key=lambda target: PHASES.index(target[0]))
        shutil.rmtree(folder / "run", ignore_errors=True)
        hits += trial(config, generator, chosen, ("processes", "threads")[trials % 2])
        trials += 1
        found = digest(folder / "run")
        if found != expected:
            different += 1
            names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            print(f"differs after {chosen}: {names}", file=sys.stderr)
    return {
        "kills": hits.total(),
        "by_victim": dict(Counter(victim for _, victim in hits.elements())),
        "by_phase": {phase: sum(n for (at, _), n in hits.items() if at == phase) for phase in PHASES},
        "runs_compared": trials,
        "runs_that_differ": different,
    }


def main() -> None:
    """Do it, print what was done, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = kill_and_compare(Path(folder) / "corpus", arguments.kills, arguments.seed)
    print(json.dumps(found, indent=1))
    print(f"{time.monotonic() - started:.0f} s")
    if arguments.results:
        arguments.results.write_text(json.dumps(found, indent=1) + "\n")
    if found["runs_that_differ"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
