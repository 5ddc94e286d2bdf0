"""Upsampling: by cluster size or score, capped, and the same for the same id."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from filters.config.filter import RepeatConfig
from filters.dedup.repeat import copies

IDS = pa.array([f"id {n}" for n in range(4000)])


def repeat(config: dict[str, object], sizes: list[int], scores: list[float]) -> list[int]:
    size, score = np.array(sizes), np.array(scores, np.float32)
    return copies(RepeatConfig.model_validate(config), size, score, IDS[: len(size)]).tolist()


def test_by_cluster_size() -> None:
    assert repeat({"by": "cluster_size", "max": 4}, [1, 2, 4, 9], [0.0] * 4) == [1, 2, 4, 4]


def test_a_curve_is_level_beyond_its_ends() -> None:
    curve = {"by": "score", "curve": [[1, 1], [2, 3], [3, 5]], "max": 4}
    assert repeat(curve, [1] * 6, [0.0, 1.0, 1.5, 2.0, 2.5, 9.0]) == [1, 1, 2, 3, 4, 4]


def test_a_fraction_is_a_probability_of_the_id() -> None:
    curve = {"by": "score", "curve": [[0, 1.3], [1, 1.3]]}
    found = repeat(curve, [1] * 4000, [0.5] * 4000)
    assert set(found) == {1, 2}
    assert abs(np.mean(found) - 1.3) < 0.03
    reversed_ids = copies(RepeatConfig.model_validate(curve), np.ones(4000, np.int64), np.full(4000, 0.5, np.float32),
                          IDS.take(pa.array(np.arange(3999, -1, -1))))  # fmt: skip
    assert reversed_ids.tolist()[::-1] == found
