"""Whole runs: every record accounted for, copies found, the same bytes always, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
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
from filters.model.kinds.static import StaticScorer
from filters.phases.rows import pass_through_names
from filters.read.batch import Batch
from filters.run import engine as run
from filters.run import writers
from filters.run.plan import Observer
from filters.run.steps import Score, threads_will_do
from filters.run.workers import WorkerPool
from filters.scores.finished_run import Run
from tests.run.conftest import Heard, digest, jsonl, page

MakeConfig = Callable[..., FilterConfig]


def attributes(run: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in pq.read_table(run / "attributes").to_pylist()}


def published(run: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder but those of its work folder."""
    return {name: value for name, value in digest(run).items() if not name.startswith(".work/")}


def kept(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(run / "data").to_pylist()
    return rows


def test_every_record_is_accounted_for_and_every_row_opens(tmp_path: Path, make_config: MakeConfig) -> None:
    first = jsonl(
        tmp_path / "a.jsonl",
        [{"id": f"a{n}", "text": page(n)} for n in range(20)]
        + [b"{broken", b"\xff\xfe", {"id": "none", "text": None}, {"id": "empty", "text": ""}, b"", {"id": "no"}]
        + [{"id": "number", "text": 7}],
    )
    second = jsonl(tmp_path / "b.jsonl", [{"id": "copy", "text": page(3).upper()}, {"id": "new", "text": page(99)}])
    empty = jsonl(tmp_path / "c.jsonl", [])
    result = run_filter(make_config(first, second, empty))
    account = result.ledger.accounts[str(first)]
    assert account.records == 27
    assert account.kept == 20
    assert account.removed == {"missing_text": 2, "empty_text": 1, "blank_line": 1}
    assert account.quarantined.total() == 3
    assert result.ledger.accounts[str(second)].removed == {"exact_duplicate": 1}
    assert result.ledger.accounts[str(empty)].records == 0
    assert result.ledger.total.balanced

    found = load_dataset("parquet", data_files=[str(path) for path in result.shards], split="train")
    assert found["id"] == [f"a{n}" for n in range(20)] + ["new"]
    lines = [json.loads(line) for line in (result.path / "quarantine.jsonl").read_text().splitlines()]
    assert [line["position"] for line in lines] == [21, 22, 27]
    assert all(line["source"] == str(first) and line["cause"] for line in lines)
    assert lines[1]["first_bytes"].encode("latin-1") == b"\xff\xfe"
    assert len(attributes(result.path)) == 26
    rejected = pq.read_table(result.path / "rejected").to_pylist()
    assert sorted(row["reason"] for row in rejected) == [
        "blank_line", "empty_text", "exact_duplicate", "missing_text", "missing_text",
    ]  # fmt: skip


def test_the_survivor_of_every_duplicate_is_named(tmp_path: Path, make_config: MakeConfig) -> None:
    words = page(1, 400).split()
    nearly = " ".join([*words[:200], "changed", *words[200:]])
    rows = [
        {"id": "first", "text": page(1, 400)},
        {"id": "other", "text": page(2, 400)},
        {"id": "exact", "text": "  " + page(1, 400).replace(" ", "\n\t ").title()},
        {"id": "near", "text": nearly},
        {"id": "near-again", "text": nearly + " again"},
    ]
    run = run_filter(make_config(jsonl(tmp_path / "a.jsonl", rows), dedup={"keep": "first"})).path
    found = attributes(run)
    assert {i: (row["reason"], row["duplicate_of"]) for i, row in found.items()} == {
        "first": (None, None),
        "other": (None, None),
        "exact": ("exact_duplicate", "first"),
        "near": ("near_duplicate", "first"),
        "near-again": ("near_duplicate", "first"),
    }
    assert found["near"]["near_cluster"] == found["first"]["near_cluster"] == 0
    assert found["exact"]["exact_cluster"] == 0
    assert found["other"]["near_cluster"] == 1
    assert [row["id"] for row in kept(run)] == ["first", "other"]


def test_dedup_can_be_switched_off(tmp_path: Path, make_config: MakeConfig) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"id": str(n), "text": page(5)} for n in range(3)])
    assert run_filter(make_config(path, dedup={"exact": False, "near": None})).ledger.total.kept == 3
    near_only = run_filter(make_config(path, output="near", dedup={"exact": False}))
    assert near_only.ledger.total.removed == {"near_duplicate": 2}


