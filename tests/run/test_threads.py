"""Workers that are threads: units side by side, errors as answers, and nothing is at work once the pool is left."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from filters.config.filter import FilterConfig
from filters.errors import InputError
from filters.phases.phase import Job
from filters.run import phase_list as recipe
from filters.run.workers import ThreadPool

PATIENCE = 600
"""Seconds after which something that must happen is given up; nothing is timed."""


class Units:
    """A phase whose units do what a test wants."""

    name = "units"

    def __init__(self, work: Any) -> None:
        self.work = work

    def units(self, job: Job) -> int:
        return 100

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        (folder / "file").write_text(str(unit))
        return {"found": self.work(job, unit)}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    config = FilterConfig.model_validate({"input": {"kind": "jsonl", "paths": ["x"]}, "output": {"path": "y"}})
    return Job(tmp_path, config, (), 0.0)


def use(monkeypatch: pytest.MonkeyPatch, work: Any) -> None:
    monkeypatch.setattr(recipe, "phase_named", lambda name, job: Units(work))


def test_several_threads_work_at_a_time(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=PATIENCE)
    use(monkeypatch, lambda job, unit: both.wait())  # passed only when the other one is at work too
    with ThreadPool(2) as pool:
        for worker in range(2):
            pool.send(worker, job, "units", worker)
        answers = dict(pool.receive() for _ in range(2))
    assert answers == {0: {"unit": 0}, 1: {"unit": 1}}
    assert {job.facts("units", unit)["found"] for unit in range(2)} == {0, 1}


def test_one_worker_is_the_calling_thread(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    use(monkeypatch, lambda job, unit: threading.get_ident())
    with ThreadPool(1) as pool:
        pool.send(0, job, "units", 3)
        assert pool.receive() == (0, {"unit": 3})
        assert threading.active_count() == before
    assert job.facts("units", 3)["found"] == threading.get_ident()


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_are_answers(job: Job, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    errors = [InputError("dump.jsonl: gone"), ValueError("five"), OSError(28, "full")]

    def fail(job: Job, unit: int) -> None:
        raise errors[unit]

    use(monkeypatch, fail)
    found = []
    with ThreadPool(workers) as pool:
        for unit in range(3):
            pool.send(0, job, "units", unit)
            found.append(pool.receive()[1])
    assert [(answer["error"], answer["message"]) for answer in found] == [
        ("InputError", "dump.jsonl: gone"), ("ValueError", "five"), ("OSError", "[Errno 28] full"),
    ]  # fmt: skip
    assert "trace" not in found[0]
    assert "raise errors[unit]" in found[1]["trace"]
    assert found[2]["errno"] == 28
    assert list(job.work.iterdir()) == [job.work / "units"]
    assert list((job.work / "units").iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_read_is_told(job: Job, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    def read(job: Job, unit: int) -> None:
        for _ in range(3):
            job.progress.tell(10, 500)

    use(monkeypatch, read)
    heard: list[tuple[int, int]] = []
    with ThreadPool(workers) as pool:
        pool.send(0, job, "units", 0)
        pool.receive(lambda records, input_bytes: heard.append((records, input_bytes)))
    assert heard == [(10, 500)] * 3


def test_leaving_stops_every_thread_at_its_next_batch(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    before, begun = threading.active_count(), threading.Semaphore(0)

    def for_ever(job: Job, unit: int) -> None:
        begun.release()
        while True:
            job.progress.tell()

    use(monkeypatch, for_ever)
    with pytest.raises(KeyboardInterrupt), ThreadPool(3) as pool:
        for worker in range(3):
            pool.send(worker, job, "units", worker)
        for _ in range(3):
            assert begun.acquire(timeout=PATIENCE)
        raise KeyboardInterrupt
    assert threading.active_count() == before
    assert not (job.work / "done").exists()
