"""`finesieve inspect --sql`: answers as pyarrow gives them, shown and in files, and nothing else to be reached."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from filters.cli.main import app
from filters.errors import FinesieveError, RunError
from filters.inspect.query import answer, write_answer
from filters.scores.finished_run import Run
from tests.inspect.synthetic import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", 4000, seed=1)


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["inspect", *map(str, arguments)])
    if isinstance(result.exception, FinesieveError):
        return 1, str(result.exception)
    return result.exit_code, result.output


HOSTS = "SELECT host, count(*) n, sum(tokens) tokens FROM documents GROUP BY host ORDER BY n DESC, host LIMIT 5"


def test_a_group_by_gives_what_pyarrow_gives(folder: Path) -> None:
    table = Run(str(folder)).attributes(["host", "tokens"])
    grouped = table.group_by("host").aggregate([([], "count_all"), ("tokens", "sum")])
    expected = grouped.sort_by([("count_all", "descending"), ("host", "ascending")]).slice(0, 5)
    with answer(Run(str(folder)), HOSTS) as found:
        rows = [row for batch in found for row in batch.to_pylist()]
    assert [(row["host"], row["n"]) for row in rows] == [
        (row["host"], row["count_all"]) for row in expected.to_pylist()
    ]
    assert [int(row["tokens"]) for row in rows] == expected["tokens_sum"].to_pylist()
    code, text = call(folder, "--sql", HOSTS)
    assert code == 0
    assert text.splitlines()[0].split() == ["host", "n", "tokens"]
    assert [line.split()[:2] for line in text.splitlines()[1:]] == [[row["host"], str(row["n"])] for row in rows]
    assert [row["n"] for row in json.loads(call(folder, "--sql", HOSTS, "--json")[1])] == [row["n"] for row in rows]


def test_many_rows_and_wide_text_are_cut_only_where_they_are_shown(folder: Path) -> None:
    code, text = call(folder, "--sql", "SELECT id, repeat('x', 500) long, NULL nothing FROM documents")
    assert code == 0
    assert "... and 3,800 more rows; --output FILE writes all" in text
    assert "x" * 57 + "..." in text
    assert "NULL" in text
    code, text = call(folder, "--sql", "SUMMARIZE documents")
    assert code == 0
    assert "null_percentage" in text
    assert call(folder, "--sql", "SELECT id FROM documents WHERE false", "--json") == (0, "[]\n")
    assert "\x1b" not in call(folder, "--sql", "SELECT chr(27) || '[31m' AS \"a\x1b[2J\"")[1]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_an_answer_is_written_whole(folder: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answer{suffix}"
    sql = "SELECT id, score, tokens FROM documents WHERE language = 'en' ORDER BY score DESC NULLS LAST, id"
    code, text = call(folder, "--sql", sql, "--output", path)
    table = Run(str(folder)).attributes(["id", "score", "tokens", "language"])
    expected = table.filter(pc.equal(table["language"], "en"))
    assert code == 0
    assert f"{expected.num_rows:,} rows" in text
    if suffix == ".csv":
        found = pa.csv.read_csv(path)
    elif suffix == ".parquet":
        found = pq.read_table(path)
    else:
        found = pa.Table.from_pylist(json.loads(path.read_text()))
    assert set(found["id"].to_pylist()) == set(expected["id"].to_pylist())
    assert found.num_rows == expected.num_rows
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", "syntax error"),
        ("SELECT scor FROM documents", 'Candidate bindings: "score"'),
        ("SELECT * FROM '/etc/passwd'", "does not exist"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled by configuration"),
        ("SELECT * FROM read_parquet('/etc/passwd')", "disabled by configuration"),
        ("SELECT content FROM read_text('/etc/passwd')", "disabled by configuration"),
        ("SELECT * FROM glob('/etc/*')", "disabled by configuration"),
        ("SELECT getenv('HOME')", "does not exist"),
        ("SELECT * FROM query('COPY documents TO ''/tmp/x''')", "--sql: "),
        ("SELECT 1; SELECT 2", "takes one query"),
        ("", "takes one query"),
        ("-- nothing", "takes one query"),
        ("COPY documents TO '/tmp/x.csv'", "takes one query"),
        ("ATTACH '/tmp/x.db'", "takes one query"),
        ("INSTALL httpfs", "takes one query"),
        ("LOAD '/tmp/x.so'", "takes one query"),
        ("SET threads = 99", "takes one query"),
        ("PRAGMA database_list", "takes one query"),
        ("CREATE TABLE x AS SELECT 1", "takes one query"),
        ("EXPORT DATABASE '/tmp/x'", "takes one query"),
        ("SELECT error('stop')", "stop"),
        ("SELECT cast(id AS INTEGER) FROM documents", "--sql: "),
    ],
)
def test_nothing_else_is_reached(folder: Path, tmp_path: Path, sql: str, message: str) -> None:
    code, text = call(folder, "--sql", sql)
    assert code
    assert message in text
    with pytest.raises(FinesieveError):
        write_answer(Run(str(folder)), sql, tmp_path / "x.csv")
    assert not list(tmp_path.iterdir())


def test_options_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    assert "ends in none of .csv" in call(folder, "--sql", "SELECT 1", "--output", tmp_path / "x.txt")[1]
    assert "Remedy: write .parquet or .json" in call(folder, "--sql", "SELECT [1]", "--output", tmp_path / "x.csv")[1]
    assert "cannot be written" in call(folder, "--sql", "SELECT 1", "--output", tmp_path / "no" / "x.csv")[1]
    assert call(folder, "--output", "x.csv")[0] == 2
    assert call(folder, "--sql", "SELECT 1", "--by", "language")[0] == 2
    assert not list(tmp_path.iterdir())


def test_damaged_side_files_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 3000, seed=2)
    files = sorted((folder / "attributes").glob("*.parquet"))
    content = files[0].read_bytes()
    files[0].write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match="cannot read the side files"), answer(Run(str(folder)), "SELECT 1"):
        pass
    middle = bytearray(content)
    middle[8 : len(content) // 2] = b"\xff" * (len(content) // 2 - 8)
    files[0].write_bytes(middle)
    with pytest.raises(FinesieveError), answer(Run(str(folder)), "SELECT * FROM documents") as found:
        list(found)
    for file in files:
        file.unlink()
    with pytest.raises(RunError), answer(Run(str(folder)), "SELECT 1"):
        pass
