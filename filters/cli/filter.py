"""`finesieve filter`: a run, its plan, or its forecast."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from filters.cli.options import Config, Set
from filters.terminal import make_console

if TYPE_CHECKING:
    from rich.console import Console

    from filters.config.filter import FilterConfig
    from filters.run.finish import RunResult
    from filters.run.plan import Plan

ALMOST_NOTHING = 0.001
"""Share of the scored documents below which a run says what another rule would keep."""


def filter_command(
    config: Config,
    overrides: Set = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan and a forecast of time, disk and memory; do nothing."),
    ] = False,
    pilot: Annotated[
        int | None, typer.Option(help="--dry-run: number of documents to forecast from; 0: only the plan.")
    ] = None,
    duplicates: Annotated[
        float | None, typer.Option(help="--dry-run: share of the documents that have a copy. Default: an estimate.")
    ] = None,
    seed: Annotated[int, typer.Option(help="--dry-run: seed of the draw of documents.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="--dry-run: print the plan and the forecast as JSON.")
    ] = False,
    force_new: Annotated[
        bool, typer.Option("--force-new", help="Replace the run in output.path, and start again.")
    ] = False,
    examples: Annotated[
        int, typer.Option(min=0, help="Number of the best and worst documents to show at the end.")
    ] = 0,
    submit: Annotated[
        bool, typer.Option("--submit", help="executor.kind slurm: return when the jobs are in the queue.")
    ] = False,
    *,
    context: typer.Context,
) -> None:
    """Read, deduplicate, score and shard the input of CONFIG; every record is accounted for."""
    from filters.config.filter import FilterConfig

    loaded = FilterConfig.load(config, overrides or ())
    console = make_console()
    if dry_run:
        _dry_run(console, loaded, pilot, duplicates, seed, as_json)
        return
    if as_json or pilot is not None or duplicates is not None:
        given = "--json" if as_json else "--duplicates" if pilot is None else "--pilot"
        raise typer.BadParameter("belongs to --dry-run", param_hint=given)
    from filters.cluster.executors import run_filter
    from filters.run.progress import progress

    quiet = bool(context.obj)
    shown = make_console(stderr=True) if quiet else console
    with progress(shown, lambda plan: _print_plan(console, plan), quiet=quiet) as observer:
        if submit:
            from filters.cluster.executors import submit_run

            submit_run(loaded, observer, force_new=force_new)
            return
        result = run_filter(loaded, force_new=force_new, observer=observer)
    if not quiet:
        print_result(console, result, examples)


def _dry_run(
    console: Console, config: FilterConfig, pilot: int | None, duplicates: float | None, seed: int, as_json: bool
) -> None:
    from filters.run.plan import make_plan

    plan = make_plan(config)
    if not as_json:
        _print_plan(console, plan)
    found = None
    if pilot != 0:
        from filters.run.forecast import forecast

        with make_console(stderr=True).status("running a pilot ..."):
            found = forecast(plan, documents=pilot, seed=seed, duplicates=duplicates)
    if as_json:
        print(json.dumps({"plan": plan.to_json(), "forecast": found and found.to_json()}, indent=1))
    elif found is not None:
        from filters.run.forecast import forecast_view

        console.print()
        console.print(forecast_view(found, config, unicode=console.encoding.startswith("utf")))


def _print_plan(console: Console, plan: Plan) -> None:
    from rich.table import Table

    from filters.terminal import path_end

    size = "" if plan.input_bytes is None else f", {plan.input_bytes / 1e6:,.1f} MB"
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("input", f"{len(plan.sources):,} file(s){size}, in {len(plan.units):,} unit(s)")
    for source, bytes_ in list(plan.sources.items())[:3]:
        table.add_row("", path_end(source, 50) + ("" if bytes_ is None else f" ({bytes_ / 1e6:,.1f} MB)"))
    if len(plan.sources) > 3:
        table.add_row("", f"... and {len(plan.sources) - 3:,} more")
    for line in plan.not_taken:
        table.add_row("", line)
    for name, does in plan.steps():
        table.add_row(name, does)
    executor = plan.config.executor
    tasks = "" if executor.kind == "local" else f"at most {executor.tasks} tasks a phase, each with "
    table.add_row("executor", f"{executor.kind}, {tasks}{executor.workers} worker(s)")
    table.add_row("output", f"{plan.config.output.path}/ data/, attributes/, manifest.json")
    if plan.config.output.is_remote:
        table.add_row("", f"made in {plan.output}/, then uploaded")
    console.print(table)


def print_result(console: Console, result: RunResult, examples: int) -> None:
    """Print ledger, histogram, examples and decisions of a finished run."""
    from filters.inspect.samples import extremes
    from filters.inspect.terminal import decided, extremes_view, histogram_view, ledger_view
    from filters.scores.finished_run import Run

    run = Run(result.path)
    console.print()
    console.print(ledger_view(run.manifest))
    console.print()
    console.print(histogram_view(result.histogram, run.min_score, unicode=console.encoding.startswith("utf")))
    if examples:
        ends = extremes(run, run.summary(extremes=examples, groups=()))
        for name, documents in zip(("best", "worst"), ends, strict=True):
            console.print()
            console.print(extremes_view(f"the {examples} {name}", documents))
    console.print()
    total = result.ledger.total
    console.print(f"{total.kept:,} of {total.records:,} documents kept, in {len(result.shards):,} shard(s):")
    for shard in result.shards[:3]:
        console.print(f"  {shard} ({shard.stat().st_size / 1e6:,.1f} MB)", soft_wrap=True)
    for sentence in decided(result.manifest):
        console.print(sentence, soft_wrap=True)
    scored = result.histogram.total()
    if scored and total.kept < ALMOST_NOTHING * scored and "rule" not in result.manifest["keep"]:
        from filters.scores.threshold import Target

        tenth, every = (run.solve(Target.parse(f"fraction={share}")) for share in (0.1, 1))
        found = tenth if tenth.kept.documents else every  # of less than ten documents a tenth is none
        console.print(
            f"almost nothing was kept: {total.kept:,} of {scored:,} scored documents; "
            f"keep.min_score={found.threshold:.4g} would keep {found.kept.documents:,}",
            soft_wrap=True,
        )
    elif total.records and not scored:
        console.print("no document was scored; the ledger says why they were removed")
    console.print(f"next: finesieve inspect {shlex.quote(str(result.path))}", soft_wrap=True)
