"""How everything here is timed: in turn, on one core, wall-clock and processor time, medians of the repeats.

A comparison runs ours and then each peer in every repeat, so that a machine that slows down slows all of them, and its
value is the median of the ratios of the repeats. Rows "on one core" bind this process, and with it every process it
starts, to one processor: a second thread gains nothing then, and wall-clock time is what one core needs. Processor
time stands beside it, of the process and of the children it has waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.corpus import machine

RESULTS = Path(__file__).parent / "results" / "speed"


@dataclass(frozen=True)
class Timing:
    """What a run took.

    Attributes:
        wall: seconds on the clock.
        cpu: seconds of processor time, user and system.
        documents: how many it did.
    """

    wall: float
    cpu: float
    documents: int


Side = Callable[[], Timing]


@dataclass(frozen=True)
class Row:
    """A row of the table, and of a results file.

    Attributes:
        row: its name; floors are kept by it.
        what: what was measured.
        against: what it is compared with; empty if with nothing.
        value: the number that counts: a ratio, or a quantity of `unit`.
        unit: "x" for a ratio of speeds, "x its time" for one of times, else of the quantity.
        better: which direction is good.
        target: what the value is to reach.
        held_to: what a run must not miss: a floor that leaves room for another machine; the target itself, where the
            value depends on no machine; or nothing, where it is context.
        range: smallest and largest value of the repeats.
        cpu: the same ratio of processor times.
        docs_per_s, peer_docs_per_s: medians, wall-clock; context.
        documents, peer_documents: how many each side did per repeat.
        repeats: how many there were.
        note: what a reader must know beside that.
    """

    row: str
    what: str
    against: str
    value: float
    unit: str
    better: Literal["higher", "lower"]
    target: float | None = None
    held_to: Literal["floor", "target", "nothing"] = "floor"
    range: tuple[float, float] | None = None
    cpu: float | None = None
    docs_per_s: int | None = None
    peer_docs_per_s: int | None = None
    documents: int | None = None
    peer_documents: int | None = None
    repeats: int | None = None
    note: str = ""


@dataclass
class Report:
    """What a script leaves behind.

    Attributes:
        script: its name, and that of the results file.
        corpus: what it ran on.
        one_core: the processor everything was bound to; None if nothing was.
        rows: the measured ones.
        skipped: what could not be measured here -> why.
        details: numbers beside the rows.
    """

    script: str
    corpus: str
    one_core: int | None = None
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def add(self, *rows: Row) -> None:
        """Take rows, and show them."""
        for row in rows:
            self.rows.append(row)
            print(f"  {row.what} | {row.against or '-'}: {row.value:g} {row.unit}{shown_range(row)}", flush=True)

    def skip(self, what: str, why: str) -> None:
        """Say that a row is missing, and why."""
        self.skipped[what] = why
        print(f"  SKIPPED: {what}: {why}", flush=True)

    def write(self, folder: Path) -> None:
        """Write `folder`/SCRIPT.json, in one step."""
        report = asdict(self)
        report["seconds"] = round(time.perf_counter() - report.pop("started"), 1)
        report["machine"] = machine()
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{self.script}.json.new"
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, folder / f"{self.script}.json")


def shown_range(row: Row) -> str:
    return f" ({row.range[0]:g} to {row.range[1]:g})" if row.range else ""


def arguments(doc: str | None, **defaults: int) -> argparse.Namespace:
    """Parse the options every script has: `--results`, and a number for each of `defaults` (`--stock-documents N`)."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    return parser.parse_args()


def bind_to_one_core() -> int | None:
    """Bind this process and those it will start to the last processor it may use; its number, None where that fails."""
    if not hasattr(os, "sched_setaffinity"):
        print("  this system cannot bind a process to a processor: more than one core may have been used")
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def cpu_seconds() -> float:
    """Processor time of this process and of the children it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def clocked(work: Callable[[], int]) -> Timing:
    """Time `work`, which returns how many documents it did."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    documents = work()
    return Timing(time.perf_counter() - wall, cpu_seconds() - cpu, documents)


def answered(answer: Mapping[str, Any]) -> Timing:
    """The timing a peer answered with."""
    return Timing(float(answer["seconds"]), float(answer["cpu_seconds"]), int(answer["documents"]))


def in_turn(sides: Mapping[str, Side], repeats: int) -> dict[str, list[Timing]]:
    """Run every side once to warm up, then `repeats` times, in turn."""
    for side in sides.values():
        side()
    timings: dict[str, list[Timing]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            timings[name].append(side())
    return timings


def ratios(ours: list[Timing], theirs: list[Timing], *, of: Literal["speed", "time"] = "speed") -> dict[str, Any]:
    """The fields of a `Row` that two lists of timings, repeat by repeat, give.

    Args:
        ours, theirs: of the same repeats.
        of: "speed": how many times as fast ours is; "time": how many times their time ours takes.
    """
    pairs = list(zip(ours, theirs, strict=True))
    wall = [(b.wall / b.documents) / (a.wall / a.documents) for a, b in pairs]
    cpu = [(b.cpu / b.documents) / (a.cpu / a.documents) for a, b in pairs]
    if of == "time":
        wall, cpu = [1 / ratio for ratio in wall], [1 / ratio for ratio in cpu]
    return {
        "value": rounded(statistics.median(wall)),
        "range": (rounded(min(wall)), rounded(max(wall))),
        "cpu": rounded(statistics.median(cpu)),
        "unit": "x" if of == "speed" else "x its time",
        "better": "higher" if of == "speed" else "lower",
        "docs_per_s": docs_per_s(ours),
        "peer_docs_per_s": docs_per_s(theirs),
        "documents": ours[0].documents,
        "peer_documents": theirs[0].documents,
        "repeats": len(pairs),
    }


def speed(timings: list[Timing]) -> dict[str, Any]:
    """The fields of a `Row` for a side with nothing to compare it with."""
    found = docs_per_s(timings)
    return {
        "value": found,
        "unit": "docs/s",
        "better": "higher",
        "held_to": "nothing",
        "docs_per_s": found,
        "documents": timings[0].documents,
        "repeats": len(timings),
    }


def docs_per_s(timings: list[Timing]) -> int:
    """Median documents per second of the clock."""
    return round(statistics.median(timing.documents / timing.wall for timing in timings))


def rounded(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")
