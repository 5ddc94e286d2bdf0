"""The tables of README.md, docs/results/ and benchmarks/README.md, made from the results.

    python -m benchmarks.table [--results DIR] [--write]

Shows them; `--write` replaces what stands between the markers of each file. Results of every script are needed. Tables
of what is measured by hand come from `benchmarks.hand_tables`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import hand_tables
from benchmarks.measure import RESULTS
from benchmarks.run import SCRIPTS

ROOT = Path(__file__).resolve().parents[1]
TARGETS = (
    "fasttext_models",
    "minhash_speed",
    "minhash_theory",
    "end_to_end",
    "formats",
    "decide",
    "heads",
    "warc",
    "workers",
    "growth",
    "start",
)
"""Scripts of the first table, in its order."""
README_ROWS = (
    ("filter.datatrove-spacy", "`finesieve filter`, Parquet to Parquet", "datatrove's recipe as it ships (spaCy)"),
    ("filter.datatrove-regex", "the same", "datatrove's recipe with a regex tokenizer"),
    ("filter.dolma", "the same", "dolma's Rust `dedupe` (exact) and `mix` alone"),
    ("filter.warc", "`finesieve filter`, WARC in", "datatrove: WarcReader, Trafilatura, the recipe (spaCy)"),
    ("score.bigrams", "scoring a fastText .bin (dim 100, bigrams)", "fastText's `predict`"),
    ("minhash.rensa", "MinHash signatures, 5-word shingles", "rensa `RMinHash`, shingles built from text"),
)
"""Rows of README's table: row of the results, what was measured, beside what."""
BEGIN, END = "<!-- {name}: made by python -m benchmarks.table --write -->", "<!-- end of {name} -->"
Results = Mapping[str, Mapping[str, Any]]


class TableError(Exception):
    """A table cannot be made or placed."""


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Script -> what its results file holds."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def quantity(value: float, unit: str) -> str:
    """A measured or wanted value with its unit."""
    shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{shown}{unit}" if unit.startswith("x") else f"{shown} {unit}".strip()


def target_line(row: Mapping[str, Any]) -> str:
    """A row of the table of aims."""
    measured = quantity(row["value"], row["unit"])
    if row["range"]:
        low, high = (quantity(value, "").strip() for value in row["range"])
        measured += f" ({low} to {high})"
    aim = ""
    if row["target"] is not None:
        bound = "at least" if row["better"] == "higher" else "at most"
        aim = f"{bound} {quantity(row['target'], row['unit'])}" if row["target"] else "none"
    cpu = "" if row["cpu"] is None else quantity(row["cpu"], "x")
    against = row["against"] + (f"; {row['note']}" if row["note"] else "")
    return f"| {row['what']} | {against} | {measured} | {cpu} | {aim} |"


def speed_line(row: Mapping[str, Any]) -> str:
    """A row of the tables of steps and kernels."""
    ours = f"| {row['what']} | {row['docs_per_s']:,} |"
    if row["peer_docs_per_s"] is None:
        return f"{ours} | | |"
    return f"{ours} {row['against']} | {row['peer_docs_per_s']:,} | {quantity(row['value'], 'x')} |"


def speed_tables(results: Results) -> str:
    """The section of docs/results/speed.md: what was measured against aims, then steps, then kernels."""
    aims = [target_line(row) for name in TARGETS if name in results for row in results[name]["rows"]]
    skipped = [
        f"| {what} | | SKIPPED: {why} | | |"
        for name in TARGETS
        if name in results
        for what, why in results[name]["skipped"].items()
    ]
    lines: list[str] = []
    if aims or skipped:
        lines += ["| what | against | measured (range) | in processor time | aim |", "|---|---|---|---|---|"]
        lines += [*aims, *skipped, ""]
    for name, title, what, peer in (
        ("pipeline", "Step by step, in one process:", "step", "datatrove's block"),
        ("kernels", "And the kernels, against what one would call otherwise:", "kernel", "against"),
    ):
        if name in results:
            head = f"| {what} | docs/s | {peer} | docs/s | ratio |"
            lines += [title, "", head, "|---|---:|---|---:|---:|", *map(speed_line, results[name]["rows"]), ""]
    for machine in sorted({json.dumps(one["machine"], sort_keys=True) for one in results.values()}):
        facts = json.loads(machine)
        packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items() if name != "finesieve")
        lines.append(
            f"{facts['processor']}, {facts['system']}, Python {facts['python']}, {packages}; numbers of documents and "
            "of repeats are in the [results](../../benchmarks/results/speed)."
        )
    return "\n".join(lines)


