"""The reading test: stratified, seeded, blind, resumable; and what a reader's keys come to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from filters.annotate.store import KEEP_RUBRIC, Store
from filters.errors import RunError
from filters.inspect.reading import STRATA, ReadingTest, Share, _pooled, read
from filters.scores.finished_run import Run
from tests.inspect.runs import make_run, pages

COUNT = 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    found = make_run(tmp_path_factory.mktemp("reading"), pages(300))
    scores = found.attributes(["score"])["score"].to_numpy()
    return make_run(tmp_path_factory.mktemp("reading"), pages(300), float(sorted(scores[scores == scores])[150]))


def answers(test: ReadingTest, keys: str) -> list[str]:
    shown: list[str] = []
    rest = iter(keys)
    read(test, lambda: next(rest, ""), lambda text, number, total: shown.append(text))
    return shown


def test_it_goes_on_where_it_stopped_and_nothing_is_shown_twice(run: Run, tmp_path: Path) -> None:
    store = tmp_path / "answers.sqlite"
    with ReadingTest(run, COUNT, store, "ada") as test:
        first = answers(test, "kxdKq")
        assert test.result().total.total == 3
    with ReadingTest(run, COUNT, store, "ada") as test:
        rest = answers(test, "d" * 50)
        found = test.result()
    assert len(first) == 4
    assert rest[0] == first[3]
    assert len({*first, *rest}) == COUNT == found.drawn == found.total.total
    assert found.kept_rightly.total + found.dropped_rightly.total == COUNT
    assert found.dropped_rightly.hits >= found.dropped_rightly.total - 2
    with Store(store, create=False) as opened:
        judge = opened.judge("ada", "human", "", {}).number
        assert len(opened.scores(judge, opened.rubric(KEEP_RUBRIC))) == COUNT


def test_both_sides_in_equal_numbers_the_same_for_the_same_seed(run: Run, tmp_path: Path) -> None:
    drawn = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        with ReadingTest(run, COUNT, tmp_path / name, "x", seed=seed) as test:
            texts = answers(test, "k" * COUNT)
            found = test.result()
            drawn.append(texts)
            sizes = [found.strata[stratum].total for stratum in STRATA]
            assert sum(sizes) == COUNT
            assert found.kept_rightly.hits == found.kept_rightly.total == sizes[2] + sizes[3]
            assert min(found.kept_rightly.total, found.dropped_rightly.total) >= COUNT // 4
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_cannot_be_read_is_said(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no document has a score within 0.4 of 4.9"):
        ReadingTest(run, COUNT, tmp_path / "s", "x", min_score=4.9)


def test_wilson_intervals() -> None:
    assert Share(8, 10).interval == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert Share(0, 10).interval == pytest.approx((0, 0.2775), abs=1e-4)
    assert Share(0, 0).interval == (0, 1)
    assert str(Share(5, 10)) == "5 of 10: 50% [24%, 76%]"


def test_strata_count_as_much_as_they_have_documents() -> None:
    generator = np.random.default_rng(3)
    sizes = {"just below": 9000.0, "far below": 1000.0}
    truth = (9000 * 0.95 + 1000 * 0.35) / 10_000
    covered, values = 0, []
    for _ in range(200):
        hits = {"just below": list(generator.random(30) < 0.95), "far below": list(generator.random(30) < 0.35)}
        found = _pooled(hits, sizes)
        low, high = found.interval
        covered += low <= truth <= high
        values.append(found.value)
    assert np.mean(values) == pytest.approx(truth, abs=0.01)
    assert covered >= 184
    alone = _pooled({"just below": [True, False], "far below": []}, sizes)
    assert (alone.value, alone.effective) == (0.5, 2)
    assert _pooled({}, sizes).to_json()["share"] is None
