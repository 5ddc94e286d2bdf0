"""`finesieve verify`: whether a finished run is what it says."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from filters.cli.options import Opens, RunAddress, find_run
from filters.terminal import make_console


def verify(
    run: RunAddress,
    config: Opens = None,
    sample: Annotated[int, typer.Option(help="Number of kept documents to score and fingerprint again.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    inputs: Annotated[bool, typer.Option(help="Check the input files too.")] = True,
    all_witnesses: Annotated[
        bool,
        typer.Option("--all-witnesses", help="Compare every near copy, not a sample, with the document that it names."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Check a finished run: digests of inputs, model and outputs, ledger, samples scored again; exit status tells."""
    from dataclasses import asdict

    from filters.config.filter import FilterConfig
    from filters.run.verify import check_view, verify_run

    console = make_console()
    opens = () if config is None else FilterConfig.load(config).reads
    checks = verify_run(
        find_run(run, config),
        input_options=opens[0].storage_options if opens else {},
        opens=opens,
        sample=sample,
        seed=seed,
        inputs=inputs,
        all_witnesses=all_witnesses,
        on_check=lambda check: None if as_json else console.print(check_view(check), soft_wrap=True),
    )
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=1))
    if any(check.ok is False for check in checks):
        raise typer.Exit(1)
