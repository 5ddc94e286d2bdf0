"""`finesieve evaluate`: a model measured against annotations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from filters.cli.options import Set
from filters.terminal import make_console


def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="Embedded model, model folder, or fastText file.bin#__label__x.")
    ] = None,
    annotations: Annotated[Path | None, typer.Argument(help="Parquet, JSON lines or CSV with text and score.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Cross-validate this training config, instead of MODEL and ANNOTATIONS.")
    ] = None,
    overrides: Set = None,
    against: Annotated[
        str | None, typer.Option(help="Compare with another model, or with --config another config (.yaml).")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as one HTML page with charts.")] = None,
    probes: Annotated[bool, typer.Option(help="Score changed texts too, and count the decisions that flip.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure a model against annotations: the kept class, ranking, slices, calibration, robustness."""
    if config is None and (model is None or annotations is None):
        raise typer.BadParameter("give MODEL and ANNOTATIONS, or --config", param_hint="MODEL ANNOTATIONS")
    if config is not None and (model is not None or annotations is not None):
        raise typer.BadParameter("cross-validation trains its own models: give no MODEL", param_hint="--config")
    if config is None and overrides:
        raise typer.BadParameter("overrides a key of --config, and none is given", param_hint="--set")
    from filters.evaluate.report import run_evaluation

    if html is not None:
        from filters.page import check_page

        check_page(html)
    report = run_evaluation(
        model=model,
        annotations=annotations,
        config=config,
        overrides=overrides or (),
        against=against,
        probes=probes,
        echo=lambda line: print(line, file=sys.stderr),
    )
    from filters.evaluate.view import report_view, write_page

    if html is not None:
        write_page(report, html)
    if as_json:
        print(report.model_dump_json(indent=1))
        return
    console = make_console()
    console.print(report_view(report))
    if html is not None:
        console.print(f"report: {html}", soft_wrap=True)
