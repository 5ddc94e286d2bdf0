"""A config means the same from any folder: ids, names, bytes, and what is done with the run afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from filters import run_filter
from filters.annotate.config import AnnotateConfig
from filters.annotate.run import describe_sample
from filters.cli.main import app
from filters.config.filter import FilterConfig
from filters.config.yaml_file import load_config
from filters.errors import RunError
from filters.models import EMBEDDED
from filters.phases.phase import Job
from filters.run.plan import Observer, make_plan
from tests.run.conftest import digest, jsonl, page

pytestmark = pytest.mark.usefixtures("in_threads")
LEAKED = page(999, 40)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a config that names everything a run reads by relative paths, in an odd folder of its own."""
    home = tmp_path / "home [1]"
    for name in ("conf", "data/below", "elsewhere/deep"):
        (home / name).mkdir(parents=True)
    shutil.copytree(EMBEDDED / "edu-en", home / "model")
    jsonl(home / "data" / "a.jsonl", [{"text": page(n, 80)} for n in range(20)] + [b"broken"])
    jsonl(home / "data" / "below" / "b.jsonl", [{"text": page(n, 80)} for n in range(15, 40)])
    pages = [page(100 + n, 80) for n in range(5)]
    jsonl(home / "conf" / "c.jsonl", [{"text": text} for text in [*pages, f"{LEAKED} {page(99)}"]])
    (home / "conf" / "list.txt").write_text("c.jsonl\n")
    (home / "conf" / "bench.txt").write_text(LEAKED)
    pq.write_table(pa.table({"text": [page(200 + n, 80) for n in range(10)]}), home / "data" / "d.parquet")
    earlier = [{"kind": "parquet", "paths": "../data/d.parquet"}]
    keep = {"dedup": {"keep_fingerprints": True}, "output": {"path": "../earlier"}}
    write(home, "earlier.yaml", {"inputs": earlier} | keep)
    (home / "conf" / "bad.txt").write_text("example.com\n")
    rule = {"keep": {"fraction": 0.5, "where": "not url_in('./bad.txt')"}}
    write(home, "c.yaml", {"dedup": {"against": ["../earlier"]}, "decontaminate": {"files": ["bench.txt"]}} | rule)
    run_filter(FilterConfig.load(home / "conf" / "earlier.yaml"))
    return home


def write(home: Path, name: str, more: dict[str, Any]) -> None:
    config = {
        "inputs": [
            {"kind": "jsonl", "paths": ["../data"]},
            {"kind": "jsonl", "paths_file": "list.txt"},
            {"kind": "parquet", "paths": ["../data/*.parquet"]},
        ],
        "model": "../model",
        "keep": {"fraction": 0.5},
        "output": {"path": "../run"},
    }
    (home / "conf" / name).write_text(yaml.safe_dump(config | more))


