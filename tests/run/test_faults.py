"""What may go wrong beside a kill: damaged files, other inputs, another config, full disks, documents that kill."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from filters import FilterConfig, run_filter
from filters.errors import FinesieveError, InputError, RunError
from filters.phases.phase import Job
from filters.read.batch import Batch
from filters.read.unit import Unit
from filters.run import engine as run
from filters.run import workers
from filters.run.attributes import Attributes
from filters.run.folder import LOCK, held
from filters.run.steps import Fingerprint
from filters.run.units import UnitRunner
from filters.run.verify import _Verifier
from filters.storage.files import STALE
from tests.run.conftest import Heard, digest, jsonl, page

MakeConfig = Callable[..., FilterConfig]


class InterruptedRunError(Exception):
    """Ends a run in the middle."""


class At(Heard):
    """Does something when a phase begins."""

    def __init__(self, phase: str, action: Callable[[], None]) -> None:
        super().__init__()
        self.at, self.action = phase, action

    def phase(self, name: str, done: int, units: int) -> None:
        super().phase(name, done, units)
        if name == self.at:
            self.at = ""
            self.action()


def interrupt() -> None:
    raise InterruptedRunError


def write_files(folder: Path) -> list[Path]:
    return [
        jsonl(
            folder / f"in-{number}.jsonl",
            [{"id": f"{number}-{n % 20}", "text": page((n + number * 10) % 47, 60)} for n in range(30)],
        )
        for number in range(4)
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Inputs that no test changes, or not for good."""
    return write_files(tmp_path_factory.mktemp("input"))


