"""Near copies: what goes is what a sequential reader would remove who keeps the best, and each names who it is like."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters import run_filter as run_in_workers
from filters.config.filter import FilterConfig, NearConfig
from filters.dedup import candidates, rounds
from filters.dedup.fingerprinter import near_keys
from filters.errors import RunError
from filters.kernels.packed import PackedText
from filters.kernels.words import word_hashes
from filters.run.verify import Check, verify_run
from tests.run.conftest import Heard, jsonl, page
from tests.run.conftest import run_in_process as run_filter

MakeConfig = Callable[..., FilterConfig]
Row = dict[str, Any]


def attributes(run: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(run / "attributes").to_pylist()
    return rows


def shingles(words: list[int], width: int) -> frozenset[Any]:
    if len(words) <= width:
        return frozenset(words)
    return frozenset(tuple(words[n : n + width]) for n in range(len(words) - width + 1))


def alike(kept: frozenset[Any], gone: frozenset[Any], near: NearConfig) -> float:
    common = len(kept & gone)
    return common / (len(gone) if near.measure == "containment" else len(kept) + len(gone) - common)


def expected(rows: list[Row], texts: list[str], near: NearConfig, keep: str) -> list[tuple[str | None, Any, Any]]:
    """(reason, duplicate_of, similarity) of each document: by a loop from best to worst that compares all pairs."""
    packed = PackedText.from_strings(texts)
    keys, _ = near_keys(packed, near)
    words = word_hashes(PackedText.from_strings([unicodedata.normalize("NFC", text) for text in texts]))
    sets = [
        shingles(words.hashes[words.offsets[n] : words.offsets[n + 1]].tolist(), near.shingle)
        for n in range(len(texts))
    ]
    exact = [" ".join(text.lower().split()) for text in texts]
    order = range(len(texts))
    if keep == "best":
        order = sorted(order, key=lambda n: (-rows[n]["score"], -rows[n]["bytes"], rows[n]["id"].encode()))
    kept: list[int] = []
    by_text: dict[str, int] = {}
    roots = {text: n for n, text in reversed(list(enumerate(exact)))}
    found: dict[int, tuple[str | None, Any, Any]] = {}
    for n in order:
        same = by_text.setdefault(exact[n], n)
        if same != n and found[same][0] is None:
            found[n] = "exact_duplicate", rows[same]["id"], 1.0
            continue
        witnesses = [
            (-alike(sets[k], sets[n], near), roots[exact[k]], k)
            for k in kept
            if sets[n] and sets[k] and (keys[n] == keys[k]).any() and alike(sets[k], sets[n], near) >= near.similarity
        ]
        if same != n:  # of a removed one
            found[n] = found[same]
        elif witnesses:
            similarity, _, witness = min(witnesses)
            found[n] = "near_duplicate", rows[witness]["id"], -similarity
        else:
            kept.append(n)
            found[n] = None, None, None
    return [found[n] for n in range(len(texts))]


def drifting(draw: random.Random, seed: int, steps: int) -> list[str]:
    """a ~ b ~ ... ~ z: each is like the next one, the ends are not."""
    words = page(seed, 60).split()
    found = []
    for _ in range(steps):
        found.append(" ".join(words))
        words[draw.randrange(len(words))] = f"new{draw.randrange(10**6)}"
    return found


def random_texts(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    texts: list[str] = []
    while len(texts) < count:
        kind = draw.random()
        if kind < 0.3:
            texts += drifting(draw, draw.randrange(10**6), draw.randrange(2, 30))
        elif kind < 0.5 and texts:
            texts.append(draw.choice(texts).upper())
        elif kind < 0.6:
            texts.append(
                " ".join(draw.choice(["free", "call", "now", "42", "и", "水"]) for _ in range(draw.randrange(7)))
            )
        elif kind < 0.8:
            frame = page(draw.randrange(3), 50)
            texts.append(f"{frame} {page(draw.randrange(10**6), draw.randrange(3, 25))}")
        else:
            texts.append(page(draw.randrange(10**6), 60))
    draw.shuffle(texts)
    return texts[:count]


@pytest.mark.parametrize("near", [{}, {"bands": 40, "rows": 2, "similarity": 0.5}, {"measure": "containment"}])
@pytest.mark.parametrize("keep", ["best", "first"])
def test_what_goes_is_what_a_sequential_reader_would_remove(
    tmp_path: Path, make_config: MakeConfig, near: dict[str, Any], keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one round must do, what it leaves is settled in many stretches, and memory is short."""
    texts = random_texts(len(near), 500)
    paths = [
        jsonl(tmp_path / f"{n}.jsonl", [{"id": f"{k}", "text": text} for k, text in enumerate(texts) if k // 100 == n])
        for n in range(5)
    ]
    trees = []
    for name, partitions, memory in (("one", 1, "1GiB"), ("many", 16, "1MiB"), ("settled", 7, "1MiB")):
        if name != "one":  # where all that is undecided fits into memory, there is no round
            monkeypatch.setattr(rounds, "_BYTES_PER_EDGE", 2**15)
            monkeypatch.setattr(rounds, "_EVERY", 1)
        if name == "settled":
            monkeypatch.setattr(rounds, "ROUNDS", 1)
        dedup = {"near": near, "keep": keep, "partitions": partitions, "memory": memory}
        run = run_filter(make_config(*paths, output=name, dedup=dedup, keep={"min_score": -9})).path
        trees.append(attributes(run))
    assert trees[0] == trees[1] == trees[2]
    rows = [row for row in trees[0] if row["reason"] != "empty_text"]
    wanted = expected(rows, [texts[int(row["id"])] for row in rows], NearConfig(**near), keep)
    for row, (reason, witness, similarity) in zip(rows, wanted, strict=True):
        assert (row["reason"], row["duplicate_of"]) == (reason, witness)
        assert row["similarity"] == (similarity if similarity is None else pytest.approx(similarity, abs=1e-12))
    counts = Counter(row["reason"] for row in rows)
    assert min(counts[name] for name in (None, "near_duplicate", "exact_duplicate")) > 3
    sizes = Counter(row["near_cluster"] for row in rows)
    assert all(row["cluster_size"] == sizes[row["near_cluster"]] for row in rows)


def one_file(tmp_path: Path, make_config: MakeConfig, texts: list[str], name: str = "run", **dedup: Any) -> Any:
    rows = [{"id": f"{n}", "text": text} for n, text in enumerate(texts)]
    path = jsonl(tmp_path / f"{name}.jsonl", rows)
    return run_filter(make_config(path, output=name, dedup=dedup, keep={"min_score": -9}))


def reasons(result: Any) -> list[str | None]:
    return [row["reason"] for row in attributes(result.path)]


def test_a_page_in_nfd_is_a_near_copy_of_the_same_in_nfc(tmp_path: Path, make_config: MakeConfig) -> None:
    words = ["Ærlighed på øen", "Việt Nam tiếng", "हिन्दी ज़रूर", "한국어 문장", "ガギグゲゴ", "العَرَبِيَّة"]
    draw = random.Random(0)
    pages = [" ".join(draw.choices(words, k=40)) for _ in range(5)]
    texts = [unicodedata.normalize(form, text) for text in pages for form in ("NFC", "NFD")]
    rows = attributes(one_file(tmp_path, make_config, texts).path)
    assert sorted(row["reason"] or "" for row in rows) == [""] * 5 + ["near_duplicate"] * 5
    assert {row["similarity"] for row in rows} == {None, 1.0}


def test_short_texts_are_copies_only_of_the_same_words(tmp_path: Path, make_config: MakeConfig) -> None:
    texts = [f"w{n} v" for n in range(3000)] + [
        "Read more!",
        "read more",
        "more read",
        "read more now",
        "и",
        "水 火",
        "水、火",
    ]
    rows = attributes(one_file(tmp_path, make_config, texts, keep="first").path)
    assert [row["id"] for row in rows if row["reason"]] == ["3001", "3006"]
    assert {(row["reason"], row["similarity"]) for row in rows if row["reason"]} == {("near_duplicate", 1.0)}


def test_numbers_are_alike_where_digits_are_folded(tmp_path: Path, make_config: MakeConfig) -> None:
    texts = [" ".join(f"price of item {n * k} is 3.{n} today" for k in range(20)) for n in (3, 11, 127)]
    assert reasons(one_file(tmp_path, make_config, texts, "kept")) == [None] * 3
    found = reasons(one_file(tmp_path, make_config, texts, "folded", near={"digits": "fold"}))
    assert sorted(filter(None, found)) == ["near_duplicate"] * 2


def test_keep_none_removes_every_document_that_has_a_copy(tmp_path: Path, make_config: MakeConfig) -> None:
    base, other = page(1, 100), page(2, 100)
    texts = [base, base.upper(), base + " more", other, page(3, 100), page(3, 100) + "!", page(4, 100), page(4, 100)]
    result = one_file(tmp_path, make_config, texts, keep="none")
    rows = attributes(result.path)
    assert [row["id"] for row in rows if row["keep"]] == ["3"]
    assert [row["reason"] for row in rows] == [
        "near_duplicate", "near_duplicate", "near_duplicate", None, "near_duplicate", "near_duplicate",
        "exact_duplicate", "exact_duplicate",
    ]  # fmt: skip
    copies = {row["id"]: row["duplicate_of"] for row in rows}
    assert copies["2"] in ("0", "1")
    assert (copies["4"], copies["5"], copies["6"], copies["7"]) == ("5", "4", "7", "6")
    assert all(row["similarity"] is not None for row in rows if row["reason"])


def test_crowded_buckets_are_counted_and_still_lose_their_copies(
    tmp_path: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "EVERY_PAIR", 10)
    frame, draw = page(1, 80), random.Random(0)
    texts = [f"{frame} {page(100 + n % 12, 40 if n % 2 else 4)}" for n in range(300)]
    texts = [" ".join([*text.split(), f"end{n}"]) for n, text in enumerate(texts)]
    draw.shuffle(texts)
    trees = []
    for name, more in (("one", {"partitions": 1}), ("many", {"partitions": 9, "memory": "1MiB"})):
        result = one_file(tmp_path, make_config, texts, name, exact=False, **more)
        trees.append([{k: v for k, v in row.items() if k != "source"} for row in attributes(result.path)])
        near = result.manifest["dedup"]["near"]
        assert near["crowded_buckets"] > 0
        assert 200 < near["documents_in_crowded_buckets"] <= 300
        assert near["compared"] < 300 * 14 * 10
    assert trees[0] == trees[1]
    kept = {row["id"] for row in trees[0] if row["keep"]}
    assert len(kept) < 30
    sets = [shingles(text.lower().split(), 5) for text in texts]  # type: ignore[arg-type]
    for row in trees[0]:
        if row["reason"]:
            assert row["duplicate_of"] in kept
            common = sets[int(row["id"])] & sets[int(row["duplicate_of"])]
            whole = sets[int(row["id"])] | sets[int(row["duplicate_of"])]
            assert len(common) / len(whole) == pytest.approx(row["similarity"])
            assert row["similarity"] >= 0.7


def test_a_source_that_would_lose_too_much_stops_the_run_or_is_named(tmp_path: Path, make_config: MakeConfig) -> None:
    good = [{"id": f"g{n}", "url": f"https://good.org/{n}", "text": page(n, 60), "kind": "a"} for n in range(30)]
    bad = [
        {"id": f"b{n}", "url": f"https://www.bad.org/{n}", "text": f"{page(99, 60)} {n}", "kind": "b"}
        for n in range(30)
    ]
    paths = [jsonl(tmp_path / "good.jsonl", good + bad[:15]), jsonl(tmp_path / "bad.jsonl", bad[15:])]
    source = {"kind": "jsonl", "paths": [str(path) for path in paths], "id_key": "id"}
    sections = {"keep": {"min_score": -9}, "input": source | {"slices": ["kind"], "columns": ["kind", "url"]}}
    limit = {"max_source_loss": 0.9}
    with pytest.raises(
        RunError, match=r"30 documents go as near copies.*largest cluster has 30.*stays and b\d+ and b\d+ go"
    ):
        run_filter(make_config(*paths, output="stops", dedup=limit, **sections))
    assert not (tmp_path / "stops" / "manifest.json").exists()
    with pytest.raises(RunError, match=r"Nothing was published.*go on with dedup\.on_source_loss: warn"):
        run_in_workers(make_config(*paths, output="resumed", dedup=limit, **sections))
    heard = Heard()
    warns = limit | {"on_source_loss": "warn"}
    run_in_workers(make_config(*paths, output="resumed", dedup=warns, **sections), observer=heard)
    assert "going on with the interrupted run" in heard.notices[0]
    assert any("30 documents go as near copies" in notice for notice in heard.notices)
    result = run_filter(make_config(*paths, output="warns", dedup=limit | {"on_source_loss": "warn"}, **sections))
    found = {loss["source"]: loss for loss in result.manifest["dedup"]["source_losses"]}
    assert set(found) == {"host bad.org", "kind b"} | ({str(paths[1])} & set(found))
    assert (found["host bad.org"]["lost"], found["host bad.org"]["documents"]) == (29, 30)
    alright = run_filter(make_config(*paths, output="alright", dedup={"max_source_loss": 1.0}, **sections))
    assert alright.manifest["dedup"]["source_losses"] == []


def test_an_earlier_run_removes_only_what_is_like_a_document_it_kept(tmp_path: Path, make_config: MakeConfig) -> None:
    draw = random.Random(3)
    chain = drifting(draw, 5, 40)
    first = one_file(tmp_path, make_config, [chain[0], page(7, 80)], "old", keep_fingerprints=True)
    rows = attributes(one_file(tmp_path, make_config, chain[1:], "new", against=[str(first.path)], keep="first").path)
    gone = [int(row["id"]) for row in rows if row["reason"] == "in_earlier_run"]
    base = shingles(chain[0].lower().split(), 5)  # type: ignore[arg-type]
    for n, row in enumerate(rows):
        here = shingles(chain[n + 1].lower().split(), 5)  # type: ignore[arg-type]
        similarity = len(base & here) / len(base | here)
        if n in gone:
            assert row["duplicate_of"] == f"{first.path}:0"
            assert row["similarity"] == pytest.approx(similarity)
            assert row["similarity"] >= 0.7
        else:
            assert similarity < 0.8  # more alike than that, they share a band
    assert 0 in gone
    assert 0 < len(gone) < 20
    assert rows[-1]["reason"] != "in_earlier_run"


@pytest.mark.parametrize("value", [0.7, None])
def test_the_old_key_is_refused_with_the_new_one(tmp_path: Path, make_config: MakeConfig, value: float | None) -> None:
    with pytest.raises(ValueError, match=r"verify is gone.*Write dedup\.near\.similarity instead"):
        make_config(tmp_path / "a.jsonl", dedup={"near": {"verify": value}})


def test_witnesses_are_recomputed_from_the_input(tmp_path: Path, make_config: MakeConfig) -> None:
    run = one_file(tmp_path, make_config, random_texts(5, 200), near={"similarity": 0.6}).path

    def check(**options: Any) -> Check:
        return next(check for check in verify_run(run, **options) if check.name == "witnesses")

    copies = sum(row["reason"] == "near_duplicate" for row in attributes(run))
    found = check(all_witnesses=True)
    assert found.ok
    assert found.detail.startswith(f"all {copies} near copies")
    assert check(sample=5).detail.startswith("5 near copies")
    path = next((run / "attributes").iterdir())
    table = pq.read_table(path)
    changed = [value and value - 0.01 for value in table["similarity"].to_pylist()]
    place = table.schema.get_field_index("similarity")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(changed)), path)
    found = check(all_witnesses=True)
    assert found.ok is False
    assert "said to be" in found.detail
    other = [value and "0" for value in table["duplicate_of"].to_pylist()]
    place = table.schema.get_field_index("duplicate_of")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(other)), path)
    assert check(all_witnesses=True).ok is False


def test_near_copies_are_found_in_scripts_without_spaces(tmp_path: Path, make_config: MakeConfig) -> None:
    draw = random.Random(0)
    scripts = {"th": (0x0E01, 0x0E2E), "lo": (0x0EA1, 0x0EA3), "my": (0x1000, 0x1020), "km": (0x1780, 0x17A2)}
    texts = []
    for first, last in scripts.values():
        text = [chr(draw.randrange(first, last + 1)) for _ in range(300)]
        other = [*text]
        other[150] = chr(first if text[150] != chr(first) else last)
        texts += ["".join(text), "".join(other)]
    found = reasons(one_file(tmp_path, make_config, texts))
    assert all(found[n : n + 2].count("near_duplicate") == 1 for n in range(0, 8, 2))
