"""Several heads on the table of `edu-en` beside `edu-en` alone: what a second one costs, four and twelve.

    python -m benchmarks.heads [--documents 4000] [--repeats 7]

One thread. The heads are the embedded models, over and over; texts are packed before the clock starts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.corpus import build
from benchmarks.measure import Report, Row, Timing, arguments, bind_to_one_core, clocked, in_turn, ratios
from filters.kernels.packed import PackedText
from filters.model import QualityModel, predict_together

NAMES = ("edu-en", "topic-en", "format-en", "promo-en", "depth-en")
COUNTS = {2: 1.1, 4: None, 12: 1.3}
"""Heads -> most times the time of one."""


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, documents=4000, repeats=7)
    core = bind_to_one_core()
    with tempfile.TemporaryDirectory() as folder:
        kind = build(Path(folder) / "pages.parquet", options.documents)
        texts = pq.read_table(Path(folder) / "pages.parquet")["text"].to_pylist()
    report = Report("heads", f"{len(texts):,} {kind}", core)
    embedded = [QualityModel.load(name) for name in NAMES]
    packed = PackedText.from_strings(texts)

    def side(count: int) -> Callable[[], Timing]:
        models = [*embedded, *embedded[1:], *embedded[1:]][:count]

        def work() -> int:
            predict_together(models, packed)
            return len(texts)

        return lambda: clocked(work)

    timings = in_turn({str(count): side(count) for count in (1, *COUNTS)}, options.repeats)
    for count, most in COUNTS.items():
        report.add(
            Row(row=f"heads.{count}", what=f"{count} heads on the table of edu-en", target=most,
                against="edu-en alone, in time", **ratios(timings[str(count)], timings["1"], of="time"))
        )  # fmt: skip
    report.write(options.results)


if __name__ == "__main__":
    main()
