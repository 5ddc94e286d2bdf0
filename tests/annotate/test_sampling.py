"""Sampling: known probabilities, no copies, the same draw from the same input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from filters.annotate.config import AnnotateConfig
from filters.annotate.run import describe_sample
from filters.annotate.sampling import Sample, SampleConfig, Sampler, draw
from filters.config.filter import ExtractConfig, InputConfig
from filters.errors import ConfigError, InputError
from filters.model import QualityModel
from filters.model.folder import KeepRule
from filters.read.batch import Batch

WORDS = [f"word{number}" for number in range(500)]


def page(number: int, words: int = 40) -> str:
    rng = np.random.default_rng(number)
    return f"page {number} " + " ".join(rng.choice(WORDS, words))


def batch(texts: list[str], source: str = "dump", start: int = 0) -> Batch:
    n = len(texts)
    return Batch(
        source=source,
        position=np.arange(start, start + n),
        id=pa.array([f"{source}-{start + k}" for k in range(n)]),
        text=pa.array(texts, pa.large_string()),
        reason=np.full(n, None, object),
        records=n,
    )


class StubModel:
    """Scores a page by the number in its second word; a second one disagrees on every third page."""

    keep = KeepRule(min_score=1.5)

    def __init__(self, name: str) -> None:
        self.name = name

    def score_packed(self, packed: Any) -> np.ndarray[Any, Any]:
        numbers = np.array([int(text.split()[1]) for text in packed])
        scores = (numbers % 40) / 10
        return (scores + (numbers % 3 == 0) * (self.name == "other")).astype(np.float32)


@pytest.fixture
def stub_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QualityModel, "load", StubModel)


def drawn(texts: list[str], cut: int = 1000, **config: Any) -> Sample:
    sampler = Sampler(SampleConfig(**config))
    for start in range(0, len(texts), cut):
        sampler.add(batch(texts[start : start + cut], start=start))
    return sampler.sample()


PAGES = [page(number, words=20 + 40 * (number % 7)) for number in range(120)]


def test_a_random_sample_has_equal_probabilities_and_does_not_depend_on_order_or_batches() -> None:
    sample = drawn(PAGES, size=30)
    assert len(sample.documents) == 30
    assert {document.probability for document in sample.documents} == {30 / 120}
    backwards = drawn(PAGES[::-1], cut=7, size=30)
    assert [d.text for d in backwards.documents] == [d.text for d in sample.documents]
    assert {d.text for d in drawn(PAGES, size=30, seed=1).documents} != {d.text for d in sample.documents}


def test_a_larger_sample_contains_a_smaller_one() -> None:
    small, large = ({d.text for d in drawn(PAGES, size=size).documents} for size in (20, 60))
    assert small < large


def test_copies_are_drawn_once() -> None:
    near = page(5, 200).replace("word7 ", "changed ")
    texts = [page(5, 200), page(5, 200).upper(), near, page(6), page(6), ""]
    reason = np.full(6, None, object)
    whole = batch(texts)
    reason[5] = "empty_text"
    whole.reason = reason
    sampler = Sampler(SampleConfig(size=10))
    sampler.add(whole)
    sample = sampler.sample()
    assert sorted(d.position for d in sample.documents) == [0, 3]  # type: ignore[type-var]
    assert (sample.records, sample.blank, sample.copies, sample.population) == (6, 1, 3, 2)
    assert {d.probability for d in sample.documents} == {1.0}
    assert sample.lines()[0] == "6 records, 2 distinct documents; left out: 3 copies or near copies, 1 without text"


def test_strata_share_equally_and_small_ones_are_taken_whole(stub_model: None) -> None:
    sample = drawn(PAGES, cut=11, size=30, design="stratified", strata=["length"])
    assert sum(part.drawn for part in sample.strata) == 30 == len(sample.documents)
    assert sum(part.population for part in sample.strata) == 120
    most = max(part.drawn for part in sample.strata)
    for part in sample.strata:
        assert part.drawn == part.population or part.drawn >= most - 1
        members = [d for d in sample.documents if d.stratum == part.name]
        assert {d.probability for d in members} == {part.drawn / part.population}
    crossed = drawn(PAGES, size=60, design="stratified", strata=["language", "source", "score"])
    assert all(
        name.startswith("language ") and ", source dump, score " in name for name in (s.name for s in crossed.strata)
    )


def test_strata_in_any_order_give_the_same_sample() -> None:
    forwards = drawn(PAGES, cut=13, size=25, design="stratified", strata=["length"])
    backwards = drawn(PAGES[::-1], cut=50, size=25, design="stratified", strata=["length"])
    assert {(d.text, d.probability) for d in forwards.documents} == {
        (d.text, d.probability) for d in backwards.documents
    }


@pytest.mark.parametrize(
    "config",
    [
        {"design": "random"},
        {"design": "stratified", "strata": ["length"]},
        {"design": "active", "prefer": "uncertain"},
        {"design": "active", "prefer": "high", "spread": 1.0},
        {"design": "active", "prefer": "disagreement", "models": ["edu-en", "other"]},
    ],
    ids=lambda config: str(config.get("prefer", config["design"])),
)
def test_estimates_are_unbiased(config: dict[str, Any], stub_model: None) -> None:
    """Over many draws the estimated total is right, and every document is drawn as often as its probability says."""
    whole = batch(PAGES)
    values = np.array([float(len(text)) + 100 * (number % 40) for number, text in enumerate(PAGES)])
    totals, counts, size = [], np.zeros(120), []
    inverse = np.zeros(120)
    runs = 120
    for seed in range(runs):
        sampler = Sampler(SampleConfig(size=24, seed=seed, near=None, **config))
        sampler.add(whole)
        documents = sampler.sample().documents
        rows = np.array([d.position for d in documents], int)
        probabilities = np.array([d.probability for d in documents])
        totals.append(np.sum(values[rows] / probabilities))
        counts[rows] += 1
        inverse[rows] += 1 / probabilities
        size.append(len(rows))
    error = np.std(totals) / np.sqrt(runs)
    assert abs(np.mean(totals) - values.sum()) < 4 * error
    assert abs(np.mean(totals) / values.sum() - 1) < 0.05
    # Horvitz-Thompson document by document: the mean of 1/p over the draws that hold it is 1
    z = (inverse / runs - 1) / np.maximum(np.sqrt(inverse / np.maximum(counts, 1) / runs), 1e-9)
    assert np.abs(z).max() < 5
    assert 21 <= np.mean(size) <= 24


def test_active_designs_draw_what_they_prefer(stub_model: None) -> None:
    pages = [page(number) for number in range(400)]

    def mean_of(config: dict[str, Any], name: str = "score:edu-en") -> tuple[float, float]:
        documents = drawn(pages, size=60, design="active", **config).documents
        scores = [float(d.columns[name]) for d in documents]
        return float(np.mean(scores)), float(np.average(scores, weights=[1 / d.probability for d in documents]))

    sampled, estimated = mean_of({"prefer": "high"})
    assert sampled > 2.8
    assert abs(estimated - 1.95) < 0.5
    near = drawn(pages, size=60, design="active", prefer="uncertain", spread=0.2).documents
    assert np.median([abs(float(d.columns["score:edu-en"]) - 1.5) for d in near]) < 0.4
    differing = drawn(pages, size=60, design="active", prefer="disagreement", models=["a", "other"], spread=0.2)
    apart = [d.columns["score:other"] != d.columns["score:a"] for d in differing.documents]
    assert np.mean(apart) > 0.7
    assert len(drawn(pages, size=1000, design="active").documents) == 400


def test_reads_any_input_of_filter(tmp_path: Path) -> None:
    dump = tmp_path / "dump.jsonl"
    lines = [
        json.dumps({"text": text, "url": f"https://a.example/{n}", "topic": n % 3}) for n, text in enumerate(PAGES)
    ]
    dump.write_text("\n".join([*lines, "{broken", json.dumps({"text": " "})]))
    source = InputConfig(kind="jsonl", paths=(str(dump),), columns=("url", "topic"))
    seen: list[int] = []
    sample = draw([source], ExtractConfig(), SampleConfig(size=20), on_batch=lambda batch: seen.append(batch.records))
    assert sum(seen) == sample.records == 122
    assert (sample.quarantined, sample.blank, sample.population) == (1, 1, 120)
    for document in sample.documents:
        row = int(document.text.split()[1])
        assert document.url == f"https://a.example/{row}"
        assert document.columns == {"topic": str(row % 3)}  # JSONL columns are read as text
        assert (document.source, document.position) == (str(dump), row + 1)
    with pytest.raises(InputError, match="nothing to annotate in this input: 122 records, 0 distinct"):
        draw([source], ExtractConfig(), SampleConfig(size=20, languages=("fi",)))


def test_more_strata_than_documents_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"larger sample\.size, or fewer sample\.strata"):
        drawn(PAGES, size=2, design="stratified", strata=["length", "language"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"design": "stratified"}, "needs `strata`"),
        ({"strata": ["length"]}, "belongs to design stratified"),
        ({"design": "active", "prefer": "disagreement"}, "2 needed to disagree"),
        ({"design": "stratified", "strata": ["length", "length"]}, "named twice"),
    ],
)
def test_contradictions_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampleConfig(**config)


def test_a_sample_of_a_signed_address_is_the_same_with_a_renewed_signature() -> None:
    def described(signature: str) -> dict[str, Any]:
        path = f"https://h.example/in.jsonl?X-Amz-Signature={signature}"
        judge = {"name": "j", "base_urls": ["http://127.0.0.1:1/v1"], "model": "m"}
        config = {"input": {"kind": "jsonl", "paths": [path]}, "rubric": "edu", "judges": [judge], "store": "s.sqlite"}
        return describe_sample(AnnotateConfig.model_validate(config))

    assert described("S1gnature") == described("S2gnature")
    assert "ignature" not in str(described("S1gnature"))
