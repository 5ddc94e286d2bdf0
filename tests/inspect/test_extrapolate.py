"""What-if tables and intervals: against plain counting, and against many draws of a known population."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from filters.errors import ModelError
from filters.inspect.extrapolate import Seen, sample_interval, seen_in
from filters.inspect.thresholds import what_if
from filters.model import QualityModel
from filters.model.reliability import Reliability
from filters.scores.finished_run import Run
from filters.scores.histogram import BINS, Histogram, bins_of
from filters.scores.threshold import Scored, Target, solve
from tests.inspect.synthetic import write_run


def histogram(scores: np.ndarray, tokens: np.ndarray | None = None) -> Histogram:  # type: ignore[type-arg]
    found = Histogram()
    tokens = np.full(len(scores), 10) if tokens is None else tokens
    found.add(scores.astype(np.float32), tokens=tokens, text_bytes=tokens * 4)
    return found


def test_rows_equal_counting() -> None:
    scores = np.random.default_rng(2).gamma(2, 0.5, 8000).astype(np.float32)
    rows = what_if(histogram(scores), [1.5, 0.5, 4.99])
    assert [row.min_score for row in rows] == pytest.approx([0.5, 1.5, 4.99])
    for row in rows:
        kept = scores[scores >= np.float32(row.min_score)]
        assert row.documents == len(kept)
        assert row.tokens == 10 * len(kept)
        assert row.document_share == len(kept) / 8000
        assert row.mean_score == (pytest.approx(kept.mean(), abs=1e-5) if len(kept) else None)
        assert row.precision is None


def test_expected_precision_and_recall_are_what_happens() -> None:
    generator = np.random.default_rng(3)
    scores = generator.gamma(2, 0.5, 40_000).clip(0, 5)
    judge = scores + generator.normal(0, 0.6, len(scores))
    reliability = Reliability.fit([scores[:4000]], judge[:4000], 1.5)
    rows = what_if(histogram(scores[4000:]), [1.0, 1.5, 2.0], reliability)
    wanted = judge[4000:] >= 1.5
    inside = 0
    for row in rows:
        kept = scores[4000:] >= row.min_score
        assert row.precision is not None
        assert row.recall is not None
        for interval, truth in ((row.precision, wanted[kept].mean()), (row.recall, kept[wanted].mean())):
            assert interval.value == pytest.approx(truth, abs=0.04)
            inside += interval.low <= truth <= interval.high
    assert inside >= 4


def test_the_embedded_model_says_what_its_scores_are_worth() -> None:
    reliability = Reliability.from_json(QualityModel.load("edu-en").metadata.metrics["reliability"])
    shares = reliability.share(np.array([0.0, 1.0, 1.5, 2.5]))
    assert np.all(np.diff(shares) > 0)
    assert shares[0] < 0.05
    assert shares[-1] > 0.5


@pytest.mark.parametrize(
    "change", [{"kept": [0.5, 0.2]}, {"scores": [1.0]}, {"rows": [0, 1]}, {"kept": [0.1, 1.2]}, {"more": 1}]
)
def test_a_reliability_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    sound = {"min_score": 1.5, "scores": [0.5, 2.0], "rows": [10, 10], "kept": [0.1, 0.9]}
    assert Reliability.from_json(sound).share(np.array([1.25])) == pytest.approx(0.5)
    with pytest.raises(ModelError, match="reliability"):
        Reliability.from_json(sound | change)


def test_intervals_of_a_sample_of_files_cover_the_whole() -> None:
    generator = np.random.default_rng(5)
    levels = generator.normal(0, 0.25, 1000)
    files = [(generator.gamma(2, 0.5, 60) + level).clip(0, 5) for level in levels]
    whole = np.sort(np.concatenate(files))[::-1]
    truth = whole[len(whole) // 10]
    covered = 0
    for draw in range(60):
        chosen = np.random.default_rng(draw).choice(1000, 50, replace=False)
        found = sample_interval(Target("fraction", 0.1), [histogram(files[k]) for k in chosen], 0.05)
        assert found.resampled == "input files"
        covered += found.threshold.low - 0.005 <= truth <= found.threshold.high + 0.005
    assert covered >= 52  # 95 % of 60 is 57; the bootstrap of a quantile from 50 files is a little too narrow


def test_a_token_budget_is_meant_of_the_whole() -> None:
    scores = np.linspace(0, 4.99, 10_000)
    found = sample_interval(Target("tokens", 1e6), [histogram(scores)], 0.01)
    assert found.resampled == "documents"
    assert found.tokens.value == pytest.approx(1e6)
    assert found.documents.value == pytest.approx(1e5)
    assert found.threshold.low < found.threshold.value < found.threshold.high


def sampled(sizes: np.ndarray, share: float, target: Target, seed: int) -> tuple[bool, bool, bool]:
    """Whether the intervals of a sample hold what is true of a whole of clusters of these sizes."""
    generator = np.random.default_rng(seed)
    scores = generator.gamma(2, 0.5, len(sizes)).clip(0, 4.99).astype(np.float32)
    tokens = generator.lognormal(6, 0.8, len(sizes)).astype(np.int64) + 1

    def histogram_of(rows: np.ndarray) -> Histogram:
        counted = Histogram()
        counted.add(scores[rows], tokens=tokens[rows], text_bytes=tokens[rows])
        return counted

    times = generator.binomial(sizes, share)
    met, again = np.flatnonzero(times), np.flatnonzero(times > 1)
    squares = np.bincount(bins_of(scores[met]), tokens[met].astype(float) ** 2, BINS)
    part = histogram_of(met)
    found = sample_interval(target, [part], share, Seen(squares, scores[again], times[again]))
    threshold = found.threshold.value
    kept = scores >= threshold
    budget = Target("tokens", target.value) if target.rule == "tokens" else target
    there = solve(budget, lambda: [Scored(scores, tokens, tokens)]).threshold
    return (
        found.documents.low * 0.99 <= kept.sum() <= found.documents.high * 1.01,
        found.tokens.low * 0.99 <= tokens[kept].sum() <= found.tokens.high * 1.01,
        found.threshold.low - 0.02 <= there <= found.threshold.high + 0.02,
    )


@pytest.mark.parametrize("copies", ["none", "pairs", "many"])
@pytest.mark.parametrize("target", ["fraction=0.1", "tokens=3e6", "min_score=1.5"])
def test_intervals_of_a_sample_of_documents_cover_the_whole(copies: str, target: str) -> None:
    """Copies that the sample cannot see, lengths that differ twenty-fold, a threshold that is solved."""
    covered = np.zeros(3)
    for seed in range(20):
        generator = np.random.default_rng(100 + seed)
        sizes = np.ones(20_000, np.int64)
        if copies == "pairs":
            sizes += generator.random(20_000) < 0.3
        elif copies == "many":
            sizes = np.minimum(generator.zipf(1.8, 20_000), 500)
        covered += sampled(sizes, 0.05, Target.parse(target), seed)
    assert covered.min() >= 17  # of 20; 19 are 95 %


@pytest.mark.parametrize("target", ["fraction=0.1", "tokens=1e6"])
def test_a_threshold_that_a_tie_stops_keeps_what_is_said(target: str) -> None:
    """Ten scores in all: the budget ends within a group of equal scores, which is dropped whole."""
    asked, covered = Target.parse(target), np.zeros(2)
    for seed in range(30):
        generator = np.random.default_rng(seed)
        scores = (np.round(generator.gamma(2, 0.5, 20_000) * 2) / 2).clip(0, 4.5).astype(np.float32)
        tokens = generator.lognormal(6, 0.5, 20_000).astype(np.int64) + 1
        drawn = np.flatnonzero(generator.random(20_000) < 0.05)
        batch = Scored(scores[drawn], tokens[drawn], tokens[drawn])
        here = Target("tokens", asked.value * 0.05) if asked.rule == "tokens" else asked
        solution = solve(here, lambda batch=batch: [batch])
        found = sample_interval(asked, [histogram(scores[drawn], tokens[drawn])], 0.05, solution=solution)
        kept = scores >= solution.threshold
        assert found.documents.value == pytest.approx(solution.kept.documents / 0.05)
        covered += (
            found.documents.low <= kept.sum() <= found.documents.high,
            found.tokens.low <= tokens[kept].sum() <= found.tokens.high,
        )
    assert covered.min() >= 26  # of 30


@pytest.mark.parametrize("documents", [0, 1, 4])
def test_of_few_documents_the_whole_may_have_many_more(documents: int) -> None:
    scores = np.r_[np.full(40, 0.7), np.full(documents, 2.1)].astype(np.float32)
    batch = Scored(scores, np.full(len(scores), 10), np.full(len(scores), 10))
    target = Target("min_score", 1.5)
    found = sample_interval(target, [histogram(scores)], 0.001, solution=solve(target, lambda: [batch]))
    low, high = {0: (0, 3.689), 1: (0.025, 5.572), 4: (1.09, 10.24)}[documents]  # Garwood 1936
    assert found.documents.low <= low * 1000 + 5
    assert found.documents.high >= high * 1000 * 0.99
    assert found.tokens.high >= high * 10_000 * 0.99


def test_a_sample_that_is_the_whole_is_sure() -> None:
    scores = np.linspace(0, 4.99, 10_000)
    found = sample_interval(Target("fraction", 0.1), [histogram(scores)], 1.0)
    assert found.documents.low == pytest.approx(found.documents.high)
    assert found.threshold.low == pytest.approx(found.threshold.high)


def test_copies_within_files_and_between_them_are_counted_apart(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path / "run", 4000, seed=3))
    documents, files = seen_in(run, by_file=False), seen_in(run, by_file=True)
    assert set(documents.times.tolist()) == {2}
    assert len(documents.times) == run.ledger["total"]["removed"]["near_duplicate"]
    assert files.times.min() == 1
    rows = run.attributes().to_pylist()
    survivors_tokens = [row["tokens"] for row in rows if row["reason"] != "near_duplicate"]
    assert documents.squares.sum() == sum(value**2 for value in survivors_tokens)


def test_a_reliability_of_the_natural_mix_counts_pages_by_their_weight() -> None:
    generator = np.random.default_rng(0)
    kind = generator.random(20_000) < 0.5  # half of the labels; a tenth of the crawl
    scores = generator.random(20_000)
    expected = np.where(generator.random(20_000) < np.where(kind, 0.9, 0.1), 3.0, 0.0)
    weights = np.where(kind, 0.2, 1.8)
    natural = Reliability.fit([scores, scores], expected, 1.5, weights)
    assert natural.share(np.array([0.5]))[0] == pytest.approx(0.18, abs=0.03)
    assert Reliability.fit([scores], expected, 1.5).share(np.array([0.5]))[0] == pytest.approx(0.5, abs=0.03)
    assert sum(natural.rows) < 20_000
