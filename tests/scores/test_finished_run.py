"""What is counted while filtering, and from the side files, is the same; summaries, slices, hosts, clusters."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters import FilterConfig, run_filter
from filters.errors import RunError
from filters.scores.finished_run import Run
from filters.scores.histogram import Histogram, SlicedHistogram
from filters.scores.hosts import host_names, hosts
from filters.scores.summary import Groups, Histograms, Summary
from filters.scores.threshold import Target
from tests.inspect.synthetic import write_run

WORDS = [
    "the",
    "cell",
    "divides",
    "river",
    "stone",
    "market",
    "history",
    "teacher",
    "engine",
    "light",
    "water",
    "school",
]


def dump(path: Path, rows: int, seed: int) -> Path:
    generator = np.random.default_rng(seed)
    with path.open("w") as file:
        for number in range(rows):
            text = " ".join(generator.choice(WORDS, generator.integers(20, 90)))
            row = {"text": text, "url": f"https://www.Site{number % 5}.example:80/{number}", "grade": number % 3}
            if number % 4:
                row["topic"] = ["history", "sport"][number % 2]
            file.write(json.dumps(row) + "\n")
        file.write('{"text": ""}\n{broken\n')
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_histograms_while_filtering_equal_those_of_the_side_files(tmp_path: Path, workers: int) -> None:
    paths = [str(dump(tmp_path / f"{number}.jsonl", 150, number)) for number in range(3)]
    config = {
        "input": {"kind": "jsonl", "paths": paths, "slices": ["topic", "grade"]},
        "language": {"keep": []},
        "keep": {"min_score": 0.3},
        "quarantine": {"max_share": 0.5},
        "output": {"path": str(tmp_path / "run")},
        "executor": {"workers": workers},
    }
    result = run_filter(FilterConfig.model_validate(config))
    run = Run(tmp_path / "run")
    summary = run.summary(extremes=3)
    assert summary.histograms.total == run.histogram() == result.histogram
    assert set(run.histogram("grade")) == {"0", "1", "2"}
    assert set(run.histogram("topic")) == {"history", "sport", None}
    for by, sliced in summary.histograms.slices.items():
        assert dict(sliced) == dict(run.histogram(by))
        assert sliced.total() == run.histogram()
    assert {group.value: group.documents for group in summary.groups["host"].largest(9)} == {
        f"site{number}.example": 90 for number in range(5)
    }
    assert summary.reasons == Counter(run.ledger["total"]["removed"])
    scores = run.attributes(["score"])["score"].to_numpy()
    best = summary.extremes(best=True)
    assert [place.score for place in best] == sorted(scores[~np.isnan(scores)], reverse=True)[:3]
    assert [row["score"] for row in run.rows_at([place.row for place in best], ["score"])] == [p.score for p in best]


def test_a_summary_does_not_depend_on_how_rows_are_cut(tmp_path: Path) -> None:
    one = Run(write_run(tmp_path / "one", 5000, seed=4, row_group=5000, files=1)).summary(extremes=4)
    many = Run(write_run(tmp_path / "many", 5000, seed=4, row_group=333, files=3)).summary(extremes=4)
    assert one.histograms.total == many.histograms.total
    assert dict(one.histograms.slices["topic"]) == dict(many.histograms.slices["topic"])
    assert one.groups["host"].largest(50) == many.groups["host"].largest(50)
    assert one.clusters.sizes == many.clusters.sizes == {2: 714}
    assert one.extremes(best=True) == many.extremes(best=True)
    assert one.reasons == many.reasons
    assert (one.kept, one.rows) == (many.kept, many.rows)


def test_parts_of_a_run_merge_in_any_order(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path / "run", 4000, seed=5))
    whole, parts = Histograms(run.slices), []
    for table in run.tables(Summary(run.slices).columns):
        whole.add(table)
        parts.append(Histograms(run.slices))
        parts[-1].add(table)
    merged = Histograms(run.slices)
    for part in reversed(parts):
        merged.merge(part)
    assert merged.total == whole.total
    assert dict(merged.slices["language"]) == dict(whole.slices["language"])
    assert merged.to_json() == whole.to_json() == run.manifest["histograms"]


def test_histograms_of_hosts_and_data_frames(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path / "run", 4000, seed=6))
    by_host = run.histogram("host", largest=5)
    table = run.attributes(["host", "score", "reason"]).to_pandas()
    table = table[table.reason.isna() | (table.reason == "low_score")]
    counts = sorted(table.host.value_counts().items(), key=lambda item: (-item[1], item[0]))
    assert {host: part.total() for host, part in by_host.items()} == dict(counts[:5])
    assert list(run.histogram("topic", largest=1)) == run.histogram("topic").largest(1)
    frame = run.histogram("language").to_pandas()
    assert list(frame.columns) == ["language", "low", "high", "documents", "tokens", "bytes"]
    assert frame.documents.sum() == len(table)
    assert run.histogram().quantile(0.5) == pytest.approx(table.score.median(), abs=0.006)
    found = Summary((), ("host",))
    for part in run.tables(found.columns):
        found.add(part)
    means = table.groupby("host").score.mean()
    groups = found.groups["host"].get(means.index.to_list())
    assert [groups[host].mean_score for host in means.index] == pytest.approx(means.to_list(), abs=1e-5)
    best = found.groups["host"].ranked(3, best=True, least=5)
    assert [group.value for group in best] == means.sort_values(ascending=False, kind="stable").index[:3].tolist()


def test_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = Run(write_run(tmp_path / "run", 500, seed=6))
    assert run.histogram().plot(log=True).get_xlabel() == "score"
    assert len(run.histogram("language").plot("tokens").patches) == 2


def test_solving_on_a_run_equals_its_scores(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path / "run", 3000, seed=7))
    table = run.attributes(["score", "reason", "language"]).to_pandas()
    scores = np.sort(table[table.reason.fillna("low_score") == "low_score"].score)[::-1]
    solution = run.solve(Target("fraction", 0.2))
    assert solution.kept.documents == (scores >= np.float32(solution.threshold)).sum() <= len(scores) * 0.2
    assert (scores >= np.float32(solution.tie.score)).sum() > len(scores) * 0.2  # type: ignore[union-attr]
    with pytest.raises(RunError, match="cannot slice by 'colour'"):
        run.solve(Target("fraction", 0.2), by="colour", quotas={"red": 0.1})


def test_missing_and_damaged_side_files_are_named(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", 900, seed=8)
    side_file = path / "attributes" / "attributes-00001.parquet"
    content = side_file.read_bytes()
    side_file.write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match=r"attributes-00001.parquet: cannot read"):
        Run(path).summary()
    side_file.unlink()
    with pytest.raises(RunError, match="450 rows where the ledger has 900"):
        Run(path).summary()
    (path / "manifest.json").write_text('{"keep": {}}')
    with pytest.raises(RunError, match="not the manifest of a run"):
        Run(path)


def test_hosts_of_addresses() -> None:
    urls = {
        "https://www.Example.ORG:8080/a?b#c": "example.org",
        "http://user:pass@host.example/": "host.example",
        "//cdn.example/x": "cdn.example",
        "http://[::1]:80/": "[::1]",
        "pkg/METADATA": None,
        "": None,
        "mailto:a@b.example": None,
        "not a url": None,
        "http://[broken": None,
        "https:///nothing": None,
        None: None,
    }
    assert hosts(pa.array(list(urls), pa.string())).to_pylist() == list(urls.values())
    assert host_names(list(urls)) == [host or "" for host in urls.values()]


def test_groups_and_slices_merge() -> None:
    groups = Groups("host")
    groups.add(pa.array(["a", "b", "a"]), np.arange(18).reshape(3, 6))
    assert len(groups) == 2
    groups.add(pa.array(["b"]), np.ones((1, 6), np.int64))
    merged = groups.get(["a", "b"])
    assert merged["a"].documents == 12
    assert merged["b"].kept == 9
    assert len(Groups("host")) == 0
    sliced = SlicedHistogram("x")
    scores, ones = np.array([1, 2, 3], np.float32), np.ones(3, np.int64)
    sliced.add(["p", None], np.array([0, 1, -1]), scores, tokens=ones, text_bytes=ones)
    assert list(sliced) == ["p", None]
    assert SlicedHistogram.from_json("x", json.loads(json.dumps(sliced.to_json()))).total() == sliced.total()
    assert sliced.total().total() == 2
    assert sliced["p"].merge(sliced[None]) == sliced.total()
    assert Histogram.from_json(json.loads(json.dumps(Histogram().to_json()))) == Histogram()


def test_a_run_of_no_documents(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path / "run", 0, seed=1, files=1))
    assert run.summary(extremes=2).rows == 0
    assert run.solve(Target("fraction", 0.1)).kept.documents == 0
    assert os.listdir(run.path / "attributes") == ["attributes-00000.parquet"]
    assert pq.read_metadata(run.files[0]).num_rows == 0
