"""A worker process of the local executor: reads tasks on stdin, a JSON line each, and answers a line for each.

{"warm": config}                             load model and kernels; no answer
{"work": folder, "phase": p, "unit": n}      do a unit of a phase of the job in that folder
{"work": ..., "phase": ..., "unit": ..., "probe": {...}}    look for the document that kills (see `phases/poison.py`)
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from filters.config import FilterConfig
from filters.errors import FinesieveError
from filters.pipeline.executor import SPOOL, spool_unit, warm
from filters.pipeline.phases.phase import DamagedError, Job, run_unit

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until stdin ends. argv[1] is the process id of the parent."""
    _die_with(int(sys.argv[1]))
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jobs: dict[str, Job] = {}
    for line in sys.stdin:
        task: dict[str, Any] = json.loads(line)
        if "warm" in task:
            _warm(task["warm"])
            continue
        answer: dict[str, Any] = {"unit": task["unit"]}
        try:
            job = jobs.get(task["work"]) or jobs.setdefault(task["work"], Job.load(Path(task["work"])))
            _do(job, task)
        except FinesieveError as error:
            answer |= {"error": type(error).__name__, "message": str(error)}
            if isinstance(error, DamagedError):
                answer["damaged"] = [error.phase, error.unit, error.what]
        except Exception as error:
            traceback.print_exc()
            answer |= {"error": type(error).__name__, "message": str(error), "errno": getattr(error, "errno", None)}
        answers.write(json.dumps(answer) + "\n")


def _do(job: Job, task: dict[str, Any]) -> None:
    if "probe" in task:
        from filters.pipeline.phases.poison import probe

        probe(job, task["unit"], **task["probe"])
    elif task["phase"] == SPOOL:
        spool_unit(job, task["unit"])
    else:
        from filters.pipeline.phases.recipe import phase_named

        run_unit(job, phase_named(task["phase"]), task["unit"])


def _warm(config: dict[str, Any]) -> None:
    # A model or option that does not fit is the plan's to report.
    try:
        warm(FilterConfig.model_validate(config))
    except Exception:
        traceback.print_exc()


def _die_with(parent: int) -> None:
    """A worker must not outlive a parent that was killed: it would go on writing into the folder of the next run."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