def test_scores_and_the_keep_rule(tmp_path: Path, make_config: MakeConfig) -> None:
    texts = [page(n) for n in range(30)]
    scores = QualityModel.load("edu-en").score(texts)
    threshold = float(np.sort(scores)[10])
    path = jsonl(tmp_path / "a.jsonl", [{"id": str(n), "text": text} for n, text in enumerate(texts)])
    result = run_filter(make_config(path, keep={"min_score": threshold}))
    assert [int(row["id"]) for row in kept(result.path)] == np.flatnonzero(scores >= np.float32(threshold)).tolist()
    found = attributes(result.path)
    assert [found[str(n)]["score"] for n in range(30)] == scores.tolist()
    assert result.manifest["model"]["digest"] == QualityModel.load("edu-en").digest
    assert Run(result.path).histogram().at_least(0) == 30


def test_ids_are_made_unique_and_counted(tmp_path: Path, make_config: MakeConfig) -> None:
    ids = ["a", "a", "a#2", "b", "a", ""]
    path = jsonl(tmp_path / "a.jsonl", [{"id": i, "text": page(n)} for n, i in enumerate(ids)])
    result = run_filter(make_config(path))
    found = [row["id"] for row in kept(result.path)]
    assert len(set(found)) == 6
    assert found[:5] == ["a", "a#3", "a#2", "b", "a#4"]
    assert result.ledger.total.renamed == 2


def test_pass_through_columns_keep_their_values_and_a_clash_is_renamed(tmp_path: Path, make_config: MakeConfig) -> None:
    rows = [{"id": str(n), "text": page(n), "url": f"https://x.org/{n}", "score": n} for n in range(3)]
    path = jsonl(tmp_path / "a.jsonl", rows)
    config = {"kind": "jsonl", "paths": [str(path)], "id_key": "id", "columns": ["url", "score"]}
    run = run_filter(make_config(path, input=config)).path
    assert [row["url"] for row in kept(run)] == [f"https://x.org/{n}" for n in range(3)]
    assert [str(row["input_score"]) for row in kept(run)] == ["0", "1", "2"]
    assert attributes(run)["1"]["url"] == "https://x.org/1"


def test_pass_through_names_never_meet() -> None:
    names = pass_through_names(["score", "input_score", "url", "id"], ["id", "text", "score"])
    assert names == ["input_score", "input_input_score", "url", "input_id"]


def test_files_whose_columns_do_not_fit_are_named(tmp_path: Path, make_config: MakeConfig) -> None:
    for name, values in (("a", pa.array([1, 2])), ("b", pa.array(["x", "y"]))):
        table = pa.table({"id": [name + "1", name + "2"], "text": [page(ord(name)), page(ord(name) + 9)], "n": values})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    source = {"kind": "parquet", "paths": [str(tmp_path / "*.parquet")], "id_key": "id", "columns": ["n"]}
    with pytest.raises(InputError, match=r"b\.parquet: column .n. is of type .*input\.columns"):
        run_filter(make_config(input=source))
    assert published(tmp_path / "run") == {}


@pytest.fixture
def many_files(tmp_path: Path) -> list[Path]:
    """Eight files with duplicates within and across them, bad records, and ids that clash."""
    files = []
    for number in range(8):
        rows: list[Any] = [
            {"id": f"{n % 37}", "text": page((n + number * 40) * 7 % 611, 60 + n % 50)}
            for n in range(number, 150 + number)
        ]
        rows.insert(9, b"{broken")
        files.append(jsonl(tmp_path / f"in-{number}.jsonl", rows))
    return files


def in_processes(files: list[Path], where: Path) -> dict[str, Any]:
    """The section `input` that names these files in a way for which workers are processes, not threads."""
    listed = where / "paths.txt"
    listed.write_text("".join(f"{path}\n" for path in files))
    return {"kind": "jsonl", "paths_file": str(listed), "id_key": "id"}


