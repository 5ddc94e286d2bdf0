"""What a global run costs beside a streaming run over the same input: one worker, paired, in processor time.

    python benchmarks/global_filter.py [--documents 20000] [--repeats 5]

Every run is a process of its own; its time is that of itself and its workers (user and system), from start to end, so
that other work on the machine does not count. Repeats alternate; the ratio is the median of the ratios of the pairs.
Results: benchmarks/results/global_filter.json.
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

from corpus import build, machine

RESULTS = Path(__file__).parent / "results" / "global_filter.json"
LIMIT = 1.8
RUN = """
import sys
from filters import FilterConfig, run_filter
run_filter(FilterConfig.model_validate_json(sys.argv[1]))
"""


def run(folder: Path, scope: str, workers: int) -> dict[str, float]:
    """Filter the dump once; processor and wall seconds."""
    output = folder / "run"
    shutil.rmtree(output, ignore_errors=True)
    config = {
        "input": {"kind": "parquet", "paths": [str(folder / "dump.parquet")], "id_key": "id"},
        "dedup": {"scope": scope},
        "keep": {"min_score": 0.5},
        "output": {"path": str(output)},
        "executor": {"workers": workers},
    }
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", RUN, json.dumps(config)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"a {scope} run failed")
    return {"cpu_s": usage.ru_utime + usage.ru_stime, "wall_s": time.perf_counter() - start}


def main() -> None:
    """Measure, print, write the JSON; status 1 where the limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kind = build(folder / "dump.parquet", arguments.documents)
        for scope in ("stream", "global"):
            run(folder, scope, 1)
        pairs = [{scope: run(folder, scope, 1) for scope in ("stream", "global")} for _ in range(arguments.repeats)]
    ratio = statistics.median(pair["global"]["cpu_s"] / pair["stream"]["cpu_s"] for pair in pairs)
    found: dict[str, Any] = {
        "corpus": f"{arguments.documents} x about 3,200 characters of {kind}",
        "repeats": arguments.repeats,
        "machine": machine(),
        "ratio_cpu": round(ratio, 2),
        "limit": LIMIT,
    }
    for scope in ("stream", "global"):
        for what in ("cpu_s", "wall_s"):
            found[f"{scope}_{what}"] = round(statistics.median(pair[scope][what] for pair in pairs), 2)
    print(json.dumps(found, indent=1))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if ratio > LIMIT:
        sys.exit(f"a global run costs {ratio:.2f} times a streaming run; at most {LIMIT} is allowed")


if __name__ == "__main__":
    main()
