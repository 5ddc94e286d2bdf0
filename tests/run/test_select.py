"""`finesieve select`: the same shards as the run itself would write, wherever texts come from; what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from filters import FilterConfig, Run, run_filter
from filters.cli.main import app
from filters.cluster.status import read_status
from filters.errors import FinesieveError, RunError
from filters.run import writers
from filters.run.finish import RunResult
from filters.run.select import run_select, selection_config
from filters.run.verify import verify_run
from filters.storage.location import location
from tests.read.synthetic import responses
from tests.run.conftest import digest, jsonl, page

Make = Callable[..., FilterConfig]
DOCUMENTS = ("data/", "attributes/", "rejected/", "quarantine.jsonl")


def documents(run: Any) -> dict[str, str]:
    """SHA-256 of what a run says of documents."""
    return {name: sha for name, sha in digest(Path(run)).items() if name.startswith(DOCUMENTS)}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """JSON lines and Parquet with copies across them, an id that comes twice, broken and empty records."""
    rows = [
        {"id": f"{n}" if n % 20 else "same", "text": page(n % 37, 60 + 5 * (n % 37)),
         "url": f"https://h{n % 5}.org/{n}", "topic": ["a", "b"][n % 2], "tags": [str(n)] * (n % 3)}
        for n in range(90)
    ]  # fmt: skip
    lines = [*rows[:30], b"{broken", {"id": "empty", "text": "", "url": None, "topic": "a", "tags": []}, *rows[30:45]]
    one = jsonl(tmp_path / "a.jsonl", lines)
    empty = jsonl(tmp_path / "b.jsonl", [])
    two = jsonl(tmp_path / "c.jsonl", rows[45:])
    return [one, empty, two]


@pytest.fixture
def make(tmp_path: Path, files: list[Path]) -> Make:
    def config(name: str, keep: dict[str, Any], output: dict[str, Any] | None = None, **sections: Any) -> FilterConfig:
        reads = {
            "kind": "jsonl", "paths": [str(path) for path in files], "id_key": "id", "columns": ["url", "tags"],
            "slices": ["topic"],
        }  # fmt: skip
        data = {
            "input": reads,
            "keep": keep,
            "output": {"path": str(tmp_path / name), "rejected": True} | (output or {}),
        }
        return FilterConfig.model_validate(data | sections)

    return config


def chosen(run: RunResult, keep: dict[str, Any], place: Path, **overrides: dict[str, Any]) -> RunResult:
    finished = Run(str(run.path))
    return run_select(finished, selection_config(finished, keep, str(place), overrides))


RULES: list[dict[str, Any]] = [
    {"where": "topic = 'a' and cluster_size > 1"},
    {"where": "draw(id) < 0.5", "fraction": 0.4, "by": "tokens"},
    {"tokens": 2000.0},
    {"min_score": -5.0},
    {"where": "false or tokens > 1e9"},
]


@pytest.mark.parametrize("keep", RULES)
def test_select_writes_what_filter_would(make: Make, tmp_path: Path, keep: dict[str, Any]) -> None:
    first = run_filter(make("first", {"min_score": 1.0}))
    wanted = run_filter(make("wanted", keep))
    result = chosen(first, keep, tmp_path / "new")
    assert documents(result.path) == documents(wanted.path)
    for key in ("keep", "ledger", "histogram", "histograms", "dedup", "inputs", "documents_written", "config"):
        assert result.manifest[key] == wanted.manifest[key], key
    assert result.manifest["selected_from"]["digest"] == first.manifest["digest"]
    assert (Path(result.path) / "README.md").read_text() == (Path(wanted.path) / "README.md").read_text()
    assert all(check.ok is not False for check in verify_run(location(str(result.path))))
    again = chosen(result, {"min_score": 1.0}, tmp_path / "back")
    assert documents(again.path) == documents(first.path)


def test_row_groups_do_not_depend_on_where_the_text_lies(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small shards and row groups, repeats and buckets in folders."""
    monkeypatch.setattr(writers, "ROW_GROUP_BYTES", 3000)
    output = {
        "shard_size": 9000, "repeat": {"by": "cluster_size"},
        "buckets": {"borders": [0.3, 0.6], "names": ["low", "middle", "high"], "folders": True},
    }  # fmt: skip
    first = run_filter(make("first", {"buckets": ["middle", "high"]}, output))
    keep = {"where": "tokens > 150", "buckets": ["low", "high"]}
    wanted = run_filter(make("wanted", keep, output))
    result = chosen(first, keep, tmp_path / "new")
    assert len(list((Path(result.path) / "data").rglob("*.parquet"))) > 6
    assert documents(result.path) == documents(wanted.path)
    plain = chosen(first, {"where": "tokens > 150"}, tmp_path / "plain", output={"buckets": None, "repeat": None})
    other = run_filter(make("other", {"where": "tokens > 150"}, {"shard_size": 9000}))
    assert documents(plain.path) == documents(other.path)


