from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled_pages import columns, write

from filters.statistics.resampling import Measure
from filters.train.annotations import read_annotations
from filters.train.evaluation import measure_coverage


def test_coverage_is_measured_on_hosts_the_quantiles_have_not_seen(tmp_path: Path) -> None:
    labels = read_annotations(write(tmp_path / "labels.parquet", columns(900)))
    scores = labels.expected + np.random.default_rng(0).normal(0, 0.4, 900)
    narrow, wide = measure_coverage(scores, labels, Measure(1.5, 200, 0), (0.1, 0.3))[::-1]
    for row in (narrow, wide):
        assert row.coverage.low < 1 - row.alpha < row.coverage.high
        assert row.keep + row.drop + row.undecided == pytest.approx(1)
        assert sum(part.rows for part in row.bins) == 900
    assert narrow.alpha == 0.3
    assert narrow.width < wide.width
    assert narrow.undecided < wide.undecided
    assert wide.wrong_keep.value is not None
    assert wide.wrong_keep.value <= 0.1
    # Hosts whose labels are all off by their own amount: rows of a host on both sides would hide that.
    spread = np.random.default_rng(1).normal(0, 1.5, labels.groups.max() + 1)[labels.groups]
    again = measure_coverage(labels.expected + spread, labels, Measure(1.5, 200, 0), (0.1,))[0]
    assert again.width > wide.width


def test_too_few_hosts_give_no_coverage(tmp_path: Path) -> None:
    data = columns(120)
    data["url"] = [f"https://host{row % 4}.example/{row}" for row in range(120)]
    labels = read_annotations(write(tmp_path / "labels.parquet", data))
    assert measure_coverage(labels.expected, labels, Measure(1.5, 100, 0), (0.1,)) == ()
