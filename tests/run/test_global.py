"""Global runs: the best copy stays, the whole dump decides, and the same bytes come out however the work was done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from filters import FilterConfig, QualityModel, run_filter
from filters.errors import InputError, RunError
from filters.phases.phase import Job, run_unit
from filters.run import shard
from filters.run.engine import prepare
from filters.run.finish import publish_job
from filters.run.phase_list import PHASES
from filters.run.plan import Observer, make_plan
from tests.run.conftest import Heard, digest, jsonl, page
from tests.run.test_run import attributes, kept

MakeConfig = Callable[..., FilterConfig]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Four files with duplicates within and across them, bad records, and ids that clash."""
    paths = []
    for number in range(4):
        rows: list[Any] = [
            {"id": f"{n % 37}", "text": page((n + number * 40) * 7 % 611, 60 + n % 50), "topic": "ab"[n % 2]}
            for n in range(number, 80 + number)
        ]
        rows.insert(9, b"{broken")
        rows.insert(11, {"id": "none", "text": None})
        paths.append(jsonl(tmp_path / f"in-{number}.jsonl", rows))
    return paths


def test_it_finds_what_the_streaming_run_finds(make_config: MakeConfig, files: list[Path]) -> None:
    streamed = run_filter(make_config(*files))
    found = run_filter(make_config(*files, output="whole"))
    ours, theirs = found.ledger.to_json(), streamed.ledger.to_json()
    assert ours["total"] == theirs["total"]
    assert found.ledger.total.quarantined.total() == 4
    assert (found.path / "quarantine.jsonl").read_bytes() == (streamed.path / "quarantine.jsonl").read_bytes()
    here, there = pq.read_table(found.path / "attributes"), pq.read_table(streamed.path / "attributes")
    same = ["id", "source", "position", "bytes", "tokens", "score", "exact_hash", "host", "url"]
    assert here.select(same).equals(there.select(same))
    assert set(here.column_names) == {*there.column_names, "cluster_size"}
    assert found.manifest["histogram"]["counts"]
    assert len(found.manifest["histograms"]["language"]) == 1
    tables = [pq.read_table(run.path / "rejected") for run in (found, streamed)]
    assert tables[0].num_rows == tables[1].num_rows == streamed.ledger.total.removed.total()


def test_the_best_copy_stays_and_the_size_of_its_cluster_is_kept(tmp_path: Path, make_config: MakeConfig) -> None:
    base = page(1, 400)
    versions = [f"{base} {word}" for word in ("cart", "price", "history", "law")]
    scores = QualityModel.load("edu-en").score(versions)
    rows = [{"id": f"v{n}", "text": text} for n, text in enumerate(versions)]
    rows.append({"id": "single", "text": page(2, 400)})
    run = run_filter(make_config(jsonl(tmp_path / "a.jsonl", rows), dedup={"keep": "best"})).path
    best = f"v{int(np.argmax(scores))}"
    found = attributes(run)
    assert {i for i, row in found.items() if row["keep"]} == {best, "single"}
    assert {row["duplicate_of"] for i, row in found.items() if i not in (best, "single")} == {best}
    assert {i: row["cluster_size"] for i, row in found.items()} == dict.fromkeys(["v0", "v1", "v2", "v3"], 4) | {
        "single": 1
    }
    assert {row["id"]: row["cluster_size"] for row in kept(run)} == {best: 4, "single": 1}


@pytest.mark.parametrize("rule", [{"fraction": 0.25}, {"tokens": 5000}])
def test_a_budget_decides_what_is_kept(make_config: MakeConfig, files: list[Path], rule: dict[str, float]) -> None:
    result = run_filter(make_config(*files, keep=rule))
    rows = pq.read_table(result.path / "attributes")
    survivors = rows.filter(pa.compute.is_in(rows["reason"].fill_null(""), pa.array(["", "low_score"])))
    chosen = survivors.filter(survivors["keep"])
    threshold = result.manifest["keep"]["min_score"]
    assert chosen.num_rows == sum(score >= np.float32(threshold) for score in survivors["score"].to_pylist()) > 5
    if "fraction" in rule:
        assert chosen.num_rows <= survivors.num_rows * 0.25 < chosen.num_rows + 3
    else:
        assert pa.compute.sum(chosen["tokens"]).as_py() <= 5000


def test_the_same_bytes_for_any_number_of_workers(tmp_path: Path, make_config: MakeConfig, files: list[Path]) -> None:
    trees = []
    for workers in (1, 2, 3):
        output = {"path": str(tmp_path / f"run-{workers}"), "shard_size": 5000, "rejected": True}
        run_filter(make_config(*files, output=output, executor={"workers": workers}))
        trees.append(digest(tmp_path / f"run-{workers}"))
    assert len([name for name in trees[0] if name.startswith("data/")]) > 3
    assert trees[0] == trees[1] == trees[2]


