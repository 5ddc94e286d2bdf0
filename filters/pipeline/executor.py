"""The local executor: a unit pipeline run for every unit, in this process or in worker processes."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from datatrove.executor.base import DistributedEnvVars, PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats
from loguru import logger

from filters import errors
from filters.config import FilterConfig
from filters.errors import FinesieveError, RunError
from filters.pipeline.blocks import (
    ApplyHeuristic,
    Extract,
    Fingerprint,
    IdentifyLanguage,
    ReadUnits,
    Score,
)
from filters.pipeline.spool import WriteSpool
from filters.read.units import Unit

LOOKAHEAD = 2
"""Units a worker may be ahead of the ordered half: bounds the disk the spool takes."""

WORKER = "from filters.pipeline.worker import main; main()"


def unit_pipeline(config: FilterConfig, units: list[Unit], spool: Path) -> list[PipelineStep]:
    """What is done to each unit by itself: everything up to the scores."""
    by_address = [ApplyHeuristic(heuristic) for heuristic in config.heuristics if heuristic.name == "url"]
    by_text = [ApplyHeuristic(heuristic) for heuristic in config.heuristics if heuristic.name != "url"]
    return [
        ReadUnits(units, config.input),
        *by_address,
        *([Extract(config.extract)] if config.input.kind == "warc" else []),
        *([IdentifyLanguage(config.language)] if config.language else []),
        *by_text,
        Fingerprint(config.dedup),
        Score(config.model),
        WriteSpool(spool),
    ]


class UnitExecutor(PipelineExecutor):
    """datatrove executor with one rank per unit, run in the calling process.

    Unlike datatrove's local executor it keeps no completion markers (an empty file says nothing of what was done) and
    prints nothing: errors travel as exceptions.
    """

    def __init__(self, pipeline: list[PipelineStep], world_size: int) -> None:
        logger.disable("datatrove")
        self.pipeline = pipeline
        self._world_size = world_size

    @property
    def world_size(self) -> int:
        """Number of units."""
        return self._world_size

    def get_distributed_env(self, node_rank: int = -1) -> DistributedEnvVars:
        """datatrove's description of a single process on one node."""
        return DistributedEnvVars(
            datatrove_node_ips="localhost",
            datatrove_cpus_per_task="1",
            datatrove_mem_per_cpu="0",
            datatrove_gpus_on_node="0",
            datatrove_executor="local",
        )

    def run(self) -> None:
        """Run all ranks, one after the other."""
        for rank in range(self.world_size):
            self._run_for_rank(rank)

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        data = None
        for step in self.pipeline:
            data = step.run(data, rank, self.world_size)
        deque(data or (), maxlen=0)
        return PipelineStats(self.pipeline)


def run_units(config: FilterConfig, units: list[Unit], work: Path) -> Iterator[int]:
    """Run the unit pipeline for all units and yield their numbers, in order, as their spool files are complete.

    Args:
        work: folder for the spool and the workers' logs; exists.

    Raises:
        FinesieveError: a unit failed, or a worker died; remaining workers are stopped.
    """
    if config.executor.workers == 1 or len(units) <= 1:
        executor = UnitExecutor(unit_pipeline(config, units, work), len(units))
        for rank in range(len(units)):
            executor._run_for_rank(rank)
            yield rank
    else:
        with _WorkerPool(config, units, work) as pool:
            yield from pool.run()


class _WorkerPool:
    """Worker processes that take unit numbers on stdin and answer a JSON line per unit.

    They are started as commands, not forked: a script that calls `run_filter` needs no `__main__` guard, nothing is
    pickled, and a worker that is killed is seen by the end of its output.
    """

    def __init__(self, config: FilterConfig, units: list[Unit], work: Path) -> None:
        self.units = units
        job = work / "job.json"
        job.write_text(
            json.dumps(
                {
                    "config": config.model_dump(mode="json", exclude_defaults=True),
                    "units": [asdict(unit) for unit in units],
                    "work": str(work),
                }
            )
        )
        root = str(Path(errors.__file__).parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self.answers: queue.Queue[tuple[int, dict[str, str | int] | None]] = queue.Queue()
        self.logs = [work / f"worker-{number}.log" for number in range(min(config.executor.workers, len(units)))]
        self.processes: list[subprocess.Popen[str]] = []
        for log in self.logs:
            with log.open("w") as stderr:
                process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-P", "-c", WORKER, str(job)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    env=os.environ | {"PYTHONPATH": path},
                )
            self.processes.append(process)
            threading.Thread(target=self._listen, args=(len(self.processes) - 1,), daemon=True).start()

    def _listen(self, worker: int) -> None:
        stdout = self.processes[worker].stdout
        assert stdout is not None
        for line in stdout:
            self.answers.put((worker, json.loads(line)))
        self.answers.put((worker, None))

    def run(self) -> Iterator[int]:
        """Hand out units in order, never too far ahead of the unit that is collected next; yield them in order."""
        idle = list(range(len(self.processes)))
        running: dict[int, int] = {}
        done: set[int] = set()
        issued = collected = 0
        while collected < len(self.units):
            while idle and issued < len(self.units) and issued < collected + LOOKAHEAD * len(self.processes):
                worker = idle.pop()
                running[worker] = issued
                self._send(worker, issued)
                issued += 1
            if collected in done:
                done.remove(collected)
                yield collected
                collected += 1
                continue
            worker, answer = self.answers.get()
            unit = running.pop(worker, None)
            if answer is None:
                raise self._death(worker, unit)
            if "error" in answer:
                raise self._failure(worker, self.units[unit if unit is not None else 0], answer)
            done.add(int(answer["rank"]))
            idle.append(worker)

    def _send(self, worker: int, rank: int) -> None:
        stdin = self.processes[worker].stdin
        assert stdin is not None
        try:
            stdin.write(f"{rank}\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._death(worker, rank) from None

    def _failure(self, worker: int, unit: Unit, answer: dict[str, str | int]) -> FinesieveError:
        kind = getattr(errors, str(answer["error"]), None)
        if isinstance(kind, type) and issubclass(kind, FinesieveError) and kind is not errors.MissingExtraError:
            return kind(str(answer["message"]))
        if kind is errors.MissingExtraError:
            return FinesieveError(str(answer["message"]))
        return RunError(f"{unit.source}: {answer['error']}: {answer['message']}\n{self._log_tail(worker)}".rstrip())

    def _death(self, worker: int, rank: int | None) -> RunError:
        code = self.processes[worker].wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        where = f" while it worked on {self.units[rank].source}" if rank is not None else ""
        hint = " (out of memory? try fewer executor.workers)" if code == -signal.SIGKILL else ""
        return RunError(f"worker {worker} {how}{where}{hint}. Nothing was published\n{self._log_tail(worker)}".rstrip())

    def _log_tail(self, worker: int) -> str:
        return self.logs[worker].read_text(errors="replace")[-2000:]

    def __enter__(self) -> _WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            assert process.stdin is not None
            try:
                process.stdin.close()
            except BrokenPipeError:
                process.kill()
        for process in self.processes:
            try:
                process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
