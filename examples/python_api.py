"""The Python API: score texts with the embedded model, and run a filter over a few documents of your own."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from filters import FilterConfig, QualityModel, run_filter

DOCUMENTS = [
    {
        "id": "lesson",
        "text": "A fraction names a part of a whole. The number below the line, the denominator, says into how many "
        "equal parts the whole is cut; the number above it, the numerator, says how many of them are meant. To add "
        "two fractions, first write both with the same denominator: 1/2 + 1/3 = 3/6 + 2/6 = 5/6. Exercise: add 1/4 "
        "and 2/3, and draw both as parts of a circle to check your answer.",
    },
    {
        "id": "shop",
        "text": "Buy now! Free shipping on all orders over $50. Add to cart. Wishlist. 20% off, limited offer!",
    },
]
# An exact copy but for case and white space: the run removes it.
DOCUMENTS.append({"id": "copy", "text": DOCUMENTS[0]["text"].upper().replace(" ", "  ")})


def main() -> None:
    """Score, then filter."""
    model = QualityModel.load("edu-en")
    scores = model.score([document["text"] for document in DOCUMENTS])
    for document, score in zip(DOCUMENTS, scores, strict=True):
        print(f"{document['id']:8} {score:.2f} {'keep' if score >= model.keep.min_score else 'drop'}")

    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder, "dump.jsonl")
        dump.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
        config = FilterConfig.model_validate(
            {
                "input": {"kind": "jsonl", "paths": [str(dump)], "id_key": "id"},
                "keep": {"min_score": float(min(scores))},
                "output": {"path": str(Path(folder, "run"))},
            }
        )
        result = run_filter(config)
        total = result.ledger.total
        print(f"{total.records} read = {total.kept} kept + {dict(total.removed)} removed; shards: {len(result.shards)}")


if __name__ == "__main__":
    main()
