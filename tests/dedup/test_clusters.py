"""Deduplication over a whole run: the best copy stays, whatever the cut into units, hash ranges and memory.

Upsampling: by cluster size or score, capped, and the same for the same id.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters import FilterConfig, QualityModel
from filters.config.filter import RepeatConfig
from filters.dedup.clusters import times_written
from filters.errors import RunError
from filters.phases.phase import DamagedError, Job, run_unit
from filters.run.phase_list import PHASES
from filters.run.plan import make_plan
from tests.run.conftest import digest, jsonl, page
from tests.run.conftest import run_in_process as run_filter

MakeConfig = Callable[..., FilterConfig]
Row = dict[str, Any]


def attributes(run: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(run / "attributes").to_pylist()
    return rows


def edited(text: str, changes: int, seed: int) -> str:
    draw = random.Random(seed)
    words = text.split()
    for _ in range(changes):
        words[draw.randrange(len(words))] = f"edit{draw.randrange(10**6)}"
    return " ".join(words)


def corpus(folder: Path, files: int = 5, per_file: int = 60) -> list[Path]:
    """Pages with exact copies (in other case), near copies, chains of them, ids that clash, and bad records."""
    draw = random.Random(1)
    paths = []
    for file in range(files):
        rows: list[Any] = []
        for n in range(per_file):
            text = page(draw.randrange(130), 150)
            kind = draw.random()
            if kind < 0.2:
                text = edited(text, draw.randrange(1, 4), draw.randrange(9))
            elif kind < 0.3:
                text = text.upper()
            elif kind < 0.33:
                text = ""
            rows.append({"id": f"{draw.randrange(200)}", "text": text})
            if n == 30:
                rows.append(b"{broken")
        paths.append(jsonl(folder / f"in-{file}.jsonl", rows))
    return paths


def test_without_near_only_exact_copies_go(tmp_path: Path, make_config: MakeConfig) -> None:
    paths = corpus(tmp_path)
    rows = attributes(
        run_filter(make_config(*paths, dedup={"near": None, "keep": "best"}, keep={"min_score": -1})).path
    )
    groups = defaultdict(list)
    for row in rows:
        if row["exact_cluster"] is not None:
            groups[row["exact_hash"]].append(row)
    for group in groups.values():
        best = min(group, key=lambda row: (-row["score"], -row["bytes"], row["id"].encode()))
        for row in group:
            expected = (None, None, None) if row is best else ("exact_duplicate", best["id"], 1.0)
            assert (row["reason"], row["duplicate_of"], row["similarity"]) == expected
            assert row["cluster_size"] == len(group)
    assert len({row["id"] for row in rows}) == len(rows)
    assert any(row["id"].endswith("#2") for row in rows)
    neither = {"near": None, "exact": False}
    result = run_filter(make_config(*paths, output="neither", dedup=neither, keep={"min_score": -1}))
    assert set(result.ledger.total.removed) == {"empty_text"}


def test_the_cut_into_units_ranges_and_memory_makes_no_difference(tmp_path: Path, make_config: MakeConfig) -> None:
    """Names of files apart: the same documents in other files and ranges end in the same clusters."""
    paths = corpus(tmp_path)
    (tmp_path / "joined").mkdir()
    joined = tmp_path / "joined" / "all.jsonl"
    joined.write_bytes(b"".join(path.read_bytes() for path in paths))
    near = {"near": {"similarity": 0.6}}
    found = []
    for name, inputs, partitions, dedup in (
        ("one", paths, 1, near),
        ("ranges", paths, 5, near),
        ("memory", paths, 2, near | {"memory": "1MiB"}),
        ("units", [joined], 3, near),
    ):
        dedup |= {"partitions": partitions}
        run = run_filter(make_config(*inputs, output=name, dedup=dedup, keep={"fraction": 0.5})).path
        found.append([{k: v for k, v in row.items() if k not in ("source", "position")} for row in attributes(run)])
        if name != "units":
            trees = digest(tmp_path / name)
            first = digest(tmp_path / "one")
            assert {n: d for n, d in trees.items() if n.startswith(("data", "attributes", "rejected"))} == {
                n: d for n, d in first.items() if n.startswith(("data", "attributes", "rejected"))
            }
    assert found[0] == found[1] == found[2] == found[3]


def test_the_best_copy_stays_or_the_first(tmp_path: Path, make_config: MakeConfig) -> None:
    base = page(1, 300)
    variants = [edited(base, 2, seed) for seed in range(12)]
    scores = QualityModel.load("edu-en").score(variants)
    order = np.argsort(scores, kind="stable").tolist()  # the worst comes first
    path = jsonl(tmp_path / "a.jsonl", [{"id": f"v{n}", "text": variants[n]} for n in order])
    first = run_filter(make_config(path, output="first", dedup={"keep": "first"}, keep={"min_score": -1}))
    best = run_filter(make_config(path, output="best", dedup={"keep": "best"}, keep={"min_score": -1}))
    names = [{row["id"] for row in pq.read_table(result.path / "data").to_pylist()} for result in (first, best)]
    assert names == [{f"v{order[0]}"}, {f"v{order[-1]}"}]
    assert {row["duplicate_of"] for row in attributes(best.path)} == {None, f"v{order[-1]}"}


def test_ties_go_to_the_longer_text_then_to_the_smaller_id(tmp_path: Path, make_config: MakeConfig) -> None:
    text = page(1, 200)
    rows = [
        {"id": "c", "text": text},
        {"id": "b", "text": text},
        {"id": "a", "text": text},
        {"id": "long", "text": text.replace(" ", "  ")},
    ]
    model = QualityModel.load("edu-en")
    assert len(set(model.score([row["text"] for row in rows]).tolist())) == 1
    run = run_filter(make_config(jsonl(tmp_path / "a.jsonl", rows[:3]), output="ids", dedup={"keep": "best"})).path
    assert {row["duplicate_of"] for row in attributes(run)} == {None, "a"}
    run = run_filter(make_config(jsonl(tmp_path / "b.jsonl", rows), output="long", dedup={"keep": "best"})).path
    assert {row["duplicate_of"] for row in attributes(run)} == {None, "long"}


def test_copies_of_what_an_earlier_run_kept_are_removed_and_named(tmp_path: Path, make_config: MakeConfig) -> None:
    dedup = {"keep_fingerprints": True}
    old = [{"id": f"old{n}", "text": page(n, 200)} for n in range(20)]
    first = run_filter(make_config(jsonl(tmp_path / "old.jsonl", old), output="one", dedup=dedup))
    second = [{"id": f"mid{n}", "text": page(n + 100, 200)} for n in range(20)]
    run_filter(make_config(jsonl(tmp_path / "mid.jsonl", second), output="two", dedup=dedup))
    chain = edited(edited(page(3, 200), 2, 1), 25, 2)
    new = [
        {"id": "exact", "text": page(1, 200).upper()},
        {"id": "near", "text": edited(page(2, 200), 2, 0)},
        {"id": "step", "text": edited(page(3, 200), 2, 1)},
        {"id": "fresh", "text": page(500, 200)},
        {"id": "fresh-copy", "text": page(500, 200)},
        {"id": "other-run", "text": page(105, 200)},
        {"id": "both", "text": page(1, 200)},
        {"id": "chain", "text": chain},
    ]
    against = [str(tmp_path / "one"), str(tmp_path / "two")]
    config = make_config(
        jsonl(tmp_path / "new.jsonl", new), output="three", dedup=dedup | {"against": against}, keep={"min_score": -1}
    )
    result = run_filter(config)
    found = {row["id"]: (row["reason"], row["duplicate_of"]) for row in attributes(result.path)}
    assert found == {
        "exact": ("in_earlier_run", f"{against[0]}:old1"),
        "near": ("in_earlier_run", f"{against[0]}:old2"),
        "step": ("in_earlier_run", f"{against[0]}:old3"),
        "fresh": (None, None),
        "fresh-copy": ("exact_duplicate", "fresh"),
        "other-run": ("in_earlier_run", f"{against[1]}:mid5"),
        "both": ("in_earlier_run", f"{against[0]}:old1"),
        "chain": found["chain"],
    }
    assert result.ledger.total.removed["in_earlier_run"] >= 5
    assert first.ledger.total.kept == 20


def test_what_an_earlier_run_removed_for_its_score_is_judged_again(tmp_path: Path, make_config: MakeConfig) -> None:
    rows = [{"id": f"{n}", "text": page(n, 200)} for n in range(20)]
    path = jsonl(tmp_path / "a.jsonl", rows)
    dedup = {"keep_fingerprints": True}
    first = run_filter(make_config(path, output="one", dedup=dedup, keep={"fraction": 0.5}))
    assert first.ledger.total.kept == 10
    against = {"against": [str(tmp_path / "one")]}
    second = run_filter(make_config(path, output="two", dedup=against, keep={"min_score": -1}))
    assert second.ledger.total.kept == 10
    kept = [{row["id"] for row in attributes(run.path) if row["keep"]} for run in (first, second)]
    assert not kept[0] & kept[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"near": {"seed": 2}}, r"dedup\.near\.seed: 1, this config has 2"),
        ({"near": {"bands": 20}}, r"dedup\.near\.bands: 14, this config has 20"),
        ({"near": None}, r"near duplicates were looked for there, and are not here"),
        ({"exact": False}, r"dedup\.exact: True, this config has False"),
    ],
)
def test_fingerprints_of_other_options_are_refused(
    tmp_path: Path, make_config: MakeConfig, change: dict[str, Any], message: str
) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"id": "a", "text": page(1)}])
    run_filter(make_config(path, output="one", dedup={"keep_fingerprints": True}))
    against = {"against": [str(tmp_path / "one")]} | change
    with pytest.raises(RunError, match=message):
        run_filter(make_config(path, output="two", dedup=against))
    assert not (tmp_path / "two").exists()


def test_runs_without_fingerprints_and_damaged_ones_are_refused(tmp_path: Path, make_config: MakeConfig) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"id": f"{n}", "text": page(n)} for n in range(50)])
    run_filter(make_config(path, output="plain"))
    against = {"against": [str(tmp_path / "plain")]}
    with pytest.raises(RunError, match=r"kept no fingerprints.*keep_fingerprints: true"):
        run_filter(make_config(path, output="two", dedup=against))
    with pytest.raises(RunError, match=r"nowhere: no manifest\.json"):
        run_filter(make_config(path, output="two", dedup={"against": [str(tmp_path / "nowhere")]}))
    run_filter(make_config(path, output="one", dedup={"keep_fingerprints": True}))
    against = {"against": [str(tmp_path / "one")]}
    file = tmp_path / "one" / "fingerprints" / "near-00000.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:200] + bytes([content[200] ^ 255]) + content[201:])
    with pytest.raises(RunError, match="fingerprints"):
        run_filter(make_config(path, output="two", dedup=against))


def test_ids_are_unique_over_all_files(tmp_path: Path, make_config: MakeConfig) -> None:
    ids = [["a", "b", "a"], ["a#2", "a", "a"], ["b", "c", ""]]
    paths = [
        jsonl(tmp_path / f"{n}.jsonl", [{"id": i, "text": page(10 * n + k)} for k, i in enumerate(some)])
        for n, some in enumerate(ids)
    ]
    result = run_filter(make_config(*paths, keep={"min_score": -1}))
    found = [row["id"] for row in attributes(result.path)]
    assert found[:8] == ["a", "b", "a#3", "a#2", "a#4", "a#5", "b#2", "c"]
    assert result.ledger.total.renamed == 4


@pytest.mark.parametrize(
    ("name", "phase", "after"),
    [
        ("bands.bin", "attributes", "join"),
        ("near.bin", "join", "copies"),
        ("members.bin", "copies", "exact"),
        ("sets.bin", "shingles", "compare"),
        ("edges.bin", "compare", "settle"),
        ("witnesses.bin", "settle", "witnesses"),
        ("removed.bin", "witnesses", "clusters"),
        ("verdicts.bin", "clusters", "verdicts"),
        ("verdicts.bin", "verdicts", "tally"),
    ],
)
def test_a_flipped_byte_names_the_unit_that_is_to_be_done_again(
    tmp_path: Path, make_config: MakeConfig, name: str, phase: str, after: str
) -> None:
    config = make_config(*corpus(tmp_path, files=2), dedup={"partitions": 1})
    plan = make_plan(config)
    plan.output.mkdir()
    job = Job(plan.output, plan.config, tuple(plan.units), plan.min_score)
    for step in PHASES:
        if step.name == after:
            break
        for unit in range(step.units(job)):
            run_unit(job, step, unit)
    path = job.folder(phase, 0) / name
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedError, match=f"phase {phase}, unit 0: {name}"):
        run_unit(job, step, 0)


def test_no_documents(tmp_path: Path, make_config: MakeConfig) -> None:
    dedup = {"keep_fingerprints": True, "near": {"similarity": 0.8}}
    result = run_filter(make_config(jsonl(tmp_path / "a.jsonl", []), dedup=dedup, keep={"tokens": 10}))
    assert result.ledger.total.records == 0
    assert pq.read_table(result.shards[0]).num_rows == 0


IDS = pa.array([f"id {n}" for n in range(4000)])


def repeat(config: dict[str, object], sizes: list[int], scores: list[float]) -> list[int]:
    size, score = np.array(sizes), np.array(scores, np.float32)
    return times_written(RepeatConfig.model_validate(config), size, score, IDS[: len(size)]).tolist()


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
    ids = IDS.take(pa.array(np.arange(3999, -1, -1)))
    half = np.full(4000, 0.5, np.float32)
    reversed_ids = times_written(RepeatConfig.model_validate(curve), np.ones(4000, np.int64), half, ids)
    assert reversed_ids.tolist()[::-1] == found
