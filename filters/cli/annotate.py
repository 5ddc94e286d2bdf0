"""`finesieve annotate`: judges score a sample, and their agreement is reported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from filters.cli.options import Config, Set
from filters.terminal import make_console

if TYPE_CHECKING:
    from rich.console import Console

    from filters.annotate.config import AnnotateConfig
    from filters.annotate.run import Forecast


def annotate(
    config: Config,
    overrides: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and an estimate of the cost; ask no judge.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Continue after the pilot without a confirmation.")] = False,
    export: Annotated[
        Path | None, typer.Option(help="Ask no judge; write the annotations so far, and their card, to this folder.")
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report", help="Ask no judge; show how far the judges of CONFIG (or of a store, or a Parquet file) agree."
        ),
    ] = False,
    min_score: Annotated[
        float | None,
        typer.Option(help="--report: lowest score that counts as kept. Default: 1.5 on a scale of 0 to 5."),
    ] = None,
    curve: Annotated[
        bool, typer.Option(help="--report: train on parts of the labels, to show what more labels would bring.")
    ] = True,
    rubric: Annotated[str | None, typer.Option(help="--report: name or digest of a rubric of the store.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="--report: print JSON instead of tables.")] = False,
) -> None:
    """Have the LLM judges of CONFIG score a sample of its input; every answer is stored, and none is paid for twice.

    Exit status: 0 if every answer is there, 1 for an error, 3 if answers are missing (a cap, failures, no
    confirmation), 130 if interrupted.
    """
    from filters.annotate.config import AnnotateConfig

    console = make_console()
    if report:
        _report(console, config, min_score, curve, rubric, as_json)
        return
    loaded = AnnotateConfig.load(config, overrides or ())
    if export is not None:
        _export(console, loaded, export)
        return
    from filters.annotate.run import plan_annotate
    from filters.annotate.terminal import plan_view

    if dry_run:
        console.print(plan_view(plan_annotate(loaded), loaded.budget, loaded.store))
        return
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("no terminal to confirm at; see --dry-run for what it will cost", param_hint="--yes")
    from filters.annotate.run import Hooks, run_annotate
    from filters.annotate.terminal import forecast_view, result_view, show_progress

    errors = make_console(stderr=True)

    def confirm(forecasts: Sequence[Forecast]) -> bool:
        console.print(forecast_view(forecasts))
        return yes or typer.confirm("go on?")

    result = run_annotate(
        loaded,
        Hooks(
            echo=lambda line: errors.print(line, soft_wrap=True),
            confirm=confirm,
            progress=lambda judges, budget: show_progress(errors, judges, budget),
        ),
    )
    console.print(result_view(result, unicode=console.encoding.startswith("utf")))
    if loaded.export is not None and any(judge.scores for judge in result.judges):
        _export(console, loaded, Path(loaded.export))
    if result.exit_status:
        raise typer.Exit(result.exit_status)


def _report(
    console: Console, path: Path, min_score: float | None, curve: bool, rubric: str | None, as_json: bool
) -> None:
    from filters.annotate.agreement import make_report
    from filters.annotate.ratings import read_rated
    from filters.annotate.terminal import agreement_view

    rated = read_rated(path, rubric)
    found = make_report(rated, cut=min_score, curve=curve, echo=lambda line: print(line, file=sys.stderr))
    if as_json:
        print(found.model_dump_json(indent=1))
    else:
        console.print(agreement_view(found))


def _export(console: Console, config: AnnotateConfig, folder: Path) -> None:
    from filters.annotate.export import export_annotations

    done = export_annotations(config, folder)
    console.print(f"{done.rows:,} annotations, {done.left_out:,} pages without: {done.path}", soft_wrap=True)
    for note in done.notes:
        console.print(f"note: {note}", soft_wrap=True)
