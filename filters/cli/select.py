"""`finesieve select`: a new decision about the documents of a finished run, without scoring them again."""

from __future__ import annotations

from typing import Annotated

import typer

from filters.cli.options import Opens, RunAddress
from filters.terminal import make_console


def select(
    run: RunAddress,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder or address of the new run.")],
    where: Annotated[
        str | None, typer.Option(help="Keep what a rule in SQL is true of: \"score >= 1.5 and language = 'en'\".")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Keep fraction=0.1, tokens=1.3e12 or min_score=1.5; 'tokens=1e9 by score * ln(tokens)'."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a key of keep, output or executor."),
    ] = None,
    force_new: Annotated[bool, typer.Option("--force-new", help="Replace whatever run is in --output.")] = False,
    config: Opens = None,
    *,
    context: typer.Context,
) -> None:
    """Write shards, ledger and manifest of a new decision from a finished run; no document is scored again."""
    from filters.cli.filter import print_result
    from filters.config.filter import FilterConfig
    from filters.errors import ConfigError
    from filters.run.progress import progress
    from filters.run.select import overrides_of, run_select, selection_config
    from filters.scores.finished_run import Run
    from filters.scores.threshold import Target
    from filters.storage.location import location

    changed = overrides_of(overrides or [])
    if where is None and keep is None and "keep" not in changed:
        raise ConfigError("select: what is to be kept is missing. Remedy: give --where, --keep, or both")
    target = None if keep is None else Target.parse(keep)
    section = {} if target is None else {target.rule: target.value, "by": target.by}
    opened = None if config is None else FilterConfig.load(config)
    options = {} if opened is None else opened.output.storage_options
    finished = Run(location(run, options))
    console, quiet = make_console(), bool(context.obj)
    loaded = selection_config(finished, {**section, "where": where}, output, changed, opened)
    shown = make_console(stderr=True) if quiet else console
    with progress(shown, lambda plan: None, quiet=quiet) as observer:
        result = run_select(finished, loaded, options=options, force_new=force_new, observer=observer)
    if not quiet:
        print_result(console, result, 0)
