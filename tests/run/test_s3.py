"""Runs from and to a real S3 server on the loopback, healthy, failing, and killed in the middle."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from filters import FilterConfig, run_filter
from filters.cli.main import app
from filters.cluster.status import read_status
from filters.errors import FinesieveError, InputError, RunError
from filters.run import destination
from filters.run.destination import MARK
from filters.run.folder import MANIFEST
from filters.run.verify import verify_run
from filters.scores.finished_run import Run
from filters.storage import remote
from filters.storage.location import RemotePath
from tests.read.synthetic import http_response, warc_record
from tests.run.conftest import Heard, digest, jsonl, page
from tests.run.s3_server import SECRET, S3Server

pytest.importorskip("moto", reason="moto is not installed (pip install 'moto[s3,server]')")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed (pip install 'finesieve[s3]')")
DEDUP = {"keep_fingerprints": True}
KEEP = {"min_score": 0.3}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    running = S3Server()
    yield running
    running.kill()


@pytest.fixture(autouse=True)
def _healthy(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty bucket, a folder to work in, small parts, and no patience."""
    server.reset()
    system = client(server)
    if system.exists("bucket"):
        system.rm("bucket", recursive=True)
    system.mkdir("bucket")
    server.requests.clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(destination, "PART", 4_000)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    monkeypatch.setattr(destination, "WATCH", 0.5)
    monkeypatch.setattr(destination, "HEARTBEAT", 0.1)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("input")
    rows = [{"id": f"{n}", "text": page(n % 47, 90)} for n in range(90)]
    return [jsonl(folder / f"in-{number}.jsonl", rows[number * 30 : number * 30 + 30]) for number in range(3)]


