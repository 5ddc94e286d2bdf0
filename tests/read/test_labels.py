"""Labels from Parquet, JSON lines and CSV alike; what is none of these is called by its name."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import zstandard

from filters.annotate.ratings import read_rated
from filters.errors import AnnotationsError
from filters.read.labels import read_labels
from filters.train.annotations import read_annotations, read_pages

Columns = dict[str, list[Any]]


def labelled(rows: int = 90) -> Columns:
    return {
        "id": [str(10**6 + row) for row in range(rows)],
        "url": [f"https://host{row % 20}.example/{row}" for row in range(rows)],
        "text": [f'Page {row}: a "quoted", text\nof two lines; \u00e6\u00f8\u00e5 NA' for row in range(rows)],
        "score": [row % 4 for row in range(rows)],
        "expected_score": [row % 4 + 0.25 for row in range(rows)],
        "scores": [[row % 4, (row + 1) % 4] for row in range(rows)],
        "topic": ["science" if row % 2 else "NA" for row in range(rows)],
        "judge_answer": [f"answer {row}" if row % 2 else None for row in range(rows)],
    }


def json_lines(data: Columns) -> bytes:
    rows = [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def comma_separated(data: Columns, delimiter: str = ",") -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerow(data)
    for row in zip(*data.values(), strict=True):
        writer.writerow([json.dumps(value) if isinstance(value, list) else value for value in row])
    return stream.getvalue().encode()


def write(path: Path, data: Columns) -> Path:
    match path.suffixes:
        case [".parquet"]:
            pq.write_table(pa.table(data), path)
        case [".jsonl"]:
            path.write_bytes(b"\xef\xbb\xbf" + json_lines(data))
        case [".jsonl", ".gz"]:
            path.write_bytes(gzip.compress(json_lines(data)))
        case [".jsonl", ".zst"]:
            path.write_bytes(zstandard.compress(json_lines(data)))
        case [".csv"]:
            path.write_bytes(comma_separated(data))
        case [".csv", ".gz"]:
            path.write_bytes(gzip.compress(comma_separated(data)))
        case [".tsv"]:
            path.write_bytes(comma_separated(data, "\t"))
        case _:
            path.write_bytes(comma_separated(data, ";"))
    return path


NAMES = ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv", "a.csv.gz", "a.tsv", "a.data"]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_says_the_same(tmp_path: Path, name: str) -> None:
    data = labelled()
    path = write(tmp_path / name, data)
    labels = read_annotations(path)
    assert list(labels.texts) == data["text"]
    assert labels.expected.tolist() == data["expected_score"]
    assert labels.score.tolist() == data["score"]
    assert len(set(labels.groups.tolist())) <= 20
    assert set(labels.facets["topic"]) == {"science", "NA"}
    assert labels.ratings is not None
    assert labels.ratings.tolist() == data["scores"]
    assert read_pages(path).texts == data["text"]
    rated = read_rated(path)
    assert [[answer.expected for _, answer in said] for said in rated.answers] == data["scores"]
    assert [document.text for document in rated.documents] == data["text"]
    assert read_labels(path).names == tuple(data)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": [None, *range(89)]}, "'score' is null or NaN in row 0|'score' must lie between"),
        ({"score": ["two"] * 90}, "'score' holds .*string, not numbers"),
        ({"text": None}, "'text' is missing; found id, url, score"),
        ({"id": ["same"] * 90}, "'same' names two texts"),
    ],
)
def test_what_is_wrong_with_a_column_is_told_alike(
    tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    data = {key: value for key, value in (labelled() | change).items() if value is not None}
    with pytest.raises(AnnotationsError, match=message):
        read_annotations(write(tmp_path / name, data))


def feather() -> bytes:
    stream = io.BytesIO()
    pyarrow.feather.write_feather(pa.table({"text": ["a"]}), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"PK\x03\x04" + bytes(50), "zip archive or an Excel workbook"),
        (b"SQLite format 3\x00" + bytes(100), "SQLite data base"),
        (feather(), "Arrow or Feather"),
        (b"[\n{}]", "JSON array"),
        (b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        (b'{"text": "a"}\n[1]\n', "line 2 is no JSON object"),
        (b'{"text": "a", "score": 1}\n{"text": "b", "score": "x"}\n', "'score' holds values of several kinds"),
        (b'{"text": "a", "score": 1}\n{"text": 7, "score": 1}\n', "'text' holds values of several kinds"),
        (b'{"text": "a", "score": NaN}\n', "line 1 is not JSON"),
        (b"text,score\na,1\nb,2,3\n", "taken for CSV.*Expected 2 columns, got 3"),
        (b"text,text,score\na,b,1\n", "two columns are called 'text'"),
        (b'text,scores\na,"[1, x]"\n', "'scores' in row 0 is no list"),
        (b"text,score\n\xe6,1\n", "UTF-?8"),
        ("text,score\na,1\n".encode("utf-16"), "UTF-16"),
        (b"\x80\x04\x95abc", "pickle"),
        (bytes(range(256)), "no text"),
        (gzip.compress(b"{}", mtime=0)[:-9], "compressed, and damaged"),
        (b"PAR1" + bytes(60), "not a Parquet file"),
    ],
)
def test_what_cannot_be_read_is_called_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels.data"
    path.write_bytes(content)
    with pytest.raises(AnnotationsError, match=message):
        read_annotations(path)


def test_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationsError, match="a folder"):
        read_labels(tmp_path)
    with pytest.raises(AnnotationsError, match="cannot read this file"):
        read_labels(tmp_path / "missing.csv")
    with pytest.raises(AnnotationsError, match="cannot read this file"):
        read_labels("a\x00b")


def test_other_strings_and_numbers_of_arrow_are_taken(tmp_path: Path) -> None:
    data = labelled()
    table = pa.table(data)
    for name, kind in (("topic", pa.dictionary(pa.int8(), pa.string())), ("text", pa.string_view()),
                       ("expected_score", pa.decimal128(5, 2))):  # fmt: skip
        table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
    pq.write_table(table, tmp_path / "a.parquet", store_schema=True)
    labels = read_annotations(tmp_path / "a.parquet")
    assert list(labels.texts) == data["text"]
    assert labels.expected.tolist() == data["expected_score"]


def test_a_compressed_file_that_grows_beyond_all_measure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filters.read.labels.MOST_BYTES", 1000)
    path = write(tmp_path / "a.jsonl.gz", labelled())
    with pytest.raises(AnnotationsError, match="unpacks to more than 1,000 bytes"):
        read_labels(path)
