"""Runs handed over to a Slurm that scripts play: what is refused before anything is queued, and what it answers."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters import run_filter
from filters.cluster.executors import submit_run
from filters.cluster.phase_step import FinishRun, RunPhase
from filters.cluster.slurm import Submission, job_number
from filters.cluster.status import read_status
from filters.config.filter import FilterConfig
from filters.errors import ConfigError, FinesieveError, RunError
from filters.run.folder import LOCK, SUBMITTED, held
from filters.run.phase_list import PHASES
from filters.run.plan import Observer
from filters.run.verify import verify_run
from filters.storage.files import is_locked
from tests.run.conftest import digest, jsonl, page


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("101\n", "101"),
        ("101;jobs01\n", "101"),
        ("Submitted batch job 101\n", "101"),
        ("Submitted batch job 101 on cluster jobs01\n", "101"),
        ("Welcome to job 7 of 9\nAt most 42 jobs a user.\nSubmitted batch job 101\n500 core hours left\n", "101"),
        ("***\n42\n***\nSubmitted batch job 101 on cluster c2\n", "101"),
        ("At most 42 jobs a user.\n  101;nautilus  \njob 3 waits\n", "101"),
    ],
)
def test_the_number_of_the_job_is_taken(answer: str, number: str) -> None:
    assert job_number(answer) == number


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "job submitted",
        "sbatch: error: job 12 invalid",
        "12\n13\n",
        "Submitted batch job x7",
        "Submitted batch job 1\nSubmitted batch job 2",
    ],
)
def test_an_answer_without_a_number_is_refused(answer: str) -> None:
    with pytest.raises(RunError, match="may be in the queue"):
        job_number(answer)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the scripts were called with: `calls`, `scripts`, and `queue` of the jobs that wait."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    scripts = {
        "sbatch": '''N=$(($(wc -l < "$FAKE/queue") + 101)); echo $N >> "$FAKE/queue"
for LAST; do :; done; cat "$LAST" >> "$FAKE/scripts"; echo "Maximum 42 jobs."; echo "$N;jobs01"''',
        "squeue": '''while read -r N; do echo "$N|$N|PENDING|Priority"; done < "$FAKE/queue"''',
        "scontrol": 'echo "MaxArraySize = 1001"',
        "scancel": ': > "$FAKE/queue"',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    (folder / "queue").touch()
    (folder / "scripts").touch()
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def config(tmp_path: Path, make_config: Callable[..., FilterConfig]) -> Callable[..., FilterConfig]:
    source = jsonl(tmp_path / "in.jsonl", [{"id": f"d{n}", "text": page(n, 40)} for n in range(6)])

    def make(kind: str = "slurm", **slurm: Any) -> FilterConfig:
        return make_config(source, executor={"kind": kind, "tasks": 2, "slurm": slurm})

    return make


def test_jobs_are_submitted_with_their_numbers_and_all_of_their_memory(
    slurm: Path, config: Callable[..., FilterConfig]
) -> None:
    made = config(memory_per_cpu="2500MiB")
    plan = submit_run(made, Observer())
    queued = (slurm / "queue").read_text().split()
    assert [job for some in Submission.load(plan.output / ".work" / SUBMITTED).jobs.values() for job in some] == queued
    scripts = (slurm / "scripts").read_text()
    assert scripts.count("#SBATCH --mem-per-cpu=2500M\n") == len(queued)
    assert scripts.count("#SBATCH --parsable\n") == len(queued)
    assert read_status(plan.output).state == "queued"


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_a_run_of_another_executor_is_refused_before_anything_is_queued(
    slurm: Path, config: Callable[..., FilterConfig], kind: str
) -> None:
    made = config(kind)
    with pytest.raises(ConfigError, match=f"executor.kind is {kind}"):
        submit_run(made, Observer())
    assert not (slurm / "queue").read_text()
    assert not Path(made.output.path).exists()


@pytest.mark.parametrize("missing", ["sbatch", "squeue", "scancel"])
def test_a_machine_without_slurm_is_refused_before_anything_is_planned(
    slurm: Path, config: Callable[..., FilterConfig], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(slurm))
    (slurm / missing).unlink()
    made = config()
    with pytest.raises(RunError, match=f"{missing}: not found"):
        submit_run(made, Observer())
    assert not Path(made.output.path).exists()


@pytest.mark.parametrize("kind", ["local", "slurm"])
@pytest.mark.parametrize("force_new", [False, True])
def test_a_run_with_jobs_in_the_queue_is_left_alone(
    slurm: Path, config: Callable[..., FilterConfig], kind: str, *, force_new: bool
) -> None:
    plan = submit_run(config(), Observer())
    before = sorted(path.name for path in (plan.output / ".work").iterdir())
    with pytest.raises(RunError, match="still in Slurm's queue"):
        run_filter(config(kind), force_new=force_new)
    assert sorted(path.name for path in (plan.output / ".work").iterdir()) == before
    (slurm / "queue").write_text("")
    if kind == "local":
        assert run_filter(config(kind), force_new=True).ledger.total.records == 6


@pytest.mark.parametrize("in_tasks", [1, 2])
def test_several_inputs_of_relative_paths_are_the_same_run_on_a_cluster(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_tasks: int
) -> None:
    """Submitted from one folder, done by tasks that start in others."""
    home = tmp_path / "home"
    (home / "conf").mkdir(parents=True)
    jsonl(home / "a.jsonl", [{"id": f"a{n}", "text": page(n, 40)} for n in range(6)])
    rows = {"key": [f"p{n}" for n in range(6)], "content": [page(n + 3, 40) for n in range(6)], "isbn": ["1"] * 6}
    pq.write_table(pa.table(rows), home / "b.parquet")
    inputs = [
        {"kind": "jsonl", "paths": "../*.jsonl", "id_key": "id"},
        {"kind": "parquet", "paths": "../b.parquet", "text_key": "content", "id_key": "key", "columns": ["isbn"]},
    ]
    config = {"inputs": inputs, "keep": {"fraction": 0.5}, "output": {"path": "../run"}}
    path = home / "conf" / "c.yaml"
    path.write_text(json.dumps(config | {"executor": {"kind": "slurm", "tasks": 2}}))
    expected = digest(
        Path(
            str(run_filter(FilterConfig.load(path, ["executor.kind=local", f"output.path={tmp_path / 'local'}"])).path)
        )
    )
    monkeypatch.chdir(home / "conf")
    plan = submit_run(FilterConfig.load("c.yaml"), Observer())
    (slurm / "queue").write_text("")
    for number, phase in enumerate(PHASES):
        monkeypatch.chdir(slurm if number % 2 else tmp_path)
        for rank in range(in_tasks):
            RunPhase(phase.name, home / "run" / ".work").do(rank, in_tasks)
    FinishRun(home / "run" / ".work").do(0, 1)
    assert [unit.input for unit in plan.units] == [0, 1]
    found = digest(home / "run")
    assert found == expected | {".inputs-relative-to": found[".inputs-relative-to"]}
    assert all(check.ok is not False for check in verify_run(home / "run"))


def test_looking_at_a_run_keeps_nobody_out(tmp_path: Path) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def poll() -> None:
        while not stop.is_set():
            try:
                is_locked(tmp_path / "run" / LOCK)
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=poll) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "data").mkdir()
        for _ in range(50):
            with held(tmp_path / "run", "output.path"):
                pass
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_a_run_waits_for_who_looks_and_not_for_who_holds(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        looked = threading.Timer(0.3, lambda: fcntl.flock(lock, fcntl.LOCK_UN))
        looked.start()
        with held(tmp_path / "run", "output.path"):
            looked.join()
    output = tmp_path / "run"
    with (
        held(output, "output.path"),
        pytest.raises(FinesieveError, match="another run is writing here"),
        held(output, "output.path"),
    ):
        pass
