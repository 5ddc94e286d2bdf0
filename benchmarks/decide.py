"""`finesieve select` beside the run it saves, rules a second on Arrow batches, and several heads on one table.

    python -m benchmarks.decide [--documents 20000] [--rows 1000000] [--repeats 5]

One worker, one core. Both write the same shards, from the same Parquet, with `edu-en`; `select` starts from a finished
run that kept a tenth and has the rest in rejected/. Rules are timed in this process, compiled before. Heads are
those that come with finesieve on `edu-en`'s table; of 12, some are there several times, and each is computed.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from loguru import logger

from benchmarks.corpus import build
from benchmarks.measure import Report, Row, Timing, arguments, bind_to_one_core, clocked, in_turn, ratios
from filters import FilterConfig, Run, run_filter
from filters.kernels.packed import PackedText
from filters.model import QualityModel, predict_together
from filters.run.select import run_select, selection_config
from filters.scores.rules import COLUMNS, Rule

KEEP = {"where": "tokens >= 50 and score >= 0.3", "fraction": 0.1}
RULES = {
    "plain": ("score >= 1.5 and language = 'en' and tokens between 50 and 100000", None),
    "ranked": ("(score >= 1.5 or cluster_size > 3) and host not like '%.gov'", "score * ln(tokens)"),
    "draw": ("score >= 0.5 and draw(id) < 0.1", None),
}


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, documents=20_000, rows=1_000_000, repeats=5)
    logger.remove()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kind = build(folder / "dump.parquet", options.documents)
        report = Report(
            "decide", f"{options.documents:,} documents of about 3,200 characters, {kind}", bind_to_one_core()
        )
        _select(report, folder, options.documents, options.repeats)
        _rules(report, options.rows, options.repeats)
        _heads(report, folder / "dump.parquet", options.repeats)
        report.write(options.results)


def _select(report: Report, folder: Path, documents: int, repeats: int) -> None:
    def config(output: str, keep: dict[str, Any], **more: Any) -> FilterConfig:
        data = {
            "input": {"kind": "parquet", "paths": [str(folder / "dump.parquet")], "id_key": "id"},
            "keep": keep, "output": {"path": str(folder / output)} | more,
        }  # fmt: skip
        return FilterConfig.model_validate(data)

    first = Run(str(run_filter(config("first", {"fraction": 0.1}, rejected=True)).path))

    def timed(side: str) -> Timing:
        shutil.rmtree(folder / side, ignore_errors=True)

        def work() -> int:
            if side == "filter":
                run_filter(config(side, KEEP))
            else:
                chosen = selection_config(first, KEEP, str(folder / side), {"output": {"rejected": False}})
                run_select(first, chosen)
            return documents

        return clocked(work)

    timings = in_turn({"select": lambda: timed("select"), "filter": lambda: timed("filter")}, repeats)
    report.add(
        Row(row="select.filter", what="`finesieve select`, a rule and a share", target=5,
            against="`finesieve filter` with the same `keep`, `edu-en`",
            **ratios(timings["select"], timings["filter"])),
    )  # fmt: skip


def _rules(report: Report, rows: int, repeats: int) -> None:
    random = np.random.default_rng(1)
    table = pa.table(
        {
            "id": [f"<urn:uuid:{number:032x}>" for number in range(rows)],
            "score": random.random(rows, np.float32) * 3,
            "tokens": random.integers(1, 5000, rows).astype(np.int32),
            "language": random.choice(["en", "da", "de"], rows),
            "host": [f"host-{number % 50_000}.org" for number in range(rows)],
            "cluster_size": random.integers(1, 6, rows).astype(np.int32),
        }
    )
    for name, (where, by) in RULES.items():
        rule = Rule(where, by, COLUMNS)
        rule.decide(table.slice(0, 1000))
        rates = []
        for _ in range(repeats):
            timing = clocked(lambda rule=rule: len(rule.decide(table).keeps))
            rates.append(timing.documents / timing.cpu / 1e6)
        report.add(
            Row(row=f"rules.{name}", what=f"rule `{where}`" + f" by `{by}`" * bool(by), against="",
                value=round(statistics.median(rates), 2), unit="million documents a second of processor time",
                better="higher", target=1, held_to="nothing",
                range=(round(min(rates), 2), round(max(rates), 2)), documents=rows, repeats=repeats),
        )  # fmt: skip


def _heads(report: Report, dump: Path, repeats: int) -> None:
    texts = PackedText.from_arrow(
        pq.read_table(dump, columns=["text"])["text"].cast(pa.large_string()).combine_chunks()
    )
    names = ("edu-en", "depth-en", "topic-en", "promo-en", "format-en")
    models = [QualityModel.load(name) for name in names]
    sets = {count: (models[:1] + models[1:] * 3)[:count] for count in (1, 2, 4, 12)}

    def timed(count: int) -> Timing:
        def work() -> int:
            predict_together(sets[count], texts)
            return len(texts)

        return clocked(work)

    for count in sets:
        timed(count)
    timings = in_turn({str(count): lambda count=count: timed(count) for count in sets}, repeats)
    for count, target in ((2, 1.1), (4, 1.3), (12, 1.3)):
        report.add(
            Row(row=f"heads.{count}", what=f"`edu-en` and {count - 1} more head(s) on its table", target=target,
                against="`edu-en` alone", held_to="nothing",
                **ratios(timings[str(count)], timings["1"], of="time")),
        )  # fmt: skip


if __name__ == "__main__":
    main()
