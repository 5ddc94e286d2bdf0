"""datatrove's own filters on batches."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pyarrow as pa
import pytest
from datatrove.data import Document

from filters.config.filter import HeuristicConfig
from filters.errors import ConfigError, MissingExtraError, install_command
from filters.read.batch import Batch
from filters.run.heuristics import FILTERS, RegexTokenizer, apply_filter, load_filter

PROSE = """\
A river carries sand and small stones from the mountains down to the sea, and it never rests.
Where the water slows, the heaviest grains sink first; the finest mud travels furthest of all.
Over thousands of years these layers grow into a flat, fertile land that people call a delta.
Farmers have lived on such ground since ancient times, because floods leave new soil every spring.
When a dam holds the sand back, the coast begins to shrink, for nothing replaces what the waves take.
Engineers therefore open the gates from time to time and let a strong current wash the bed clean.
You can watch the same process in a jar: shake earth with water, put it down, and wait for an hour.
Draw what you see, name each layer, and explain to a friend why the clay stays cloudy for so long.
"""


def batch(texts: list[str], **columns: list[str | None]) -> Batch:
    n = len(texts)
    return Batch(
        source="a",
        position=np.arange(n, dtype=np.int64),
        id=pa.array([str(row) for row in range(n)], pa.string()),
        text=pa.array(texts, pa.large_string()),
        reason=np.full(n, None, dtype=object),
        columns={name: pa.array(values, pa.string()) for name, values in columns.items()},
        records=n,
    )


@pytest.mark.parametrize("name", [name for name in FILTERS if name != "url"])
def test_every_filter_decides_as_datatrove_does(name: str) -> None:
    texts = [PROSE, "buy " * 200, "lorem ipsum dolor", "- a\n- b\n" * 40, "Only a short line without an end"]
    step = load_filter(HeuristicConfig(name=name))  # type: ignore[arg-type]
    documents = batch(texts)
    apply_filter(step, name, documents)
    for row, text in enumerate(texts):
        result = step.filter(Document(text=text, id="x"))
        kept, reason = result if isinstance(result, tuple) else (result, None)
        assert (documents.reason[row] is None) == kept
        if not kept:
            assert documents.reason[row] == (f"{name}:{reason}" if reason else name)
    assert 0 < documents.alive.sum() < len(texts)


def test_c4_keeps_its_edited_text() -> None:
    documents = batch([PROSE + "Click here\n", PROSE])
    apply_filter(load_filter(HeuristicConfig(name="c4_quality")), "c4_quality", documents)
    assert documents.alive.all()
    assert "Click here" not in documents.text[0].as_py()
    assert documents.text[1].as_py().endswith("for so long.")


def test_a_document_the_filter_raises_on_is_quarantined(monkeypatch: pytest.MonkeyPatch) -> None:
    step = load_filter(HeuristicConfig(name="gopher_quality"))

    def fails(document: Document) -> bool:
        if "bad" in document.text:
            raise RuntimeError("no words")
        return True

    monkeypatch.setattr(step, "filter", fails)
    documents = batch(["good", "bad", "good too"])
    apply_filter(step, "gopher_quality", documents)
    assert documents.id.to_pylist() == ["0", "2"]
    assert documents.quarantined[0].cause.startswith("heuristic_failed: gopher_quality")
    assert documents.records == len(documents) + len(documents.quarantined)


def test_wrong_options_and_missing_packages_are_named() -> None:
    with pytest.raises(ConfigError, match="gopher_quality: options do not fit"):
        load_filter(HeuristicConfig(name="gopher_quality", options={"min_words": 3}))
    if importlib.util.find_spec("spacy") is None:
        with pytest.raises(MissingExtraError, match=re.escape(install_command("heuristics"))):
            load_filter(HeuristicConfig(name="gopher_quality", tokenizer="spacy"))


def test_the_url_filter_needs_its_column() -> None:
    if importlib.util.find_spec("ahocorasick") is None or importlib.util.find_spec("tldextract") is None:
        with pytest.raises(MissingExtraError, match=re.escape(install_command("heuristics"))):
            load_filter(HeuristicConfig(name="url"))
        pytest.skip("pyahocorasick and tldextract are not installed (extra heuristics)")
    step = load_filter(HeuristicConfig(name="url", options={"extra_domains": ["blocked-for-test.org"]}))
    with pytest.raises(ConfigError, match=r"input\.columns"):
        apply_filter(step, "url", batch(["a"]))
    documents = batch(
        ["a", "b", "c"], url=["https://blocked-for-test.org/x", "https://en.wikipedia.org/wiki/Sand", None]
    )
    apply_filter(step, "url", documents)
    assert documents.reason.tolist() == ["url:domain", None, None]


def test_the_regex_tokenizer_finds_words_marks_and_sentences() -> None:
    tokenizer = RegexTokenizer("en")
    assert tokenizer.word_tokenize("Don't stop: 3.5 km, naïve!") == [
        "Don't",
        "stop",
        ":",
        "3.5",
        "km",
        ",",
        "naïve",
        "!",
    ]
    text = "One. Two?\nThree"
    assert tokenizer.sent_tokenize(text) == ["One.", "Two?", "Three"]
    assert [text[start:end] for start, end in tokenizer.span_tokenize(text)] == ["One.", "Two?", "Three"]


def test_a_language_that_would_decide_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gopher_quality: options\.language decides nothing"):
        load_filter(HeuristicConfig(name="gopher_quality", options={"language": "th"}))
