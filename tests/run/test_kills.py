"""A few of the kills that `python -m tests.run.kill_run` deals out: whatever dies, the bytes are the same."""

from __future__ import annotations

from pathlib import Path

from tests.run.kill_run import kill_and_compare


def test_runs_that_were_killed_end_in_the_same_bytes(tmp_path: Path) -> None:
    found = kill_and_compare(tmp_path / "corpus", kills=3, seed=7)
    assert found["kills"] == 3
    assert set(found["by_victim"]) == {"parent", "worker"}
    assert found["runs_that_differ"] == 0
