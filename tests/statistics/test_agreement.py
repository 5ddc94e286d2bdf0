"""Coefficients against reference implementations and worked examples; severity and consensus on made-up judges."""

from __future__ import annotations

import warnings
from typing import Any

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, f1_score

from filters.statistics.agreement import Panel, among, between, consensus, severities, unlinked, within
from filters.statistics.resampling import Bootstrap

Array = np.ndarray[Any, Any]


def panel(score: Array, judge: list[int], expected: Array | None = None, cut: float = 1.5) -> Panel:
    score = np.asarray(score, float)
    return Panel(
        judges=tuple(f"judge-{j}" for j in range(max(judge) + 1)),
        judge=np.array(judge),
        score=score,
        expected=score if expected is None else expected,
        low=0,
        high=5,
        cut=cut,
        groups=np.arange(len(score)),
    )


def no_resamples(panel: Panel) -> Bootstrap:
    return Bootstrap.draw(panel.groups, 2, 0)


def ratings(n: int = 300, raters: int = 2, missing: float = 0.0, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    true = rng.normal(2, 1.3, (n, 1))
    score = np.clip(np.rint(true + rng.normal(0, 0.7, (n, raters))), 0, 5)
    score[rng.random(score.shape) < missing] = np.nan
    return score


def test_between_equals_the_reference_implementations() -> None:
    score = ratings()
    expected = np.clip(score + np.random.default_rng(1).normal(0, 0.2, score.shape), 0, 5)
    # the mean of one answer is that answer; its rounded value is the whole-number score
    rounded = np.rint(expected)
    one = panel(rounded, [0, 1], expected)
    count, found = between(one, 0, 1, no_resamples(one))
    assert count == 300
    assert found["qwk"].value == pytest.approx(cohen_kappa_score(*rounded.T, weights="quadratic", labels=range(6)))
    assert found["spearman"].value == pytest.approx(spearmanr(*expected.T).statistic)
    assert found["f1"].value == pytest.approx(f1_score(*(expected >= 1.5).T))
    assert found["alpha"].value == pytest.approx(krippendorff.alpha(expected.T, level_of_measurement="interval"))


@settings(max_examples=150)
@given(
    hnp.arrays(
        float,
        st.tuples(st.integers(3, 12), st.integers(2, 4)),
        elements=st.one_of(st.integers(0, 5).map(float), st.just(float("nan"))),
    )
)
def test_alpha_with_missing_ratings_equals_the_reference(score: Array) -> None:
    whole = panel(score, [0] * score.shape[1])
    _, found = within(whole, 0, no_resamples(whole))
    pairable = score[np.isfinite(score).sum(1) >= 2]
    values = pairable[np.isfinite(pairable)]
    if len(np.unique(values)) < 2:
        assert found["alpha"].value is None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = krippendorff.alpha(pairable.T, level_of_measurement="interval")
    assert found["alpha"].value == pytest.approx(reference, abs=1e-9)


def test_krippendorff_s_own_example() -> None:
    """Four observers, twelve units (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C)."""
    nan = np.nan
    data = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
            [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
        ]
    ).T
    four = panel(data, [0, 1, 2, 3])
    _, found = among(four, no_resamples(four))
    assert found["alpha"].value == pytest.approx(0.849, abs=5e-4)


def test_repeats_count_pairwise_in_both_orders() -> None:
    score = ratings(raters=3, missing=0.3)
    one = panel(score, [0, 0, 0])
    count, found = within(one, 0, no_resamples(one))
    assert count == int((np.isfinite(score).sum(1) >= 2).sum())
    first, second, weight = [], [], []
    for row in score:
        known = row[np.isfinite(row)]
        pairs = [(a, b) for i, a in enumerate(known) for j, b in enumerate(known) if i != j]
        first += [a for a, _ in pairs]
        second += [b for _, b in pairs]
        weight += [1 / max(len(pairs), 1)] * len(pairs)
    reference = cohen_kappa_score(first, second, weights="quadratic", labels=range(6), sample_weight=weight)
    assert found["qwk"].value == pytest.approx(reference)
    reference = f1_score(np.array(first) >= 1.5, np.array(second) >= 1.5, sample_weight=weight)
    assert found["f1"].value == pytest.approx(reference)


def test_no_repeats_are_undefined() -> None:
    one = panel(ratings(raters=1), [0])
    count, found = within(one, 0, no_resamples(one))
    assert count == 0
    assert {estimate.value for estimate in found.values()} == {None}


def test_intervals_cover_the_truth() -> None:
    """95 % intervals of repeated samples hold the coefficient of the population about as often as they say."""
    whole = panel(ratings(20_000, seed=5), [0, 1])
    _, truth = between(whole, 0, 1, no_resamples(whole))
    held = dict.fromkeys(truth, 0)
    rng = np.random.default_rng(0)
    for run in range(60):
        part = whole.select(np.isin(np.arange(20_000), rng.choice(20_000, 150, replace=False)))
        _, found = between(part, 0, 1, Bootstrap.draw(part.groups, 200, run))
        for name, estimate in found.items():
            assert estimate.low is not None
            assert estimate.high is not None
            held[name] += estimate.low <= (truth[name].value or 0) <= estimate.high
    assert all(count >= 49 for count in held.values()), held


