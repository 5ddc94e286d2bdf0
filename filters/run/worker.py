"""A unit done and answered for; and the worker process of the local executor, which reads tasks and writes answers.

Tasks come on stdin, a JSON line each, and are answered by a line each:

{"warm": config}                             load model and kernels; no answer
{"work": folder, "phase": p, "unit": n}      do a unit of a phase of the job in that folder
{"work": ..., "phase": ..., "unit": ..., "probe": {...}}    look for the document that kills (see `attributes.py`)

While a unit is read, lines {"read": [records, bytes]} say how far it is.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from filters import errors
from filters.config.filter import FilterConfig
from filters.errors import FinesieveError, RunError
from filters.phases.phase import DamagedError, Job, run_unit

_PR_SET_PDEATHSIG = 1
_TELL_SECONDS = 0.5
"""Between two lines that say how far a unit is."""

Answer = dict[str, Any]
"""unit; of one that failed also error (name of the exception's class), message, errno, trace of what is no
FinesieveError, damaged (phase, unit, what). While it is worked on: read (records, stored bytes)."""


def attempt(job: Job, phase: str, unit: int, probe: dict[str, Any] | None = None) -> Answer:
    """Do a unit; every error is an answer."""
    from filters.run import attributes
    from filters.run import phase_list as recipe

    answer: Answer = {"unit": unit}
    try:
        if probe is None:
            run_unit(job, recipe.phase_named(phase, job), unit)
        else:
            attributes.probe(job, unit, **probe)
    except FinesieveError as error:
        answer |= {"error": type(error).__name__, "message": str(error)}
        if isinstance(error, DamagedError):
            answer["damaged"] = [error.phase, error.unit, error.what]
    except Exception as error:
        answer |= {"error": type(error).__name__, "message": str(error), "errno": getattr(error, "errno", None)}
        answer["trace"] = traceback.format_exc(limit=-8)
    return answer


def error_of(source: str, answer: Answer) -> FinesieveError:
    """The exception an answer with an error stands for."""
    kind = getattr(errors, str(answer["error"]), None)
    if kind is errors.MissingExtraError:
        return FinesieveError(str(answer["message"]))
    if isinstance(kind, type) and issubclass(kind, FinesieveError):
        return kind(str(answer["message"]))
    return RunError(f"{source}: {answer['error']}: {answer['message']}\n{answer.get('trace', '')}".rstrip())


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
            _warm(task["warm"], task["folder"])
            continue
        if task["work"] not in jobs:
            try:
                jobs[task["work"]] = job = Job.load(Path(task["work"]))
            except Exception as error:
                answer = {"unit": task["unit"], "error": type(error).__name__, "message": str(error)}
                answers.write(json.dumps(answer | {"trace": traceback.format_exc()}) + "\n")
                continue
            job.progress.listener = _Teller(answers)
        answer = attempt(jobs[task["work"]], task["phase"], task["unit"], task.get("probe"))
        answers.write(json.dumps(answer) + "\n")


class _Teller:
    """Writes now and then how much was read."""

    def __init__(self, answers: Any) -> None:
        self._answers, self._read, self._last = answers, [0, 0], time.monotonic()

    def __call__(self, records: int, input_bytes: int) -> None:
        self._read = [self._read[0] + records, self._read[1] + input_bytes]
        now = time.monotonic()
        if self._read[0] and now - self._last > _TELL_SECONDS:
            self._answers.write(json.dumps({"read": self._read}) + "\n")
            self._read, self._last = [0, 0], now


def _warm(config: dict[str, Any], folder: str) -> None:
    from filters.run.steps import warm

    # A model or option that does not fit is the plan's to report.
    try:
        warm(FilterConfig.in_folder(config, folder))
    except Exception:
        traceback.print_exc()


def _die_with(parent: int) -> None:
    """A worker must not outlive a parent that was killed: it would go on writing into the folder of the next run."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