def filtered(home: Path, here: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Path:
    """The run of c.yaml from a folder, moved out of the way of the next."""
    monkeypatch.chdir(here)
    result = run_filter(FilterConfig.load(home / "conf" / "c.yaml", overrides))
    assert isinstance(result.path, Path)
    return result.path.absolute().rename(home / f"run-{here.name}")


def test_a_run_is_the_same_from_any_folder(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = filtered(home, home / "conf", monkeypatch)
    other = filtered(home, home / "elsewhere" / "deep", monkeypatch)
    monkeypatch.setattr("filters.run.engine.threads_will_do", lambda config: False)
    third = filtered(home, tmp_path, monkeypatch, "executor.workers=2", "heuristics={name: gopher_repetition}")
    assert digest(one) == digest(other)
    manifest = json.loads((one / "manifest.json").read_text())
    sources = ["../data/a.jsonl", "../data/below/b.jsonl", "c.jsonl", "../data/d.parquet"]
    assert [entry["source"] for entry in manifest["inputs"]] == sources
    assert list(manifest["ledger"]["sources"]) == sources
    assert manifest["config"]["model"] == "../model"
    assert manifest["config"]["dedup"]["against"] == ["../earlier"]
    assert [entry["path"] for entry in manifest["benchmarks"]] == ["bench.txt"]
    assert manifest["ledger"]["total"]["removed"]["contaminated"] == 1
    assert manifest["ledger"]["total"]["removed"]["in_earlier_run"] == 5
    ids = [pq.read_table(run / "attributes", columns=["id"])["id"].to_pylist() for run in (one, third)]
    assert ids[0] == ids[1]
    for path in one.rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes()


def test_the_whole_of_it_may_be_moved(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = digest(filtered(home, home / "conf", monkeypatch))
    moved = home.rename(home.with_name("moved"))
    monkeypatch.chdir(moved)
    assert verified(moved / "run-conf") == {}
    shutil.rmtree(moved / "run-conf")
    assert digest(filtered(moved, moved / "conf", monkeypatch)) == one


def verified(run: Path, *options: str) -> dict[str, str]:
    """What `verify` says is wrong."""
    done = CliRunner().invoke(app, ["verify", str(run), "--json", *options])
    return {check["name"]: check["detail"] for check in json.loads(done.stdout) if check["ok"] is False}


def test_what_comes_after_a_run_works_from_any_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = filtered(home, home / "elsewhere" / "deep", monkeypatch)
    for folder in (home / "conf", tmp_path, run):
        monkeypatch.chdir(folder)
        assert verified(run) == {}
        for command in (["status", str(run)], ["inspect", str(run)], ["inspect", str(run), "--by", "source"]):
            assert CliRunner().invoke(app, command).exit_code == 0
    (home / "data" / "a.jsonl").write_bytes(b"other")
    assert "../data/a.jsonl is not what was read" in verified(run)["inputs"]


def test_a_run_that_was_carried_away_finds_its_inputs_by_its_config(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = shutil.move(filtered(home, home / "conf", monkeypatch), tmp_path / "away")
    monkeypatch.chdir(tmp_path)
    assert set(verified(run)) >= {"inputs", "model"}
    assert verified(run, "--config", str(home / "conf" / "c.yaml")) == {}


def test_a_run_beside_its_config_names_the_folder_of_that(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run_filter(FilterConfig.load(home / "conf" / "c.yaml", ["output.path=there/run"]))
    assert verified(Path("there/run")) == {}
    assert (tmp_path / "there" / "run" / ".inputs-relative-to").read_text().startswith(f"{home / 'conf'}\n")
    run_filter(FilterConfig.load(home / "conf" / "c.yaml", ["output.path=there/run"]), force_new=True)


class Stopped(Observer):
    """Ends a run when a phase begins."""

    def phase(self, name: str, done: int, units: int) -> None:
        if name == "join":
            raise RunError("stopped")


def test_an_interrupted_run_goes_on_from_another_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = digest(filtered(home, home / "conf", monkeypatch))
    monkeypatch.chdir(home / "elsewhere")
    with pytest.raises(RunError, match="stopped"):
        run_filter(FilterConfig.load("../conf/c.yaml"), observer=Stopped())
    assert digest(filtered(home, tmp_path, monkeypatch)) == expected


def test_a_task_of_a_cluster_finds_what_the_config_names(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(home)
    with pytest.raises(RunError, match="stopped"):
        run_filter(FilterConfig.load("conf/c.yaml"), observer=Stopped())
    monkeypatch.chdir(tmp_path)
    job = Job.load(home / "run" / ".work")
    assert all(Path(unit.address).is_file() for unit in job.units)
    assert make_plan(job.config).units == list(job.units)
    assert job.config.folder == str(home / "conf")


def test_an_override_names_a_file_as_if_the_config_did(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for here, spelled in (("elsewhere", "../data/a.jsonl"), ("data", "./a.jsonl"), ("data/below", "../[a].jsonl")):
        monkeypatch.chdir(home / here)
        overrides = [f"inputs=[{{kind: jsonl, paths: '{spelled}'}}]", "decontaminate.files=../conf/bench.txt"]
        plan = make_plan(FilterConfig.load(home / "conf" / "c.yaml", overrides[:1]))
        assert [unit.source for unit in plan.units] == ["../data/a.jsonl"]
        loaded = FilterConfig.load(home / "conf" / "c.yaml", overrides)
        assert loaded.decontaminate is not None
        assert loaded.decontaminate.files == ("../data/conf/bench.txt" if "below" in here else "bench.txt",)


def test_a_config_behind_a_link_is_that_of_its_real_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "elsewhere" / "link").symlink_to(home / "conf")
    monkeypatch.chdir(home / "elsewhere")
    plan = make_plan(FilterConfig.load("link/c.yaml", ["inputs.0.paths=../data"]))
    assert [unit.source for unit in plan.units][:2] == ["../data/a.jsonl", "../data/below/b.jsonl"]


def test_without_a_config_file_paths_are_relative_to_the_working_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(home / "data")
    config = {"input": {"kind": "jsonl", "paths": ["a.jsonl"]}, "output": {"path": "run"}}
    run_filter(FilterConfig.model_validate(config))
    manifest = json.loads(Path("run/manifest.json").read_text())
    assert manifest["inputs"][0]["source"] == "a.jsonl"
    monkeypatch.chdir(tmp_path)
    assert verified(home / "data" / "run") == {}


def test_a_run_of_whole_paths_says_nothing_of_a_folder(home: Path, tmp_path: Path) -> None:
    data = home / "data" / "a.jsonl"
    config = {"input": {"kind": "jsonl", "paths": [str(data)]}, "output": {"path": str(tmp_path / "run")}}
    run_filter(FilterConfig.model_validate(config))
    assert not list((tmp_path / "run").glob(".*"))


def test_a_sample_of_the_judge_is_the_same_from_any_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {
        "input": {"kind": "jsonl", "paths": ["../data"]},
        "sample": {"size": 5, "design": "stratified", "strata": ["score"], "models": ["../model"]},
        "rubric": "r.yaml",
        "store": "store.sqlite",
        "judges": [{"name": "j", "mode": "expected", "model": "m", "base_urls": ["http://localhost:1/v1"]}],
    }
    (home / "conf" / "judge.yaml").write_text(yaml.safe_dump(data))
    found = []
    for here in (home, home / "conf", home / "elsewhere" / "deep"):
        monkeypatch.chdir(here)
        found.append(describe_sample(load_config(AnnotateConfig, home / "conf" / "judge.yaml")))
    assert found[0] == found[1] == found[2]
