"""The end of a run: ledger, manifest and card, then everything to its final name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filters.inspect.histogram import Histogram
from filters.inspect.summary import Histograms
from filters.pipeline.card import card
from filters.pipeline.destination import Destination
from filters.pipeline.folder import CARD, MANIFEST, publish
from filters.pipeline.ledger import Ledger
from filters.pipeline.observer import Observer
from filters.pipeline.plan import Plan
from filters.pipeline.readable import check_readable
from filters.pipeline.shards import read_rows
from filters.pipeline.state import check_unchanged
from filters.pipeline.write import slice_names
from filters.publish import publishing, sha256
from filters.read.digest import digests_of_read, input_versions
from filters.read.local import Reading
from filters.storage import Location


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        path: the run's folder; where output.path is an address, a `filters.storage.RemotePath`.
        ledger: what became of every record.
        histogram: scores of the documents that survived deduplication.
        shards: Parquet or JSONL files of kept documents, in order.
        manifest: content of manifest.json.
    """

    path: Location
    ledger: Ledger
    histogram: Histogram
    shards: list[Location]
    manifest: dict[str, Any]


def finish(
    plan: Plan,
    new: Path,
    ledger: Ledger,
    histograms: Histograms,
    readings: Mapping[str, Sequence[Reading]],
    versions: Mapping[str, str | None],
    decided: Mapping[str, Any] | None = None,
    destination: Destination | None = None,
    observer: Observer | None = None,
) -> RunResult:
    """Write manifest and card beside a run's files in `new`, and publish them all.

    Args:
        plan: of the run.
        new: folder with everything but manifest.json and README.md.
        ledger: checked already.
        histograms: of the documents that survived deduplication.
        readings: what was read of local input files, by source.
        versions: of the remote input files when the run began, by source.
        decided: what the manifest says of the decisions of a global run (keep, dedup, ...).
        destination: where the files go, if that is not the folder the run is made in; held by this process.
        observer: told how far an upload is.

    Raises:
        InputError: an input file is not what was read, or nothing in the input could be read.
    """
    check_readable(plan, ledger)
    digests = digests_of_read(plan.units, readings)
    now = input_versions(plan.units, plan.config.input.storage_options)
    check_unchanged(versions, now)
    manifest = _manifest(plan, ledger, histograms, new, digests, now, decided or {})
    with publishing(new / CARD) as temporary:
        temporary.write_text(card(manifest), encoding="utf-8")
    manifest["files"].append(_entry(new / CARD, new))
    manifest["digest"] = manifest_digest(manifest)
    with publishing(new / MANIFEST) as temporary:
        temporary.write_text(manifest_text(manifest), encoding="utf-8")
    output: Location = plan.output
    if destination is None:
        publish(plan.output, new)
    else:
        digests_of = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
        digests_of[MANIFEST] = sha256(new / MANIFEST)
        destination.publish(new, digests_of, observer or Observer())
        output = destination.folder
    shards = [output / entry["path"] for entry in manifest["files"] if entry["path"].startswith("data/")]
    return RunResult(output, ledger, histograms.total, shards, manifest)


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """manifest.json of a run."""
    return json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over a manifest without its key `digest`, so that `verify` notices what was edited."""
    content = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _manifest(
    plan: Plan,
    ledger: Ledger,
    histograms: Histograms,
    folder: Path,
    digests: Mapping[str, str | None],
    versions: Mapping[str, str | None],
    decided: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that decided the output and what it is; no times, no machine, no number of workers."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(plan.config.executor.workers) as threads:
        listed = list(threads.map(lambda path: _entry(path, folder), files))
    return {
        "format": 1,
        "finesieve": version("finesieve"),
        "config": plan.config.deciding(),
        "model": {
            "name": plan.model.name,
            "digest": plan.model.digest,
            "reliability": plan.model.metadata.metrics.get("reliability"),
        },
        "benchmarks": [benchmark.to_json() for benchmark in plan.benchmarks],
        "keep": {"min_score": plan.min_score, "tie": "score >= min_score, in float32"},
        "inputs": [
            {"source": source, "bytes": size, "xxh3_128": digests.get(source)}
            | ({"version": versions[source]} if source in versions else {})
            for source, size in plan.sources.items()
        ],
        "ledger": ledger.to_json(),
        **decided,
        "histogram": histograms.total.to_json(),
        "slices": slice_names(plan.config.input.slices),
        "histograms": histograms.to_json(),
        "files": listed,
    }


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    entry = {"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": sha256(path)}
    return entry | ({"rows": read_rows(path)} if path.name.endswith((".parquet", ".jsonl.zst")) else {})
