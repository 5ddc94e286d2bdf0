"""Ratios, medians, growth, agreement, stages: the arithmetic of the benchmarks, at toy size and without a clock."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.corpus import CHARACTERS, vary
from benchmarks.fasttext_models import agreement
from benchmarks.growth import Cost, bytes_per_added_document, bytes_per_document, seconds_per_document, spread
from benchmarks.measure import Report, Row, Timing, clocked, in_turn, ratios
from benchmarks.minhash_theory import joined, theory
from benchmarks.peer import ENVIRONMENTS, Peer, PeerError
from benchmarks.run import SCRIPTS
from benchmarks.stages import ORDER, PACKAGE, STAGES, Profiler, stage_of

OURS = [Timing(1.0, 0.9, 1000), Timing(2.0, 1.0, 1000), Timing(1.0, 1.1, 1000)]
THEIRS = [Timing(1.0, 1.0, 100), Timing(1.0, 1.0, 100), Timing(4.0, 1.0, 100)]


def test_ratios_are_medians_of_pairs_per_document() -> None:
    found = ratios(OURS, THEIRS)
    assert found["value"] == 10
    assert found["range"] == (5, 40)
    assert found["cpu"] == 10
    assert (found["docs_per_s"], found["peer_docs_per_s"]) == (1000, 100)
    assert (found["unit"], found["better"], found["repeats"]) == ("x", "higher", 3)


def test_a_ratio_of_times_is_the_other_way_round() -> None:
    found = ratios(THEIRS, OURS, of="time")
    assert found["value"] == 10
    assert found["range"] == (5, 40)
    assert (found["unit"], found["better"]) == ("x its time", "lower")


def test_sides_run_in_turn_after_a_warm_up() -> None:
    calls = []

    def side(name: str) -> Timing:
        calls.append(name)
        return Timing(1.0, 1.0, 1)

    timings = in_turn({"a": lambda: side("a"), "b": lambda: side("b")}, 2)
    assert "".join(calls) == "ababab"
    assert [len(found) for found in timings.values()] == [2, 2]


def test_the_clock_sees_waiting_and_processor_time_apart() -> None:
    timing = clocked(lambda: time.sleep(0.05) or 3)
    assert timing.documents == 3
    assert timing.wall >= 0.05 > timing.cpu


def test_a_report_is_written_with_the_machine(tmp_path: Path) -> None:
    report = Report("toy", "a few documents")
    report.add(Row(row="a", what="w", against="", value=1.5, unit="s", better="lower", range=(1.0, 2.0)))
    report.skip("other", "no pages")
    report.write(tmp_path)
    found = json.loads((tmp_path / "toy.json").read_text())
    assert found["rows"][0]["value"] == 1.5
    assert found["skipped"] == {"other": "no pages"}
    assert "numpy" in found["machine"]["packages"]
    assert found["seconds"] >= 0
    assert [path.name for path in tmp_path.iterdir()] == ["toy.json"]


def test_time_per_document_is_without_the_start() -> None:
    start = Cost(100, 2.0, 2.0, 400)
    costs = [Cost(1000, 3.0, 4.0, 1400), Cost(10_000, 12.0, 12.0, 2400)]
    assert seconds_per_document(costs, start) == [0.001, 0.001]
    assert spread(seconds_per_document(costs, start)) == 1
    assert spread(seconds_per_document(costs, start, "cpu")) == 2
    assert spread(seconds_per_document([Cost(1000, 1.9, 1.0, 1), *costs], start)) > 1e5


def test_memory_per_document_and_what_is_added() -> None:
    start = Cost(100, 2.0, 2.0, 400)
    costs = [Cost(1000, 3.0, 4.0, 1400), Cost(2000, 12.0, 12.0, 2800)]
    assert bytes_per_document(costs, start) == [1.0, 1.2]
    assert bytes_per_document([Cost(1000, 3.0, 4.0, 390)], start) == [1.0]
    assert bytes_per_added_document(costs) == [1.4]


def test_agreement_counts_only_decisions_outside_the_margin() -> None:
    theirs = np.array([[0.9, 0.1], [0.500001, 0.499999], [0.2, 0.8]])
    ours = np.array([[0.9, 0.1], [0.499999, 0.500001], [0.7, 0.3]])
    found = agreement(ours, theirs)
    assert found.difference == pytest.approx(0.5)
    assert found.different >= 2
    assert found.decisions < 12
    assert agreement(theirs, theirs).different == 0


def test_pairs_have_the_similarity_they_are_said_to_have() -> None:
    share, similarity = joined(0.8, 60, 300)
    assert similarity == pytest.approx(0.8, abs=0.01)
    assert share == pytest.approx(theory(similarity), abs=0.08)
    assert joined(0.95, 60, 100)[0] == 1


def test_varied_documents_are_all_there_and_differ(tmp_path: Path) -> None:
    vary(tmp_path / "many.parquet", 5100)
    table = pq.read_table(tmp_path / "many.parquet")
    texts = table["text"].to_pylist()
    assert table["id"].to_pylist() == [str(row) for row in range(5100)]
    assert len(set(texts)) == 5100
    assert np.mean([len(text) for text in texts]) == pytest.approx(CHARACTERS, rel=0.1)
    vary(tmp_path / "again.parquet", 5100)
    assert pq.read_table(tmp_path / "again.parquet").equals(table)


def test_stages_are_places_that_exist() -> None:
    assert set(STAGES.values()) < set(ORDER)
    for key in STAGES:
        path, _, function = key.partition(":")
        assert (PACKAGE / path).exists(), key
        assert not function or f"def {function}(" in (PACKAGE / path).read_text(), key


def test_the_longest_place_decides() -> None:
    assert stage_of("kernels/words.py", "normalize") == "exact hash"
    assert stage_of("kernels/words.py", "word_hashes") == "shingles + MinHash"
    assert stage_of("read/extract.py", "anything") == "extract"
    assert stage_of("config.py", "load") is None


def test_the_profiler_books_the_time_that_was_used() -> None:
    with Profiler() as profiler:
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass
    assert profiler.seconds["rest"] == pytest.approx(profiler.total, rel=0.01)
    assert profiler.total > 0.05


def test_a_peer_that_does_not_install_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("benchmarks.peer.FOLDER", tmp_path)
    monkeypatch.setattr("benchmarks.peer.venv.create", full)
    with pytest.raises(PeerError, match="rensa does not install: no space left"):
        Peer("rensa", "rensa_minhash.py")


def test_a_peer_that_stops_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peer.FOLDER", tmp_path)
    (tmp_path / "rensa" / "bin").mkdir(parents=True)
    (tmp_path / "rensa" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "rensa" / "installed.json").write_text(json.dumps(ENVIRONMENTS["rensa"]))
    with Peer("rensa", "no_such_script.py") as peer, pytest.raises(PeerError, match=r"rensa stopped: .*No such file"):
        peer.ask(documents=1)


def test_every_script_of_the_run_exists() -> None:
    folder = PACKAGE.parent / "benchmarks"
    assert [name for name in SCRIPTS if not (folder / f"{name}.py").exists()] == []
