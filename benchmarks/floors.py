"""The floors of the speed rows: `SHARE` of what was measured, kept in speed_floors.json.

    python -m benchmarks.floors [--results DIR] [--write-floors] [--lower]

Without an option the results are held to the floors: status 1 if one is missed. `--write-floors` takes over rows that
are new or better; a floor goes down (the bound of a time goes up), or away with its row, with `--lower` only. Where a
value does not depend on the machine, the row is held to its target and has no floor.

Kernels do less at once on a processor without AVX-512, so such a machine (or one that is told to be one, by
NUMBA_CPU_NAME) has floors of its own in the same file, for the rows where they differ.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS

FLOORS = Path(__file__).parent / "speed_floors.json"
FORMAT = "finesieve-speed-floors"
SHARE = 0.7
EVERYWHERE, NARROW = "floors", "without AVX-512"
Rows = Mapping[str, Mapping[str, Any]]


class FloorsError(Exception):
    """The floors cannot be read, or would have to go down."""


def read_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows of every results file of a folder, by name.

    Raises:
        FloorsError: there are none.
    """
    rows = {row["row"]: row for path in sorted(folder.glob("*.json")) for row in json.loads(path.read_text())["rows"]}
    if not rows:
        raise FloorsError(f"{folder}: no results. Remedy: make bench")
    return rows


def section() -> str:
    """Which floors of the file are this machine's: `EVERYWHERE`, or those of `NARROW` before them."""
    about = Path("/proc/cpuinfo")
    wide = about.exists() and "avx512f" in about.read_text() and not os.environ.get("NUMBA_CPU_NAME")
    return EVERYWHERE if wide else NARROW


def read_floors(path: Path, kind: str = EVERYWHERE) -> dict[str, float]:
    """Name of a row -> its floor on machines of a kind (see `section`).

    Raises:
        FloorsError: the file is missing or is none of ours.
    """
    try:
        found = json.loads(path.read_bytes())
        floors = found[EVERYWHERE] | found.get(kind, {})
        if found["format"] != FORMAT or not all(math.isfinite(value) for value in floors.values()):
            raise ValueError(f"format is {found['format']!r}, or a floor is no number")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FloorsError(
            f"{path}: cannot read the floors: {error!r}. Remedy: restore it from version control"
        ) from error
    return {str(name): float(value) for name, value in floors.items()}


def write_floors(path: Path, floors: Mapping[str, float], kind: str = EVERYWHERE) -> None:
    """Replace the file in one step; floors of the other kind of machine stay."""
    content = json.loads(path.read_bytes()) if path.exists() else {"format": FORMAT, "share": SHARE, EVERYWHERE: {}}
    common = {} if kind == EVERYWHERE else content[EVERYWHERE]
    content[kind] = {name: value for name, value in sorted(floors.items()) if common.get(name) != value}
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def floor_of(row: Mapping[str, Any]) -> float:
    """The floor a measured row sets: `SHARE` of a value that should be high, 1 / `SHARE` of one that should be low.

    Three significant digits, rounded so that the row passes.
    """
    value = row["value"] * SHARE if row["better"] == "higher" else row["value"] / SHARE
    if value == 0:
        return 0.0
    digits = 2 - math.floor(math.log10(abs(value)))
    rounding = math.floor if row["better"] == "higher" else math.ceil
    return round(rounding(round(value * 10.0**digits, 6)) / 10.0**digits, max(digits, 0))


def missed(rows: Rows, floors: Mapping[str, float]) -> list[str]:
    """A line for each row that falls behind its floor or target, or has neither where it should; NaN misses all."""
    lines = []
    for name, row in rows.items():
        if row["held_to"] == "nothing":
            continue
        bound = row["target"] if row["held_to"] == "target" else floors.get(name)
        if bound is None:
            lines.append(f"{name} has no floor. Remedy: python -m benchmarks.floors --write-floors")
        elif not (row["value"] >= bound if row["better"] == "higher" else row["value"] <= bound):
            than = "below" if row["better"] == "higher" else "above"
            lines.append(f"{name}: {row['value']:g} {row['unit']} is {than} its {_kind(row)} {bound:g}")
    return lines


def _kind(row: Mapping[str, Any]) -> str:
    if row["held_to"] == "target":
        return "target"
    return "floor" if row["better"] == "higher" else "bound"


def moved(rows: Rows, floors: Mapping[str, float], *, lower: bool) -> dict[str, float]:
    """The floors after these rows: new ones added, others only ever stricter unless `lower` is set.

    Rows that were not measured this time keep their floors, unless `lower` is set.

    Raises:
        FloorsError: a row misses its floor and `lower` is not set.
    """
    found = {} if lower else dict(floors)
    behind = []
    for name, row in rows.items():
        if row["held_to"] != "floor":
            continue
        new, old = floor_of(row), floors.get(name)
        if old is None or lower:
            found[name] = new
            continue
        stricter = max if row["better"] == "higher" else min
        found[name] = stricter(old, new)
        behind += missed({name: row}, floors)
    if behind:
        raise FloorsError("; ".join(behind) + ". Remedy: mend what became slower, or say --lower if it is meant")
    return found


def check(folder: Path, path: Path) -> list[str]:
    """What is wrong with the results in a folder, a line each."""
    try:
        return missed(read_rows(folder), read_floors(path, section()))
    except FloorsError as error:
        return [str(error)]


def targets(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each row that has a target and does not reach it."""
    return [
        f"{row['what']} | {row['against'] or '-'}: {row['value']:g} {row['unit']}, the aim is {row['target']:g}"
        for row in rows
        if row["target"] is not None
        and not (row["value"] >= row["target"] if row["better"] == "higher" else row["value"] <= row["target"])
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 passed or written, 1 not passed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.floors", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--floors", type=Path, default=FLOORS)
    parser.add_argument("--write-floors", action="store_true", help="take over what is new or better")
    parser.add_argument("--lower", action="store_true", help="with --write-floors: take over what is worse, too")
    options = parser.parse_args(arguments)
    if options.lower and not options.write_floors:
        parser.error("--lower goes with --write-floors")
    if not options.write_floors:
        wrong = check(options.results, options.floors)
    else:
        try:
            kind = section()
            floors = read_floors(options.floors, kind) if options.floors.exists() else {}
            write_floors(options.floors, moved(read_rows(options.results), floors, lower=options.lower), kind)
            wrong = []
            print(f"floors: wrote {options.floors}")
        except FloorsError as error:
            wrong = [str(error)]
    for line in wrong:
        print(f"floors: {line}", file=sys.stderr)
    if not wrong and not options.write_floors:
        print("floors: passed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
