"""How far a forecast is from the run: three sizes; processor time, disk, and documents kept.

    python benchmarks/forecast.py [--documents 20000 60000 180000] [--repeats 3]

For each size, forecasts (another seed each time) and runs take turns; medians are compared. Times are processor time
(user and system), so that other work on the machine counts little. Sizes are those of all files of all units, and of
what is published. Status 1 where one of the three is off by more than 20 %. Results: benchmarks/results/forecast.json.
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
from pathlib import Path
from typing import Any

from corpus import build, machine

RESULTS = Path(__file__).parent / "results" / "forecast.json"
LIMIT = 0.2
COMPARED = {"cpu_s": 1, "disk_mb": 1, "kept": 0}
"""What is compared, and the digits it is shown with."""
FORECAST = """
import json, sys
from filters import FilterConfig
from filters.run.forecast import PUBLISHED, forecast
from filters.run.plan import make_plan
found = forecast(make_plan(FilterConfig.model_validate_json(sys.argv[1])), seed=int(sys.argv[2]))
here = found.columns[0]
published = sum(here.disk.get(kind, 0.0) for kind in PUBLISHED)
print(json.dumps({"cpu_s": here.cpu_s, "work_bytes": here.work_bytes, "published_bytes": published,
                  "peaks": here.peaks, "pilot_cpu_s": found.pilot_cpu_s, "kept": here.kept.value}))
"""
RUN = """
import json, sys
from filters import FilterConfig
from filters.run.engine import Engine, prepare
from filters.run.folder import held
from filters.run.plan import Observer
from filters.run.phase_list import PHASES
from filters.run.plan import make_plan
from filters.run.selection import summary_of_select
from filters.run.workers import ThreadPool
plan = make_plan(FilterConfig.model_validate_json(sys.argv[1]))
cpu, disk, peaks = {}, {}, {}
with held(plan.output, "output.path"), ThreadPool(1) as pool:
    job = prepare(plan, Observer(), force_new=True)
    Engine(job, pool, Observer()).run(lambda: None)
    kept = summary_of_select(job)["documents_written"]
    for phase in PHASES:
        entries = [job.entry(phase.name, unit) for unit in range(phase.units(job))]
        if entries:
            cpu[phase.name] = sum(entry["cost"]["cpu_s"] for entry in entries)
            peaks[phase.name] = max(entry["cost"]["peak_bytes"] for entry in entries)
            disk[phase.name] = sum(file["bytes"] for entry in entries for file in entry["files"].values())
published = disk.pop("shard")
print(json.dumps({"cpu_s": cpu, "work_bytes": sum(disk.values()), "published_bytes": published, "peaks": peaks,
                  "kept": kept}))
"""


def take(code: str, config: dict[str, Any], *arguments: str) -> dict[str, Any]:
    """Run code in a process of its own; what it prints."""
    command = [sys.executable, "-c", code, json.dumps(config), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of every figure."""
    first = runs[0]
    return {
        name: {key: statistics.median(run[name].get(key, 0) for run in runs) for key in value}
        if isinstance(value, dict)
        else statistics.median(run[name] for run in runs)
        for name, value in first.items()
    }


def sums(found: dict[str, Any]) -> dict[str, float]:
    """What is compared, and the largest process."""
    return {
        "cpu_s": sum(found["cpu_s"].values()),
        "disk_mb": (found["work_bytes"] + found["published_bytes"]) / 1e6,
        "kept": found["kept"],
        "memory_mb": max(found["peaks"].values()) / 1e6,
    }


def measure(documents: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Forecasts and runs of one size."""
    dump, output = folder / f"{documents}.parquet", folder / "run"
    corpus = build(dump, documents)
    config = {
        "input": {"kind": "parquet", "paths": [str(dump)], "id_key": "id"},
        "keep": {"min_score": 1.0},
        "output": {"path": str(output)},
    }
    forecasts, runs = [], []
    for number in range(repeats):
        forecasts.append(take(FORECAST, config, str(number)))
        shutil.rmtree(output, ignore_errors=True)
        runs.append(take(RUN, config))
    dump.unlink()
    said, was = middle(forecasts), middle(runs)
    row: dict[str, Any] = {"documents": documents, "corpus": corpus}
    for name, value in sums(was).items():
        forecast = sums(said)[name]
        row[name] = {
            "forecast": round(forecast, 2),
            "measured": round(value, 2),
            "error": round(forecast / value - 1, 3),
        }
        each = [sums(found)[name] / value - 1 for found in forecasts]
        row[name]["errors"] = [round(error, 3) for error in each]
    row["peaks_mb"] = {
        name: [round(said["peaks"].get(name, 0) / 1e6), round(peak / 1e6)] for name, peak in was["peaks"].items()
    }
    row["cpu_by_phase_s"] = {
        name: [round(said["cpu_s"].get(name, 0), 3), round(cost, 3)] for name, cost in was["cpu_s"].items()
    }
    row["pilot_cpu_s"] = round(said["pilot_cpu_s"], 1)
    return row


def main() -> None:
    """Measure, print, write the JSON; status 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[20_000, 60_000, 180_000])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for documents in arguments.documents:
            rows.append(measure(documents, arguments.repeats, Path(name)))
            print(json.dumps(rows[-1]), flush=True)
    found = {"limit": LIMIT, "repeats": arguments.repeats, "machine": machine(), "sizes": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print("python -m benchmarks.table --write puts these into docs/results/speed.md")
    far = [(row["documents"], what) for row in rows for what in COMPARED if abs(row[what]["error"]) > LIMIT]
    if far:
        sys.exit(f"off by more than {LIMIT:.0%}: {far}")


if __name__ == "__main__":
    main()
