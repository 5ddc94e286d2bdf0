"""Workers that are threads of this process: where kernels, Arrow and files do the work, they let each other run."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn, Self

from filters.phases.phase import Job
from filters.run.worker import Answer, attempt

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
