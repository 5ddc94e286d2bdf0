"""How often pairs of texts of known similarity share a band key, beside what the theory of MinHash says.

    python -m benchmarks.minhash_theory [--pairs 5000]

A pair of texts of random words has its first words in common, so its Jaccard similarity s is known exactly; 14 bands of
8 should join 1 - (1 - s^8)^14 of the pairs. Short texts (60 shingles) are where one-permutation hashing goes wrong.
Nothing is timed.
"""

from __future__ import annotations

import numpy as np

from benchmarks.measure import Report, Row, arguments
from filters.kernels.minhash import band_keys
from filters.kernels.packed import PackedText
from filters.kernels.words import word_hashes

SIMILARITIES = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
SHINGLES = (60, 400)
SHINGLE = 5
WORDS = 50_000


def theory(similarity: float) -> float:
    """Probability that a pair shares a band."""
    return 1 - (1 - similarity**8) ** 14


def joined(similarity: float, shingles: int, pairs: int) -> tuple[float, float]:
    """Share of pairs that share a band key, and the Jaccard similarity they really have."""
    draw = np.random.default_rng([round(similarity * 100), shingles])
    shared = round(2 * shingles * similarity / (1 + similarity))
    common = shared + SHINGLE - 1
    words = draw.integers(WORDS, size=(pairs, 2, shingles + SHINGLE - 1))
    words[:, 1, :common] = words[:, 0, :common]
    vocabulary = np.array([f"w{number}" for number in range(WORDS)], dtype=object)
    texts = [" ".join(vocabulary[row]) for row in words.reshape(2 * pairs, -1)]
    keys = band_keys(word_hashes(PackedText.from_strings(texts)))[0].reshape(pairs, 2, -1)
    return float((keys[:, 0] == keys[:, 1]).any(axis=1).mean()), shared / (2 * shingles - shared)


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, pairs=5000)
    report = Report("minhash_theory", f"{options.pairs:,} pairs of texts of random words at each similarity")
    table = []
    for similarity in SIMILARITIES:
        for shingles in SHINGLES:
            share, true = joined(similarity, shingles, options.pairs)
            line = {"shingles": shingles, "similarity": true, "joined": share, "theory": theory(true)}
            table.append({name: round(value, 4) for name, value in line.items()})
            print(f"  s = {true:.3f}, {shingles:3} shingles: {share:.3f} joined, theory {theory(true):.3f}")
    report.details["pairs"] = table
    points = max(abs(line["joined"] - line["theory"]) for line in table) * 100
    report.add(
        Row(row="minhash.theory", what=f"share of pairs joined, s = .6 to .95, {options.pairs:,} pairs each: "
            "largest deviation", against="1 - (1 - s^8)^14", value=round(points, 2), unit="points",
            better="lower", target=2, held_to="target")
    )  # fmt: skip
    report.write(options.results)


if __name__ == "__main__":
    main()