@pytest.mark.parametrize("tasks", [3, 8])
def test_the_same_bytes_for_any_number_of_tasks(
    tmp_path: Path, make_config: MakeConfig, files: list[Path], tasks: int
) -> None:
    config = make_config(*files, output="tasks")
    plan = make_plan(config)
    plan.output.mkdir()
    job = prepare(plan, Observer(), force_new=False)
    for phase in PHASES:
        for rank in reversed(range(tasks)):
            for unit in range(rank, phase.units(Job.load(job.work)), tasks):
                run_unit(Job.load(job.work), phase, unit)
    publish_job(plan, job)
    whole = run_filter(make_config(*files))
    assert digest(tmp_path / "tasks") == digest(whole.path)


def test_credentials_stay_out_of_the_manifest(tmp_path: Path, make_config: MakeConfig, files: list[Path]) -> None:
    source = {"kind": "jsonl", "paths": [str(files[0])], "id_key": "id", "storage_options": {"secret": "hunter2"}}
    modes = []

    class Look(Heard):
        def phase(self, name: str, done: int, units: int) -> None:
            modes.append((tmp_path / "run" / ".work" / "job.json").stat().st_mode & 0o777)
            assert "hunter2" not in (tmp_path / "run" / ".work" / "state.json").read_text()

    result = run_filter(make_config(input=source), observer=Look())
    assert set(modes) == {0o600}
    assert not [path for path in result.path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


def test_many_shards_of_one_input_unit_read_it_a_few_times_only(
    tmp_path: Path, make_config: MakeConfig, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(*files, output={"path": str(tmp_path / "run"), "shard_size": 1000})
    units: list[shard.ShardUnit] = []
    shard_units = shard.shard_units
    monkeypatch.setattr(shard, "shard_units", lambda job: units.extend(shard_units(job)) or units)
    result = run_filter(config)
    assert len(result.shards) > 40
    for unit in range(len(files)):
        touching = [u for u in units if any(file.first[0] <= unit <= file.stop[0] for _, file in u.files)]
        assert 1 <= len(touching) <= 3
    ids = [row["id"] for path in result.shards for row in pq.read_table(path).to_pylist()]
    everything = pq.read_table(result.path / "attributes")
    assert ids == everything.filter(everything["keep"])["id"].to_pylist()
    weights = [sum(len(text) for text in pq.read_table(path)["text"].to_pylist()) for path in result.shards]
    assert min(weights[:-1]) >= 1000


def test_side_files_are_cut_by_rows(tmp_path: Path, make_config: MakeConfig, files: list[Path]) -> None:
    whole = run_filter(make_config(*files))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard, "ATTRIBUTE_ROWS", 100)
        cut = run_filter(make_config(*files, output="cut"))
    names = sorted(path.name for path in (cut.path / "attributes").iterdir())
    assert names == [f"attributes-{n:05d}.parquet" for n in range(4)]
    tables = [pq.read_table(run.path / "attributes") for run in (whole, cut)]
    assert tables[0].equals(tables[1])
    assert cut.ledger.to_json() == whole.ledger.to_json()
    assert cut.manifest["histograms"] == whole.manifest["histograms"]


def test_slices_and_pass_through_columns(make_config: MakeConfig, files: list[Path]) -> None:
    source = {"kind": "jsonl", "paths": [str(path) for path in files], "id_key": "id", "slices": ["topic"]}
    result = run_filter(make_config(input=source))
    rows = {row["id"]: row for row in kept(result.path)}
    found = attributes(result.path)
    assert {i: found[i]["topic"] for i in rows} == {i: row["topic"] for i, row in rows.items()}
    assert {part["value"] for part in result.manifest["histograms"]["topic"]} == {"a", "b"}


def test_jsonl_output_and_the_card(tmp_path: Path, make_config: MakeConfig, files: list[Path]) -> None:
    output = {"path": str(tmp_path / "run"), "format": "jsonl.zst"}
    result = run_filter(make_config(*files, output=output))
    rows = load_dataset("json", data_files=[str(path) for path in result.shards], split="train")
    assert len(rows) == result.ledger.total.kept
    card = (result.path / "README.md").read_text()
    assert "of each group of copies the first one stays" in card
    assert not (result.path / ".work").exists()
    assert not (result.path / ".lock").exists()


def test_parquet_input_is_read_again_not_copied(tmp_path: Path, make_config: MakeConfig) -> None:
    ids, texts = [f"{n:02d}" for n in range(50)], [page(n % 40) for n in range(50)]
    table = pa.table({"id": ids, "text": texts, "n": list(range(50))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    source = {"kind": "parquet", "paths": [str(tmp_path / "a.parquet")], "id_key": "id", "columns": ["n"]}
    seen: list[str] = []

    class Look(Heard):
        def phase(self, name: str, done: int, units: int) -> None:
            seen.extend(path.name for path in (tmp_path / "run" / ".work").rglob("text.arrow"))

    result = run_filter(make_config(input=source, keep={"min_score": -10.0}), observer=Look())
    assert not seen
    assert [(row["id"], row["n"]) for row in kept(result.path)] == [(ids[n], n) for n in range(40)]


@pytest.mark.usefixtures("in_threads")
def test_text_that_took_work_is_kept_once(tmp_path: Path, make_config: MakeConfig) -> None:
    pages = [f"<html><body><article><p>{page(n, 200)}</p></article></body></html>".encode() for n in (1, 2, 1, 3)]
    warc = tmp_path / "a.warc"
    warc.write_bytes(b"".join(_record(n, content) for n, content in enumerate(pages)))
    seen: set[str] = set()

    class Look(Heard):
        def phase(self, name: str, done: int, units: int) -> None:
            seen.update(path.name for path in (tmp_path / "run" / ".work").rglob("text.arrow"))

    result = run_filter(make_config(input={"kind": "warc", "paths": [str(warc)]}), observer=Look())
    assert seen == {"text.arrow"}
    for folder, numbers in (("data", (1, 2, 3)), ("rejected", (1,))):
        texts = pq.read_table(result.path / folder)["text"].to_pylist()
        assert sorted(texts) == sorted(page(n, 200) for n in numbers)


def _record(number: int, content: bytes) -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + content
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://example.org/{number}\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-00000000000{number}>\r\n"
        "WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


@pytest.mark.usefixtures("in_threads")
def test_a_heuristic_that_edits_texts_has_its_say(make_config: MakeConfig, tmp_path: Path) -> None:
    text = "\n".join([page(5, 30) + ".", "short", page(6, 30) + ".", page(7, 30) + ".", page(8, 30) + "."] * 2)
    path = jsonl(tmp_path / "a.jsonl", [{"id": "1", "text": text}])
    result = run_filter(make_config(path, heuristics=[{"name": "c4_quality"}]))
    assert kept(result.path)[0]["text"] == text.replace("short\n", "")


def test_no_input_documents_still_make_a_run(tmp_path: Path, make_config: MakeConfig) -> None:
    result = run_filter(make_config(jsonl(tmp_path / "a.jsonl", [])))
    assert result.ledger.total.records == 0
    assert {"id", "text", "score", "cluster_size"} <= set(pq.read_table(result.shards[0]).column_names)
    assert pq.read_table(result.path / "attributes").num_rows == 0
    assert pq.read_table(result.path / "rejected").num_rows == 0


def test_files_whose_columns_do_not_fit_are_named(tmp_path: Path, make_config: MakeConfig) -> None:
    for name, values in (("a", pa.array([1, 2])), ("b", pa.array(["x", "y"]))):
        table = pa.table({"id": [name + "1", name + "2"], "text": [page(ord(name)), page(ord(name) + 9)], "n": values})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    source = {"kind": "parquet", "paths": [str(tmp_path / "*.parquet")], "id_key": "id", "columns": ["n"]}
    with pytest.raises(InputError, match=r"b\.parquet: column .n. is of type .*input\.columns"):
        run_filter(make_config(input=source))
    assert not (tmp_path / "run" / "data").exists()


def test_too_much_quarantine_stops_the_run_and_can_be_allowed(tmp_path: Path, make_config: MakeConfig) -> None:
    rows: list[Any] = [{"id": str(n), "text": page(n)} for n in range(90)] + [b"{broken"] * 10
    path = jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(RunError, match=r"10 of 100 records are quarantined .*max_share = 0.05") as caught:
        run_filter(make_config(path))
    assert str(path) in str(caught.value)
    heard = Heard()
    result = run_filter(make_config(path, quarantine={"max_share": 0.2}), observer=heard)
    assert result.ledger.total.kept == 90
    assert ("attributes", 1, 1) in heard.phases
    assert "going on" in heard.notices[0]


def test_a_finished_run_is_replaced_only_if_told(tmp_path: Path, make_config: MakeConfig, files: list[Path]) -> None:
    run_filter(make_config(files[0]))
    before = digest(tmp_path / "run")
    with pytest.raises(RunError, match=r"holds a finished run.*--force-new"):
        run_filter(make_config(files[0]))
    assert digest(tmp_path / "run") == before
    run_filter(make_config(files[1]), force_new=True)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["inputs"][0]["source"] == str(files[1])
