"""Leak checks: benchmarks of several formats, what was examined, and filtering without what leaks."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from filters.errors import InputError
from filters.inspect.leaks import check_leaks
from filters.kernels.packed import PackedText
from filters.read import benchmark as benchmark_module
from filters.read.benchmark import read_benchmark
from filters.scores.finished_run import Run
from tests.inspect.runs import make_run, pages

ROWS = pages(60)
LEAKED = {"p3", "p20"}
QUESTIONS = [" ".join(row["text"].split()[30:46]).upper() for row in ROWS if row["id"] in LEAKED] + ["too short"]


def benchmark(path: Path) -> Path:
    lines = "".join(json.dumps({"question": question, "choices": ["a", "b"]}) + "\n" for question in QUESTIONS)
    match path.suffixes:
        case [".parquet"]:
            pq.write_table(pa.table({"question": QUESTIONS, "n": [1, 2, 3]}), path)
        case [".txt"]:
            path.write_text("\n\n".join(question.replace(" ", "\n", 1) for question in QUESTIONS))
        case [".jsonl", ".gz"]:
            path.write_bytes(gzip.compress(lines.encode()))
        case [".jsonl", ".zst"]:
            path.write_bytes(zstandard.compress(lines.encode()))
        case _:
            path.write_text(lines)
    return path


@pytest.mark.parametrize("name", ["b.jsonl", "b.jsonl.gz", "b.jsonl.zst", "b.parquet", "b.txt"])
def test_every_format_has_the_same_ngrams(name: str, tmp_path: Path) -> None:
    found = read_benchmark(benchmark(tmp_path / name), keys=() if name == "b.txt" else ("question",))
    assert (found.items, found.ngrams.count, found.ngrams.too_short) == (3, 8, 1)


@pytest.mark.parametrize("rejected", [True, False])
def test_leaks_by_score_and_what_was_examined(tmp_path: Path, rejected: bool) -> None:
    output = {"path": str(tmp_path / "run"), "rejected": rejected, "format": "jsonl.zst"}
    run = make_run(tmp_path, ROWS, 1.0, output=output)
    found = check_leaks(run, read_benchmark(benchmark(tmp_path / "b.jsonl")))
    survivors = run.histogram().total()
    kept = run.ledger["total"]["kept"]
    assert found.survivors == survivors
    assert found.kept[0] == kept
    assert found.examined == (survivors if rejected else kept)
    assert found.complete is rejected
    if rejected:
        assert {name for _, name in found.ids} == LEAKED
        assert found.leaked == 2
    assert sum(bucket.examined for bucket in found.buckets) == found.examined


@pytest.mark.parametrize("workers", [1, 2])
def test_filtering_without_what_leaks(tmp_path: Path, workers: int) -> None:
    path = benchmark(tmp_path / "b.jsonl")
    run = make_run(tmp_path, ROWS, decontaminate={"files": [str(path)]}, executor={"workers": workers})
    removed = run.ledger["total"]["removed"]
    # p3 and p20 have no copies in these pages.
    assert removed["contaminated"] == 2
    reasons = run.attributes(["id", "reason"]).to_pylist()
    assert {row["id"] for row in reasons if row["reason"] == "contaminated"} == LEAKED
    assert run.manifest["benchmarks"][0]["items"] == 9
    assert len(run.manifest["benchmarks"][0]["sha256"]) == 64
    assert check_leaks(Run(run.path), read_benchmark(path)).leaked == 0


@pytest.mark.parametrize(
    ("name", "content", "keys", "message"),
    [
        ("b.jsonl", b"{broken", (), "line 1 is not JSON"),
        ("b.jsonl", b'{"question": "short"}', (), "none of its 1 items has 13 words"),
        ("b.jsonl", b'{"question": "short"}', ("text",), "no key 'text'; there are question"),
        ("b.parquet", b"no parquet", (), "cannot read this benchmark"),
        ("b.jsonl.gz", b"no gzip", (), "cannot read this benchmark"),
        ("b.jsonl.zst", b"no zstd", (), "cannot read this benchmark"),
        ("b.txt", b"\xff\xfe", (), "none of its 1 items"),
    ],
)
def test_benchmarks_that_cannot_be_used(
    tmp_path: Path, name: str, content: bytes, keys: tuple[str, ...], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_benchmark(tmp_path / name, keys=keys)
    with pytest.raises(InputError, match="cannot read"):
        read_benchmark(tmp_path / "missing.jsonl")


def write_lines(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


TOLD = "Below is a task that was paired with some context so please write an answer that completes it well"


@pytest.mark.parametrize("column", ["instruction", "System", "told"])
def test_instructions_are_no_items_unless_keys_name_them(tmp_path: Path, column: str) -> None:
    rows = [{column: TOLD, "question": question + f" number {n}"} for n, question in enumerate(QUESTIONS[:2])]
    path = write_lines(tmp_path / "b.jsonl", rows)
    found = read_benchmark(path)
    assert (found.items, found.left_out) == (2, (column,))
    assert read_benchmark(path, keys=(column,)).ngrams.count
    with pytest.raises(InputError, match=f"columns {column} hold instructions, and were left out"):
        read_benchmark(write_lines(tmp_path / "only.jsonl", [{column: TOLD}] * 3))


def test_instructions_in_messages_are_no_items_and_passages_are(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    said = [{"role": "system", "content": TOLD}], {"instruction": {"text": TOLD}, "question": QUESTIONS[1]}
    rows = [{"messages": [*said[0], {"role": "user", "content": f"{QUESTIONS[0]} {n}"}]} for n in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, said[1]]))
    found = read_benchmark(path)
    assert set(found.left_out) >= {"messages.system.content", "instruction.text"}
    assert found.ngrams.found_in(PackedText.from_strings([TOLD, QUESTIONS[0], QUESTIONS[1]])).tolist() == [
        False,
        True,
        True,
    ]
    words = " ".join(f"word{n}" for n in range(20))
    asked = [{"passage": f"{n % 120} {words}", "question": f"{n} {QUESTIONS[0]}"} for n in range(1920)]
    assert read_benchmark(write_lines(tmp_path / "p.jsonl", asked)).left_out == ()


def test_wording_that_many_items_share_is_no_leak(tmp_path: Path) -> None:
    items = [{"question": f"{TOLD} {n} {n + 1} {n + 2} {n + 3}"} for n in range(20)]
    found = read_benchmark(write_lines(tmp_path / "b.jsonl", items))
    assert found.ngrams.frequent == len(TOLD.split()) - 12
    # A passage that several questions share is one item.
    again = [{"context": QUESTIONS[0], "question": f"what is {n}"} for n in range(15)]
    again += [{"context": QUESTIONS[1], "question": "who"}]
    assert read_benchmark(write_lines(tmp_path / "c.jsonl", again), keys=("context",)).ngrams.count == 8


@pytest.mark.parametrize(("documents", "removed"), [(10, 10), (11, 0)])
def test_words_that_many_documents_have_contaminate_nothing(tmp_path: Path, documents: int, removed: int) -> None:
    licence = "permission is hereby granted free of charge to any person obtaining a copy of this software"
    rows = [{"id": f"p{n}", "text": " ".join(f"w{n}x{k}" for k in range(60))} for n in range(40)]
    for row in rows[:documents]:
        row["text"] += " " + licence
    question = " ".join(rows[30]["text"].split()[20:40])
    path = write_lines(tmp_path / "b.jsonl", [{"question": licence}, {"question": question}])
    run = make_run(tmp_path, rows, decontaminate={"files": [str(path)]})
    assert run.ledger["total"]["removed"].get("contaminated", 0) == removed + 1
    found = check_leaks(make_run(tmp_path / "again", rows), read_benchmark(path))
    assert found.leaked == removed + 1
    assert bool(found.common) is (not removed)


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "many.txt.gz"])
def test_a_benchmark_that_unpacks_to_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(benchmark_module, "ITEM_BYTES", 1 << 20)
    monkeypatch.setattr(benchmark_module, "FILE_BYTES", 4 << 20)
    line = b"a line of words that is followed by others\n" if name == "many.txt.gz" else b"word " * 1000
    (tmp_path / name).write_bytes(gzip.compress(line * 4000 if line.endswith(b" ") else (line + b"\n") * 200_000))
    with pytest.raises(InputError, match=f"{name}: unpacks to"):
        read_benchmark(tmp_path / name)
