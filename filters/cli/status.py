"""`finesieve status`: how far a run is."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from filters.cli.options import Opens, RunAddress, find_run
from filters.terminal import make_console


def status(
    run: RunAddress,
    config: Opens = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show the progress of a run: phases, finished units, failures with their causes, jobs in the queue, time left."""
    from filters.cluster.status import read_status, status_view

    found = read_status(find_run(run, config))
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        make_console().print(status_view(found))
