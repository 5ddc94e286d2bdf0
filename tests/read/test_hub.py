from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import json_lines, read_all

from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.read.units import plan_units


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def hub(**options: object) -> InputConfig:
    return InputConfig.model_validate({"kind": "hub", "dataset": "corpus", **options})


def test_parquet_files_of_a_local_data_set_are_shared_units(tmp_path: Path) -> None:
    (tmp_path / "corpus" / "data").mkdir(parents=True)
    for number in range(2):
        texts = [f"file {number} row {row}" for row in range(1500)]
        table = pa.table({"text": texts, "id": [f"{number}-{row}" for row in range(1500)], "url": ["u"] * 1500})
        pq.write_table(table, tmp_path / "corpus" / "data" / f"train-{number}.parquet")
    config = hub(id_key="id")
    units = plan_units(config)
    assert [(unit.kind, unit.source, unit.stop) for unit in units] == [
        ("parquet", f"corpus/data/train-{number}.parquet", 1500) for number in range(2)
    ]
    result = read_all(config)
    assert result.ids == [f"{number}-{row}" for number in range(2) for row in range(1500)]
    assert result.column("url") == ["u"] * 3000
    assert len(read_all(hub(max_files=1))) == 1500


def test_json_lines_and_splits(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "train.jsonl").write_bytes(json_lines(3) + b"broken\n")
    (tmp_path / "corpus" / "test.jsonl").write_bytes(json_lines(2))
    result = read_all(hub())
    assert (len(result), result.causes) == (3, ["bad_json"])
    assert len(read_all(hub(split="test"))) == 2
    with pytest.raises(InputError, match="no split 'validation'; it has test, train"):
        plan_units(hub(split="validation"))


def test_subsets(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "corpus" / name).mkdir(parents=True)
        (tmp_path / "corpus" / name / "train.jsonl").write_bytes(json_lines(4 if name == "two" else 1))
    card = "---\nconfigs:\n- config_name: one\n  data_files: one/*\n- config_name: two\n  data_files: two/*\n---\n"
    (tmp_path / "corpus" / "README.md").write_text(card)
    assert len(read_all(hub(subset="two"))) == 4
    with pytest.raises(InputError, match="corpus"):
        plan_units(hub(subset="three"))


def test_other_formats_are_streamed(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    rows = "".join(f'"text {row}",{row},u{row}\n' for row in range(2100))
    (tmp_path / "corpus" / "train.csv").write_text("text,id,url\n" + rows)
    config = hub(id_key="id")
    (unit,) = plan_units(config)
    assert (unit.kind, unit.source) == ("stream", "corpus/train")
    result = read_all(config)
    assert result.texts == [f"text {row}" for row in range(2100)]
    assert result.positions == list(range(2100))
    assert result.ids[:2] == ["0", "1"]
    assert result.column("url")[-1] == "u2099"
    with pytest.raises(InputError, match="no column 'content'"):
        read_all(hub(text_key="content"))


def test_rows_of_a_stream_without_text(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    rows = [{"text": "a"}, {"text": None}, {"text": " "}, {"text": "b" * 2000}]
    (tmp_path / "corpus" / "train.json").write_text(json.dumps(rows))
    result = read_all(hub(max_document_bytes=1000))
    assert result.reasons == [None, "missing_text", "empty_text"]
    assert result.causes == ["too_large"]
    (tmp_path / "corpus" / "train.json").write_text(json.dumps([{"text": [1]}, {"text": [2, 3]}]))
    assert read_all(hub()).causes == ["text_not_a_string"] * 2
    (tmp_path / "corpus" / "train.json").write_text(json.dumps([{"text": "å" * 500}, {"text": "å" * 501}]))
    result = read_all(hub(max_document_bytes=1000))
    assert (result.texts, result.causes) == (["å" * 500], ["too_large"])


def test_a_stream_that_breaks_keeps_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "train.csv").write_bytes(b"text,id\n" + b"fine,1\n" * 3 + b'"never closed,2\n')
    (tmp_path / "corpus" / "z_train.csv").write_bytes(b"text,id\nlater,1\n")
    result = read_all(hub())
    assert result.causes == ["corrupt"]
    assert result.quarantined[0].position == len(result)


def test_an_unknown_data_set_is_an_input_error() -> None:
    with pytest.raises(InputError, match="nothing/here: cannot open this data set"):
        plan_units(hub(dataset="nothing/here"))