@pytest.fixture(scope="module")
def tree(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run with a local output writes."""
    config = {"input": inputs(files), "keep": KEEP, "dedup": DEDUP}
    config["output"] = {"path": str(tmp_path_factory.mktemp("local") / "run"), "rejected": True}
    return digest(run_filter(FilterConfig.model_validate(config)).path)  # type: ignore[arg-type]


def client(server: S3Server) -> Any:
    return s3fs.S3FileSystem(**server.options, skip_instance_cache=True, use_listings_cache=False)


def inputs(files: list[Path]) -> dict[str, Any]:
    return {"kind": "jsonl", "paths": [str(path) for path in files], "id_key": "id"}


def configured(server: S3Server, files: list[Path], **output: Any) -> FilterConfig:
    settings = {"path": "s3://bucket/dump/run", "rejected": True, "retries": 1, "storage_options": server.options}
    config = {"input": inputs(files), "keep": KEEP, "dedup": DEDUP, "output": settings | output}
    return FilterConfig.model_validate(config)


def stored(server: S3Server, folder: str = "bucket/dump/run") -> dict[str, str]:
    """SHA-256 of every object below a folder, by its path, as the server has it."""
    system = client(server)
    return {name[len(folder) + 1 :]: hashlib.sha256(system.cat_file(name)).hexdigest() for name in system.find(folder)}


def test_a_server_without_conditional_writes_is_named_before_the_work(
    server: S3Server, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server.fail(10**6, "PUT", re.escape(MARK), 501)
    with pytest.raises(RunError, match=r"does not know conditional writes.*folder of this machine"):
        run_filter(configured(server, files, retries=5))
    assert sum(method == "PUT" for method, _ in server.requests) == 1
    assert stored(server) == {}


def unfinished_uploads(server: S3Server) -> list[Any]:
    return client(server).call_s3("list_multipart_uploads", Bucket="bucket").get("Uploads") or []


def remains(folder: Path) -> list[str]:
    """What is left in the default work folder."""
    work = folder / "finesieve-work"
    return sorted(path.relative_to(work).as_posix() for path in work.rglob("*")) if work.exists() else []


def test_the_bytes_are_those_of_a_local_run_and_the_manifest_is_the_last(
    server: S3Server, files: list[Path], tree: dict[str, str], tmp_path: Path
) -> None:
    heard = Heard()
    result = run_filter(configured(server, files), observer=heard)
    assert stored(server) == tree
    assert str(result.path) == "s3://bucket/dump/run"
    assert [str(shard) for shard in result.shards] == ["s3://bucket/dump/run/data/shard-00000.parquet"]
    assert heard.phases[-1] == ("upload", len(tree) - 1, len(tree) - 1)
    written = [path for method, path in server.requests if method == "PUT" and MARK not in path]
    assert written[-1].endswith("/dump/run/manifest.json")
    assert sum("partNumber" in path for path in written) > 1
    assert unfinished_uploads(server) == []
    assert remains(tmp_path) == []
    with pytest.raises(RunError, match=r"s3://bucket/dump/run: holds a finished run.*--force-new"):
        run_filter(configured(server, files))
    assert stored(server) == tree
    assert remains(tmp_path) == []


def test_a_finished_run_is_replaced_only_if_told_and_what_is_stale_goes(server: S3Server, files: list[Path]) -> None:
    run_filter(configured(server, files, shard_size=4_000))
    assert sum(name.startswith("data/") for name in stored(server)) > 2
    order = []
    server.on_request = lambda method, path: order.append((method, path))
    run_filter(configured(server, files), force_new=True)
    tree = stored(server)
    assert sum(name.startswith("data/") for name in tree) == 1
    gone = next(place for place, (method, path) in enumerate(order) if method == "DELETE" and "manifest.json" in path)
    assert not any(method in ("PUT", "DELETE") and "/data/" in path for method, path in order[:gone])
    manifest = Run(RemotePath("s3://bucket/dump/run", server.options)).manifest
    assert {entry["path"]: entry["sha256"] for entry in manifest["files"]}.items() <= tree.items()


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "warc"])
def test_input_on_s3_is_read_as_from_a_disk(server: S3Server, tmp_path: Path, kind: str) -> None:
    texts = [page(n % 23, 90) for n in range(30)]
    folder = tmp_path / "in"
    folder.mkdir()
    if kind == "parquet":
        table = pa.table({"id": [f"{n}" for n in range(30)], "text": texts})
        pq.write_table(table, folder / "a.parquet", row_group_size=7)
    elif kind == "jsonl":
        lines = [json.dumps({"id": f"{n}", "text": text}) for n, text in enumerate(texts)]
        (folder / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    else:
        pages = [f"<html><body><article><p>{text}</p></article></body></html>".encode() for text in texts]
        (folder / "a.warc.gz").write_bytes(
            b"".join(gzip.compress(warc_record(n, http_response(body))) for n, body in enumerate(pages))
        )
    client(server).put(str(folder), "bucket/in", recursive=True)
    server.fail(2, "GET", r"/in/a\.", 503)
    server.fail(2, "GET", r"/in/a\.", 0)
    common = {"kind": kind, **({} if kind == "warc" else {"id_key": "id"})}
    keep = {"min_score": 0.5}
    local = run_filter(
        FilterConfig.model_validate(
            {"input": common | {"paths": [str(folder)]}, "keep": keep, "output": {"path": "local"}}
        )
    )
    section = common | {"paths": ["s3://bucket/in/"], "storage_options": server.options}
    config = FilterConfig.model_validate({"input": section, "keep": keep, "output": {"path": "remote"}})
    remote_run = run_filter(config)
    columns = ["text", "score", "position"] + ["id"] * (kind != "warc")
    one, other = (pq.read_table(run.path / "data", columns=columns) for run in (local, remote_run))
    assert one.num_rows > 5
    assert {*one["score"].to_pylist()} == {*other["score"].to_pylist()}
    entry = remote_run.manifest["inputs"][0]
    assert entry["source"].startswith("s3://bucket/in/a.")
    assert entry["version"] == client(server).info(f"bucket/in/{entry['source'].rpartition('/')[2]}")["ETag"].strip('"')
    assert SECRET not in (tmp_path / "remote" / "manifest.json").read_text()
    checks = {check.name: check for check in verify_run(tmp_path / "remote", input_options=server.options)}
    assert [name for name, check in checks.items() if not check.ok] == ["witnesses"]  # there are no near copies
    assert "1 by version (ETag)" in checks["inputs"].detail
    name = entry["source"].removeprefix("s3://")
    client(server).pipe_file(name, client(server).cat_file(name) + b"\n")
    checks = {check.name: check for check in verify_run(tmp_path / "remote", input_options=server.options)}
    assert checks["inputs"].ok is False
    assert f"{entry['source']} is not what was read" in checks["inputs"].detail
    checks = {check.name: check for check in verify_run(tmp_path / "remote")}
    assert checks["inputs"].ok is False
    assert "credentials" in checks["inputs"].detail


def test_an_input_object_that_changes_meanwhile_never_ends_in_an_output(server: S3Server, files: list[Path]) -> None:
    system = client(server)
    system.put_file(str(files[0]), "bucket/in.jsonl")
    section = {"kind": "jsonl", "paths": ["s3://bucket/in.jsonl"], "id_key": "id", "storage_options": server.options}

    class Change(Heard):
        def phase(self, name: str, done: int, units: int) -> None:
            if (name, done) == ("attributes", 1):
                system.pipe_file("bucket/in.jsonl", files[1].read_bytes())

    config = configured(server, files).model_copy(update={"input": FilterConfig.model_validate(
        {"input": section, "output": {"path": "x"}}).input})  # fmt: skip
    with pytest.raises(InputError, match=r"s3://bucket/in\.jsonl: changed while it was read"):
        run_filter(config, observer=Change())
    assert [*stored(server)] == [MARK]  # a run to go on with


def test_faults_that_pass_are_passed(server: S3Server, files: list[Path], tree: dict[str, str]) -> None:
    server.fail(1, "PUT", r"/data/", 500)
    server.fail(1, "PUT", r"/attributes/", 0)
    server.fail(1, "PUT", r"manifest\.json", 500)
    server.fail(1, "PUT", r"quarantine", 503)
    server.fail(1, "GET", r"/rejected/", 0)
    server.fail(1, "GET", r"list-type", 500)
    server.fail(1, "PUT", re.escape(MARK), 0)
    run_filter(configured(server, files))
    assert all(times == 0 for times, *_ in server.faults)
    assert stored(server) == tree
    assert unfinished_uploads(server) == []


def test_a_server_that_dies_in_the_middle_publishes_nothing_and_the_same_command_ends_it(
    server: S3Server, files: list[Path], tree: dict[str, str], tmp_path: Path
) -> None:
    config = configured(server, files)

    def die(method: str, path: str) -> None:
        if method == "PUT" and "partNumber=2" in path:
            server.kill()

    server.on_request = die
    with pytest.raises(RunError, match=r"output\.path: s3://bucket/dump/run/.*(retries|reach).*Nothing was published"):
        run_filter(config)
    server.reset()
    assert "manifest.json" not in stored(server)
    with pytest.raises(RunError, match=r"no finished run"):
        Run(RemotePath("s3://bucket/dump/run", server.options))
    assert remains(tmp_path)
    assert any("/.work/done/" in name for name in remains(tmp_path))
    client(server).pipe_file("bucket/dump/run/data/shard-00009.parquet", b"stale part of a killed run")
    heard = Heard()
    run_filter(config, observer=heard)
    assert stored(server) == tree
    assert unfinished_uploads(server) == []
    assert remains(tmp_path) == []
    assert "going on with the interrupted run" in heard.notices[0]
    assert heard.phases[0] == ("attributes", 3, 3)


KILLED = """
import json, sys
from filters import FilterConfig, run_filter
from filters.run import destination
destination.PART = 4_000
run_filter(FilterConfig.model_validate(json.loads(sys.argv[1])))
"""


def test_a_run_killed_while_it_uploads_is_ended_by_the_same_command(
    server: S3Server, files: list[Path], tree: dict[str, str], tmp_path: Path
) -> None:
    config = configured(server, files)
    reached, go = threading.Event(), threading.Event()

    def stop(method: str, path: str) -> None:
        if method == "PUT" and "partNumber=2" in path and not go.is_set():
            reached.set()
            go.wait(300)

    server.on_request = stop
    process = subprocess.Popen([sys.executable, "-c", KILLED, config.model_dump_json()], cwd=tmp_path)
    assert reached.wait(300)
    process.kill()
    process.wait()
    go.set()
    assert unfinished_uploads(server)
    assert "manifest.json" not in stored(server)
    status = read_status(RemotePath("s3://bucket/dump/run", server.options))
    assert status.state == "interrupted"
    assert status.phases[0].done == 3
    run_filter(config)
    assert stored(server) == tree
    assert unfinished_uploads(server) == []


def test_what_comes_back_different_is_sent_again_or_refused(
    server: S3Server, files: list[Path], tree: dict[str, str]
) -> None:
    system = client(server)
    flips = [1]

    def flip(method: str, path: str) -> None:
        name = "bucket/dump/run/quarantine.jsonl"
        if method == "HEAD" and "quarantine.jsonl" in path and flips[0]:
            flips[0] -= 1
            system.pipe_file(name, b"another content")

    server.on_request = flip
    run_filter(configured(server, files))
    assert flips == [0]
    assert stored(server) == tree
    flips[0] = 99
    with pytest.raises(RunError, match=r"quarantine\.jsonl: failed after 1 retries.*came back"):
        run_filter(configured(server, files, path="s3://bucket/dump/run"), force_new=True)
    assert MANIFEST not in stored(server)  # no finished run, but one to go on with
    assert MARK in stored(server)


@pytest.mark.parametrize(
    ("change", "fault", "message"),
    [
        ({"path": "s3://absent/run"}, None, r"output\.path: s3://absent/run.*bucket.*Remedy: correct the address"),
        ({"key": "AKIDWRONG"}, None, r"output\.path: s3://bucket/.*access denied.*Remedy: correct the credentials"),
        ({"key": None}, None, r"output\.path: s3://bucket/dump/run.*access denied.*credentials"),
        ({}, r"/data/", r"s3://bucket/dump/run/data/shard-00000\.parquet: access denied.*Remedy.*granted"),
        ({"endpoint_url": "http://127.0.0.1:9"}, None, r"s3://bucket/dump/run.*failed after 1 retries.*is the server"),
    ],
    ids=["bucket", "credentials", "no credentials", "permission", "no server"],
)  # fmt: skip
def test_refusals_name_address_key_and_remedy_and_no_secret(
    server: S3Server, files: list[Path], tmp_path: Path, change: dict[str, Any], fault: str | None, message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    path = change.pop("path", "s3://bucket/dump/run")
    options = server.options | change
    if options["key"] is None:
        del options["key"], options["secret"]
    if fault:
        server.fail(99, "PUT|POST", fault, 403)
    with pytest.raises(FinesieveError, match=message) as caught:
        run_filter(configured(server, files, path=path, storage_options=options))
    shown = "".join(str(error) for error in (caught.value, caught.value.__cause__))
    assert SECRET not in shown
    assert "AKIDWRONG" not in shown
    if fault:  # the upload can go on; nothing is finished
        assert MANIFEST not in stored(server)
    else:
        assert stored(server) == {}
        assert remains(tmp_path) == []


def test_credentials_are_nowhere_but_in_the_job_and_go_with_it(
    server: S3Server, files: list[Path], tmp_path: Path
) -> None:
    seen: list[tuple[str, int]] = []

    class Look(Heard):
        def phase(self, name: str, done: int, units: int) -> None:
            paths = [path for path in (tmp_path / "finesieve-work").rglob("*") if path.is_file()]
            told = [path for path in paths if SECRET.encode() in path.read_bytes()]
            seen.extend((path.name, path.stat().st_mode & 0o077) for path in told)

    run_filter(configured(server, files), observer=Look())
    assert {*seen} == {("job.json", 0)}
    assert not any(SECRET.encode() in client(server).cat_file(name) for name in client(server).find("bucket"))


class During(Heard):
    """Does something when the upload begins."""

    def __init__(self, action: Callable[[], None]) -> None:
        super().__init__()
        self.action: Callable[[], None] | None = action

    def phase(self, name: str, done: int, units: int) -> None:
        if name == "upload" and self.action is not None:
            action, self.action = self.action, None
            action()


def test_two_runs_at_once_are_refused_and_only_one_is_published(
    server: S3Server, files: list[Path], tree: dict[str, str], tmp_path: Path
) -> None:
    other = configured(server, files, work=str(tmp_path / "elsewhere"))
    heard = Heard()

    def second() -> None:
        with pytest.raises(RunError, match=rf"another run is writing here .process {os.getpid()} on .*Remedy"):
            run_filter(other, observer=heard)

    run_filter(configured(server, files), observer=During(second))
    assert any("watching for" in notice for notice in heard.notices)
    assert stored(server) == tree


def test_a_run_that_lost_its_folder_to_another_publishes_nothing(
    server: S3Server, files: list[Path], tree: dict[str, str], tmp_path: Path
) -> None:
    """As if this machine had been away for so long that its run was taken for dead."""

    def taken_over() -> None:
        client(server).rm_file(f"bucket/dump/run/{MARK}")
        run_filter(configured(server, files[:2], work=str(tmp_path / "elsewhere")))

    with pytest.raises(RunError, match=r"another run .*Nothing was published"):
        run_filter(configured(server, files), observer=During(taken_over))
    manifest = json.loads(client(server).cat_file("bucket/dump/run/manifest.json"))
    assert len(manifest["inputs"]) == 2


def test_the_manifest_is_written_on_condition_that_there_is_none(server: S3Server, files: list[Path]) -> None:
    def publish(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/manifest.json"):
            server.on_request = lambda method, path: None
            client(server).pipe_file("bucket/dump/run/manifest.json", b"{}")

    server.on_request = publish
    with pytest.raises(RunError, match="another run was published here meanwhile"):
        run_filter(configured(server, files))
    assert client(server).cat_file("bucket/dump/run/manifest.json") == b"{}"


def test_a_dead_run_on_another_machine_gives_its_folder_up(
    server: S3Server, files: list[Path], tree: dict[str, str]
) -> None:
    system = client(server)
    mark = {"token": "t", "host": "elsewhere", "pid": 7, "work": "/w\x1b[31m", "parked": True, "beat": 3}
    system.pipe_file(f"bucket/dump/run/{MARK}", json.dumps(mark).encode())
    system.pipe_file("bucket/dump/run/data/shard-00007.parquet", b"stale")
    with pytest.raises(RunError, match=r"process 7 on elsewhere.*waits for jobs of a cluster.*--force-new") as caught:
        run_filter(configured(server, files))
    assert "\x1b" not in str(caught.value)
    status = read_status(RemotePath("s3://bucket/dump/run", server.options))
    assert status.state == "unfinished"
    assert "on elsewhere" in status.notice
    assert "\x1b" not in status.notice
    system.pipe_file(f"bucket/dump/run/{MARK}", json.dumps(mark | {"parked": False}).encode())
    run_filter(configured(server, files))
    assert stored(server) == tree


@pytest.mark.parametrize("name", ["notes.txt", "data/../../../escape", "data/shard-00000.parquet"])
def test_files_that_are_no_runs_are_never_touched(server: S3Server, files: list[Path], name: str) -> None:
    client(server).call_s3("put_object", Bucket="bucket", Key=f"dump/run/{name}", Body=b"precious")
    with pytest.raises(RunError, match=r"holds files that are no run's .*choose an empty output.path"):
        run_filter(configured(server, files))
    assert len(stored(server)) == 1


def test_commands_work_on_a_run_behind_an_address(
    server: S3Server, files: list[Path], tree: dict[str, str], tmp_path: Path
) -> None:
    config = configured(server, files)
    (tmp_path / "run.yaml").write_text(config.model_dump_json())
    address = "s3://bucket/dump/run"

    def call(*arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(app, [*arguments])
        shown = done.output + (str(done.exception) if isinstance(done.exception, FinesieveError) else "")
        assert done.exit_code == status, (shown, done.exception)
        assert SECRET not in shown
        return shown

    with_config = ("--config", "run.yaml")
    assert "no run here" in call("status", address, *with_config, status=1)
    shown = call("filter", "run.yaml")
    assert "made in finesieve-work/bucket-dump-run-" in shown
    assert f"next: finesieve inspect {address}" in shown
    assert stored(server) == tree
    assert "finished" in call("status", address, *with_config)
    verified = call("verify", address, *with_config)
    assert verified.count("ok ") == 8
    inspected = json.loads(call("inspect", address, *with_config, "--json", "--keep", "fraction=0.2"))
    assert inspected["run"] == address
    assert "access denied" in call("inspect", address, status=1)
    system = client(server)
    shard = system.cat_file("bucket/dump/run/data/shard-00000.parquet")
    system.pipe_file("bucket/dump/run/data/shard-00000.parquet", shard[:-9] + b"x" + shard[-8:])
    assert "data/shard-00000.parquet is not what was written" in call("verify", address, *with_config, status=1)


def test_an_earlier_run_behind_an_address_is_held_against(server: S3Server, files: list[Path], tmp_path: Path) -> None:
    run_filter(configured(server, files[:1]))
    again = {
        "input": inputs(files),
        "keep": KEEP,
        "dedup": {"against": ["s3://bucket/dump/run"], "storage_options": server.options},
        "output": {"path": "again"},
    }
    result = run_filter(FilterConfig.model_validate(again))
    rows = pq.read_table(tmp_path / "again" / "attributes").to_pylist()
    named = {row["duplicate_of"] for row in rows if (row["duplicate_of"] or "").startswith("s3://")}
    assert named
    assert all(name.removeprefix("s3://bucket/dump/run:").isdigit() for name in named)
    assert SECRET not in json.dumps(result.manifest)
    shutil.rmtree(tmp_path / "again")
    again["dedup"] |= {"storage_options": {}}  # type: ignore[operator]
    with pytest.raises(FinesieveError, match=r"s3://bucket/dump/run.*credentials"):
        run_filter(FilterConfig.model_validate(again))


def test_a_file_system_without_conditions_or_objects_will_do(files: list[Path], tree: dict[str, str]) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    config = {
        "input": inputs(files),
        "keep": KEEP,
        "dedup": DEDUP,
        "output": {"path": "memory://dump/run", "rejected": True},
    }
    run_filter(FilterConfig.model_validate(config))
    found = {name.removeprefix("/dump/run/"): system.cat_file(name) for name in system.find("/dump/run")}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in found.items()} == tree


def test_select_reads_a_run_on_s3_and_writes_one(server: S3Server, files: list[Path], tmp_path: Path) -> None:
    first = configured(server, files, shard_size=4_000)
    run_filter(first)
    (tmp_path / "first.yaml").write_text(json.dumps(first.model_dump(mode="json", exclude_defaults=True)))
    keep = {"where": "tokens > 100 and draw(id) < 0.6", "fraction": 0.5}
    wanted = {"input": inputs(files), "keep": keep}
    wanted["output"] = {"path": "wanted", "rejected": True, "shard_size": 4_000}
    expected = digest(run_filter(FilterConfig.model_validate(wanted)).path)  # type: ignore[arg-type]
    call = ["select", "s3://bucket/dump/run", "--where", keep["where"], "--keep", "fraction=0.5"]
    done = CliRunner().invoke(app, [*call, "--output", "s3://bucket/other", "--config", "first.yaml"])  # type: ignore[list-item]
    assert done.exit_code == 0, done.exception
    found = stored(server, "bucket/other")
    documents = ("data/", "attributes/", "rejected/", "quarantine.jsonl")
    assert {name: sha for name, sha in found.items() if name.startswith(documents)} == {
        name: sha for name, sha in expected.items() if name.startswith(documents)
    }
    manifest = json.loads(client(server).cat_file("bucket/other/manifest.json"))
    assert {entry["path"]: entry["sha256"] for entry in manifest["files"]}.items() <= found.items()
    assert SECRET not in json.dumps(manifest)
    assert remains(tmp_path) == []
