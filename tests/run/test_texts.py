"""Texts that are read a second time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters import FilterConfig
from filters.errors import InputError
from filters.phases.phase import Job, run_unit
from filters.phases.texts import read_texts
from filters.run.attributes import Attributes
from filters.run.plan import make_plan
from tests.run.conftest import page

TEXTS = [page(n) for n in range(40)]


@pytest.fixture(params=["parquet", "jsonl.gz"])
def job(request: pytest.FixtureRequest, tmp_path: Path, make_config: Callable[..., FilterConfig]) -> Job:
    """One unit, all of whose attributes are there: read again where it lies, or kept in the work folder."""
    table = pa.table({"text": TEXTS, "id": [str(n) for n in range(40)]})
    path = tmp_path / f"a.{request.param}"
    if request.param == "parquet":
        pq.write_table(table, path, row_group_size=10)
    else:
        import gzip
        import json

        path.write_bytes(gzip.compress("\n".join(map(json.dumps, table.to_pylist())).encode()))
    given = {"kind": request.param.partition(".")[0], "paths": [str(path)], "id_key": "id"}
    config = make_config(input=given)
    plan = make_plan(config)
    job = Job(tmp_path / "work", plan.config, tuple(plan.units), plan.min_score)
    run_unit(job, Attributes(), 0)
    return job


@pytest.mark.parametrize("wanted", [[], [0], [9, 10], [25], [12, 38], [39]])
def test_batches_of_the_wanted_rows_are_read(job: Job, wanted: list[int]) -> None:
    found = {}
    for row, batch in read_texts(job, 0, np.array(wanted, np.int64)):
        assert {*range(row, row + len(batch))} & {*wanted}
        found.update(enumerate(batch.text.to_pylist(), row))
    assert {*wanted} <= {*found}
    assert all(TEXTS[row] == text for row, text in found.items())
    assert job.units[0].start is None or len(found) == 10 * len({row // 10 for row in wanted})


def test_all_rows_are_read_where_none_are_named(job: Job) -> None:
    assert [text for _, batch in read_texts(job, 0) for text in batch.text.to_pylist()] == TEXTS


def test_rows_that_are_gone_are_noticed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from filters.phases import texts

    for name in ("_texts_again", "_kept_texts"):
        every = getattr(texts, name)
        monkeypatch.setattr(texts, name, lambda *given, every=every: list(every(*given))[:-1])
    with pytest.raises(InputError, match="not what it was"):
        list(read_texts(job, 0, np.array([3, 39])))
