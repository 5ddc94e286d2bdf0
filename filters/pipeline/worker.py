"""A worker process of the local executor: reads unit numbers on stdin, answers a JSON line on stdout for each."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path

from filters.config import FilterConfig
from filters.errors import FinesieveError
from filters.pipeline.executor import UnitExecutor, unit_pipeline
from filters.read.units import Unit


def main() -> None:
    """Serve until stdin ends. argv[1] is the job file the parent wrote."""
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = json.loads(Path(sys.argv[1]).read_text())
    # What libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    config = FilterConfig.model_validate(job["config"])
    units = [Unit(**unit) for unit in job["units"]]
    executor = UnitExecutor(unit_pipeline(config, units, Path(job["work"])), len(units))
    for line in sys.stdin:
        rank = int(line)
        try:
            executor._run_for_rank(rank)
        except FinesieveError as error:
            answers.write(json.dumps({"rank": rank, "error": type(error).__name__, "message": str(error)}) + "\n")
        except Exception as error:
            traceback.print_exc()
            answers.write(json.dumps({"rank": rank, "error": type(error).__name__, "message": str(error)}) + "\n")
        else:
            answers.write(json.dumps({"rank": rank}) + "\n")
