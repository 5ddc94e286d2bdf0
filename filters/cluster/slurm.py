"""A run on Slurm: an array job for each phase, each begun when the one before has succeeded.

datatrove's executor writes and submits the jobs (`SlurmPipelineExecutor`). Around it: a job whose predecessor failed is
cancelled instead of waiting for ever, nothing is taken as done because an empty file says so, and a run knows its jobs.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats
from loguru import logger

from filters.cluster.phase_step import FinishRun, RunPhase, tasks_of
from filters.errors import RunError
from filters.phases.phase import Job
from filters.run.phase_list import PHASES
from filters.storage.files import publishing

FINISH = "publish"
DEFAULT_MAX_ARRAY_SIZE = 1000
_PARSABLE = re.compile(r"([0-9]+)(?:;[^;\s]+)?")
_SENTENCE = re.compile(r"Submitted batch job ([0-9]+)(?: on cluster \S+)?")
ALIVE = (
    "PENDING",
    "RUNNING",
    "SUSPENDED",
    "COMPLETING",
    "CONFIGURING",
    "REQUEUED",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
)
"""States of a job that will still do something, or is doing it."""


@dataclass(frozen=True)
class Submission:
    """Jobs of a run.

    Attributes:
        jobs: name of the phase -> ids of its array jobs, in order of dependency.
    """

    jobs: dict[str, list[str]]

    def save(self, path: Path) -> None:
        """Write it to a file."""
        with publishing(path) as temporary:
            temporary.write_text(json.dumps({"slurm": self.jobs}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote.

        Raises:
            RunError: the file is damaged.
        """
        try:
            return cls(json.loads(path.read_text())["slurm"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: not a list of submitted jobs: {error!r}") from error

    def states(self) -> dict[str, str]:
        """What Slurm has each phase's jobs do ("pending (Dependency)"); phases whose jobs have ended are absent, and so
        is the job this process runs in.

        Raises:
            RunError: squeue cannot be asked.
        """
        found: dict[str, str] = {}
        names = {job: phase for phase, jobs in self.jobs.items() for job in jobs}
        listing = _call("squeue", "--noheader", "--array-unique", "--states=all", "--format=%A|%F|%T|%r",
                        f"--user={_user()}")  # fmt: skip
        counts: dict[str, dict[str, int]] = {}
        for line in listing.splitlines():
            job, array, state, reason = line.strip().split("|")
            phase = names.get(array) or names.get(job)
            if phase is not None and state in ALIVE and os.environ.get("SLURM_JOB_ID") not in (job, array):
                shown = f"{state.lower()} ({reason})" if state == "PENDING" else state.lower()
                counts.setdefault(phase, {}).setdefault(shown, 0)
                counts[phase][shown] += 1
        for phase, some in counts.items():
            found[phase] = ", ".join(sorted(some))
        return found


class _Executor(SlurmPipelineExecutor):
    """datatrove's executor without what nobody here reads (statistics, completion markers), and with the cluster's own
    partition where none is named."""

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
        """Options of sbatch, without those that have no value to give."""
        options: dict[str, Any] = super().get_sbatch_args(max_array)
        return {name: value for name, value in options.items() if value or name != "partition"}

    def launch_merge_stats(self) -> None:
        """Submit no job for them."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        """Run a task and write nothing after it: the last one has removed the work folder."""
        for step in self.pipeline:
            deque(step.run(None, rank, self.world_size), maxlen=0)
        return PipelineStats()


def submit(job: Job, record: Path) -> Submission:
    """Submit all phases of a run and return.

    Args:
        job: in its work folder.
        record: file to keep the jobs' ids in, renewed with each job.

    Raises:
        RunError: Slurm is not there, or refuses.
    """
    executor = job.config.executor
    largest = executor.slurm.max_array_size or _max_array_size()
    logger.disable("datatrove")
    previous: str | None = None
    jobs: dict[str, list[str]] = {}
    steps: list[tuple[str, PipelineStep, int]] = [
        (phase.name, RunPhase(phase.name, job.work.resolve(), executor.workers), tasks_of(job, phase))
        for phase in PHASES
    ]
    steps.append((FINISH, FinishRun(job.work.resolve()), 1))
    try:
        for name, step, tasks in steps:
            if tasks == 0:
                continue
            launched = _launch(job, name, step, tasks, largest, previous)
            jobs[name], previous = launched, launched[-1]
            Submission(jobs).save(record)  # what is submitted is known even if the next sbatch fails
    except RunError:
        _cancel([job for some in jobs.values() for job in some])
        record.unlink(missing_ok=True)
        raise
    return Submission(jobs)


def _launch(job: Job, name: str, step: PipelineStep, tasks: int, largest: int, previous: str | None) -> list[str]:
    config = job.config.executor
    ids: list[str] = []

    def remember(output: str) -> str:
        ids.append(job_number(output))
        return ids[-1]

    logs = (job.work / "logs" / name / f"{time.time_ns()}").resolve()
    slurm = config.slurm
    executor = _Executor(
        [step],
        tasks=tasks,
        time=slurm.time,
        partition=slurm.partition or "",
        cpus_per_task=config.workers,
        mem_per_cpu_gb=-(-slurm.memory_per_cpu // 2**30),  # for datatrove; what Slurm is asked for is below
        workers=slurm.parallel or -1,
        job_name=f"finesieve-{name}",
        qos=slurm.qos or "",
        env_command="\n".join(filter(None, [slurm.environment, _environment()])),
        sbatch_args={
            "parsable": "",
            "mem-per-cpu": f"{-(-slurm.memory_per_cpu // 2**20)}M",
            "kill-on-invalid-dep": "yes",
            "open-mode": "append",
            **slurm.options,
        },
        max_array_size=largest,
        depends_job_id=previous or "",
        logging_dir=str(logs),
        skip_completed=False,
        job_id_retriever=remember,
        mail_type="NONE",
    )
    try:
        executor.run()
    except FileNotFoundError as error:
        raise RunError("sbatch: not found. Remedy: submit from a machine where Slurm's commands are") from error
    except subprocess.CalledProcessError as error:
        raise RunError(
            f"sbatch refused the job of phase {name} (see above; script: {logs / 'launch_script.slurm'})"
        ) from error
    return ids


def job_number(answer: str) -> str:
    """The number of a submitted job in what sbatch printed, with a site's banners before and after it.

    sbatch is asked for `--parsable` (NUMBER, or NUMBER;CLUSTER); wrappers round it may print its sentence all the same.

    Raises:
        RunError: no line says it, or lines say different ones.
    """
    for pattern in (_SENTENCE, _PARSABLE):
        numbers = {match[1] for line in answer.splitlines() if (match := pattern.fullmatch(line.strip()))}
        if len(numbers) == 1:
            return numbers.pop()
        if numbers:
            break
    raise RunError(
        f"sbatch did not answer with the number of a job but with: {answer.strip()[:200]!r}. What it submitted may be "
        "in the queue. Remedy: look with squeue --me, cancel it, and have sbatch --parsable print NUMBER"
    )


def _environment() -> str:
    """Shell commands that let a job find this Python, its programs and this package."""
    root = Path(__file__).resolve().parents[2]
    return "\n".join(
        [
            f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
            f"export PYTHONPATH={shlex.quote(str(root))}${{PYTHONPATH:+:$PYTHONPATH}}",
        ]
    )


def _max_array_size() -> int:
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(match[1]) - 1) if match else DEFAULT_MAX_ARRAY_SIZE


def check_commands() -> None:
    """See that jobs can be submitted from here.

    Raises:
        RunError: a command of Slurm's is missing.
    """
    for command in ("sbatch", "squeue", "scontrol", "scancel"):
        if shutil.which(command) is None:
            raise RunError(f"{command}: not found. Remedy: submit from a machine where Slurm's commands are")


def _call(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout  # noqa: S603
    except FileNotFoundError as error:
        raise RunError(f"{command[0]}: not found. Remedy: use a machine where Slurm's commands are") from error
    except subprocess.CalledProcessError as error:
        raise RunError(f"{command[0]} failed: {error.stderr.strip()[:300]}") from error
    except subprocess.TimeoutExpired as error:
        raise RunError(f"{command[0]} did not answer for a minute: is Slurm's controller up?") from error


def _cancel(jobs: list[str]) -> None:
    if jobs:
        subprocess.run(["scancel", *jobs], check=False, capture_output=True)  # noqa: S603, S607


def _user() -> str:
    import getpass

    return getpass.getuser()
