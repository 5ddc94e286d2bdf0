"""Nothing readable ends in an error that says what is there instead, and publishes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from filters import FilterConfig, run_filter
from filters.cli.main import app
from filters.errors import FinesieveError, InputError, RunError
from filters.run.plan import Observer


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is the test's own."""
    monkeypatch.chdir(tmp_path)


def config(tmp_path: Path, **changes: Any) -> FilterConfig:
    given = {"kind": "jsonl", "paths": [str(tmp_path / "in")]} | changes
    return FilterConfig.model_validate({"input": given, "output": {"path": str(tmp_path / "out")}})


def write(tmp_path: Path, name: str, *records: Any) -> Path:
    path = tmp_path / "in" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records))
    return path


def test_a_wrong_key_is_told_with_the_keys_that_are_there(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", *({"content": "a page", "id": n} for n in range(5)))
    with pytest.raises(
        InputError, match=r"a\.jsonl: none of its 5 records has the key 'text'; they have 'content', 'id'"
    ):
        run_filter(config(tmp_path))
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert run_filter(config(tmp_path, text_key="content")).ledger.total.records == 5


def test_a_wrong_key_is_told_before_anything_but_reading_is_done(tmp_path: Path) -> None:
    class Phases(Observer):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def phase(self, name: str, done: int, units: int) -> None:
            self.seen.append(name)

    write(tmp_path, "a.jsonl", *({"content": "a page", "id": n} for n in range(5)))
    observer = Phases()
    with pytest.raises(InputError, match="Nothing was published or kept"):
        run_filter(config(tmp_path), observer=observer)
    assert set(observer.seen) == {"attributes"}
    assert not (tmp_path / "out" / ".work").exists()


def test_a_replacement_that_is_not_readable_leaves_the_finished_run(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", {"text": "a page of words"})
    run_filter(config(tmp_path))
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="none of its 1 records has the key 'content'"):
        run_filter(config(tmp_path, text_key="content"), force_new=True)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    with pytest.raises(RunError, match="finished run"):
        run_filter(config(tmp_path, text_key="content"))


def test_one_file_with_other_keys_among_many_is_told(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", {"text": "a page of words"})
    write(tmp_path, "b.jsonl", {"body": "a page of words"}, "")
    with pytest.raises(InputError, match=r"b\.jsonl: none of its 1 records .*'body'"):
        run_filter(config(tmp_path))


@pytest.mark.parametrize("records", [[{"text": None}, {"text": " "}], ["no json"] * 3, [{"text": 5}], ["", ""]])
def test_an_input_without_any_text_is_an_error(tmp_path: Path, records: list[Any]) -> None:
    write(tmp_path, "a.jsonl", *records)
    with pytest.raises(InputError, match=r"a\.jsonl: nothing in this input could be read as kind jsonl"):
        run_filter(config(tmp_path))
    assert not (tmp_path / "out" / "data").exists()


def test_a_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", {"text": "a page"})
    with pytest.raises(InputError, match=r"nothing in this input could be read as kind parquet .*corrupt"):
        run_filter(config(tmp_path, kind="parquet", paths=[str(path)]))


def test_an_empty_input_is_a_run_of_nothing_that_inspect_shows(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl")
    assert run_filter(config(tmp_path)).ledger.total.records == 0
    for arguments in ([], ["--json"], ["--by", "language"], ["--examples", "2"]):
        shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "out"), *arguments])
        assert shown.exit_code == 0, (arguments, shown.exception, shown.output[-500:])


VIEWS = [[], ["--json"], ["--by", "host"], ["--keep", "min_score=1"], ["--html", "x.html"]]


@pytest.mark.parametrize("arguments", VIEWS)
@pytest.mark.usefixtures("inside")
def test_inspect_shows_a_run_that_kept_nothing(tmp_path: Path, arguments: list[str]) -> None:
    write(tmp_path, "a.jsonl", *({"text": f"a page about {n}"} for n in range(5)))
    run_filter(FilterConfig.model_validate(config(tmp_path).model_dump() | {"keep": {"min_score": 99}}))
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "out"), *arguments])
    assert shown.exit_code == 0, (shown.exception, shown.output[-500:])


@pytest.mark.parametrize("arguments", [*VIEWS, ["--keep", "fraction=0.1"]])
@pytest.mark.usefixtures("inside")
def test_inspect_shows_a_run_without_scores(tmp_path: Path, arguments: list[str]) -> None:
    write(tmp_path, "a.jsonl", *({"text": "These words are English, and there are some of them."} for _ in range(3)))
    made = config(tmp_path).model_dump() | {"language": {"keep": ["da"]}}
    run_filter(FilterConfig.model_validate(made))
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "out"), *arguments])
    assert shown.exit_code == 0 or isinstance(shown.exception, FinesieveError), shown.exception
    assert shown.exit_code == 0 or "--keep" in arguments, (shown.exception, shown.output[-500:])


@pytest.mark.parametrize(("min_score", "hint"), [(99, True), (-99, False)])
def test_a_run_that_keeps_almost_nothing_says_what_another_rule_would_keep(
    tmp_path: Path, min_score: float, hint: bool
) -> None:
    write(tmp_path, "a.jsonl", *({"text": f"a page about {n} " + "and more " * n} for n in range(20)))
    (tmp_path / "c.yaml").write_text(
        "input: {kind: jsonl, paths: in}\ndedup: {near: null}\noutput: {path: out}\n"
        f"keep: {{min_score: {min_score}}}\n"
    )
    shown = CliRunner().invoke(app, ["filter", str(tmp_path / "c.yaml")])
    assert shown.exit_code == 0, shown.output
    assert ("almost nothing was kept: 0 of 20 scored documents; keep.min_score=" in shown.output) == hint
