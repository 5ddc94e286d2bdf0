from __future__ import annotations

import numpy as np
import pytest

from filters.statistics.resampling import connected, group_folds, near_pairs


def test_components_are_transitive_and_numbered_by_first_member() -> None:
    assert connected(6, [(4, 1), (1, 3), (5, 0)]).tolist() == [0, 1, 2, 1, 1, 0]
    assert connected(3, []).tolist() == [0, 1, 2]


def test_near_pairs_find_copies_and_not_others() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{k}" for k in range(5000)]
    texts = [" ".join(rng.choice(words, size=150)) for _ in range(40)]
    texts += [texts[3], texts[7].replace(texts[7].split()[75], "changed"), "", ""]
    assert near_pairs(texts) == [(3, 40), (7, 41)]


def test_folds_cover_every_row_once_and_keep_groups_whole() -> None:
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 120, size=600)
    positive = rng.random(600) < 0.15
    folds = group_folds(groups, positive, 5, random_state=3)
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(600))
    for training, test in folds:
        assert not set(groups[training]) & set(groups[test])
        assert len(training) + len(test) == 600
        assert abs(len(test) - 120) <= 12
        assert abs(positive[test].sum() - positive.sum() / 5) <= 3


def test_folds_follow_random_state() -> None:
    groups, positive = np.arange(100), np.arange(100) % 7 == 0
    first = [test.tolist() for _, test in group_folds(groups, positive, 4, random_state=0)]
    assert first == [test.tolist() for _, test in group_folds(groups, positive, 4, random_state=0)]
    assert first != [test.tolist() for _, test in group_folds(groups, positive, 4, random_state=1)]


def test_fewer_groups_than_folds() -> None:
    with pytest.raises(ValueError, match="3 groups cannot fill 5 folds"):
        group_folds(np.array([0, 0, 1, 2]), np.ones(4, bool), 5, 0)