def test_workers_do_not_change_it(make: Make, tmp_path: Path) -> None:
    first = run_filter(make("first", {"min_score": 1.0}))
    one = chosen(first, {"fraction": 0.5}, tmp_path / "one")
    two = chosen(first, {"fraction": 0.5}, tmp_path / "two", executor={"workers": 2})
    assert one.manifest == two.manifest


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "jsonl.gz"])
def test_texts_that_the_run_lacks_come_from_the_input(
    make: Make, tmp_path: Path, files: list[Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    sections: dict[str, Any] = {}
    if kind != "jsonl":
        path = tmp_path / f"in.{kind}"
        if kind == "parquet":
            rows = [json.loads(line) for line in files[2].read_text().splitlines()]
            pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
        else:
            path.write_bytes(gzip.compress(files[2].read_bytes()))
        sections["input"] = {
            "kind": kind.partition(".")[0], "paths": [str(path)], "id_key": "id", "columns": ["url", "tags"],
            "slices": ["topic"],
        }  # fmt: skip
    first = run_filter(make("first", {"min_score": 1.2}, {"rejected": False}, **sections))
    assert first.ledger.total.kept < 30
    keep = {"where": "tokens > 150"}
    wanted = run_filter(make("wanted", keep, {"rejected": False}, **sections))
    result = chosen(first, keep, tmp_path / "new")
    assert documents(result.path) == documents(wanted.path)


def test_what_has_no_text_any_more_is_refused(make: Make, tmp_path: Path, files: list[Path]) -> None:
    first = run_filter(make("first", {"min_score": 1.2}, {"rejected": False}))
    before = files[0].read_bytes()
    files[0].write_bytes(before.replace(b"water", b"WATER"))
    with pytest.raises(RunError) as caught:
        chosen(first, {"where": "tokens > 150"}, tmp_path / "new")
    assert "holds no text of" in str(caught.value)
    assert f"{files[0]} is not what the run read. Remedy: restore it, or filter once with output.rejected" in str(
        caught.value
    )
    files[0].unlink()
    with pytest.raises(RunError, match="an input is not there"):
        chosen(first, {"where": "tokens > 150"}, tmp_path / "new")
    # What the shards have needs no input.
    result = chosen(first, {"min_score": 1.3}, tmp_path / "higher")
    assert 0 < result.ledger.total.kept <= first.ledger.total.kept
    files[0].write_bytes(before)
    assert chosen(first, {"where": "tokens > 150"}, tmp_path / "new").ledger.total.kept > 0


def test_an_interrupted_selection_goes_on(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filters.run.shard import Shard

    first = run_filter(make("first", {"min_score": 1.0}))
    whole = chosen(first, {"fraction": 0.5}, tmp_path / "whole")
    run, done = Shard.run, []

    def stop(self: Shard, job: Any, unit: int, folder: Path) -> dict[str, Any]:
        if done:
            raise KeyboardInterrupt
        done.append(unit)
        return run(self, job, unit, folder)

    monkeypatch.setattr(Shard, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        chosen(first, {"fraction": 0.5}, tmp_path / "new")
    assert not (tmp_path / "new" / "manifest.json").exists()
    monkeypatch.undo()
    status = read_status(location(str(tmp_path / "new")))
    assert [phase.name for phase in status.phases] == ["attributes", "verdicts", "tally", "select", "shard"]
    assert status.state == "interrupted"
    with pytest.raises(RunError, match="unfinished run that is not this one"):
        chosen(first, {"fraction": 0.6}, tmp_path / "new")
    assert documents(chosen(first, {"fraction": 0.5}, tmp_path / "new").path) == documents(whole.path)


def test_damage_is_named(make: Make, tmp_path: Path) -> None:
    first = run_filter(make("first", {"min_score": 1.0}))
    path = next((Path(first.path) / "attributes").glob("*.parquet"))
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with pytest.raises(RunError, match=r"attributes-00000.parquet: cannot read this file of the run"):
        chosen(first, {"fraction": 0.5}, tmp_path / "new")
    path.write_bytes(content)
    data, rejected = (sorted((Path(first.path) / name).glob("*.parquet"))[0] for name in ("data", "rejected"))
    table = pq.read_table(data)
    pq.write_table(table.take(pa.array(range(table.num_rows - 1, -1, -1))), data)
    with pytest.raises(FinesieveError, match="its shards do not hold the documents"):
        chosen(first, {"min_score": 1.0}, tmp_path / "new")
    data.unlink()
    with pytest.raises(FinesieveError, match="cannot read this file of the run"):
        chosen(first, {"min_score": 1.0}, tmp_path / "new")
    assert rejected.exists()


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["select", *map(str, arguments)])
    if isinstance(result.exception, FinesieveError):
        return 1, str(result.exception)
    return result.exit_code, result.output


def test_the_command(make: Make, tmp_path: Path) -> None:
    first = run_filter(make("first", {"min_score": 1.0}))
    run, new = first.path, tmp_path / "new"
    code, text = call(run, "--where", "topic = 'a'", "--keep", "fraction=0.5 by tokens", "--output", new)
    assert code == 0
    assert "the rule is true of" in text
    wanted = run_filter(make("wanted", {"where": "topic = 'a'", "fraction": 0.5, "by": "tokens"}))
    assert documents(new) == documents(wanted.path)
    for arguments, message in (
        ((run, "--output", tmp_path / "x"), "what is to be kept is missing"),
        ((run, "--where", "scor > 1", "--output", tmp_path / "x"), "did you mean 'score'"),
        ((run, "--where", "score > 1", "--output", new), "holds a finished run"),
        ((run, "--where", "score > 1", "--output", run), "is the run that is decided about"),
        ((run, "--keep", "fraction=2", "--output", tmp_path / "x"), "a share from 0 to 1"),
        (
            (run, "--keep", "fraction=.5", "--set", "dedup.exact=false", "--output", tmp_path / "x"),
            "keep, output, exec",
        ),
        ((run, "--keep", "fraction=.5", "--set", "output.shard_siz=3", "--output", tmp_path / "x"), "shard_siz"),
        (
            (
                run,
                "--keep",
                "fraction=.5",
                "--set",
                "keep.quota={by: source, shares: {x: 1}}",
                "--output",
                tmp_path / "x",
            ),
            "'x' is no input file",
        ),
        ((run, "--keep", "fraction=.5", "--set", "executor.kind=ray", "--output", tmp_path / "x"), "on this machine"),
        ((tmp_path, "--keep", "fraction=.5", "--output", tmp_path / "x"), "no manifest.json"),
    ):
        code, text = call(*arguments)
        assert code
        assert message in text
        assert not (tmp_path / "x").exists()
    shutil.rmtree(new)


def test_pages_without_text_in_the_run_are_extracted_again(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = tmp_path / "pages.warc"
    pages.write_bytes(b"".join(responses(30)))
    sections: dict[str, Any] = {"input": {"kind": "warc", "paths": [str(pages)]}, "dedup": {"near": None}}
    with monkeypatch.context() as threads:
        threads.setattr("filters.run.engine.threads_will_do", lambda config: True)
        first = run_filter(make("first", {"where": "draw(id, 1) < 0.3"}, {"rejected": False}, **sections))
        wanted = run_filter(make("wanted", {"where": "draw(id) < 0.5"}, {"rejected": False}, **sections))
    assert 0 < first.ledger.total.kept < 20
    result = chosen(first, {"where": "draw(id) < 0.5"}, tmp_path / "new")
    assert documents(result.path) == documents(wanted.path)


@pytest.mark.usefixtures("in_threads")
def test_what_a_heuristic_edited_is_not_read_again(make: Make, tmp_path: Path, files: list[Path]) -> None:
    sections = {
        "heuristics": [{"name": "c4_quality", "options": {"min_num_sentences": 0, "filter_no_terminal_punct": False}}]
    }
    first = run_filter(make("first", {"fraction": 0.3}, {"rejected": False}, **sections))
    with pytest.raises(RunError, match="c4_quality edited what"):
        chosen(first, {"fraction": 0.6}, tmp_path / "new")


def test_a_list_lies_where_the_command_is_called(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config of the run, with the inputs, lies elsewhere."""
    (tmp_path / "here").mkdir()
    config = {
        "input": {"kind": "jsonl", "paths": ["a.jsonl"], "id_key": "id", "columns": ["url"]},
        "keep": {"min_score": 1.2}, "output": {"path": "run"},
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path / "here")
    first = run_filter(FilterConfig.load(tmp_path / "config.yaml"))
    Path("hosts.txt").write_text("h1.org\n")
    code, text = call(first.path, "--where", "url_in('hosts.txt')", "--output", "new")
    assert code == 0, text
    rows = pq.read_table("new/attributes").to_pylist()
    assert {row["host"] for row in rows if row["keep"]} == {"h1.org"}
    assert all(check.ok is not False for check in verify_run(location("new")))


def test_a_run_without_documents_is_decided_about(make: Make, tmp_path: Path) -> None:
    nothing = jsonl(tmp_path / "nothing.jsonl", [])
    sections = {"input": {"kind": "jsonl", "paths": [str(nothing)], "columns": ["url"]}}
    first = run_filter(make("first", {"min_score": 1.0}, **sections))
    result = chosen(first, {"fraction": 0.5}, tmp_path / "new")
    wanted = run_filter(make("wanted", {"fraction": 0.5}, **sections))
    assert documents(result.path) == documents(wanted.path)
