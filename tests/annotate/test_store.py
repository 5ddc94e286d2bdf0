"""The answer store: what is paid once is never asked again, and nothing is half-written."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from filters.annotate.rubric import Rubric
from filters.annotate.store import KEEP_RUBRIC, Answer, Document, Failure, Spending, Store
from filters.errors import AnnotationsError

RUBRIC = Rubric.model_validate(
    {
        "name": "t",
        "version": "1",
        "scale": {"min": 0, "max": 5},
        "label": "Score",
        "prompt": "How good is this page? Judge it.",
    }
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "folder" / "store.sqlite")


def filled(store: Store, documents: int = 5) -> tuple[int, int, int]:
    """(sample, judge, rubric) of a store with so many documents."""
    sample = store.begin_sample({"of": "test"})
    store.draw(sample, [Document(f"text {n}", id=str(n), probability=0.5) for n in range(documents)])
    return sample, store.judge("j", "model", "m", {"mode": "expected"}).number, store.rubric(RUBRIC)


def ok(document: int, repeat: int = 0, score: float = 2.0) -> Answer:
    return Answer(document, repeat, "ok", str(score), score=score, expected=score + 0.25, distribution=[0.1, 0.9])


def test_only_what_is_missing_is_pending(store: Store) -> None:
    sample, judge, rubric = filled(store)
    assert [p.repeats for p in store.pending(sample, judge, rubric, 2)] == [(0, 1)] * 5
    store.save(1, judge, rubric, [ok(1), ok(1, 1), ok(2, 1), Answer(3, 0, "rejected", "??", cause="no_score")])
    assert [(p.document, p.repeats) for p in store.pending(sample, judge, rubric, 2)] == [
        (2, (0,)), (3, (1,)), (4, (0, 1)), (5, (0, 1)),
    ]  # fmt: skip
    assert [p.document for p in store.pending(sample, judge, rubric, 2, after=2, limit=2)] == [3, 4]
    assert [p.document for p in store.pending(sample, judge, rubric, 2, until=store.place(sample, 3))] == [2, 3]
    assert store.pending(sample, judge, rubric, 1)[0].document == 2
    assert store.answered(sample, judge, rubric, 2) == 4
    assert store.answered(sample, judge, rubric, 1) == 2
    assert store.missing(["text 0", "text 2", "elsewhere"], "j", RUBRIC, 2).tolist() == [0, 1, 2]
    assert store.missing(["text 0"], "nobody", RUBRIC, 2).tolist() == [2]


def test_judges_and_rubrics_are_kept_apart(store: Store) -> None:
    sample, judge, rubric = filled(store)
    other = store.judge("k", "model", "m", {"mode": "expected"}).number
    danish = store.rubric(RUBRIC.model_copy(update={"language": "Danish"}))
    assert danish != rubric
    assert store.rubric(RUBRIC) == rubric
    store.save(1, judge, rubric, [ok(1)])
    assert len(store.pending(sample, other, rubric, 1)) == len(store.pending(sample, judge, danish, 1)) == 5
    assert [(record.number, record.answers) for record in store.rubrics()] == [(rubric, 1), (danish, 0)]


def test_a_changed_judge_is_refused(store: Store) -> None:
    filled(store)
    with pytest.raises(AnnotationsError, match=r"mode = 'expected', and now it is 'justify'.*another name"):
        store.judge("j", "model", "m", {"mode": "justify"})
    with pytest.raises(AnnotationsError, match="kind"):
        store.record_keep("j", "text 0", keep=True)


def test_what_was_saved_comes_back(store: Store) -> None:
    sample, judge, rubric = filled(store)
    answer = Answer(
        2, 0, "ok", "raw \0 \u202e", score=3, expected=2.5, entropy=0.4, coverage=0.9, distribution={"a": [0.5, 0.5]},
        attributes={"a": 1.5}, model="m", endpoint="http://x", tokens_in=10, tokens_out=1, cost=0.5, seconds=0.1,
        attempts=3, text_cut=700,
    )  # fmt: skip
    store.save(1, judge, rubric, [answer, ok(1)])
    assert list(store.answers(rubric)) == [("j", ok(1)), ("j", answer)]
    assert [a.document for _, a in store.answers(rubric, sample)] == [1, 2]
    assert store.scores(judge, rubric) == {1: 2, 2: 3}
    assert store.scores(judge, rubric + 9) == {}


def test_documents_come_back_with_their_probability(store: Store) -> None:
    sample = store.begin_sample({"a": 1})
    assert store.find_sample({"a": 1}) is None
    first = Document("same", id="a", url="http://u", source="s", position=3, language="en", probability=0.25,
                     design="stratified", stratum="x", columns={"topic": "t", "n": 1})  # fmt: skip
    assert store.draw(sample, [first, Document("same", id="b"), Document("other")]) == 2
    assert [document for _, document in store.drawn(sample)] == [first, Document("other")]
    assert store.find_sample({"a": 1}) == sample
    second = store.begin_sample({"a": 2})
    store.draw(second, [Document("same", probability=0.75)])
    assert [document.probability for _, document in store.drawn(second)] == [0.75]


def test_an_interrupted_draw_leaves_nothing(store: Store) -> None:
    sample = store.begin_sample({"a": 1})
    assert store.find_sample({"a": 1}) is None

    def broken() -> object:
        yield Document("one")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.draw(sample, broken())
    assert store.find_sample({"a": 1}) is None
    assert store.begin_sample({"a": 1}) == sample
    assert store.sample_size(sample) == 0
    assert store.samples() == []


def test_failures_are_asked_again_and_cleared_by_an_answer(store: Store) -> None:
    sample, judge, rubric = filled(store, 2)
    store.save(1, judge, rubric, [], [Failure(1, 0, "timeout", 7), Failure(2, 0, "http_500", 7)])
    assert len(store.pending(sample, judge, rubric, 1)) == 2
    store.save(1, judge, rubric, [ok(1), Answer(2, 0, "rejected", "", cause="no_score")])
    assert store.causes(judge, rubric) == ({"no_score": 1}, {})


def test_spending_adds_up_over_runs(store: Store) -> None:
    _, judge, rubric = filled(store)
    for run in (store.begin_run("{}"), store.begin_run("{}")):
        for _ in range(2):
            store.save(run, judge, rubric, [], [], Spending(1, 100, 5, 0.25))
        store.end_run(run, "complete")
    assert store.spent() == Spending(4, 400, 20, 1.0)


def test_a_human_s_latest_decision_counts(store: Store) -> None:
    filled(store)
    store.record_keep("ann", "text 1", keep=True)
    store.record_keep("ann", Document("text 1"), keep=False)
    store.record_keep("ann", "a new page", keep=True)
    (judge,) = [judge for judge in store.judges() if judge.kind == "human"]
    assert list(store.scores(judge.number, store.rubric(KEEP_RUBRIC)).values()) == [0, 1]


def test_documents_are_asked_in_the_order_drawn(store: Store) -> None:
    filled(store, 4)
    sample = store.begin_sample({"of": "another draw"})
    store.draw(sample, [Document("new 1"), Document("text 3"), Document("new 2"), Document("text 0")])
    judge, rubric = store.judges()[0].number, store.rubrics()[0].number
    assert [p.text for p in store.pending(sample, judge, rubric, 1)] == ["new 1", "text 3", "new 2", "text 0"]
    assert [p.text for p in store.pending(sample, judge, rubric, 1, until=store.place(sample, 2))] == [
        "new 1",
        "text 3",
    ]
    assert [document.text for _, document in store.drawn(sample)] == ["new 1", "text 3", "new 2", "text 0"]


def test_costs_are_by_document(store: Store) -> None:
    sample, judge, rubric = filled(store)
    assert store.costs(sample, judge, rubric).shape == (0, 4)
    answer = Answer(1, 0, "ok", "3", tokens_in=100, tokens_out=2, cost=0.5)
    store.save(1, judge, rubric, [answer, dataclasses.replace(answer, repeat=1, status="rejected", cause="no_score")])
    assert store.costs(sample, judge, rubric).tolist() == [[2, 200, 4, 1.0]]


def test_a_killed_writer_leaves_whole_transactions(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with Store(path) as store:
        _, judge, rubric = filled(store, 10)
    code = (
        "import sys, itertools\nfrom filters.annotate.store import Store\nfrom filters.annotate.store import Answer\n"
        "store = Store(sys.argv[1])\n"
        "for n in itertools.count(1):\n"
        f"    store.save(1, {judge}, {rubric}, [Answer(n, r, 'ok', 'x') for r in range(3)])\n"
        "    print(n, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    saved = [process.stdout.readline() for _ in range(20)]
    process.kill()
    process.wait()
    process.stdout.close()
    with Store(path, create=False) as store:
        answered = [answer.document for _, answer in store.answers(rubric)]
    assert saved[-1] == b"20\n"
    assert len(answered) >= 60
    assert len(answered) % 3 == 0


def test_two_runs_do_not_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with Store(path) as one, Store(path) as two, one.writing():
        with pytest.raises(AnnotationsError, match="another run"), two.writing():
            pass
        two.record_keep("ann", "a page", keep=True)
    with Store(path) as one, one.writing():
        pass


@pytest.mark.parametrize("content", [b"not a database, but long enough to look like one" * 30, None])
def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.sqlite"
    if content is None:
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE mine (x)")
        db.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(AnnotationsError, match=r"other\.sqlite"):
        Store(path)
    assert path.read_bytes() == before


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationsError, match="no such store"):
        Store(tmp_path / "none.sqlite", create=False)
    assert os.listdir(tmp_path) == []


def test_a_store_of_the_first_format_is_taken_over_with_its_answers(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with Store(path) as store:
        _, judge, rubric = filled(store)
        store.save(1, judge, rubric, [ok(1), ok(2)])
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE answers DROP COLUMN text_cut")
        db.execute("PRAGMA user_version = 1")
    db.close()
    for _ in range(2):
        with Store(path, create=False) as store:
            assert [answer for _, answer in store.answers(rubric)] == [ok(1), ok(2)]
            store.save(1, judge, rubric, [dataclasses.replace(ok(3), text_cut=9)])
            assert [answer.text_cut for _, answer in store.answers(rubric)][2:] == [9]
            store._db.execute("DELETE FROM answers WHERE document = 3")


@pytest.mark.parametrize("value", [{"tokens_in": 2**64}, {"raw": "\ud800"}, {"model": "\udfff"}])
def test_what_cannot_be_stored_is_an_error_and_loses_nothing(store: Store, value: dict[str, Any]) -> None:
    _, judge, rubric = filled(store)
    store.save(1, judge, rubric, [ok(1)])
    with pytest.raises(AnnotationsError, match="cannot write to the answer store"):
        store.save(1, judge, rubric, [ok(2), dataclasses.replace(ok(3), **value)])
    assert [answer for _, answer in store.answers(rubric)] == [ok(1)]
    store.save(1, judge, rubric, [ok(2)])
