"""Units of phases done by workers on one machine: dispatch, deaths, damage, and what is left for later."""

from __future__ import annotations

import errno
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from filters.errors import FinesieveError, RunError
from filters.phases.phase import Job, Phase
from filters.phases.rows import ATTRIBUTES
from filters.run.attributes import MOST, add_killer, killers, read_mark
from filters.run.worker import Answer, error_of

TRIES = 3
"""How often a unit is begun anew whose worker was killed, or that met a damaged file."""
MOST_FAILURES = 10
"""A phase is given up when so many of its units have failed; before that, the others go on."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Error numbers that every other unit would meet too (disk full, read-only): the run ends."""
FATAL = ("ConfigError", "ModelError", "MissingExtraError", "ModuleNotFoundError")
"""Errors that every unit would meet."""
_VERIFIERS = 4

Task = tuple[str, int]
"""Name of a phase, number of a unit."""


def unfinished(job: Job, phase: Phase, units: Iterable[int]) -> list[int]:
    """Those units of a phase that are not done, after a look at every file of the others."""
    numbers = list(units)
    with ThreadPoolExecutor(_VERIFIERS) as threads:
        done = list(threads.map(lambda unit: job.verify(phase.name, unit), numbers))
    return [unit for unit, is_done in zip(numbers, done, strict=True) if not is_done]


class Workers(Protocol):
    """Threads or processes that do units."""

    def __len__(self) -> int: ...

    def send(self, worker: int, job: Job, phase: str, unit: int, probe: dict[str, int | None] | None = None) -> None:
        """Give a worker a unit."""

    def receive(self, listener: Callable[[int, int], None]) -> tuple[int, Answer | None]:
        """Wait for the next unit to end: (worker, answer); None says that the worker is dead."""

    def bury(self, worker: int) -> str:
        """Put a fresh worker in the place of a dead one; how that one ended."""


