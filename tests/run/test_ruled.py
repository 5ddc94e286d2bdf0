"""Runs whose documents are kept by a rule: what stays, what the ledger, the manifest and the card say, and `verify`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from filters import FilterConfig, run_filter
from filters.cli.main import app
from filters.errors import ConfigError
from filters.run.plan import make_plan
from filters.run.verify import verify_run
from filters.storage.location import location
from tests.run.conftest import Heard, jsonl, page, run_in_process

MakeConfig = Callable[..., FilterConfig]
Row = dict[str, Any]


def attributes(run: Any) -> list[Row]:
    rows: list[Row] = pq.read_table(Path(run) / "attributes").to_pylist()
    return rows


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files of 50 documents with copies across them, hosts and a topic."""
    hosts = ("a.org", "www.b.org", "spam.com", "x.spam.com")
    return [
        jsonl(
            tmp_path / f"in-{file}.jsonl",
            [
                {
                    "id": f"{file}-{n}" if n else "same",
                    "text": page(n if n % 10 == 0 else 100 * file + n, 60 + 7 * n),
                    "url": f"https://{hosts[n % 4]}/{file}/{n}" if n % 9 else None,
                    "topic": ["Science & Tech.", "Sports"][n % 2],
                }
                for n in range(50)
            ],
        )
        for file in range(2)
    ]


@pytest.fixture
def ruled(make_config: MakeConfig, files: list[Path]) -> Callable[..., FilterConfig]:
    """A config over the files with a `keep` section."""

    def make(keep: dict[str, Any], output: Any = "run", **sections: Any) -> FilterConfig:
        reads = {
            "kind": "jsonl", "paths": [str(path) for path in files], "id_key": "id", "columns": ["url"],
            "slices": ["topic"],
        }  # fmt: skip
        return make_config(output=output, input=reads, keep=keep, **sections)

    return make


def test_what_the_rule_is_true_of_is_kept(ruled: Callable[..., FilterConfig]) -> None:
    where = "tokens >= 200 and (topic = 'Sports' or host = 'a.org') and cluster_size < 3"
    result = run_in_process(ruled({"where": where}))
    rows = attributes(result.path)
    for row in rows:
        if row["reason"] not in (None, "rule"):
            assert row["reason"] in ("exact_duplicate", "near_duplicate")
            continue
        fits = row["tokens"] >= 200 and (row["topic"] == "Sports" or row["host"] == "a.org") and row["cluster_size"] < 3
        assert row["keep"] == fits
        assert row["reason"] == (None if fits else "rule")
    kept = [row["id"] for row in rows if row["keep"]]
    assert 10 < len(kept) < 80
    assert [row["id"] for row in pq.read_table(Path(result.path) / "data").to_pylist()] == kept
    rule = result.manifest["keep"]["rule"]
    survivors = [row for row in rows if row["reason"] in (None, "rule")]
    assert rule["documents"] == len(survivors)
    assert [part["where"] for part in rule["parts"]] == [
        "tokens >= 200", "topic = 'Sports' or host = 'a.org'", "cluster_size < 3",
    ]  # fmt: skip
    assert rule["parts"][0]["documents"] == sum(row["tokens"] >= 200 for row in survivors)
    assert result.ledger.total.removed["rule"] == len(survivors) - len(kept)
    assert "kept where `tokens >= 200 and" in (result.path / "README.md").read_text()
    assert all(check.ok is not False for check in verify_run(location(str(result.path))))


def test_a_share_is_of_what_fulfils_the_rule(ruled: Callable[..., FilterConfig]) -> None:
    result = run_in_process(ruled({"where": "topic = 'Sports'", "fraction": 0.3}))
    rows = attributes(result.path)
    fit = sorted((row["score"] for row in rows if row["reason"] in (None, "low_score")), reverse=True)
    assert {row["topic"] for row in rows if row["reason"] in (None, "low_score")} == {"Sports"}
    best = [row["score"] for row in rows if row["keep"]]
    assert sorted(best, reverse=True) == fit[: int(0.3 * len(fit))]
    assert result.manifest["keep"]["min_score"] == min(best)
    assert all(check.ok is not False for check in verify_run(location(str(result.path))))


def test_a_budget_may_rank_by_something_else(ruled: Callable[..., FilterConfig]) -> None:
    result = run_in_process(ruled({"where": "host is not null", "tokens": 3000, "by": "score / ln(tokens)"}))
    rows = [row for row in attributes(result.path) if row["reason"] in (None, "low_rank")]
    assert {row["host"] for row in rows} == {"a.org", "b.org", "spam.com", "x.spam.com"}
    rank = {row["id"]: np.float32(row["score"] / np.log(row["tokens"])) for row in rows}
    threshold = result.manifest["keep"]["solution"]["threshold"]
    for row in rows:
        assert row["keep"] == (rank[row["id"]] >= np.float32(threshold)) or abs(rank[row["id"]] - threshold) < 1e-6
    assert 2000 < result.manifest["tokens_written"] <= 3000
    assert all(check.ok is not False for check in verify_run(location(str(result.path))))


def test_what_cannot_be_ranked_is_not_kept(ruled: Callable[..., FilterConfig]) -> None:
    result = run_in_process(ruled({"fraction": 1.0, "by": "score / (tokens - tokens)"}))
    assert result.ledger.total.kept == 0
    assert result.ledger.total.removed["low_rank"] == result.manifest["keep"]["rule"]["documents"]
    assert all(check.ok is not False for check in verify_run(location(str(result.path))))


