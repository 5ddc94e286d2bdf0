"""`finesieve compare`: two runs side by side."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from filters.cli.options import Opens, RunAddress, find_run
from filters.terminal import make_console


def compare(
    run: RunAddress,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The run to compare with.", show_default=False)],
    max_psi: Annotated[
        float, typer.Option(help="Largest drift that is allowed, as a population stability index.")
    ] = 0.25,
    config: Opens = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare the scores of two runs, slice by slice; exit status 1 if they drifted."""
    from filters.inspect.compare import compare as compare_runs
    from filters.inspect.terminal import comparison_view
    from filters.scores.finished_run import Run

    first, second = Run(find_run(run, config)), Run(find_run(other, config))
    found = compare_runs(first, second, max_psi=max_psi)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        make_console().print(comparison_view(found, (str(first.path), str(second.path))))
    if found.drifted:
        raise typer.Exit(1)
