"""Worker processes: start, hand work out, collect answers, notice deaths. What the work is, `worker.py` knows."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self

from filters import errors
from filters.config.filter import FilterConfig
from filters.phases.phase import Job
from filters.run.worker import Answer

WORKER = "from filters.run.worker import main; main()"
LOG_CHARACTERS = 2000


class _Process:
    """One worker: a subprocess that reads a JSON line for each task on stdin and answers each on stdout."""

    def __init__(self, number: int, answers: queue.Queue[tuple[int, int, Answer | None]], number_of_start: int) -> None:
        self.start = number_of_start
        self.log: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        root = str(Path(errors.__file__).parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-c", WORKER, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        threading.Thread(target=self._listen, args=(number, answers), daemon=True).start()

    def _listen(self, number: int, answers: queue.Queue[tuple[int, int, Answer | None]]) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        try:
            for line in stdout:
                answers.put((number, self.start, json.loads(line)))
        except ValueError:  # killed in the middle of a line, or the pool is closed
            pass
        answers.put((number, self.start, None))

    def send(self, task: dict[str, Any]) -> None:
        stdin = self.process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it died; its listener says so
            stdin.write(json.dumps(task) + "\n")
            stdin.flush()

    def tail(self) -> str:
        try:
            self.log.seek(0)
            return self.log.read()[-LOG_CHARACTERS:].strip()
        except (OSError, ValueError):
            return ""

    def stop(self, grace: float) -> None:
        process = self.process
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        try:
            process.wait(timeout=grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.log.close()


class WorkerPool:
    """A fixed number of worker processes. Use as a context manager.

    They are started as commands, not forked: a script that calls `run_filter` needs no `__main__` guard, and no lock or
    thread of the caller is copied.

    Args:
        workers: how many.
        config: if given, they load its model and kernels at once, while the caller plans.
    """

    def __init__(self, workers: int, config: FilterConfig | None = None) -> None:
        self._answers: queue.Queue[tuple[int, int, Answer | None]] = queue.Queue()
        self._warm = None
        if config is not None:
            self._warm = {"warm": config.short(), "folder": config.folder}
        self._starts = 0
        self._processes: list[_Process] = []
        for number in range(workers):
            self._processes.append(self._start(number))

    def __len__(self) -> int:
        return len(self._processes)

    def _start(self, number: int) -> _Process:
        self._starts += 1
        process = _Process(number, self._answers, self._starts)
        if self._warm is not None:
            process.send(self._warm)
        return process

    def send(self, worker: int, job: Job, phase: str, unit: int, probe: dict[str, int | None] | None = None) -> None:
        """Give a worker a unit; with `probe`, to look in it for the document that kills (see `phases/poison.py`)."""
        task = {"work": str(job.work), "phase": phase, "unit": unit}
        self._processes[worker].send(task if probe is None else task | {"probe": probe})

    def receive(
        self, listener: Callable[[int, int], None] = lambda records, input_bytes: None
    ) -> tuple[int, Answer | None]:
        """Wait for the next unit to end: (worker, answer); None says that the worker is dead.

        Args:
            listener: told of records and bytes that are read meanwhile.
        """
        while True:
            worker, start, answer = self._answers.get()
            if start != self._processes[worker].start:
                continue
            if answer is None or "read" not in answer:
                return worker, answer
            listener(*answer["read"])

    def bury(self, worker: int) -> str:
        """Start a fresh process in the place of a dead one.

        Returns:
            How that one ended: "was killed by SIGKILL", with the end of what it printed.
        """
        dead = self._processes[worker]
        code = dead.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        hint = " (out of memory? try fewer executor.workers)" if code == -signal.SIGKILL else ""
        tail = dead.tail()
        dead.stop(grace=0)
        self._processes[worker] = self._start(worker)
        return f"{how}{hint}" + (f"\n{tail}\n" if tail else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for process in self._processes:
            process.stop(grace=0.5 if kind is None else 0)
