"""`finesieve leaks`: documents of a run that contain a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from filters.cli.options import Opens, RunAddress, find_run
from filters.terminal import make_console


def leaks(
    run: RunAddress,
    benchmark: Annotated[Path, typer.Argument(help="A benchmark: .jsonl, .parquet, or text.", show_default=False)],
    config: Opens = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Look for documents of a run that contain 13 words in a row of a benchmark."""
    from filters.inspect.leaks import check_leaks
    from filters.inspect.terminal import leaks_view
    from filters.read.benchmark import read_benchmark
    from filters.scores.finished_run import Run

    found = check_leaks(Run(find_run(run, config)), read_benchmark(benchmark))
    if as_json:
        print(json.dumps(found.to_json()))
        return
    console = make_console()
    console.print(leaks_view(found, unicode=console.encoding.startswith("utf")))