def readme_speed(results: Results) -> str:
    """The section of README.md: the ratios most users ask for."""
    rows = {row.get("row"): row for one in results.values() for row in one["rows"]}
    lines = ["| what | beside | ratio (range) |", "|---|---|---|"]
    for name, what, against in README_ROWS:
        if name in rows:
            low, high = (quantity(value, "").strip() for value in rows[name]["range"])
            lines.append(f"| {what} | {against} | **{quantity(rows[name]['value'], 'x')}** ({low} to {high}) |")
    return "\n".join(lines)


def stage_table(results: Results) -> str:
    """The section of benchmarks/README.md: share of time per stage."""
    if "stages" not in results:
        return ""
    details = results["stages"]["details"]
    kinds = list(details)
    stages = list(dict.fromkeys(stage for kind in kinds for stage in details[kind]["share"]))
    lines = ["| stage | " + " | ".join(f"{kind} in" for kind in kinds) + " |", "|---|" + "---:|" * len(kinds)]
    for stage in stages:
        shares = [details[kind]["share"].get(stage) for kind in kinds]
        lines.append(f"| {stage} | " + " | ".join("" if s is None else f"{s:.1%}" for s in shares) + " |")
    whole = " | ".join(f"{details[kind]['microseconds_per_document']:,}" for kind in kinds)
    lines.append(f"| microseconds of processor time a document | {whole} |")
    return "\n".join(lines)


def seconds_table(results: Results) -> str:
    """The section of benchmarks/README.md: what each script took."""
    lines = ["| script | seconds | documents |", "|---|---:|---|"]
    lines += [f"| `{name}` | {one['seconds']:.0f} | {one['corpus']} |" for name, one in results.items()]
    return "\n".join([*lines, f"| all | {sum(one['seconds'] for one in results.values()):.0f} | |"])


SECTIONS = (
    (ROOT / "README.md", "readme-speed", readme_speed),
    (ROOT / "docs" / "results" / "speed.md", "speed", speed_tables),
    (ROOT / "benchmarks" / "README.md", "stages", stage_table),
    (ROOT / "benchmarks" / "README.md", "seconds", seconds_table),
)


def section(text: str, name: str) -> tuple[int, int]:
    """Where the content of a section begins and ends.

    Raises:
        TableError: its markers are not there once each, in order.
    """
    begin, end = BEGIN.format(name=name), END.format(name=name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise TableError(f"the lines {begin!r} and {end!r} must stand in the file once, in this order")
    return text.index(begin) + len(begin), text.index(end)


def placed(text: str, name: str, content: str) -> str:
    """A file's text with another content in a section."""
    begin, end = section(text, name)
    return f"{text[:begin]}\n{content}\n{text[end:]}"


def outdated(results: Results, sections: Iterable[tuple[Path, str, Any]] = SECTIONS) -> list[str]:
    """Sections that do not show the results."""
    return [
        f"{path.name}: {name}"
        for path, name, make in sections
        if (text := path.read_text(encoding="utf-8")) != placed(text, name, make(results))
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 where results or markers are missing."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--write", action="store_true", help="put them into the files")
    options = parser.parse_args(arguments)
    results = read_results(options.results)
    try:
        if missing := [name for name in SCRIPTS if name not in results]:
            raise TableError(f"no results of {', '.join(missing)}. Remedy: make bench")
        by_hand = read_results(RESULTS.parent)
        sections = [(path, name, make(results)) for path, name, make in SECTIONS]
        sections += [(path, name, make(by_hand)) for path, name, make in hand_tables.SECTIONS]
        for path, name, content in sections:
            if options.write:
                path.write_text(placed(path.read_text(encoding="utf-8"), name, content), encoding="utf-8")
                print(f"wrote {name} into {path}")
            else:
                print(f"{path.name}, {name}:\n\n{content}\n")
    except TableError as error:
        print(f"table: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
