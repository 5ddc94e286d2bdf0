"""The `finesieve` command: one function per verb, no logic; heavy imports inside, so that --help is instant."""

from __future__ import annotations

import json
import logging
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from filters.errors import FinesieveError
from filters.terminal import guard_streams

if TYPE_CHECKING:
    from rich.console import Console

    from filters.annotate.config import AnnotateConfig
    from filters.annotate.forecast import Forecast
    from filters.config.filter import FilterConfig
    from filters.run.engine import RunResult
    from filters.run.plan import Plan
    from filters.scores.finished_run import Run
    from filters.storage.location import Location

ALMOST_NOTHING = 0.001
"""Share of the scored documents below which a run says what another rule would keep."""

app = typer.Typer(
    name="finesieve",
    help="Train a classifier from a judge's labels, filter web dumps with it, inspect the scores.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_log = logging.getLogger("finesieve")

Config = Annotated[Path, typer.Argument(help="YAML config; finesieve init writes examples.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key of the config; may be repeated."),
]
RunAddress = Annotated[
    str, typer.Argument(metavar="RUN", help="output.path of a filter run: a folder, or s3://...", show_default=False)
]
Opens = Annotated[
    Path | None,
    typer.Option("--config", help="Config of the run: its storage_options open addresses. Default: the environment."),
]
Model = Annotated[
    str,
    typer.Argument(help="Embedded model (edu-en), model folder, or fastText file.bin#__label__x.", show_default=False),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from filters import __version__

        print(f"finesieve {__version__}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No plan, no progress, no summary of a run.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show where an error came from, and what libraries log.")
    ] = False,
) -> None:
    """Options of every command: finesieve -q filter CONFIG."""
    context.obj = quiet
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")


def _console(*, stderr: bool = False) -> Console:
    from filters.terminal import make_console

    return make_console(stderr=stderr)


def _location(run: str, config: Path | None) -> Location:
    from filters.config.filter import FilterConfig
    from filters.storage.location import location

    return location(run, None if config is None else FilterConfig.load(config).output.storage_options)


