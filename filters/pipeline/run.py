"""`finesieve filter`: from a config to a finished run folder, or to a clear error and no folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filters.config import FilterConfig
from filters.errors import RunError
from filters.inspect.histogram import Histogram
from filters.inspect.summary import Histograms
from filters.pipeline.card import card
from filters.pipeline.executor import UnitExecutor, run_units
from filters.pipeline.ledger import Ledger
from filters.pipeline.plan import Plan, make_plan
from filters.pipeline.pool import WorkerPool
from filters.pipeline.resolve import Book, Deduplicate, ReadSpool, Select, UniqueIds
from filters.pipeline.shards import read_rows
from filters.pipeline.write import WriteAttributes, WriteQuarantine, WriteShards, slice_names
from filters.publish import publishing
from filters.read.batch import Batch

MANIFEST = "manifest.json"
WORK, LOCK = ".work", ".lock"
PUBLISHED = ("data", "attributes", "rejected", "quarantine.jsonl", "README.md", MANIFEST)
"""Everything a run puts into its folder; the manifest comes last, so a folder without one is no finished run."""


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        path: the run's folder.
        ledger: what became of every record.
        histogram: scores of the documents that survived deduplication.
        shards: Parquet or JSONL files of kept documents, in order.
        manifest: content of manifest.json.
    """

    path: Path
    ledger: Ledger
    histogram: Histogram
    shards: list[Path]
    manifest: dict[str, Any]


def run_filter(
    config: FilterConfig | Plan | str | Path,
    *,
    force_new: bool = False,
    on_batch: Callable[[Batch], None] = lambda batch: None,
) -> RunResult:
    """Read, deduplicate, score and shard everything the config names.

    Args:
        config: a config, a plan made from one, or the path of a YAML file.
        force_new: replace a finished run in the output folder.
        on_batch: called with every batch once its documents are decided, for progress.

    Raises:
        FinesieveError: see `make_plan`; or the output folder is occupied, a worker died, too much was quarantined, the
            disk is full, the ledger does not add up. The output folder is then as it was before, except that a
            run which `force_new` was to replace stays until the new one is complete.
    """
    plan = config if isinstance(config, Plan) else make_plan(
        config if isinstance(config, FilterConfig) else FilterConfig.load(config)
    )  # fmt: skip
    workers = min(plan.config.executor.workers, len(plan.units))
    with _locked(plan.output, force_new) as work, WorkerPool(workers if workers > 1 else 0) as pool:
        try:
            return _run(plan, work, pool if workers > 1 else None, on_batch)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise RunError(f"{plan.output}: cannot write: {error}. Nothing was published") from error
            raise


@contextlib.contextmanager
def _locked(output: Path, force_new: bool) -> Iterator[Path]:
    """The run's work folder, held by one process; gone afterwards, as is an output folder with nothing in it."""
    if output.exists() and not output.is_dir():
        raise RunError(f"{output}: exists and is not a folder. Remedy: choose another output.path")
    created = next((parent for parent in reversed([output, *output.parents]) if not parent.exists()), None)
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = (output / LOCK).open("w")
    except OSError as error:
        raise RunError(f"{output}: cannot create the output folder: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{output}: another run is writing here. Remedy: wait for it, or stop it") from None
        try:
            _check_free(output, force_new)
            work = output / WORK
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            yield work
        finally:
            shutil.rmtree(output / WORK, ignore_errors=True)
            (output / LOCK).unlink(missing_ok=True)
            if created and not any(output.iterdir()):
                for folder in [output, *output.parents]:
                    folder.rmdir()
                    if folder == created or any(folder.parent.iterdir()):
                        break


def _check_free(output: Path, force_new: bool) -> None:
    """Refuse a folder with anything in it that is not known to be a run's: publishing replaces whole folders."""
    present = {entry.name for entry in output.iterdir()} - {LOCK}
    if WORK in present:  # a run that was killed: what lies beside its work folder is its own
        foreign = sorted(present - {*PUBLISHED, WORK})
    elif MANIFEST in present:
        foreign = sorted(_unlisted(output))
    else:
        foreign = sorted(present)
    if foreign:
        raise RunError(
            f"{output}: holds files that are no run's ({', '.join(foreign[:3])}). Remedy: choose an empty output.path"
        )
    if MANIFEST in present and not force_new:
        raise RunError(
            f"{output}: holds a finished run. Remedy: choose another output.path, or replace it with --force-new"
        )


def _unlisted(output: Path) -> set[str]:
    """Files below a run's folder that its manifest does not name."""
    try:
        listed = {str(entry["path"]) for entry in json.loads((output / MANIFEST).read_text())["files"]}
    except (ValueError, KeyError, TypeError):
        return {MANIFEST}
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    return files - listed - {LOCK, MANIFEST, "README.md"}


def _run(plan: Plan, work: Path, pool: WorkerPool | None, on_batch: Callable[[Batch], None]) -> RunResult:
    config = plan.config
    spool, new = work / "spool", work / "new"
    for folder in (spool, new, new / "data", new / "attributes"):
        folder.mkdir()
    ledger = Ledger(plan.sources)
    quarantine = WriteQuarantine(new / "quarantine.jsonl")
    attributes = WriteAttributes(new / "attributes", config.input.slices)
    shards = WriteShards(new / "data", config.output)
    steps = [
        ReadSpool(spool, run_units(config, plan.units, spool, pool)),
        UniqueIds(),
        Deduplicate(config.dedup),
        Select(plan.min_score),
        Book(ledger, config.quarantine, on_batch),
        quarantine,
        attributes,
        shards,
    ]
    if config.output.rejected:
        (new / "rejected").mkdir()
        steps.append(WriteShards(new / "rejected", config.output, rejected=True))
    UnitExecutor(steps, 1).run()
    ledger.check(
        shard_rows=sum(read_rows(path) for path in shards.files),
        attribute_rows=sum(read_rows(path) for path in attributes.files),
        quarantine_rows=quarantine.rows,
    )
    manifest = _manifest(plan, ledger, attributes.histograms, new)
    with publishing(new / "README.md") as temporary:
        temporary.write_text(card(manifest), encoding="utf-8")
    with publishing(new / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in reversed(PUBLISHED):
        entry = plan.output / name
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
    for name in PUBLISHED:
        if (new / name).exists():
            (new / name).rename(plan.output / name)
    published = [plan.output / "data" / path.name for path in shards.files]
    return RunResult(plan.output, ledger, attributes.histograms.total, published, manifest)


def _manifest(plan: Plan, ledger: Ledger, histograms: Histograms, folder: Path) -> dict[str, Any]:
    """Everything that decided the output and what it is; no times, no machine, no number of workers."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "format": 1,
        "finesieve": version("finesieve"),
        "config": plan.config.model_dump(mode="json", exclude={"executor": True, "output": {"path"}}),
        "model": {
            "name": plan.model.name,
            "digest": plan.model.digest,
            "reliability": plan.model.metadata.metrics.get("reliability"),
        },
        "keep": {"min_score": plan.min_score, "tie": "score >= min_score, in float32"},
        "inputs": [{"source": source, "bytes": size} for source, size in plan.sources.items()],
        "ledger": ledger.to_json(),
        "histogram": histograms.total.to_json(),
        "slices": slice_names(plan.config.input.slices),
        "histograms": histograms.to_json(),
        "files": [
            {
                "path": path.relative_to(folder).as_posix(),
                "bytes": path.stat().st_size,
                "sha256": _sha256(path),
                **({"rows": read_rows(path)} if path.name.endswith((".parquet", ".jsonl.zst")) else {}),
            }
            for path in files
        ],
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
