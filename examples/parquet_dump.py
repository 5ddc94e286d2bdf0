"""Filter Parquet files with a text column, then open the result with `datasets`.

python examples/parquet_dump.py dump/*.parquet --output runs/parquet
"""

from __future__ import annotations

import argparse

from datasets import load_dataset

from filters import FilterConfig, run_filter


def main() -> None:
    """Filter, load the shards, print the three best documents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parquet", nargs="+")
    parser.add_argument("--output", required=True, help="folder of the run; replaced if it holds an earlier one")
    parser.add_argument("--text-key", default="text")
    parser.add_argument("--id-key")
    parser.add_argument("--min-score", type=float, default=1.5)
    arguments = parser.parse_args()
    config = FilterConfig.model_validate(
        {
            "input": {
                "kind": "parquet",
                "paths": arguments.parquet,
                "text_key": arguments.text_key,
                "id_key": arguments.id_key,
            },
            "keep": {"min_score": arguments.min_score},
            "output": {"path": arguments.output},
        }
    )
    result = run_filter(config, force_new=True)
    total = result.ledger.total
    print(f"{total.records:,} read = {total.kept:,} kept + {total.removed.total():,} removed "
          f"+ {total.quarantined.total():,} quarantined")  # fmt: skip
    shards = load_dataset("parquet", data_files=[str(path) for path in result.shards], split="train", streaming=True)
    best = sorted(shards, key=lambda row: -row["score"])[:3]
    for row in best:
        print(f"{row['score']:.2f}  {row['id']}  {row['text'][:60]!r}")


if __name__ == "__main__":
    main()
