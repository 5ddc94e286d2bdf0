"""The ledger: sums that add up, and a run that fails when they do not."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from filters.config.filter import QuarantineConfig
from filters.errors import RunError
from filters.read.batch import Batch, Quarantined
from filters.run.ledger import Account, Ledger


def batch(reasons: list[str | None]) -> Batch:
    n = len(reasons)
    return Batch(
        source="a",
        position=np.arange(n, dtype=np.int64),
        id=pa.array([str(row) for row in range(n)], pa.string()),
        text=pa.array(["text"] * n, pa.large_string()),
        reason=np.array([*reasons, "pad"], dtype=object)[:-1],
        records=n,
    )


def book(ledger: Ledger, reasons: list[str | None], quarantined: int = 0, records: int | None = None,
         source: str = "a", renamed: int = 0) -> None:  # fmt: skip
    """Book what was read of a file, then what became of it, as a run does."""
    causes = Counter({"bad_json": quarantined})
    ledger.book(source, Account(len(reasons) + quarantined if records is None else records, quarantined=causes))
    removed = Counter(reason for reason in reasons if reason)
    ledger.book(source, Account(kept=reasons.count(None), removed=removed, renamed=renamed))


def test_accounts_add_up_by_file_reason_and_cause() -> None:
    ledger = Ledger(["a", "b", "empty"])
    book(ledger, [None, "low_score", None, "language"], quarantined=2)
    book(ledger, [None], source="b", renamed=1)
    ledger.check(shard_rows=3, attribute_rows=5, quarantine_rows=2)
    assert ledger.to_json()["sources"]["a"] == {
        "records": 6,
        "kept": 2,
        "removed": {"language": 1, "low_score": 1},
        "quarantined": {"bad_json": 2},
        "skipped": 0,
        "renamed": 0,
    }
    assert ledger.accounts["empty"].records == 0
    assert ledger.total.records == 7
    assert ledger.total.renamed == 1


def test_a_record_that_vanished_fails_the_run() -> None:
    ledger = Ledger(["a"])
    book(ledger, [None, None], records=3)
    with pytest.raises(RunError, match="a: the ledger does not add up: 3 records read, but 2 kept"):
        ledger.check(shard_rows=2, attribute_rows=2, quarantine_rows=0)


@pytest.mark.parametrize(
    ("rows", "what"), [((1, 3, 1), "shards"), ((2, 4, 1), "attributes"), ((2, 3, 0), "quarantine")]
)
def test_rows_missing_from_the_files_fail_the_run(rows: tuple[int, int, int], what: str) -> None:
    ledger = Ledger(["a"])
    book(ledger, [None, None, "low_score"], quarantined=1)
    with pytest.raises(RunError, match=what):
        ledger.check(shard_rows=rows[0], attribute_rows=rows[1], quarantine_rows=rows[2])


def test_too_many_quarantined_records_stop_a_run_once_enough_were_read() -> None:
    ledger, limit = Ledger(["a", "b"]), QuarantineConfig(max_share=0.1, grace=50)
    book(ledger, [None] * 10, quarantined=6)
    ledger.check_quarantine(limit, at_end=False)
    with pytest.raises(RunError, match=r"6 of 16 records are quarantined \(bad_json 6; most in a\)"):
        ledger.check_quarantine(limit, at_end=True)
    book(ledger, [None] * 34, source="b")
    with pytest.raises(RunError, match=r"6 of 50 records .*max_share = 0.1"):
        ledger.check_quarantine(limit, at_end=False)
    book(ledger, [None] * 10, source="b")
    ledger.check_quarantine(limit, at_end=True)


def test_quarantining_rows_takes_them_out_of_every_column() -> None:
    documents = batch([None, None, "language"])
    documents.attributes["score"] = np.arange(3, dtype=np.float32)
    documents.columns["url"] = pa.array(["u0", "u1", "u2"])
    documents.quarantine([1], ["broken: why"], [b"x" * 999])
    assert len(documents) == 2
    assert documents.id.to_pylist() == ["0", "2"]
    assert documents.columns["url"].to_pylist() == ["u0", "u2"]
    assert documents.attributes["score"].tolist() == [0, 2]
    assert documents.alive.tolist() == [True, False]
    assert documents.quarantined == [Quarantined("a", 1, "broken: why", b"x" * 200)]


def test_the_first_reason_stays() -> None:
    documents = batch([None, "language", None])
    documents.remove(np.array([True, True, False]), "low_score")
    assert documents.reason.tolist() == ["low_score", "language", None]
