"""How long one waits: `finesieve --help`, and the first document of `finesieve filter`, warm and cold.

    python -m benchmarks.start [--repeats 5]

Each is a process of its own, from its start to its end, so the first document is measured with more than it takes: the
run over one document with the embedded model is over, its folder published. Cold: the user's cache directory is empty,
so every kernel is compiled; files are in the system's cache. All processors may be used. Seconds depend on the machine,
so they have an aim and no floor.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Report, Row, arguments

FINESIEVE = Path(sys.executable).with_name("finesieve")
TEXT = "A fraction names a part of a whole: the denominator says into how many parts, the numerator how many are meant."


def waited(command: list[str], cache: Path) -> float:
    """Seconds a command takes.

    Raises:
        SystemExit: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    start = time.perf_counter()
    done = subprocess.run(
        [str(FINESIEVE), *command], capture_output=True, text=True, env=environment | {"XDG_CACHE_HOME": str(cache)}
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"finesieve {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return seconds


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, repeats=5)
    report = Report("start", "one document")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "page.jsonl").write_text(json.dumps({"text": TEXT}) + "\n", encoding="utf-8")
        config = {
            "input": {"kind": "jsonl", "paths": [str(folder / "page.jsonl")]},
            "output": {"path": str(folder / "run")},
        }
        (folder / "filter.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        one = ["filter", str(folder / "filter.yaml"), "--force-new"]
        waited(one, folder / "warm")
        # A user's cache directory of its own for every repeat is a cold one.
        commands = {
            "help": lambda _: waited(["--help"], folder / "warm"),
            "warm": lambda _: waited(one, folder / "warm"),
            "cold": lambda repeat: waited(one, folder / f"cold-{repeat}"),
        }
        waits = {key: [command(repeat) for repeat in range(options.repeats)] for key, command in commands.items()}
    rows = (
        ("help", "`finesieve --help`", 0.3),
        ("warm", "first document of `finesieve filter`, warm", 3),
        ("cold", "first document of `finesieve filter`, nothing compiled yet", 15),
    )
    for key, what, target in rows:
        seconds = waits[key]
        report.add(
            Row(row=f"start.{key}", what=what, against="", value=round(statistics.median(seconds), 2), unit="s",
                better="lower", target=target, held_to="nothing", repeats=len(seconds),
                range=(round(min(seconds), 2), round(max(seconds), 2)))
        )  # fmt: skip
    report.write(options.results)


if __name__ == "__main__":
    main()