@pytest.fixture
def own_files(tmp_path: Path) -> list[Path]:
    """The same for a test that changes them."""
    return write_files(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tree of a run over the files that nothing disturbs."""
    config = {
        "input": {"kind": "jsonl", "paths": [str(path) for path in files], "id_key": "id"},
        "keep": {"min_score": 0.0},
        "output": {"path": str(tmp_path_factory.mktemp("undisturbed") / "run"), "rejected": True},
    }
    return digest(run_filter(FilterConfig.model_validate(config)).path)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes() or b"x")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damage_found_by_a_resumed_run_is_done_again(
    tmp_path: Path, make_config: MakeConfig, files: list[Path], undisturbed: dict[str, str]
) -> None:
    config = make_config(*files)
    with pytest.raises(InterruptedRunError):
        run_filter(config, observer=At("shard", interrupt))
    work = tmp_path / "run" / ".work"
    flip(work / "attributes" / "000000" / "rows.arrow")
    flip(work / "attributes" / "000001" / "bands.bin")
    (work / "attributes" / "000002" / "quarantine.jsonl").unlink()
    flip(work / "done" / "attributes" / "000003.json")
    (work / "done" / "clusters" / "000000.json").write_text("")
    (work / "select" / "000000" / "stray").write_text("")
    (work / "exact" / ".000000.elsewhere.1.partial").mkdir()
    (work / "join" / "000099").mkdir()
    heard = Heard()
    run_filter(config, observer=heard)
    begun = {}
    for name, done, units in heard.phases:
        begun.setdefault(name, (done, units))
    assert begun["attributes"] == (0, 4)
    assert begun["clusters"][0] == begun["select"][0] == 0
    assert begun["verdicts"] == (4, 4)
    assert "going on with the interrupted run" in heard.notices[0]
    assert digest(tmp_path / "run") == undisturbed


def test_damage_met_on_the_way_is_done_again(
    tmp_path: Path, make_config: MakeConfig, files: list[Path], undisturbed: dict[str, str]
) -> None:
    damaged = {
        ("join", 0): ["attributes/000000/rows.arrow", "attributes/000001/bands.bin"],
        ("copies", 0): ["join/000000/near.bin"],
        ("select", 1): ["select/000000/files.json"],
        ("shard", 0): ["attributes/000002/quarantine.jsonl", "verdicts/000000/verdicts.bin"],
    }

    class Damage(Heard):
        def phase(self, name: str, done: int, units: int) -> None:
            for path in damaged.pop((name, done), []):
                flip(tmp_path / "run" / ".work" / path)

    observer = Damage()
    run_filter(make_config(*files), observer=observer)
    assert not damaged
    for name in ("rows.arrow", "bands.bin", "near.bin", "files.json", "quarantine.jsonl", "verdicts.bin"):
        assert any("done again" in notice and name.partition(".")[0] in notice for notice in observer.notices)
    assert digest(tmp_path / "run") == undisturbed


def test_damage_to_what_is_about_to_be_published_is_done_again(
    tmp_path: Path, make_config: MakeConfig, files: list[Path], undisturbed: dict[str, str]
) -> None:
    flipped: list[str] = []

    class Damage(Heard):
        def phase(self, name: str, done: int, units: int) -> None:
            if name == "shard" and done == units and not flipped:
                for path in sorted((tmp_path / "run" / ".work" / "shard").rglob("*.parquet")):
                    flip(path)
                    flipped.append(path.name.partition("-")[0])

    observer = Damage()
    run_filter(make_config(*files), observer=observer)
    assert {*flipped} == {"shard", "rejected", "attributes"}
    assert all(any("done again" in notice and name in notice for notice in observer.notices) for name in flipped)
    assert digest(tmp_path / "run") == undisturbed


def test_an_input_that_vanishes_is_named_and_its_return_ends_the_run(
    tmp_path: Path, make_config: MakeConfig, files: list[Path], undisturbed: dict[str, str]
) -> None:
    config = make_config(*files)
    away = files[2].with_suffix(".away")
    with pytest.raises(InputError, match=r"in-2\.jsonl.*goes on from there"):
        run_filter(config, observer=At("shard", lambda: files[2].rename(away)))
    assert not (tmp_path / "run" / "manifest.json").exists()
    with pytest.raises(InputError, match=r"in-2\.jsonl"):
        run_filter(config)
    away.rename(files[2])
    run_filter(config)
    assert digest(tmp_path / "run") == undisturbed


def test_an_input_that_changes_never_ends_in_an_output(
    tmp_path: Path, make_config: MakeConfig, own_files: list[Path]
) -> None:
    config = make_config(*own_files)

    def change() -> None:
        content = own_files[1].read_text()
        own_files[1].write_text(content.replace(" the ", " THE ").replace(" of ", " OF "))

    with pytest.raises(InputError, match=r"in-1\.jsonl: this input file was changed"):
        run_filter(config, observer=At("shard", change))
    with pytest.raises(RunError, match=r"unfinished run that is not this one: .*in-1\.jsonl is not what it was"):
        run_filter(config)
    assert not (tmp_path / "run" / "data").exists()


def test_another_run_is_refused_with_the_difference(
    tmp_path: Path, make_config: MakeConfig, files: list[Path], undisturbed: dict[str, str]
) -> None:
    with pytest.raises(InterruptedRunError):
        run_filter(make_config(*files), observer=At("clusters", interrupt))
    other = make_config(*files, keep={"min_score": 1.0}, output="run")
    with pytest.raises(RunError, match=r"config\.keep\.min_score: was 0\.0, is 1\.0\n.*--force-new"):
        run_filter(other)
    with pytest.raises(RunError, match=r"inputs\..*in-3\.jsonl\.bytes: was \d+, is absent"):
        run_filter(make_config(*files[:3]))
    with pytest.raises(RunError, match=r"config\.dedup\.keep: was \"first\", is \"best\""):
        run_filter(make_config(*files, dedup={"keep": "best"}))
    state = tmp_path / "run" / ".work" / "state.json"
    content = state.read_text()
    state.write_text(content[:-5])
    with pytest.raises(RunError, match=r"state\.json: missing or damaged.*--force-new"):
        run_filter(make_config(*files))
    state.write_text(content)
    heard = Heard()
    run_filter(make_config(*files, executor={"workers": 2}), observer=heard)
    assert heard.phases[0] == ("attributes", 4, 4)
    assert digest(tmp_path / "run") == undisturbed
    heard = Heard()
    assert run_filter(other, force_new=True, observer=heard).manifest["keep"]["min_score"] == 1.0
    assert heard.phases[0] == ("attributes", 0, 4)


KILLER = """
import os
from pathlib import Path
from filters.run.steps import Fingerprint
apply = Fingerprint.apply
def deadly(self, batch):
    if any("KILLME" in text for text in batch.text.to_pylist()):
        with open({tally!r}, "a") as file:
            file.write("x")
        if Path({tally!r}).stat().st_size <= {times}:
            os.kill(os.getpid(), 9)
    apply(self, batch)
Fingerprint.apply = deadly
from filters.run.worker import main
main()
"""


def test_a_document_that_kills_twice_is_quarantined_and_the_rest_goes_on(
    tmp_path: Path, make_config: MakeConfig, own_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = own_files[1].read_text().splitlines()
    lines[13] = json.dumps({"id": "deadly", "text": "KILLME " + page(99)})
    own_files[1].write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(run, "threads_will_do", lambda config: False)
    monkeypatch.setattr(workers, "WORKER", KILLER.format(tally=str(tmp_path / "tally"), times=10**6))
    heard = Heard()
    result = run_filter(make_config(*own_files), observer=heard)
    assert any("the document at 14 is set aside" in notice for notice in heard.notices)
    account = result.ledger.accounts[str(own_files[1])]
    assert account.quarantined == {"killed_worker": 1}
    assert account.records == 30
    line = json.loads((result.path / "quarantine.jsonl").read_text())
    assert (line["source"], line["position"]) == (str(own_files[1]), 14)
    assert line["cause"].startswith("killed_worker: was killed by SIGKILL")
    assert line["first_bytes"].startswith("KILLME")
    assert (tmp_path / "tally").stat().st_size == 4  # twice, then once by batches and once by documents
    fingerprint = Fingerprint.apply

    def deadly(self: Fingerprint, batch: Batch) -> None:
        assert not any("KILLME" in text for text in batch.text.to_pylist())
        fingerprint(self, batch)

    monkeypatch.setattr(Fingerprint, "apply", deadly)
    looked_at = [next(_Verifier(result.path, 0, seed, {}).input_again()) for seed in range(12)]
    assert all(check.ok for check in looked_at), looked_at
    assert any(own_files[1].name in check.detail for check in looked_at)


def test_a_worker_that_dies_once_costs_nothing(
    tmp_path: Path, make_config: MakeConfig, own_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = own_files[1].read_text().splitlines()
    lines[13] = json.dumps({"id": "unlucky", "text": "KILLME " + page(99)})
    own_files[1].write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(run, "threads_will_do", lambda config: False)
    monkeypatch.setattr(workers, "WORKER", KILLER.format(tally=str(tmp_path / "tally"), times=1))
    result = run_filter(make_config(*own_files))
    assert result.ledger.total.quarantined.total() == 0
    assert "unlucky" in pq.read_table(result.path / "data")["id"].to_pylist()


def test_workers_that_cannot_live_end_the_run(
    make_config: MakeConfig, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "threads_will_do", lambda config: False)
    monkeypatch.setattr(workers, "WORKER", "import os, sys; print('no luck', file=sys.stderr); os.kill(os.getpid(), 9)")
    with pytest.raises(RunError, match=r"SIGKILL[\s\S]*no luck"):
        run_filter(make_config(*files, executor={"workers": 2}))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_and_a_read_only_disk_are_told_and_the_run_goes_on_when_they_are_mended(
    small_disk: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    files = [
        jsonl(
            tmp_path / f"in-{number}.jsonl",
            [{"id": f"{number}-{n}", "text": page(n + 80 * number, 900)} for n in range(80)],
        )
        for number in range(4)
    ]
    config = make_config(*files, output={"path": str(small_disk / "run")})
    with pytest.raises(RunError, match="No space left on device"):
        run_filter(config)
    assert not (small_disk / "run" / "manifest.json").exists()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RunError, match="Read-only file system"):
        run_filter(config)
    subprocess.run(["mount", "-o", "remount,rw,size=64m", str(small_disk)], check=True)
    run_filter(config)
    expected = run_filter(make_config(*files, output={"path": str(tmp_path / "roomy")}))
    assert digest(small_disk / "run") == digest(expected.path)


def test_a_folder_held_by_another_machine_is_refused_until_it_is_silent(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lock = folder / LOCK
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 7}))
    with (
        pytest.raises(RunError, match=r"another run is writing here .process 7 on elsewhere"),
        held(folder, "output.path"),
    ):
        pass
    past = time.time() - 2 * STALE
    os.utime(lock, (past, past))
    with held(folder, "output.path"):
        assert json.loads(lock.read_text()) == {"host": socket.gethostname(), "pid": os.getpid()}
        with pytest.raises(RunError, match=f"process {os.getpid()} on"), held(folder, "output.path"):
            pass
    assert not lock.exists()


def test_where_there_are_no_locks_signs_of_life_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with held(tmp_path, "output.path"):
        with pytest.raises(RunError, match="another run is writing here"), held(tmp_path, "output.path"):
            pass
        assert (tmp_path / LOCK).exists()


def test_a_lock_left_by_a_killed_process_is_free(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1}))
    with held(tmp_path, "output.path"):
        pass


def test_a_worker_dies_with_its_parent(tmp_path: Path, make_config: MakeConfig, files: list[Path]) -> None:
    script: Any = (
        "import os, signal, sys\nfrom filters.run.workers import WorkerPool\n"
        "pool = WorkerPool(1)\nprint(pool._processes[0].process.pid, flush=True)\n"
        "import time; time.sleep(2); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=600)
    worker = int(done.stdout)
    for _ in range(6000):
        if not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split(")")[1][:4]:
            return
        time.sleep(0.1)
    raise AssertionError("the worker outlived its parent")


class FailingPool(workers.WorkerPool):
    """Two workers whose every unit fails alike."""

    def __init__(self, error: str) -> None:
        self.error, self.sent = error, 0
        self._idle: list[int] = []

    def __len__(self) -> int:
        return 2

    def send(self, worker: int, *task: object) -> None:
        self.sent += 1
        self._idle.append(worker)

    def receive(self, listener: object) -> tuple[int, workers.Answer | None]:
        return self._idle.pop(0), {"unit": 0, "error": self.error, "message": "pip install 'finesieve[url]'"}


@pytest.mark.parametrize(("error", "sent"), [("MissingExtraError", 2), ("ModelError", 2), ("RunError", 11)])
def test_what_every_unit_would_meet_ends_the_run_at_once(tmp_path: Path, error: str, sent: int) -> None:
    """A missing extra is fatal; what befalls one unit costs that unit, up to ten of them."""
    units = tuple(Unit(n, "jsonl", f"{n}.jsonl", f"{n}.jsonl", None, None, 0) for n in range(30))
    config = FilterConfig.model_validate({"input": {"kind": "jsonl", "paths": ["x"]}, "output": {"path": "y"}})
    failing = FailingPool(error)
    with pytest.raises(FinesieveError, match=r"finesieve\[url\]"):
        UnitRunner(Job(tmp_path, config, units, 0.0), failing).run(Attributes(), range(30))
    assert failing.sent == sent