@app.command("filter")
def filter_command(
    config: Config,
    overrides: Set = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan and what it will take; do nothing."),
    ] = False,
    pilot: Annotated[
        int | None, typer.Option(help="--dry-run: forecast from so many documents (1000); 0: the plan alone.")
    ] = None,
    duplicates: Annotated[
        float | None, typer.Option(help="--dry-run: share of the documents that have a copy; else estimated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="--dry-run: of the choice of the pilot's documents.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="--dry-run: print plan and forecast as JSON.")] = False,
    force_new: Annotated[
        bool, typer.Option("--force-new", help="Replace whatever run is in output.path, start afresh.")
    ] = False,
    examples: Annotated[int, typer.Option(min=0, help="Show so many of the best and worst documents at the end.")] = 0,
    submit: Annotated[
        bool, typer.Option("--submit", help="executor.kind slurm: return once the jobs are in the queue.")
    ] = False,
    *,
    context: typer.Context,
) -> None:
    """Read, deduplicate, score and shard what CONFIG names; every record is accounted for."""
    from filters.config.filter import FilterConfig

    loaded = FilterConfig.load(config, overrides or ())
    console = _console()
    if dry_run:
        _dry_run(console, loaded, pilot, duplicates, seed, as_json)
        return
    if as_json or pilot is not None or duplicates is not None:
        given = "--json" if as_json else "--duplicates" if pilot is None else "--pilot"
        raise typer.BadParameter("belongs to --dry-run", param_hint=given)
    from filters.run.engine import run_filter
    from filters.run.progress import progress

    quiet = bool(context.obj)
    shown = _console(stderr=True) if quiet else console
    with progress(shown, lambda plan: _print_plan(console, plan), quiet=quiet) as observer:
        if submit:
            from filters.cluster.submit import submit_run

            submit_run(loaded, observer, force_new=force_new)
            return
        result = run_filter(loaded, force_new=force_new, observer=observer)
    if not quiet:
        _print_result(console, result, examples)


def _dry_run(
    console: Console, config: FilterConfig, pilot: int | None, duplicates: float | None, seed: int, as_json: bool
) -> None:
    from filters.run.plan import make_plan

    plan = make_plan(config)
    if not as_json:
        _print_plan(console, plan)
    found = None
    if pilot != 0:
        from filters.run.forecast.forecast import forecast
        from filters.run.forecast.pilot import DOCUMENTS

        documents = DOCUMENTS if pilot is None else pilot
        with _console(stderr=True).status("running a pilot ..."):
            found = forecast(plan, documents=documents, seed=seed, duplicates=duplicates)
    if as_json:
        print(json.dumps({"plan": plan.to_json(), "forecast": found and found.to_json()}, indent=1))
    elif found is not None:
        from filters.run.forecast.terminal import forecast_view

        console.print()
        console.print(forecast_view(found, config, unicode=console.encoding.startswith("utf")))


@app.command()
def status(
    run: RunAddress,
    config: Opens = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show how far a run is: phases, units done, failures with their causes, jobs in the queue, time left."""
    from filters.cluster.status import read_status, status_view

    found = read_status(_location(run, config))
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        _console().print(status_view(found))


@app.command()
def verify(
    run: RunAddress,
    config: Opens = None,
    sample: Annotated[int, typer.Option(help="Score and fingerprint so many kept documents again.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    inputs: Annotated[bool, typer.Option(help="Look at the input files, too.")] = True,
    all_witnesses: Annotated[
        bool, typer.Option("--all-witnesses", help="Compare every near copy again with the document it names.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Check a finished run: digests of inputs, model and outputs, ledger, samples scored again; exit status tells."""
    from dataclasses import asdict

    from filters.config.filter import FilterConfig
    from filters.run.verify import check_view, verify_run

    console = _console()
    opens = () if config is None else FilterConfig.load(config).reads
    checks = verify_run(
        _location(run, config),
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


def _print_result(console: Console, result: RunResult, examples: int) -> None:
    from filters.inspect.decided import decided
    from filters.inspect.terminal import extremes_view, histogram_view, ledger_view
    from filters.scores.finished_run import Run

    run = Run(result.path)
    console.print()
    console.print(ledger_view(run.ledger))
    console.print()
    console.print(histogram_view(result.histogram, run.min_score, unicode=console.encoding.startswith("utf")))
    if examples:
        console.print()
        console.print(extremes_view(f"the {examples} best", run.extremes(examples, best=True)))
        console.print()
        console.print(extremes_view(f"the {examples} worst", run.extremes(examples, best=False)))
    console.print()
    total = result.ledger.total
    console.print(f"{total.kept:,} of {total.records:,} documents kept, in {len(result.shards):,} shard(s):")
    for shard in result.shards[:3]:
        console.print(f"  {shard} ({shard.stat().st_size / 1e6:,.1f} MB)", soft_wrap=True)
    for sentence in decided(result.manifest):
        console.print(sentence, soft_wrap=True)
    scored = result.histogram.total()
    if scored and total.kept < ALMOST_NOTHING * scored:
        from filters.scores.threshold import Target

        found = run.solve(Target.parse("fraction=0.1"))
        console.print(
            f"almost nothing was kept: {total.kept:,} of {scored:,} scored documents; "
            f"keep.min_score={found.threshold:.4g} would keep {found.kept.documents:,}",
            soft_wrap=True,
        )
    elif total.records and not scored:
        console.print("no document was scored; the ledger says why they were removed")
    console.print(f"next: finesieve inspect {shlex.quote(str(result.path))}", soft_wrap=True)


@app.command()
def inspect(
    run: RunAddress,
    keep: Annotated[
        str | None, typer.Option(help="Solve for a threshold: fraction=0.1, tokens=1.3e12 or min_score=1.5.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Slice by language, host, source, or a column of input.slices.")
    ] = None,
    quota: Annotated[
        list[str] | None, typer.Option(metavar="VALUE=SHARE", help="Largest share of the budget for a value of --by.")
    ] = None,
    sample: Annotated[
        float | None, typer.Option(help="This run is such a share of what --keep is meant for: say how sure it is.")
    ] = None,
    bins: Annotated[int | None, typer.Option(help="Bars of the histogram: 10, 20, 25, 50 or 100.")] = None,
    brief: Annotated[bool, typer.Option("--brief", help="Only the answer to --keep, or what thresholds keep.")] = False,
    weight: Annotated[str, typer.Option(help="What the bars count: documents, tokens or bytes.")] = "documents",
    examples: Annotated[int, typer.Option(min=0, help="Show so many of the best and worst documents.")] = 3,
    against: Annotated[str | None, typer.Option(help="Compare with another run; exit status 1 if it drifted.")] = None,
    max_psi: Annotated[
        float, typer.Option(help="Drift that --against allows, as a population stability index.")
    ] = 0.25,
    leaks: Annotated[
        Path | None, typer.Option(help="Look for 13 words in a row of this benchmark (.jsonl, .parquet, text).")
    ] = None,
    read: Annotated[
        int | None, typer.Option(help="Read so many documents around the threshold; keys k keep, d drop, q stop.")
    ] = None,
    store: Annotated[Path, typer.Option(help="--read: answer store, as annotate's.")] = Path("annotations.sqlite"),
    judge: Annotated[str, typer.Option(help="--read: name of the reader in the store.")] = "reader",
    seed: Annotated[int, typer.Option(help="--read: of the choice of documents.")] = 0,
    html: Annotated[Path | None, typer.Option(help="Write the run as one interactive page instead.")] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="--html: a judge's labels of documents of the run (id or url, score, text): Parquet, JSONL or CSV."
        ),
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="--html: what evaluate --json printed about the run's model.")
    ] = None,
    config: Opens = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show a run's score histogram, what other thresholds would keep, and its ledger."""
    from filters.scores.histogram import BINS, WEIGHTS

    if bins is not None and (bins < 1 or BINS % bins):
        raise typer.BadParameter(f"{bins} does not divide {BINS}; try 10, 20, 25, 50 or 100", param_hint="--bins")
    if weight not in WEIGHTS:
        raise typer.BadParameter(f"{weight!r} is none of {', '.join(WEIGHTS)}", param_hint="--weight")
    from filters.scores.finished_run import Run

    if html is None and (annotations or evaluation):
        raise typer.BadParameter("belongs to --html", param_hint="--annotations" if annotations else "--evaluation")
    loaded = Run(_location(run, config))
    if html is not None:
        from filters.inspect.html import write_page
        from filters.scores.threshold import Target

        target = None if keep is None else Target.parse(keep)
        size = write_page(loaded, html, target=target, annotations=annotations, evaluation=evaluation)
        _console().print(f"page: {html} ({size / 1e6:.1f} MB)", soft_wrap=True)
        return
    if against is not None:
        sys.exit(_compare(loaded, Run(_location(against, config)), max_psi, as_json))
    if leaks is not None:
        _leaks(loaded, leaks, as_json)
        return
    from filters.inspect.inspection import inspect_run, parse_quotas
    from filters.scores.threshold import Target

    target = None if keep is None else Target.parse(keep)
    if read is not None:
        _read(loaded, read, store, judge, None if target is None else loaded.solve(target).threshold, seed, as_json)
        return
    found = inspect_run(
        loaded,
        target=target,
        by=by,
        quotas=parse_quotas(quota or []),
        sample=sample,
        examples=examples,
    )
    if as_json:
        print(json.dumps(found.to_json()))
        return
    console = _console()
    unicode = console.encoding.startswith("utf")
    for number, view in enumerate(found.views(bins, weight, unicode=unicode, brief=brief)):
        if number:
            console.print()
        console.print(view)


def _compare(run: Run, other: Run, max_psi: float, as_json: bool) -> int:
    from filters.inspect.compare import compare
    from filters.inspect.terminal import comparison_view

    found = compare(run, other, max_psi=max_psi)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        _console().print(comparison_view(found, (str(run.path), str(other.path))))
    return 1 if found.drifted else 0


@app.command()
def annotate(
    config: Config,
    overrides: Set = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and an estimate; ask nobody.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Go on after the pilot without asking.")] = False,
    export: Annotated[
        Path | None, typer.Option(help="Ask nobody; write the annotations so far and their card to this folder.")
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report", help="Ask nobody; show how far the judges of CONFIG (or of a store, or a Parquet) agree."
        ),
    ] = False,
    min_score: Annotated[
        float | None, typer.Option(help="--report: kept is a score of at least this; 1.5 on a scale of 0 to 5.")
    ] = None,
    curve: Annotated[bool, typer.Option(help="--report: train on parts of the labels: what would more buy?")] = True,
    rubric: Annotated[str | None, typer.Option(help="--report: name or digest of a rubric of the store.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="--report: print JSON instead of tables.")] = False,
) -> None:
    """Have the LLM judges of CONFIG score a sample of its input; every answer is stored, and none is paid twice.

    Exit status: 0 everything is answered, 1 an error, 3 answers are missing (a cap, failures, not confirmed), 130
    interrupted.
    """
    from filters.annotate.config import AnnotateConfig

    console = _console()
    if report:
        _report(console, config, min_score, curve, rubric, as_json)
        return
    loaded = AnnotateConfig.load(config, overrides or ())
    if export is not None:
        _export(console, loaded, export)
        return
    from filters.annotate.plan import plan_annotate
    from filters.annotate.terminal import plan_view

    if dry_run:
        console.print(plan_view(plan_annotate(loaded), loaded.budget, loaded.store))
        return
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("no terminal to confirm at; see --dry-run for what it will cost", param_hint="--yes")
    from filters.annotate.progress import show_progress
    from filters.annotate.run import Hooks, run_annotate
    from filters.annotate.terminal import forecast_view, result_view
    from filters.terminal import make_console

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
    from filters.annotate.agreement_terminal import agreement_view
    from filters.annotate.rated import read_rated

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


def _leaks(run: Run, path: Path, as_json: bool) -> None:
    from filters.inspect.leaks import check_leaks
    from filters.inspect.terminal import leaks_view
    from filters.read.benchmark import read_benchmark

    found = check_leaks(run, read_benchmark(path))
    if as_json:
        print(json.dumps(found.to_json()))
        return
    console = _console()
    console.print(leaks_view(found, unicode=console.encoding.startswith("utf")))


def _read(run: Run, count: int, store: Path, judge: str, min_score: float | None, seed: int, as_json: bool) -> None:
    from filters.inspect.keys import reading_keys
    from filters.inspect.reading import ReadingTest, read
    from filters.inspect.terminal import agreement_view, text_view
    from filters.terminal import make_console

    console = make_console(stderr=as_json)
    with ReadingTest(run, count, store, judge, min_score=min_score, seed=seed) as test, reading_keys() as key:

        def show(text: str, number: int, total: int) -> None:
            console.rule(f"{number} of {total}", characters="-")
            console.print(text_view(text))
            console.print("keep [k], drop [d], stop [q]?", style="bold")

        found = read(test, key, show, answered=test.agreement().total.total)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        console.print(agreement_view(found))


@app.command()
def train(
    config: Config,
    overrides: Set = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing model folder.")] = False,
) -> None:
    """Train a classifier from annotations, calibrate it to the judge's scale, and write a model folder."""
    from filters.config.yaml_file import load_config
    from filters.train.config import TrainConfig

    loaded = load_config(TrainConfig, config, overrides or ())
    from filters.train.training import train as run_training

    console = _console()
    result = run_training(loaded, overwrite=overwrite, echo=lambda line: console.print(line, soft_wrap=True))
    console.print(f"model folder: {result.path}", soft_wrap=True)


@app.command()
def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="Embedded model, model folder, or fastText file.bin#__label__x.")
    ] = None,
    annotations: Annotated[Path | None, typer.Argument(help="Parquet, JSON lines or CSV with text and score.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Instead of MODEL ANNOTATIONS: cross-validate this training config.")
    ] = None,
    overrides: Set = None,
    against: Annotated[
        str | None, typer.Option(help="Compare with another model, or with --config another config (.yaml).")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as one HTML page with plots.")] = None,
    probes: Annotated[bool, typer.Option(help="Score changed texts too: does the decision hold?")] = True,
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
    from filters.evaluate.report_terminal import report_view

    if html is not None:
        from filters.evaluate.report_html import check_page

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
    if html is not None:
        from filters.evaluate.report_html import write_page

        write_page(report, html)
    if as_json:
        print(report.model_dump_json(indent=1))
        return
    console = _console()
    console.print(report_view(report))
    if html is not None:
        console.print(f"report: {html}", soft_wrap=True)


@app.command()
def score(
    model: Model,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES",
            help="One text each (.txt, .md, - for stdin), or .jsonl[.gz|.zst|.bz2], .parquet, .warc[.gz].",
        ),
    ],
    text_key: Annotated[str, typer.Option(help="Key of the text in JSONL and Parquet.")] = "text",
    id_key: Annotated[str | None, typer.Option(help="Key of the id in JSONL and Parquet.")] = None,
    error_rate: Annotated[
        float | None,
        typer.Option(
            help="Decide keep, drop or undecided, with a band that misses the judge's score at most with this rate.",
            min=0,
            max=1,
        ),
    ] = None,
) -> None:
    """Score documents: a JSON line for each, in input order, with what the keep rule says."""
    from filters.run.scoring import score_files

    for line in score_files(model, files, text_key=text_key, id_key=id_key, error_rate=error_rate):
        sys.stdout.write(line)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to; created.")] = Path("configs"),
) -> None:
    """Write the configs and rubrics that come with finesieve, to begin with; nothing is overwritten."""
    from filters.shipped import copy_configs

    written, there = copy_configs(folder)
    for path in written:
        print(path)
    if there:
        print(f"{len(there):,} of {len(written) + len(there):,} files were there already, and stay as they are")