def test_buckets_and_repeats_go_with_a_rule(ruled: Callable[..., FilterConfig], tmp_path: Path) -> None:
    output = {
        "path": str(tmp_path / "run"), "buckets": {"borders": [0.5], "names": ["low", "high"]},
        "repeat": {"by": "cluster_size"},
    }  # fmt: skip
    result = run_in_process(ruled({"where": "draw(id) < 0.6", "buckets": ["high"]}, output=output))
    rows = [row for row in attributes(result.path) if row["reason"] in (None, "rule", "other_bucket")]
    low = sorted(row["score"] for row in rows)[: len(rows) // 2]
    for row in rows:
        if row["keep"]:
            assert row["score"] > low[-1]
            assert row["copies"] == row["cluster_size"]
    reasons = {row["reason"] for row in rows}
    assert reasons == {None, "rule", "other_bucket"}
    assert all(check.ok is not False for check in verify_run(location(str(result.path))))


def test_workers_do_not_change_it(ruled: Callable[..., FilterConfig]) -> None:
    keep = {"where": "draw(id) < 0.5 and host not like '%spam%'", "fraction": 0.5, "by": "tokens"}
    one = run_filter(ruled(keep))
    two = run_filter(ruled(keep, output="two", executor={"workers": 2}))
    assert one.manifest == two.manifest


def test_a_rule_that_keeps_nothing_says_why(ruled: Callable[..., FilterConfig]) -> None:
    heard = Heard()
    result = run_filter(ruled({"where": "score >= 0 and tokens > 100000 and topic = 'Sports'"}), observer=heard)
    assert result.ledger.total.kept == 0
    (notice,) = (text for text in heard.notices if "nothing is kept" in text)
    rule = result.manifest["keep"]["rule"]
    sports = next(part["documents"] for part in rule["parts"] if "topic" in part["where"])
    assert notice == (
        f"nothing is kept: the rule is true of 0 of {rule['documents']} documents: score >= 0 ({rule['documents']}) "
        f"and tokens > 100000 (0) and topic = 'Sports' ({sports})"
    )


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"where": "scor > 1"}, "keep.where: no column 'scor'; did you mean 'score'"),
        ({"where": "text like '%a%'"}, "keep.where: no column 'text'"),
        ({"where": "score < 1", "min_score": 2.0}, "contradicts 'min_score 2'"),
        ({"where": "url_in('nowhere.txt')"}, "nowhere.txt: cannot read this list"),
        ({"by": "language", "fraction": 0.5}, "keep.by: is text"),
    ],
)
def test_a_wrong_rule_is_told_before_the_run(
    ruled: Callable[..., FilterConfig], keep: dict[str, Any], message: str
) -> None:
    config = ruled(keep)
    with pytest.raises(ConfigError) as caught:
        make_plan(config)
    assert message in str(caught.value)
    with pytest.raises(ConfigError):
        run_filter(config)
    assert not Path(config.output.path).exists()


def test_a_number_to_rank_by_needs_a_budget(ruled: Callable[..., FilterConfig]) -> None:
    with pytest.raises(ValueError, match=r"keep\.by ranks documents for a budget"):
        ruled({"by": "tokens", "min_score": 1.0})


def test_lists_lie_beside_the_config_and_are_part_of_the_run(
    ruled: Callable[..., FilterConfig], tmp_path: Path, files: list[Path]
) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "it's.txt").write_text("spam.com\n")
    path = tmp_path / "config.yaml"
    where = "not url_in('lists/it''s.txt') and URL_IN( 'lists/it''s.txt') is not null"
    data = ruled({"where": where}).model_dump(mode="json", exclude_defaults=True)
    path.write_text(yaml.safe_dump(data))
    config = FilterConfig.load(path)
    result = run_filter(config)
    kept = [row for row in attributes(result.path) if row["keep"]]
    assert {row["host"] for row in kept} == {"a.org", "b.org", None}
    (found,) = result.manifest["keep"]["rule"]["lists"]
    assert Path(config.keep.at(found)).resolve() == (tmp_path / "lists" / "it's.txt").resolve()
    assert all(check.ok is not False for check in verify_run(location(str(result.path))))
    (tmp_path / "lists" / "it's.txt").write_text("a.org\n")
    (check,) = (check for check in verify_run(location(str(result.path))) if check.name == "rule")
    assert check.ok is False
    assert "is not what was read" in check.detail


def test_verify_finds_what_the_rule_does_not_say(ruled: Callable[..., FilterConfig]) -> None:
    result = run_in_process(ruled({"where": "topic = 'Sports'"}))
    manifest = json.loads((result.path / "manifest.json").read_text())
    manifest["config"]["keep"]["where"] = "topic <> 'Sports'"
    (result.path / "manifest.json").write_text(json.dumps(manifest))
    checks = {check.name: check for check in verify_run(location(str(result.path)), inputs=False)}
    assert checks["rule"].ok is False
    assert "which is not what the rule says" in checks["rule"].detail


def test_addresses_in_a_rule_stay_as_they_are(ruled: Callable[..., FilterConfig]) -> None:
    where = "url like 'https://user:word@host/?signature=abc%' or true"
    result = run_in_process(ruled({"where": where}))
    assert result.manifest["config"]["keep"]["where"] == where


def test_the_plan_and_the_forecast_know_the_rule(ruled: Callable[..., FilterConfig], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    config = ruled({"where": "topic = 'Sports'\n  and cluster_size > 0", "fraction": 0.5, "by": "score + 1"})
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True)))
    shown = CliRunner().invoke(app, ["filter", str(path), "--dry-run", "--json", "--pilot", "60"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    steps = dict(found["plan"]["steps"]) if isinstance(found["plan"]["steps"], list) else found["plan"]["steps"]
    assert "best by score + 1; only where topic = 'Sports' and cluster_size > 0" in steps["keep"]
    run = run_in_process(config)
    kept = found["forecast"]["columns"][0]["kept"]["value"]
    assert 0.5 < kept / run.ledger.total.kept < 2
