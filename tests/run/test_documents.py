"""Our steps between datatrove's own, in one pipeline."""

from __future__ import annotations

from pathlib import Path

from datatrove.pipeline.readers import JsonlReader

from filters import QualityModel
from filters.config.filter import LanguageConfig
from filters.run.documents import ToBatches, ToDocuments
from filters.run.steps import IdentifyLanguage, Score
from tests.run.conftest import jsonl, page


def test_documents_go_through_our_steps_and_keep_their_metadata(tmp_path: Path) -> None:
    texts = [page(n) for n in range(25)]
    jsonl(tmp_path / "in.jsonl", [{"id": f"d{n}", "text": text, "kept": n} for n, text in enumerate(texts)])
    data = JsonlReader(str(tmp_path), glob_pattern="*.jsonl", compression=None).run()
    for step in (ToBatches(size=10), IdentifyLanguage(LanguageConfig()), Score({"score": "edu-en"}), ToDocuments()):
        data = step.run(data)
    documents = list(data)
    assert [document.id for document in documents] == [f"d{n}" for n in range(25)]
    assert [document.text for document in documents] == texts
    assert [document.metadata["kept"] for document in documents] == list(range(25))
    assert [document.metadata["score"] for document in documents] == QualityModel.load("edu-en").score(texts).tolist()
    assert all(isinstance(document.metadata["language"], str) for document in documents)


def test_removed_documents_are_dropped_and_counted(tmp_path: Path) -> None:
    jsonl(
        tmp_path / "in.jsonl",
        [{"id": "en", "text": page(1)}, {"id": "da", "text": "Det er en dansk tekst om vejret " * 5}],
    )
    data = JsonlReader(str(tmp_path), glob_pattern="*.jsonl", compression=None).run()
    end = ToDocuments()
    for step in (ToBatches(), IdentifyLanguage(LanguageConfig(keep=("da",))), end):
        data = step.run(data)
    assert [document.id for document in data] == ["da"]
    assert end.stats.stats["dropped_language"].total == 1