@app.command("import-model")
def import_model_command(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of a transformers sequence classifier with one output (config.json, safetensors, tokenizer), "
            "or fastText file.bin#__label__x.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Argument(help="The model folder to write.", show_default=False)],
    rounded: Annotated[
        int | None,
        typer.Option(min=1, max=5, help="Keep scores that round, half to even, to at least this.", show_default="3"),
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Keep scores of at least this instead.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; default: that of SOURCE.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of the texts it is for.")] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Characters of a text that are read; default: all.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in OUTPUT.")] = False,
) -> None:
    """Make a model folder of a classifier trained elsewhere, such as HuggingFaceFW/fineweb-edu-classifier."""
    if rounded is not None and min_score is not None:
        raise typer.BadParameter("is another rule than --rounded; give one of them", param_hint="--min-score")
    if min_score is not None and not 0 <= min_score <= 5:
        raise typer.BadParameter(f"{min_score:g} is not between 0 and 5", param_hint="--min-score")
    from filters.model.folder import KeepRule
    from filters.model.importing import import_model

    keep = None
    if rounded is not None:
        keep = KeepRule(rounded=rounded)
    elif min_score is not None:
        keep = KeepRule(min_score=min_score)
    model = import_model(source, output, keep=keep, name=name, language=language, window=window, overwrite=overwrite)
    print(f"{output}: {model.name}, kept is {model.keep}")


def main() -> None:
    """Run the command; a user's mistake ends in one message and exit status 1, never in a traceback.

    SIGTERM ends a verb as Ctrl-C does, with exit status 143 (Ctrl-C: 130).
    """
    terminated = False

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)
        else:  # a shell ignores SIGINT for what it runs in the background
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    guard_streams()
    try:
        app()
    except FinesieveError as error:
        sys.stderr.write(f"finesieve: {error}\n")
        _log.info("where the error came from", exc_info=error)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as error:
        # Typer turns Ctrl-C into status 130, without a word.
        if isinstance(error, SystemExit) and error.code != 130:
            raise
        sys.stderr.write("finesieve: terminated\n" if terminated else "finesieve: interrupted\n")
        sys.exit(143 if terminated else 130)