def test_groups_widen_the_interval() -> None:
    score = np.repeat(ratings(60), 5, axis=0)
    alone = panel(score, [0, 1])
    _, narrow = between(alone, 0, 1, Bootstrap.draw(np.arange(300), 400, 0))
    _, wide = between(alone, 0, 1, Bootstrap.draw(np.repeat(np.arange(60), 5), 400, 0))
    for name in narrow:
        width = [(e.high or 0) - (e.low or 0) for e in (narrow[name], wide[name])]
        assert width[1] > 1.5 * width[0]


def test_severity_and_consensus_are_recovered_from_an_incomplete_design() -> None:
    rng = np.random.default_rng(3)
    page = rng.uniform(1, 4, 800)
    severity = np.array([-0.5, 0.1, 0.4])
    noise = rng.normal(0, 0.3, (800, 3))
    values = page[:, None] + severity + noise
    # the strict judge got the better half more often: plain means of the judges would call it mild
    seen = rng.random((800, 3)) < np.array([0.2, 0.6, 0.6])
    seen[:, 0] |= page > 2.8
    values[~seen] = np.nan
    values = values[seen.any(1)]
    page = page[seen.any(1)]
    three = panel(np.rint(np.clip(values, 0, 5)), [0, 1, 2], values)
    found = consensus(three)
    assert found.severity == pytest.approx(severity, abs=0.06)
    assert found.severity.sum() == pytest.approx(0)
    assert found.noise == pytest.approx(0.3, abs=0.02)
    assert found.source == "differences between judges"
    assert np.mean((found.score - page) ** 2) < np.mean((np.nanmean(values, axis=1) - page) ** 2)
    inside = np.abs(found.score - page) < 1.96 * found.error
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)
    for truth, estimate in zip(severity, severities(three, Bootstrap.draw(three.groups, 200, 0)), strict=True):
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low - 0.03 < truth < estimate.high + 0.03


def test_the_uncertainty_of_one_judge_comes_from_its_repeats_or_is_unknown() -> None:
    score = np.clip(np.random.default_rng(0).normal(2.5, 0.4, (500, 3)), 0, 5)
    one = consensus(panel(np.rint(score), [0, 0, 0], score))
    assert one.severity.tolist() == [0.0]
    assert one.noise == pytest.approx(0.4, abs=0.03)
    assert one.error[0] == pytest.approx(one.noise / np.sqrt(3))
    single = consensus(panel(np.rint(score[:, :1]), [0], score[:, :1]))
    assert np.isnan(single.error).all()
    assert single.source.startswith("nothing")


def test_judges_that_share_no_pages_get_no_severity() -> None:
    rng = np.random.default_rng(1)
    values = rng.uniform(1, 4, (400, 1)) + np.array([0.3, -0.3, 0.0]) + rng.normal(0, 0.1, (400, 3))
    values[200:, :2] = np.nan  # two judges rated the first half, one the second
    values[:200, 2] = np.nan
    three = panel(np.rint(values), [0, 1, 2], values)
    found = consensus(three)
    assert found.severity[:2] == pytest.approx([0.3, -0.3], abs=0.03)
    assert np.isnan(found.severity[2])
    assert found.score[200:] == pytest.approx(values[200:, 2])
    assert found.noise == pytest.approx(0.1, abs=0.01)  # with the right degrees of freedom: one severity was fitted
    estimates = severities(three, Bootstrap.draw(three.groups, 50, 0))
    assert [estimate.value is None for estimate in estimates] == [False, False, True]
    (note,) = unlinked(three)
    assert note.startswith("judge-2 rated no page that another judge rated")


def test_groups_of_judges_that_share_no_pages_are_not_compared() -> None:
    rng = np.random.default_rng(2)
    values = rng.uniform(1, 4, (400, 1)) + np.array([0.5, 0.1, -0.2, -0.4]) + rng.normal(0, 0.1, (400, 4))
    values[200:, :2] = np.nan
    values[:200, 2:] = np.nan
    four = panel(np.rint(values), [0, 1, 2, 3], values)
    assert consensus(four).severity == pytest.approx([0.2, -0.2, 0.1, -0.1], abs=0.03)
    assert consensus(four).noise == pytest.approx(0.1, abs=0.01)
    assert unlinked(four) == [
        "severities compare judges of one group only, for they share no page: judge-0 and judge-1; judge-2 and judge-3"
    ]
    chained = values.copy()
    chained[0] = [2.0, np.nan, 2.0, np.nan]
    assert unlinked(panel(np.rint(chained), [0, 1, 2, 3], chained)) == []