class UnitRunner:
    """Does units of a phase in the workers of a pool.

    A worker that dies is replaced and its unit begun again; when that kills the next one too, the document that does it
    is looked for and set aside (phase `attributes` only). A unit that meets a damaged file of an earlier phase waits
    until the unit that wrote it is done again. A unit that fails fails alone: the others go on, then the run ends.

    Args:
        job: of the run.
        pool: of workers that nothing else uses meanwhile.
        on_unit: called whenever a unit is done.
        notice: told what went wrong and was mended.
        on_read: told of records and stored bytes as they are read.
    """

    def __init__(
        self,
        job: Job,
        pool: Workers,
        on_unit: Callable[[Task], None] = lambda task: None,
        notice: Callable[[str], None] = lambda text: None,
        on_read: Callable[[int, int], None] = lambda records, input_bytes: None,
    ) -> None:
        self.job, self.pool, self.on_unit, self.notice, self.on_read = job, pool, on_unit, notice, on_read
        self._queue: deque[Task] = deque()
        self._running: dict[int, tuple[Task, dict[str, int | None] | None]] = {}
        self._probes: dict[Task, dict[str, int | None]] = {}
        self._waiting: dict[Task, list[Task]] = defaultdict(list)
        self._deaths: Counter[Task] = Counter()
        self._damage: Counter[Task] = Counter()
        self._failures: dict[Task, FinesieveError] = {}
        self._fatal = False

    def run(self, phase: Phase, units: Iterable[int]) -> None:
        """Do these units.

        Raises:
            FinesieveError: units failed; those that did not are done and stay so.
        """
        self._queue.extend((phase.name, unit) for unit in units)
        idle = list(range(len(self.pool)))
        born_dead = 0
        while self._running or (self._queue and not self._fatal):
            while idle and self._queue and not self._fatal:
                self._send(idle.pop(), self._queue.popleft())
            worker, answer = self.pool.receive(self.on_read)
            task, probe = self._running.pop(worker, (None, None))
            if answer is None:
                how = self.pool.bury(worker)
                if task is not None:
                    self._died(task, probe, how)
                else:
                    born_dead += 1
                    if born_dead > TRIES * len(self.pool):
                        raise RunError(f"worker processes end as soon as they are started: the last one {how}")
            elif task is not None:
                self._answered(task, probe, answer)
            idle.append(worker)
        if self._failures:
            raise self._failed()

    def _send(self, worker: int, task: Task) -> None:
        probe = self._probes.pop(task, None)
        self._running[worker] = task, probe
        self.pool.send(worker, self.job, *task, probe)

    def _answered(self, task: Task, probe: dict[str, int | None] | None, answer: Answer) -> None:
        if probe is not None:
            self._queue.appendleft(task)  # it did not die this time
        elif "damaged" in answer:
            phase, unit, what = answer["damaged"]
            self._redo((phase, int(unit)), task, str(what))
        elif "error" in answer:
            self._fail(task, self._error(task, answer))
        else:
            self.on_unit(task)
            self._queue.extendleft(self._waiting.pop(task, []))

    def _redo(self, damaged: Task, asker: Task, what: str) -> None:
        self._damage[asker] += 1
        if self._damage[asker] > TRIES or damaged in self._failures:
            self._fail(asker, RunError(f"a file it needs was damaged again and again: {what}"))
            return
        known = (
            damaged in self._waiting or damaged in self._queue or any(t == damaged for t, _ in self._running.values())
        )
        self._waiting[damaged].append(asker)
        if not known:
            self.notice(f"damaged, done again: phase {damaged[0]}, unit {damaged[1]}: {what}")
            self._queue.appendleft(damaged)

    def _died(self, task: Task, probe: dict[str, int | None] | None, how: str) -> None:
        self._deaths[task] += 1
        reason = how.partition("\n")[0]
        if task[0] == ATTRIBUTES and probe is not None:
            mark = read_mark(self.job, task[1])
            if "position" in mark:
                add_killer(self.job, task[1], mark["position"], reason)
                self.notice(
                    f"{self._name(task)}: the document at {mark['position']:,} is set aside: its worker {reason}"
                )
                self._deaths[task] = 1
                if len(killers(self.job, task[1])) > MOST:
                    self._fail(task, RunError(f"more than {MOST} of its documents kill the worker: it {how}"))
                    return
            elif "batch" in mark and probe["batch"] is None:
                self._probes[task] = {"batch": mark["batch"]}
        elif task[0] == ATTRIBUTES and self._deaths[task] > 1:
            self._probes[task] = {"batch": None}
        if self._deaths[task] > 2 * TRIES or (self._deaths[task] > TRIES and task not in self._probes):
            self._fail(task, RunError(f"its worker {how}, {self._deaths[task]} times"))
        else:
            self.notice(f"phase {task[0]}, {self._name(task)}: its worker {reason}; begun again in a fresh one")
            self._queue.appendleft(task)

    def _error(self, task: Task, answer: Answer) -> FinesieveError:
        if answer.get("errno") in NO_SPACE:
            self._fatal = True
            return RunError(f"{self.job.work}: cannot write: {answer['message']}")
        error = error_of(self._name(task), answer)
        self._fatal |= answer["error"] in FATAL
        return error

    def _fail(self, task: Task, error: FinesieveError) -> None:
        self._failures[task] = error
        for other in self._waiting.pop(task, []):
            self._failures[other] = error
        if len(self._failures) >= MOST_FAILURES:
            self._fatal = True

    def _name(self, task: Task) -> str:
        phase, unit = task
        return self.job.units[unit].source if phase == ATTRIBUTES else f"unit {unit}"

    def _failed(self) -> FinesieveError:
        task, error = min(self._failures.items())
        self._queue.clear()
        more = f" ({len(self._failures) - 1} more units failed)" if len(self._failures) > 1 else ""
        text = str(error)
        name = self._name(task)
        where = "" if name in text else f"{name}: "
        return type(error)(
            f"phase {task[0]}: {where}{text}{more}. Nothing was published; what is done is kept, and the same command "
            "goes on from there"
        )
