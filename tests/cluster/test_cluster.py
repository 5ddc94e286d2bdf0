"""The same run on a real Slurm and a real Ray: the same bytes, failures that are told, nothing that hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from filters import run_filter
from filters.cluster.status import read_status
from filters.config.filter import FilterConfig
from filters.errors import RunError
from filters.run.plan import Observer
from tests.cluster.slurm_cluster import SlurmCluster, missing
from tests.run.conftest import digest, jsonl, page

pytestmark = pytest.mark.cluster
FINESIEVE = (str(Path(sys.executable).with_name("finesieve")),)
WAIT = 600
"""Seconds a run of jobs may take on a busy machine."""


def _config(inputs: list[Path], output: Path, *, near: bool = True, **executor: Any) -> dict[str, Any]:
    return {
        "dedup": {} if near else {"near": None},
        "input": {"kind": "jsonl", "paths": [str(path) for path in inputs], "id_key": "id"},
        "keep": {"fraction": 0.5},
        "output": {"path": str(output), "shard_size": 20_000, "rejected": True},
        "executor": executor,
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five files with copies within and across them."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = [{"id": f"d{n}", "text": page(n % 40)} for n in range(100)]
    return [jsonl(folder / f"{part}.jsonl", [*rows[part * 20 : part * 20 + 20], b"broken"]) for part in range(5)]


@pytest.fixture(scope="module")
def expected(inputs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tree of the run by one local worker."""
    output = tmp_path_factory.mktemp("local") / "run"
    run_filter(FilterConfig.model_validate(_config(inputs, output)))
    return digest(output)


@pytest.fixture(scope="module")
def expected_of_few_phases(inputs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same without near copies: half as many jobs."""
    output = tmp_path_factory.mktemp("local") / "run"
    run_filter(FilterConfig.model_validate(_config(inputs, output, near=False)))
    return digest(output)


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    """Arrays of at most two tasks, so that a phase of three is split."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with SlurmCluster(folder, cpus=4, max_array_size=3) as cluster:
            yield cluster


def _write(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(json.dumps(config))
    return path


def _call(cluster: SlurmCluster, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    environment = os.environ | cluster.environment | {"PYTHONPATH": root}
    return subprocess.run(
        [*FINESIEVE, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=WAIT
    )


def _end(output: Path) -> str:
    """State of a run once nothing of it is in the queue any more."""
    end = time.monotonic() + WAIT
    while (state := read_status(output).state) in ("running", "queued"):
        assert time.monotonic() < end, read_status(output)
        time.sleep(1)
    return state


@pytest.fixture
def _asks(slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """squeue, called from this process, asks this cluster."""
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])


@pytest.mark.usefixtures("_asks")
def test_slurm_gives_the_same_bytes(
    slurm: SlurmCluster, inputs: list[Path], expected: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    executor = {"kind": "slurm", "tasks": 3, "slurm": {"memory_per_cpu": "1GiB", "time": "00:10:00"}}
    config = _write(tmp_path / "slurm.yaml", _config(inputs, output, **executor))
    submitted = _call(slurm, "filter", config, "--submit")
    assert submitted.returncode == 0, submitted.stderr
    assert "phases submitted" in submitted.stdout + submitted.stderr
    status = read_status(output)
    assert status.state in ("running", "queued")
    assert status.phases[0].name == "attributes"
    assert status.phases[0].units == len(inputs)
    again = _call(slurm, "filter", config, "--submit")
    assert again.returncode == 1
    assert "still in Slurm's queue" in again.stderr
    assert "scancel" in again.stderr
    assert _end(output) == "finished"
    assert digest(output) == expected
    assert _call(slurm, "verify", output).returncode == 0


@pytest.mark.usefixtures("_asks")
def test_a_failed_phase_ends_the_run_and_the_same_command_goes_on(
    slurm: SlurmCluster, inputs: list[Path], expected_of_few_phases: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    executor = {"kind": "slurm", "tasks": 2, "slurm": {"memory_per_cpu": "1GiB", "time": "00:10:00"}}
    config = _write(tmp_path / "slurm.yaml", _config(inputs, output, near=False, **executor))
    hidden = inputs[3].with_suffix(".hidden")
    slurm.call("scontrol", "update", "PartitionName=cpu", "State=DOWN")
    try:
        assert _call(slurm, "filter", config, "--submit").returncode == 0
        inputs[3].rename(hidden)
        slurm.call("scontrol", "update", "PartitionName=cpu", "State=UP")
        assert _end(output) == "failed"
    finally:
        slurm.call("scontrol", "update", "PartitionName=cpu", "State=UP")
        hidden.rename(inputs[3])
    shown = _call(slurm, "status", output).stdout
    assert inputs[3].name in shown
    assert "the same `finesieve filter` command goes on" in shown
    assert not slurm.call("squeue", "--noheader").strip()
    followed = _call(slurm, "filter", config)
    assert followed.returncode == 0, followed.stderr
    assert digest(output) == expected_of_few_phases


@pytest.fixture(scope="module")
def _ray() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'finesieve[ray]')")


@pytest.mark.usefixtures("_ray")
def test_ray_gives_the_same_bytes_and_raises_what_fails(
    inputs: list[Path], expected_of_few_phases: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    executor = {"kind": "ray", "tasks": 2, "ray": {"address": "local", "memory_per_cpu": "512MiB"}}
    config = FilterConfig.model_validate(_config(inputs, output, near=False, **executor))
    content = inputs[2].read_bytes()
    stamps = inputs[2].stat()

    class Vanish(Observer):
        def phase(self, name: str, done: int, units: int) -> None:
            inputs[2].unlink(missing_ok=True)

    try:
        with pytest.raises(RunError, match=inputs[2].name):
            run_filter(config, observer=Vanish())
    finally:
        inputs[2].write_bytes(content)
        os.utime(inputs[2], ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    assert run_filter(config).ledger.total.records == 105
    assert digest(output) == expected_of_few_phases


@pytest.mark.usefixtures("_ray")
def test_a_task_no_node_can_take_is_refused(inputs: list[Path], tmp_path: Path) -> None:
    executor = {"kind": "ray", "workers": 900, "ray": {"address": "local"}}
    config = FilterConfig.model_validate(_config(inputs, tmp_path / "run", **executor))
    with pytest.raises(RunError, match="no node of the Ray cluster has 900 CPUs"):
        run_filter(config)
