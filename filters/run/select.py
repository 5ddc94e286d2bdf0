"""`finesieve select`: shards, ledger and manifest of a new decision about the documents of a finished run.

Nothing is extracted, identified, fingerprinted or scored again: `filters.run.adopt` takes over what the run found, and
the phases behind it do what they do in every run. What is kept is what `finesieve filter` would keep by the same rule.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from filters.config.filter import LISTS, FilterConfig
from filters.errors import ConfigError, RunError
from filters.model import QualityModel
from filters.models import embedded_models
from filters.phases.phase import Job
from filters.phases.rows import rule_of
from filters.run.adopt import config_of, plan_adoption
from filters.run.destination import Destination
from filters.run.engine import Engine, begin, check_vacant, disk_errors_told, only_resumable_work_kept
from filters.run.finish import FORMAT, RunResult, publish_files
from filters.run.folder import MANIFEST, WORK, code_digest, held
from filters.run.joined_scores import Join
from filters.run.plan import Observer, check_quota, check_scores, score_columns, stated_scores, taken_columns
from filters.run.steps import load_models
from filters.run.workers import ThreadPool
from filters.scores.finished_run import Run
from filters.storage.location import Location, location

SECTIONS = ("keep", "output", "executor")
"""What of the config of a run a new decision may change."""


def run_select(
    run: Run,
    config: FilterConfig,
    *,
    options: Mapping[str, Any] | None = None,
    force_new: bool = False,
    observer: Observer | None = None,
    added: Mapping[str, QualityModel] | None = None,
    joined: Join | None = None,
) -> RunResult:
    """Write the shards of a new decision; one that was interrupted goes on.

    Args:
        run: the finished run.
        config: of it, with other sections `SECTIONS`; see `selection_config`.
        options: given to fsspec as they are, if the run lies behind an address.
        force_new: replace a finished run, or an unfinished one that is another, in the output folder.
        observer: told of progress, and of what a user should know.
        added: models that score the documents, by their names in `config.scores`.
        joined: a file of scores of the documents.

    Raises:
        FinesieveError: the rule is none; a file of the run, or an input whose text is needed, is missing or not what it
            was; the output folder is occupied. Nothing is published then.
    """
    observer, output = observer or Observer(), config.output
    if config.executor.kind != "local":
        raise RunError(
            f"executor.kind {config.executor.kind}: select runs on this machine. Remedy: executor.kind: local"
        )
    added = added or {}
    if str(run.path) == output.path and not added and not joined:
        raise RunError(f"{run.path}: is the run that is decided about. Remedy: name another folder with --output")
    new, more = score_columns(added), stated_scores(added)
    if joined is not None:
        new, more = joined.columns, joined.stated(_name_of(joined.path, config.folder))
    rule = rule_of(config, run.scores | new)
    check_quota(config, run.ledger["sources"])
    lists = {} if rule is None else {path: rule.read(path).sha256 for path in rule.lists}
    with ExitStack() as stack:
        stack.enter_context(held(output.place, "--output", in_passing=output.is_remote))
        check_vacant(output, force_new=force_new)
        units = plan_adoption(run)
        destination = None
        if output.is_remote:
            destination = Destination(output)
            stack.enter_context(destination.held(force_new=force_new, notice=observer.notice))
        min_score = run.min_score if config.keep.min_score is None else config.keep.min_score
        of_run = run.scores | new, tuple(new), added or None, str(run.path), dict(options or {})
        job = Job(output.place / WORK, config, tuple(units), min_score, *of_run)
        now = {
            "config": config.deciding("quarantine"),
            "run": hashlib.sha256((run.path / MANIFEST).read_bytes()).hexdigest(),
            "lists": lists,
            "scores": more,
            "inputs": {},
            "code": {"finesieve": metadata.version("finesieve"), "digest": code_digest()}
            | {package: metadata.version(package) for package in ("duckdb", "numpy", "pyarrow")},
        }
        with disk_errors_told(output.place):
            begin(job, output.place, now, observer, lambda: None, force_new=force_new)
            stated = {name: run.manifest[name] for name in ("model", "benchmarks", "inputs", "dedup")}
            stated["selected_from"] = {"run": run.path.name, "digest": run.manifest["digest"]}
            pool = stack.enter_context(ThreadPool(config.executor.workers))
            with only_resumable_work_kept(job):
                if joined is not None:
                    more = _join(joined, run, job, more, observer)
                stated["scores"] = run.manifest["scores"] | more
                return Engine(job, pool, observer).run(
                    lambda: publish_files(job, output.place, run.ledger["sources"], stated, destination, observer)
                )


def _join(
    joined: Join, run: Run, job: Job, stated: Mapping[str, dict[str, Any]], observer: Observer
) -> dict[str, dict[str, Any]]:
    """Look up the scores of all documents; returns what the manifest says of them."""
    counts = joined.write(run, job.work)
    observer.notice(
        f"{joined.path}: {counts['documents']:,} of {run.rows:,} documents matched by {joined.by}; "
        f"{counts['unmatched_rows']:,} of its {counts['rows']:,} rows are of no document of the run"
        + (f"; {counts['not_finite']:,} values that are no finite number became NULL" if counts["not_finite"] else "")
    )
    return {name: {**about, "joined": about["joined"] | counts} for name, about in stated.items()}


def _name_of(path: Location, folder: str) -> str:
    """The name of a file of scores in a manifest, from which it is found again."""
    if not isinstance(path, Path):
        return str(path)
    return _relative(str(path), folder) if folder else os.path.abspath(path)


def score_run(
    run: Run,
    models: Mapping[str, str],
    output: str | None = None,
    *,
    file: str | None = None,
    by: str | None = None,
    force_new: bool = False,
    opens: FilterConfig | None = None,
    options: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
) -> RunResult:
    """Score the documents that deduplication left of a finished run with more models, or join scores of a file.

    The run's decision stays as it is; nothing is extracted, fingerprinted or scored by its old models again. One that
    was interrupted goes on.

    Args:
        run: the finished run, which is replaced, once the new one is complete, unless `output` is given.
        models: name of the column -> model, as for `QualityModel.load`.
        output: folder or address of a new run.
        file: Parquet file of scores, joined in the place of models; see `filters.run.joined_scores.Join`.
        by: its column that names documents, "id" or "url"; None: the first that it has.
        force_new: drop what was interrupted, which had other scores; replace whatever run is in `output`.
        opens: see `selection_config`.
        options: see `run_select`.
        observer: see `run_select`.

    Raises:
        FinesieveError: a model cannot be loaded, a name is taken, or a text is needed that is not there any more.
    """
    if output is None and not isinstance(run.path, Path):
        raise ConfigError(f"{run.path}: a run behind an address is not replaced. Remedy: name a new one with --output")
    if output is None and run.manifest["config"]["dedup"]["keep_fingerprints"]:
        raise ConfigError(
            f"{run.path}: has fingerprints for later runs, which a scored run has not. Remedy: name a new run "
            "with --output"
        )
    place = output or str(run.path)
    given = {name: value for name, value in run.manifest["config"]["keep"].items() if value is not None}
    config = selection_config(run, given, place, opens=opens, scores=models)
    joined = None
    loaded = load_models({name: config.models[name] for name in models})
    check_scores(config, loaded)
    if taken := sorted(score_columns(loaded).keys() & run.scores.keys()):
        raise ConfigError(f"--add {taken[0]}: the run has this column already. Remedy: give the score another name")
    if file is not None:
        joined = Join.open(location(file, options), by, taken_columns(config) | run.scores.keys())
    begun = (config.output.place / WORK / "done").exists()
    replace = force_new or (output is None and not begun)
    return run_select(run, config, options=options, force_new=replace, observer=observer, added=loaded, joined=joined)


def selection_config(
    run: Run,
    keep: Mapping[str, Any],
    output: str,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    opens: FilterConfig | None = None,
    scores: Mapping[str, str] | None = None,
) -> FilterConfig:
    """The config of a run with another decision.

    Args:
        run: the finished run.
        keep: its new section `keep`.
        output: the new `output.path`.
        overrides: section of `SECTIONS` -> keys that are set in it.
        opens: the config of the run, whose `storage_options` open inputs behind addresses, and the new output where it
            is one; no manifest has them.
        scores: models beside those of the run, as the working directory knows them.

    Raises:
        ConfigError: the sections are no config together.
        RunError: a run that cannot be decided anew about.
    """
    if run.manifest.get("format") != FORMAT:
        raise RunError(
            f"{run.path / MANIFEST}: of format {run.manifest.get('format')!r}; this version decides anew about format "
            f"{FORMAT}. Remedy: filter again"
        )
    before = config_of(run)
    if before.output.format != "parquet":
        raise RunError(
            f"{run.path}: its shards are {before.output.format}, from which no text is taken over. Remedy: filter with "
            "output.format: parquet"
        )
    data = before.short()
    data["dedup"] = {**data.get("dedup", {}), "keep_fingerprints": False}
    data["keep"] = dict(keep)
    data["output"] = {**data["output"], "path": output}
    if opens is not None and "://" in output:
        data["output"]["storage_options"] = opens.output.storage_options
    if scores:
        if taken := sorted(data.get("scores", {}).keys() & scores.keys()):
            raise ConfigError(f"--add {taken[0]}: the run has this score already. Remedy: give it another name")
        data["scores"] = {
            **data.get("scores", {}),
            **{name: model if model in embedded_models() else _relative(model, before.folder)
               for name, model in scores.items()},
        }  # fmt: skip
    for section, values in (overrides or {}).items():
        data[section] = {**data.get(section, {}), **values}
    for key in ("where", "by"):  # a list of the command lies in the working directory, one of a config beside it
        if isinstance(data["keep"].get(key), str) and before.folder and scores is None:
            data["keep"][key] = LISTS.sub(lambda found: _beside(found, before.folder), data["keep"][key])
    try:
        config = FilterConfig.in_folder(data, before.folder)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{key or 'select'}: {first['msg'].removeprefix('Value error, ')}") from error
    if opens is not None and len(opens.reads) == len(config.reads):
        options = [one.storage_options for one in opens.reads]
        reads = [
            one.model_copy(update={"storage_options": some}) for one, some in zip(config.reads, options, strict=True)
        ]
        config = config.model_copy(update={"input": None, "inputs": tuple(reads)})
    return config


def _beside(found: re.Match[str], folder: str) -> str:
    """The name of a list in a rule, relative to a folder instead of the working directory."""
    return found[0].replace(found[1], _relative(found[1].replace("''", "'"), folder).replace("'", "''"))


def _relative(path: str, folder: str) -> str:
    """A path of the working directory, relative to a folder where there is one."""
    return path if os.path.isabs(path) or not folder else os.path.relpath(path, folder)


def overrides_of(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read ["output.shard_size=1GB", "executor.workers=4"].

    Raises:
        RunError: one of them is not SECTION.KEY=VALUE with a section of `SECTIONS`.
    """
    import yaml

    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (separator and dot and name) or section not in SECTIONS or "." in name:
            raise RunError(f"--set {text}: write SECTION.KEY=VALUE; select may change {', '.join(SECTIONS)} only")
        try:
            found.setdefault(section, {})[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RunError(f"--set {text}: not valid YAML") from error
    return found