def test_the_same_bytes_twice_and_for_any_number_of_workers(
    tmp_path: Path, make_config: MakeConfig, many_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[int] = []
    monkeypatch.setattr(run, "WorkerPool", lambda workers, config: pools.append(workers) or WorkerPool(workers, config))
    trees = []
    for name, workers, threads in (
        ("one", 1, True),
        ("again", 1, True),
        ("two", 2, True),
        ("three", 3, True),
        ("two-processes", 2, False),
    ):
        monkeypatch.setattr(run, "threads_will_do", lambda config, threads=threads: threads)
        output = {"path": str(tmp_path / name), "shard_size": 20_000, "rejected": True}
        run_filter(make_config(*many_files, output=output, executor={"workers": workers}, keep={"min_score": 0.5}))
        trees.append(digest(tmp_path / name))
    assert len([name for name in trees[0] if name.startswith("data/")]) > 3
    assert all(tree == trees[0] for tree in trees)
    assert pools == [2]


@pytest.mark.parametrize(
    ("sections", "threads"),
    [
        ({}, True),
        ({"heuristics": [{"name": "gopher_quality"}]}, False),
        ({"executor": {"kind": "slurm"}}, False),
        ({"input": {"kind": "warc", "paths": ["a.warc.gz"]}}, False),
        ({"input": {"kind": "parquet", "paths": ["a.parquet", "s3://bucket/b.parquet"]}}, False),
        ({"input": {"kind": "parquet", "paths_file": "listed.txt", "prefix": "https://host/"}}, False),
    ],
)
def test_what_threads_will_do(make_config: MakeConfig, sections: dict[str, Any], threads: bool) -> None:
    config = make_config(Path("a.jsonl"), **sections)
    assert threads_will_do(config) is threads


def test_a_model_whose_scoring_stops_other_threads_gets_processes(
    tmp_path: Path, make_config: MakeConfig, many_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[int] = []
    monkeypatch.setattr(run, "WorkerPool", lambda workers, config: pools.append(workers) or WorkerPool(workers, config))
    monkeypatch.setattr(StaticScorer, "in_threads", False)
    run_filter(make_config(*many_files, executor={"workers": 2}))
    assert pools == [2]


def test_jsonl_output(tmp_path: Path, make_config: MakeConfig) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"id": str(n), "text": page(n)} for n in range(5)])
    result = run_filter(make_config(path, output={"path": str(tmp_path / "run"), "format": "jsonl.zst"}))
    rows = load_dataset("json", data_files=[str(path) for path in result.shards], split="train")
    assert rows["id"] == [str(n) for n in range(5)]
    assert rows["text"][2] == page(2)


def test_no_input_documents_still_make_a_run(tmp_path: Path, make_config: MakeConfig) -> None:
    result = run_filter(make_config(jsonl(tmp_path / "a.jsonl", [])))
    assert result.ledger.total.records == 0
    assert {"id", "text", "score"} <= set(pq.read_table(result.shards[0]).column_names)
    assert pq.read_table(result.path / "attributes").num_rows == 0


def test_too_much_quarantine_stops_the_run(tmp_path: Path, make_config: MakeConfig) -> None:
    rows: list[Any] = [{"id": str(n), "text": page(n)} for n in range(90)] + [b"{broken"] * 10
    path = jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(RunError, match=r"10 of 100 records are quarantined .*max_share = 0.05") as caught:
        run_filter(make_config(path))
    assert str(path) in str(caught.value)
    assert {entry.name for entry in (tmp_path / "run").iterdir()} == {".work"}  # to go on from
    assert run_filter(make_config(path, quarantine={"max_share": 0.2})).ledger.total.kept == 90


def test_a_finished_run_is_not_overwritten_unless_told(tmp_path: Path, make_config: MakeConfig) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"id": str(n), "text": page(n)} for n in range(5)])
    run_filter(make_config(path))
    before = digest(tmp_path / "run")
    with pytest.raises(RunError, match=r"holds a finished run.*--force-new"):
        run_filter(make_config(path))
    assert digest(tmp_path / "run") == before
    jsonl(path, [{"id": "only", "text": page(77)}])
    run_filter(make_config(path), force_new=True)
    assert [row["id"] for row in kept(tmp_path / "run")] == ["only"]


