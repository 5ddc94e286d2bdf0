"""Filter WARC files you have: main text by resiliparse, English only, deduplicated, scored, sharded.

    python examples/common_crawl_warc.py CC-MAIN-*.warc.gz --output runs/warc

To stream the WARCs of a whole crawl instead, see configs/common-crawl.yaml.
"""

from __future__ import annotations

import argparse

from filters import FilterConfig, run_filter


def main() -> None:
    """Filter, then print what became of the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warc", nargs="+")
    parser.add_argument("--output", required=True, help="folder of the run; replaced if it holds an earlier one")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    config = FilterConfig.model_validate(
        {
            "input": {"kind": "warc", "paths": arguments.warc},
            "language": {"keep": ["en"], "min_score": 0.5},
            "output": {"path": arguments.output, "rejected": True},
            "executor": {"workers": arguments.workers},
        }
    )
    result = run_filter(config, force_new=True)
    total = result.ledger.total
    print(f"{total.records:,} responses: {total.kept:,} kept")
    for reason, count in total.removed.most_common():
        print(f"  removed {count:,}: {reason}")
    for cause, count in total.quarantined.most_common():
        print(f"  quarantined {count:,}: {cause}")
    print(*result.shards, sep="\n")


if __name__ == "__main__":
    main()
