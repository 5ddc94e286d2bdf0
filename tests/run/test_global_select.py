"""Select over a whole run: thresholds from shares and budgets, quotas, buckets, repeats, and the plan of the shards."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from rich.console import Console

from filters import FilterConfig
from filters.config.yaml_file import load_config
from filters.errors import ConfigError
from filters.inspect.terminal import ledger_view
from filters.run import selection
from filters.run.folder import identity
from filters.run.plan import make_plan
from filters.run.selection import OutputFile, _Series
from filters.run.verify import verify_run
from filters.scores.finished_run import Run
from filters.storage.location import location
from tests.run.conftest import jsonl, page, run_in_process

MakeConfig = Callable[..., FilterConfig]
Row = dict[str, Any]


def attributes(run: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(run / "attributes").to_pylist()
    return rows


def shards(run: Path) -> list[list[Row]]:
    return [pq.read_table(path).to_pylist() for path in sorted((run / "data").rglob("*.parquet"))]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three files of 60 documents of other lengths; no two alike but the first of each file."""
    return [
        jsonl(
            tmp_path / f"in-{file}.jsonl",
            [{"id": f"{file}-{n}", "text": page(n and 100 * file + n, 60 + 7 * n)} for n in range(60)],
        )
        for file in range(3)
    ]


def scored(run: Path) -> list[Row]:
    return [row for row in attributes(run) if row["reason"] in (None, "low_score", "over_quota", "other_bucket")]


def test_a_share_keeps_the_best(make_config: MakeConfig, files: list[Path]) -> None:
    result = run_in_process(make_config(*files, keep={"fraction": 0.25}))
    rows = scored(result.path)
    best = sorted((row["score"] for row in rows), reverse=True)[: len(rows) // 4]
    assert sorted((row["score"] for row in rows if row["keep"]), reverse=True) == best
    assert result.manifest["keep"]["min_score"] == min(best)
    assert result.ledger.total.kept == len(best) == 44
    assert Run(result.path).min_score == min(best)


def test_a_budget_is_filled_but_never_passed(make_config: MakeConfig, files: list[Path]) -> None:
    result = run_in_process(make_config(*files, keep={"tokens": 9000}))
    rows = sorted(scored(result.path), key=lambda row: -row["score"])
    spent = np.cumsum([row["tokens"] for row in rows])
    kept = int(np.searchsorted(spent, 9000, side="right"))
    assert [row["keep"] for row in rows] == [True] * kept + [False] * (len(rows) - kept)
    assert result.manifest["tokens_written"] == spent[kept - 1] <= 9000
    assert result.manifest["keep"]["solution"]["kept"]["tokens"] == spent[kept - 1]


def test_a_tokenizer_decides_a_budget(tmp_path: Path, make_config: MakeConfig, files: list[Path]) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    letters = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, "[UNK]"))
    letters.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")  # a token is a character
    letters.save(str(tmp_path / "tokenizer.json"))
    sections = {"tokens": {"tokenizer": str(tmp_path / "tokenizer.json")}, "keep": {"tokens": 9000}}
    result = run_in_process(make_config(*files, **sections))
    texts = {json.loads(line)["id"]: json.loads(line)["text"] for file in files for line in file.open(encoding="utf-8")}
    assert all(row["tokens"] == len(texts[row["id"]]) for row in scored(result.path))
    assert 8000 < result.manifest["tokens_written"] <= 9000
    before = identity(make_plan(make_config(*files, **sections)))
    letters.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    letters.save(str(tmp_path / "tokenizer.json"))
    assert identity(make_plan(make_config(*files, **sections))) != before
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"tokens\.tokenizer: .*not a tokenizer\.json"):
        run_in_process(make_config(*files, **sections))