def test_a_failed_replacement_leaves_the_old_run(tmp_path: Path, make_config: MakeConfig) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"id": str(n), "text": page(n)} for n in range(5)])
    run_filter(make_config(path))
    before = digest(tmp_path / "run")
    jsonl(path, [b"{broken"] * 200)
    with pytest.raises(RunError, match="quarantined"):
        run_filter(make_config(path), force_new=True)
    assert published(tmp_path / "run") == before


def test_files_that_are_no_runs_are_never_touched(tmp_path: Path, make_config: MakeConfig) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"id": "1", "text": page(1)}])
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    with pytest.raises(RunError, match="no run's"):
        run_filter(make_config(path), force_new=True)
    assert (folder / "README.md").read_text() == "mine"
    (folder / "README.md").unlink()
    run_filter(make_config(path))
    (folder / "data" / "precious.txt").write_text("mine")
    with pytest.raises(RunError, match="precious"):
        run_filter(make_config(path), force_new=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="not a folder"):
        run_filter(make_config(path, output="file"))


def test_a_missing_input_leaves_no_folder(tmp_path: Path, make_config: MakeConfig) -> None:
    with pytest.raises(InputError, match=r"nothing\.jsonl"):
        run_filter(make_config(tmp_path / "nothing.jsonl", output="deep/er/run"))
    assert not (tmp_path / "deep").exists()


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(
    tmp_path: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"id": str(n), "text": page(n)} for n in range(50)])

    def full(self: writers._ParquetWriter, table: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(writers._ParquetWriter, "write", full)
        with pytest.raises(RunError, match=r"cannot write: .*No space left on device"):
            run_filter(make_config(path, output="deep/run"))
    assert published(tmp_path / "deep" / "run") == {}
    heard = Heard()
    assert run_filter(make_config(path, output="deep/run"), observer=heard).ledger.total.kept == 50
    assert "going on with the interrupted run" in heard.notices[0]


def test_a_record_lost_on_the_way_fails_the_run(
    tmp_path: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"id": str(n), "text": page(n)} for n in range(5)])
    score = Score.apply

    def lossy(self: Score, batch: Batch) -> None:
        if len(batch):
            batch.quarantine([2], ["lost"], [b""])
            batch.quarantined.pop()
        score(self, batch)

    monkeypatch.setattr(Score, "apply", lossy)
    with pytest.raises(RunError, match="does not add up: 5 records read, but 4 kept"):
        run_filter(make_config(path))
    assert published(tmp_path / "run") == {}


def test_two_runs_on_one_folder_are_refused(tmp_path: Path, make_config: MakeConfig) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"id": str(n), "text": page(n)} for n in range(5)])

    class Second(Observer):
        def read(self, records: int, input_bytes: int) -> None:
            with pytest.raises(RunError, match=f"another run is writing here .process {os.getpid()} on"):
                run_filter(make_config(path))

    assert run_filter(make_config(path), observer=Second()).ledger.total.kept == 5


def test_a_work_folder_that_is_taken_is_named_by_its_key(tmp_path: Path, make_config: MakeConfig) -> None:
    (tmp_path / "scratch").write_text("a file")
    output = {"path": "s3://bucket/run", "work": str(tmp_path / "scratch")}
    with pytest.raises(RunError, match=r"scratch: exists and is not a folder. Remedy: choose another output\.work"):
        run_filter(make_config(jsonl(tmp_path / "a.jsonl", [{"id": "a", "text": page(0)}]), output=output))


@pytest.mark.parametrize("threads", [True, False])
def test_a_worker_that_raises_ends_the_run_with_the_cause(
    tmp_path: Path, make_config: MakeConfig, many_files: list[Path], threads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "threads_will_do", lambda config: threads)
    many_files[5].unlink()
    many_files[5].mkdir()
    before = threading.active_count()
    with pytest.raises(Exception, match=r"in-5\.jsonl") as caught:
        run_filter(make_config(*many_files, executor={"workers": 2}))
    assert isinstance(caught.value, RunError | InputError)
    assert published(tmp_path / "run") == {}
    if threads:
        assert threading.active_count() == before


