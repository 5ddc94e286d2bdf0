"""The configs of global runs do on real pages what they say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters import FilterConfig
from filters.run.finish import RunResult
from tests.run.conftest import run_in_process

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(scope="module")
def pages(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """English and Danish pages, some of them twice with another end."""
    english = pq.read_table(shared_data / "web" / "unlabelled.parquet", columns=["text"])["text"].to_pylist()[:700]
    danish = pq.read_table(shared_data / "annotations" / "edu-da-train.parquet", columns=["text"])["text"].to_pylist()
    texts = english + danish[:300] + [text + " the end" for text in english[::5]]
    path = tmp_path_factory.mktemp("pages") / "pages.parquet"
    ids = [f"p{n}" for n in range(len(texts))]
    pq.write_table(pa.table({"id": ids, "text": texts, "url": [f"https://x.org/{i}" for i in ids]}), path)
    return path


def run(name: str, pages: Path, output: Path, *overrides: str) -> RunResult:
    own = (f"input.paths=[{pages}]", f"output.path={output}", *overrides)
    return run_in_process(FilterConfig.load(CONFIGS / name, own))


def test_a_token_budget(pages: Path, tmp_path: Path) -> None:
    result = run("token-budget.yaml", pages, tmp_path / "one", "keep.tokens=200000")
    rows = pq.read_table(result.path / "attributes").to_pylist()
    spent: Counter[str] = Counter()
    for row in rows:
        spent[row["language"]] += row["tokens"] * row["copies"] if row["keep"] else 0
    assert 195_000 < spent.total() <= 200_000
    assert spent["da"] <= 40_000
    assert result.manifest["tokens_written"] == spent.total()
    assert result.ledger.total.removed["near_duplicate"] > 80
    assert sorted((result.path / "fingerprints").iterdir())
    again = run("token-budget.yaml", pages, tmp_path / "two", "keep.tokens=1e9", f"dedup.against=[{result.path}]")
    removed = {row["id"] for row in pq.read_table(again.path / "attributes").to_pylist()
               if row["reason"] == "in_earlier_run"}  # fmt: skip
    assert {row["id"] for row in rows if row["keep"]} <= removed


def test_buckets_of_quality(pages: Path, tmp_path: Path) -> None:
    result = run("nemotron-cc.yaml", pages, tmp_path / "all")
    survivors = result.ledger.total.kept
    levels = {folder.name: pq.read_table(folder).num_rows for folder in (result.path / "data").iterdir()}
    for name, share in {"low": 0.35, "medium-low": 0.25, "medium": 0.3, "medium-high": 0.05, "high": 0.05}.items():
        assert abs(levels[name] - share * survivors) <= 2
    assert set(result.ledger.total.removed) <= {"near_duplicate", "exact_duplicate", "language", "language_unsure"}
    high = run("nemotron-cc.yaml", pages, tmp_path / "high", "keep.buckets=[high]")
    kept = pq.read_table(high.path / "data" / "high")
    assert kept.select(["id", "text", "bucket"]) == pq.read_table(result.path / "data" / "high").select(
        ["id", "text", "bucket"]
    )
    assert high.ledger.total.removed["other_bucket"] == survivors - kept.num_rows
