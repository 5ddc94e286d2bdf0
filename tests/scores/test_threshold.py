"""The threshold of a budget: exact against sorting, whatever the ties, however the documents are cut up."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import ConfigError
from filters.scores.histogram import Histogram
from filters.scores.threshold import Scored, Solution, Target, order_keys, score_of_key, solve


def documents(scores: list[float], tokens: list[int] | None = None, values: list[str] | None = None) -> Scored:
    n = len(scores)
    return Scored(
        np.array(scores, dtype=np.float32),
        np.array(tokens if tokens is not None else [1] * n, dtype=np.int32),
        np.arange(n, dtype=np.int64),
        None if values is None else np.array(values, dtype=object),
    )


def cut(batch: Scored, parts: int) -> Callable[[], Iterable[Scored]]:
    def batches() -> Iterable[Scored]:
        for number in range(parts):
            yield Scored(*(None if column is None else column[number::parts] for column in batch))

    return batches


def by_sorting(batch: Scored, weight: str, budget: int) -> tuple[float, int] | None:
    """(lowest kept score, documents kept), by trying every score from the highest down; None if nothing is kept."""
    best = None
    weights = batch.tokens if weight == "tokens" else np.ones(len(batch.scores), dtype=np.int64)
    for score in np.unique(batch.scores)[::-1]:
        above = batch.scores >= score
        if weights[above].sum() > budget:
            break
        best = float(score), int(above.sum())
    return best


scores_with_ties = st.lists(
    st.one_of(
        st.floats(-2, 7, width=32),
        st.sampled_from([0.0, -0.0, 1e-30, -1e-40, 0.35, 1.5, 1.4999999, 1.5000001, 4.99, 5.0, 5.25]),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(scores_with_ties, st.data(), st.integers(1, 4))
def test_budgets_equal_sorting(scores: list[float], data: st.DataObject, parts: int) -> None:
    tokens = data.draw(st.lists(st.integers(0, 50), min_size=len(scores), max_size=len(scores)))
    batch = documents(scores, tokens)
    fraction = data.draw(st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.9, 1.0]))
    for target, budget in (
        (Target("fraction", fraction), round(fraction * 100) * len(scores) // 100),
        (Target("tokens", fraction * 1000), int(fraction * 1000)),
    ):
        solution = solve(target, cut(batch, parts))
        expected = by_sorting(batch, target.weight, budget)
        kept = batch.scores >= np.float32(solution.threshold)
        assert kept.sum() == (expected[1] if expected else 0) == solution.kept.documents
        assert solution.kept.tokens == batch.tokens[kept].sum()
        assert solution.kept.bytes == batch.text_bytes[kept].sum()
        assert solution.total.documents == len(scores)
        assert solution.at_threshold.documents == (batch.scores == np.float32(solution.threshold)).sum()
        if expected and kept.any():
            assert solution.threshold == pytest.approx(expected[0], abs=0)
        if solution.tie is None:
            assert kept.all()
        else:
            dropped = batch.scores[~kept]
            assert solution.tie.score == dropped.max()
            assert solution.tie.weights.documents == (dropped == dropped.max()).sum()


@settings(max_examples=100)
@given(scores_with_ties, st.sampled_from([-3.0, 0.0, 0.35, 0.351, 1.5, 1.49999995, 4.99, 5.0, 5.25, 9.0]))
def test_a_given_threshold_equals_counting(scores: list[float], threshold: float) -> None:
    batch = documents(scores)
    solution = solve(Target("min_score", threshold), cut(batch, 2))
    assert solution.kept.documents == (batch.scores >= np.float32(threshold)).sum()
    assert solution.at_threshold.documents == (batch.scores == np.float32(threshold)).sum()
    assert solution.threshold == float(np.float32(threshold))


def test_the_tie_that_is_cut_is_named_and_the_budget_is_not_exceeded() -> None:
    solution = solve(Target("fraction", 0.4), cut(documents([3.0, 2.0, 2.0, 2.0, 1.0]), 1))
    assert (solution.threshold, solution.kept.documents) == (3.0, 1)
    assert solution.tie is not None
    assert (solution.tie.score, solution.tie.weights.documents) == (2.0, 3)


def test_equal_scores_fit_whole_or_not_at_all() -> None:
    solution = solve(Target("fraction", 0.5), cut(documents([1.25] * 10), 3))
    assert solution.kept.documents == 0
    assert solution.threshold == np.nextafter(np.float32(1.25), np.float32(2))
    assert solve(Target("fraction", 1), cut(documents([1.25] * 10), 3)).threshold == 1.25


def test_a_budget_is_found_in_at_most_two_passes_with_a_histogram() -> None:
    generator = np.random.default_rng(7)
    batch = documents(np.round(generator.gamma(2, 0.4, 9000), 5).tolist(), generator.integers(1, 900, 9000).tolist())
    histogram = Histogram()
    batch.add_to(histogram)
    for tokens in (400_000, 4_000_000):
        passes = 0

        def counted() -> Iterable[Scored]:
            nonlocal passes
            passes += 1
            return cut(batch, 5)()

        target = Target("tokens", tokens)
        assert solve(target, counted, histogram=histogram) == solve(target, cut(batch, 1))
        assert passes <= 2


def quota_by_sorting(batch: Scored, budget: int, quotas: dict[str, int]) -> set[int]:
    """Documents from the best down; one whose value is at its quota is passed over (all scores differ)."""
    kept: set[int] = set()
    full = dict.fromkeys(quotas, 0)
    assert batch.values is not None
    for row in np.argsort(-batch.scores, kind="stable").tolist():
        value = batch.values[row]
        if value in full and full[value] >= quotas[value]:
            continue
        if len(kept) == budget:
            break
        kept.add(row)
        if value in full:
            full[value] += 1
    return kept


@pytest.mark.parametrize("quotas", [{"en": 0.5}, {"en": 0.2, "da": 0.1}, {"en": 1.0}, {"en": 0.0}, {"xx": 0.3}])
def test_quotas_equal_filling_from_the_best_down(quotas: dict[str, float]) -> None:
    generator = np.random.default_rng(11)
    values = generator.choice(["en", "da", "de"], 800, p=[0.8, 0.15, 0.05]).tolist()
    batch = documents(generator.permutation(np.linspace(0.3, 3, 800)).tolist(), values=values)
    solution = solve(Target("fraction", 0.25), cut(batch, 3), by="language", quotas=quotas)
    limits = {value: int(share * 200) for value, share in quotas.items()}
    kept = quota_by_sorting(batch, 200, limits)
    assert set(np.flatnonzero(solution.keeps(batch.scores, batch.values)).tolist()) == kept
    assert solution.kept.documents == len(kept)
    for value, weights in solution.quotas.items():
        assert weights.documents == sum(values[row] == value for row in kept) <= limits[value]


def test_quotas_need_a_budget_and_shares() -> None:
    batches = cut(documents([1.0], values=["en"]), 1)
    with pytest.raises(ConfigError, match="share of a budget"):
        solve(Target("min_score", 1), batches, by="language", quotas={"en": 0.5})
    with pytest.raises(ConfigError, match="from 0 to 1"):
        solve(Target("fraction", 0.5), batches, by="language", quotas={"en": 1.5})


@pytest.mark.parametrize(
    "text", ["fraction=1.5", "fraction=nan", "tokens=-1", "tokens=inf", "share=0.1", "0.5", "fraction="]
)
def test_targets_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Target.parse(text)


def test_targets_are_read() -> None:
    assert Target.parse("tokens=1.3e12") == Target("tokens", 1.3e12)
    assert Target.parse("min_score=1.5").weight == "documents"


def test_keys_keep_the_order_of_scores() -> None:
    scores = np.array(
        [-np.inf, -1.5, -1e-45, 0.0, 1e-45, 0.1, 1.5, np.nextafter(np.float32(1.5), np.float32(2)), np.inf]
    )
    keys = order_keys(scores.astype(np.float32))
    assert np.all(np.diff(keys) > 0)
    assert keys[-2] - keys[-3] == 1
    assert [float(score_of_key(int(key))) for key in keys] == scores.astype(np.float32).tolist()
    assert order_keys(np.array([-0.0], np.float32)) == order_keys(np.array([0.0], np.float32))


def test_a_solution_is_plain_json() -> None:
    import json

    solution: Solution = solve(Target("fraction", 0.5), cut(documents([1.0, 2.0]), 1))
    assert json.loads(json.dumps(solution.to_json()))["kept"]["documents"] == 1