def test_documents_with_the_same_score_are_kept_or_dropped_together(tmp_path: Path, make_config: MakeConfig) -> None:
    rows = [{"id": f"{n}", "text": page(n // 3, 100)} for n in range(30)]
    config = make_config(
        jsonl(tmp_path / "a.jsonl", rows), dedup={"near": None, "exact": False}, keep={"fraction": 0.5}
    )
    result = run_in_process(config)
    found = attributes(result.path)
    by_score = Counter(row["score"] for row in found)
    assert set(by_score.values()) == {3}
    assert result.ledger.total.kept == 15
    config = make_config(
        tmp_path / "a.jsonl", output="odd", dedup={"near": None, "exact": False}, keep={"fraction": 0.49}
    )
    result = run_in_process(config)
    assert result.ledger.total.kept == 12
    assert result.manifest["keep"]["solution"]["tie"]["documents"] == 3


def test_a_quota_caps_a_source(make_config: MakeConfig, files: list[Path]) -> None:
    quota = {"by": "source", "shares": {str(files[0]): 0.1, str(files[1]): 0.0}}
    result = run_in_process(make_config(*files, keep={"fraction": 0.3, "quota": quota}))
    kept = Counter(row["source"] for row in attributes(result.path) if row["keep"])
    budget = int(len(scored(result.path)) * 0.3)
    assert kept[str(files[0])] == budget // 10
    assert kept[str(files[1])] == 0
    assert kept.total() == budget
    solution = result.manifest["keep"]["solution"]
    assert set(solution["quotas"]) == set(quota["shares"])
    rows = scored(result.path)
    lowest = min(row["score"] for row in rows if row["source"] == str(files[2]) and row["keep"])
    assert lowest == solution["threshold"]
    over = [row for row in rows if row["reason"] == "over_quota"]
    assert {row["id"] for row in over} == {
        row["id"] for row in rows if not row["keep"] and row["score"] >= solution["threshold"]
    }
    assert {row["source"] for row in over} == set(quota["shares"])
    assert result.ledger.total.removed["over_quota"] == len(over)
    assert Run(result.path).summary().histograms.total.total() == len(rows)
    assert [check.name for check in verify_run(location(result.path)) if check.ok is False] == []


def test_a_quota_by_language(tmp_path: Path, make_config: MakeConfig) -> None:
    danish = "Solen skinner over byen i dag og vandet i havnen er blåt og stille mens folk går tur ved "
    english = "The sun shines over the town today and the water of the harbour is calm while people walk by "
    rows = [{"id": f"{n}", "text": (danish if n % 3 == 0 else english) + page(n, 12)} for n in range(60)]
    config = make_config(
        jsonl(tmp_path / "a.jsonl", rows), language={"unmeasured": "keep"},
        keep={"fraction": 0.5, "quota": {"by": "language", "shares": {"da": 0.1}}},
    )  # fmt: skip
    result = run_in_process(config)
    kept = Counter(row["language"] for row in attributes(result.path) if row["keep"])
    assert kept["da"] <= 3
    assert kept.total() == 30


@pytest.mark.parametrize(
    ("unmeasured", "keep"),
    [*((how, {"fraction": 1.0}) for how in ("drop", "keep", "warn", None)), (None, {"min_score": -1})],
)
def test_a_language_the_model_was_not_measured_on(
    tmp_path: Path, make_config: MakeConfig, unmeasured: str | None, keep: dict[str, float]
) -> None:
    english = "The sun shines over the town today and the water of the harbour is calm while people walk by in number "
    others = {
        "de": "Heute scheint die Sonne über der Stadt, das Wasser im Hafen ist ruhig, und Leute gehen, Nummer ",
        "ru": "Сегодня над городом светит солнце, вода в гавани спокойная, и люди гуляют у моря, номер ",
        "th": "วันนี้ดวงอาทิตย์ส่องแสงเหนือเมือง น้ำในท่าเรือสงบ และผู้คนเดินเล่น หมายเลข ",
    }
    rows = [{"id": f"en{n}", "text": english + str(n)} for n in range(5)]
    rows += [{"id": f"{code}{n}", "text": text + str(n)} for code, text in others.items() for n in range(2)]
    language = {} if unmeasured is None else {"unmeasured": unmeasured}
    config = make_config(
        jsonl(tmp_path / "a.jsonl", rows), language=language,
        dedup={"near": None, "exact": False}, keep=keep,
    )  # fmt: skip
    result = run_in_process(config)
    kept = {row["id"] for row in attributes(result.path) if row["keep"]}
    dropped = unmeasured in ("drop", None) and "min_score" not in keep
    assert kept == {row["id"] for row in (rows[:5] if dropped else rows)}
    assert result.ledger.total.removed["language_unmeasured"] == (6 if dropped else 0)
    assert result.manifest["model"]["languages"] == ["en"]
    shown = Console(width=120, record=True, file=io.StringIO())
    shown.print(ledger_view(result.manifest))
    text = shown.export_text()
    assert ("removed: language_unmeasured" in text) == dropped
    assert ("scored in languages that the model was not measured on" in text) == (not dropped)
    assert ("warning:" in text) == (unmeasured == "warn")
    assert {*Run(result.path).histogram("language")} == ({"en"} if dropped else {"en", *others})


BUCKETS = {"borders": [0.25, 0.5, 0.9], "names": ["low", "middle", "good", "best"]}


@pytest.mark.parametrize("folders", [False, True])
def test_buckets_are_cut_by_rank(tmp_path: Path, make_config: MakeConfig, files: list[Path], folders: bool) -> None:
    output = {"path": str(tmp_path / "run"), "buckets": BUCKETS | {"folders": folders}, "rejected": True}
    everything = {"buckets": ["low", "middle", "good", "best"]}
    result = run_in_process(make_config(*files, keep=everything, output=output))
    rows = sorted(scored(result.path), key=lambda row: row["score"])
    n = len(rows)
    counts = Counter(row["bucket"] for row in rows)
    assert abs(counts["low"] - 0.25 * n) <= 1
    assert abs(counts["best"] - 0.1 * n) <= 1
    assert [row["bucket"] for row in rows] == [
        name for name in ("low", "middle", "good", "best") for _ in range(counts[name])
    ]
    assert result.ledger.total.kept == n
    names = {path.parent.name: {row["bucket"] for row in pq.read_table(path).to_pylist()} for path in result.shards}
    expected = {name: {name} for name in BUCKETS["names"]} if folders else {"data": set(BUCKETS["names"])}
    assert names == expected
    assert all(row["bucket"] is None for row in attributes(result.path) if row["reason"] == "exact_duplicate")
    assert load_dataset(str(result.path), split="train", cache_dir=str(result.path.parent)).num_rows == n
    if folders:
        assert (
            load_dataset(str(result.path), "good", split="train", cache_dir=str(result.path.parent)).num_rows
            == counts["good"]
        )


def test_one_bucket_can_be_kept(tmp_path: Path, make_config: MakeConfig, files: list[Path]) -> None:
    output = {"path": str(tmp_path / "run"), "buckets": BUCKETS}
    result = run_in_process(make_config(*files, keep={"buckets": ["good"]}, output=output))
    rows = scored(result.path)
    assert {row["bucket"]: row["reason"] for row in rows} == {
        "low": "other_bucket", "middle": "other_bucket", "good": None, "best": "other_bucket",
    }  # fmt: skip
    assert result.manifest["keep"]["min_score"] == result.manifest["keep"]["buckets"]["borders"][1]
    assert result.histogram.total() == len(rows)


def test_documents_are_repeated_by_the_size_of_their_cluster(tmp_path: Path, make_config: MakeConfig) -> None:
    rows = [{"id": f"{n}-{copy}", "text": page(n, 100)} for n in range(6) for copy in range(n + 1)]
    path = jsonl(tmp_path / "a.jsonl", rows)
    output = {"path": str(tmp_path / "run"), "repeat": {"by": "cluster_size", "max": 4}, "shard_size": 2000}
    result = run_in_process(make_config(path, keep={"min_score": -1}, output=output))
    written = Counter(row["id"] for shard in shards(result.path) for row in shard)
    assert written == {"0-0": 1, "1-0": 2, "2-0": 3, "3-0": 4, "4-0": 4, "5-0": 4}
    assert {row["id"]: row["copies"] for row in attributes(result.path) if row["keep"]} == written
    assert result.ledger.total.kept == 6
    assert result.manifest["documents_written"] == 18
    first = [row["id"] for shard in shards(result.path) for row in shard][:6]
    assert first == [f"{n}-0" for n in range(6)]
    budget = make_config(
        path, keep={"tokens": result.manifest["tokens_written"] // 2},
        output=output | {"path": str(tmp_path / "budget")},
    )  # fmt: skip
    half = run_in_process(budget)
    assert half.manifest["tokens_written"] <= result.manifest["tokens_written"] // 2
    assert half.manifest["tokens_written"] == sum(
        row["tokens"] * row["copies"] for row in attributes(half.path) if row["keep"]
    )


@pytest.mark.parametrize("size", [1, 5_000, 2**40])
def test_a_shard_ends_with_the_document_that_fills_it(
    tmp_path: Path, make_config: MakeConfig, files: list[Path], size: int
) -> None:
    output = {"path": str(tmp_path / "run"), "shard_size": size, "rejected": True}
    run_in_process(make_config(*files, output=output, dedup={"near": None, "exact": False}, keep={"min_score": 0.3}))
    rows = pq.read_table(tmp_path / "run" / "attributes").to_pylist()
    for folder, keep in (("data", True), ("rejected", False)):
        shards = [pq.read_table(path).to_pylist() for path in sorted((tmp_path / "run" / folder).iterdir())]
        assert [row["id"] for shard in shards for row in shard] == [row["id"] for row in rows if row["keep"] is keep]
        for number, shard in enumerate(shards):
            sizes = [len(row["text"].encode()) for row in shard]
            assert sum(sizes[:-1]) < size
            assert sum(sizes) >= size or number == len(shards) - 1


def test_where_no_size_is_given_workers_can_share_the_shards(
    tmp_path: Path, make_config: MakeConfig, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dedup = {"near": None, "exact": False}
    whole = run_in_process(
        make_config(*files, dedup=dedup, keep={"min_score": -9}, output={"path": str(tmp_path / "a")})
    )
    assert len(whole.shards) == 1  # 64 MiB at least
    monkeypatch.setattr(selection, "_SMALLEST", 1)
    cut = run_in_process(make_config(*files, dedup=dedup, keep={"min_score": -9}, output={"path": str(tmp_path / "b")}))
    assert 12 < len(cut.shards) <= 17
    assert [row for shard in shards(cut.path) for row in shard] == shards(whole.path)[0]


def test_a_series_ends_its_files_where_they_are_full() -> None:
    series = _Series(10, OutputFile(False, 0, (0, 0), (0, 0), 0))
    series.add(0, np.array([1, 4, 5]), np.array([4, 7, 30]))
    series.add(2, np.array([0, 1, 2]), np.array([0, 9, 0]))
    series.finish()
    assert [(file.first, file.stop, file.rows) for file in series.files] == [
        ((0, 1), (0, 5), 2), ((0, 5), (0, 6), 1), ((2, 0), (2, 3), 3),
    ]  # fmt: skip


def test_rules_that_cannot_be_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    base = "input: {kind: jsonl, paths: [x]}\noutput: {path: y}\n"
    for lines, message in (
        ("keep: {tokens: 5, fraction: 0.5}", "different rules"),
        ("keep: {min_score: 1, quota: {shares: {en: 0.5}}}", "shares out a budget"),
        ("keep: {buckets: [high]}", "keep.buckets: 'high': no names of output.buckets, which are: none"),
        ("dedup: {exact: false, near: null, keep_fingerprints: true}", "need dedup.exact or dedup.near"),
    ):
        config.write_text(base + lines)
        with pytest.raises(ConfigError, match=message):
            load_config(FilterConfig, config)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"buckets": {"borders": [0.5, 0.4], "names": ["a", "b", "c"]}}, "ascend"),
        ({"buckets": {"borders": [0.5], "names": ["a"]}}, "2 buckets"),
        ({"buckets": {"borders": [0.5], "names": ["a", "../b"]}}, "pattern"),
        ({"buckets": {"borders": [0.5], "names": ["default", "best"]}}, "'default' is what the data-set card"),
        ({"repeat": {"by": "score"}}, "needs a curve"),
        ({"repeat": {"by": "score", "curve": [[2, 1], [1, 2]]}}, "ascend"),
        ({"repeat": {"by": "cluster_size", "curve": [[1, 0.5]]}}, "greater than or equal to 1"),
    ],
)
def test_output_options_that_cannot_be_are_refused(
    tmp_path: Path, make_config: MakeConfig, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_config(tmp_path / "x", output={"path": str(tmp_path / "y")} | section)


def test_a_quota_must_fit_the_input(make_config: MakeConfig, files: list[Path]) -> None:
    def plan(quota: dict[str, Any]) -> None:
        make_plan(make_config(*files, keep={"fraction": 0.5, "quota": quota}))

    with pytest.raises(ConfigError, match="needs the section `language`"):
        plan({"by": "language", "shares": {"en": 0.5}})
    with pytest.raises(ConfigError, match=r"'other\.jsonl' is no input file.*in-0\.jsonl"):
        plan({"by": "source", "shares": {"other.jsonl": 0.5}})