def test_an_output_that_fails_stops_the_threads(
    tmp_path: Path, make_config: MakeConfig, many_files: list[Path]
) -> None:
    before = threading.active_count()

    class Full(Observer):
        def read(self, records: int, input_bytes: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match=r"cannot write: .*No space left on device. Nothing was published"):
        run_filter(make_config(*many_files, executor={"workers": 3}), observer=Full())
    assert threading.active_count() == before
    assert published(tmp_path / "run") == {}


@pytest.mark.parametrize("threads", [True, False])
def test_a_killed_run_leaves_nothing_published_and_the_next_one_goes_on_from_there(
    tmp_path: Path, make_config: MakeConfig, many_files: list[Path], threads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {} if threads else {"input": in_processes(many_files, tmp_path)}
    config = make_config(*many_files, executor={"workers": 2}, **named)
    script = (
        "import os, signal, sys\nfrom filters import FilterConfig, run_filter\n"
        "from filters.run.plan import Observer\n"
        "class Die(Observer):\n"
        "    def phase(self, name, done, units):\n"
        "        if done == 3:\n            os.kill(os.getpid(), signal.SIGKILL)\n"
        f"run_filter(FilterConfig.model_validate_json({config.model_dump_json()!r}), observer=Die())\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=600)
    assert killed.returncode == -signal.SIGKILL
    assert published(tmp_path / "run").keys() == {".lock"}
    heard, pools = Heard(), []
    monkeypatch.setattr(run, "WorkerPool", lambda workers, config: pools.append(workers) or WorkerPool(workers, config))
    result = run_filter(config, observer=heard)
    assert any("going on" in notice for notice in heard.notices)
    assert pools == [2]  # what kills a run in threads is looked for in processes
    assert not (tmp_path / "run" / ".work").exists()
    output = {"path": str(tmp_path / "undisturbed"), "rejected": True}
    assert digest(run_filter(make_config(*many_files, output=output, **named)).path) == digest(result.path)


def test_a_script_without_a_main_guard_can_use_workers(
    tmp_path: Path, make_config: MakeConfig, many_files: list[Path]
) -> None:
    config = make_config(input=in_processes(many_files, tmp_path), executor={"workers": 2})
    script = tmp_path / "script.py"
    script.write_text(
        "from filters import FilterConfig, run_filter\n"
        f"print(run_filter(FilterConfig.model_validate_json({config.model_dump_json()!r})).ledger.total.records)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout == f"{8 * 151}\n", done.stderr


def test_the_card_and_the_manifest_describe_the_files(tmp_path: Path, make_config: MakeConfig) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"id": str(n), "text": page(n)} for n in range(5)])
    result = run_filter(make_config(path))
    card = (result.path / "README.md").read_text()
    assert card.startswith("---\n")
    assert "| kept | 5 |" in card
    listed = {entry["path"]: entry for entry in result.manifest["files"]}
    for name, entry in listed.items():
        assert digest(result.path)[name] == entry["sha256"]
    assert set(digest(result.path)) == set(listed) | {"manifest.json", "README.md"}
    assert load_dataset(str(result.path), split="train", cache_dir=str(result.path.parent)).num_rows == 5
    assert load_dataset(str(result.path), "attributes", split="train", cache_dir=str(result.path.parent)).num_rows == 5


def test_the_output_folder_is_looked_at_before_a_model_is_loaded(tmp_path: Path, make_config: MakeConfig) -> None:
    source = jsonl(tmp_path / "a.jsonl", [{"id": "a", "text": page(0)}])
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    for place, told in (
        ("file", "not a folder"),
        ("file/run", "cannot write"),
        ("mine", "holds files that are no run"),
    ):
        with pytest.raises(RunError, match=told):
            run_filter(make_config(source, model="no-such-model", output={"path": str(tmp_path / place)}))


def test_an_input_that_may_not_be_read_is_told_before_a_model_is_loaded(
    tmp_path: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = jsonl(tmp_path / "a.jsonl", [{"id": "a", "text": page(0)}])
    monkeypatch.setattr("os.access", lambda path, mode: str(path) != str(source))  # root may read what it likes
    with pytest.raises(InputError, match=r"a\.jsonl: cannot read this input file: Permission denied"):
        run_filter(make_config(source, model="no-such-model"))
