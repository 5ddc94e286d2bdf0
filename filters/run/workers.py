"""Workers that do units: processes (work handed out, answers collected, deaths noticed) or threads of this process.

Threads do where kernels, Arrow and files do the work: they let each other run. What the work is, `worker.py` knows.
"""

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
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self

from filters import errors
from filters.config.filter import FilterConfig
from filters.phases.phase import Job
from filters.run.worker import Answer, attempt

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
        """Give a worker a unit; with `probe`, to look in it for the document that kills (see `attributes.py`)."""
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


Task = tuple[Job, str, int]


class _StoppedError(Exception):
    """A unit is given up because the run is over."""


class ThreadPool:
    """A fixed number of threads, with the interface of `WorkerPool`. Use as a context manager.

    They start at once and share the loaded model. With one worker the calling thread does the work itself, so that
    Ctrl-C ends a unit where it is; several are stopped at the next batch when the context is left.

    Args:
        workers: how many.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._answers: queue.Queue[tuple[int, Answer]] = queue.Queue()
        self._tasks: list[queue.Queue[Task | None]] = []
        self._own: deque[Task] = deque()
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def __len__(self) -> int:
        return self._workers

    def send(self, worker: int, job: Job, phase: str, unit: int, probe: dict[str, int | None] | None = None) -> None:
        """Give a worker a unit; no `probe` is ever asked for, for a thread does not die alone."""
        if self._workers == 1:
            self._own.append((job, phase, unit))
            return
        if not self._threads:
            self._start()
        self._tasks[worker].put((job, phase, unit))

    def receive(self, listener: Callable[[int, int], None] = lambda records, input_bytes: None) -> tuple[int, Answer]:
        """Wait for the next unit to end: (worker, answer).

        Args:
            listener: told of records and bytes that are read meanwhile.
        """
        if self._workers == 1:
            job, phase, unit = self._own.popleft()
            job.progress.listener = listener
            return 0, attempt(job, phase, unit)
        while True:
            worker, answer = self._answers.get()
            if "read" not in answer:
                return worker, answer
            listener(*answer["read"])

    def bury(self, worker: int) -> NoReturn:
        """A thread ends with its process."""
        raise AssertionError(f"thread {worker} did not end")

    def _start(self) -> None:
        for number in range(self._workers):
            self._tasks.append(queue.Queue())
            self._threads.append(threading.Thread(target=self._serve, args=(number,), daemon=True))
        for thread in self._threads:
            thread.start()

    def _serve(self, number: int) -> None:
        def tell(records: int, input_bytes: int) -> None:
            if self._stopped:
                raise _StoppedError
            if records:
                self._answers.put((number, {"read": (records, input_bytes)}))

        while (task := self._tasks[number].get()) is not None:
            job, phase, unit = task
            job.progress.listener = tell
            self._answers.put((number, attempt(job, phase, unit)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped = True
        for tasks in self._tasks:
            tasks.put(None)
        for thread in self._threads:  # nothing may write into the folder any more when it is let go
            thread.join()
