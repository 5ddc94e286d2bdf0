"""Keep/drop decisions that the robustness probes flip, on pages a model has never seen; labels are not needed.

    python benchmarks/probes.py MODEL PAGES.parquet [--output RESULTS.json]

A cross-validated report cannot say this for a model on a static table: a labelled page is scored as if it were not in
the table, and a changed one would be scored with it. So the pages must be in neither the labels nor the table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from filters.evaluate.probes import PROBES, probe_scores
from filters.model import QualityModel
from filters.statistics.resampling import connected, mean_estimates, near_pairs
from filters.train.annotations import read_pages


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pages")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "probes.json")
    options = parser.parse_args()
    model = QualityModel.load(options.model)
    pages = read_pages(options.pages)
    texts = list(dict.fromkeys(pages.texts))
    kept = model.keep.keep(model.score(texts))
    groups = connected(len(texts), near_pairs(texts))
    probed = probe_scores(model.score, texts)
    flips = [kept != model.keep.keep(scores) for scores in probed.values()]
    estimates = mean_estimates(flips, [np.ones(len(texts))] * len(flips), groups, 1000, 0)
    result = {
        "model": options.model,
        "model_digest": model.digest,
        "pages": Path(options.pages).name,
        "pages_sha256": pages.sha256,
        "texts": len(texts),
        "kept_share": float(kept.mean()),
        "flips": {
            name: {"meaning": PROBES[name].meaning, **estimate.model_dump()}
            for name, estimate in zip(probed, estimates, strict=True)
        },
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(texts)} texts, {kept.mean():.1%} kept")
    for name, estimate in zip(probed, estimates, strict=True):
        print(f"{name:14} {estimate}")


if __name__ == "__main__":
    main()
