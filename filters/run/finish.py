"""The end of a run: ledger, manifest and card, then everything to its final name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filters.cards import bullets, card_table, cell, make_card
from filters.dedup.earlier_runs import FINGERPRINTS, SETS
from filters.errors import RunError
from filters.models import embedded_models
from filters.phases.phase import Job
from filters.phases.rows import ATTRIBUTES, rule_of
from filters.read.units import digests_of_read, input_versions, is_file, is_local_file
from filters.run.attributes import QUARANTINE, readings
from filters.run.destination import Destination
from filters.run.folder import CARD, MANIFEST, check_unchanged, drop_work, publish, read_state, write_input_folder
from filters.run.ledger import Account, Ledger
from filters.run.phase_list import phase_named
from filters.run.plan import Observer, Plan, stated_scores
from filters.run.selection import of_deduplication, summary_of_select
from filters.run.shard import SHARD, histograms_of
from filters.scores.histogram import Histogram, SlicedHistogram
from filters.scores.summary import MAX_VALUES, Histograms
from filters.storage.files import publishing, sha256
from filters.storage.location import Location
from filters.storage.remote import is_local

FORMAT = 2
"""Format of manifest.json. 1: runs of version 0.1, with other near copies and another config."""


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        path: the run's folder; where output.path is an address, a `filters.storage.location.RemotePath`.
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


def book_input(ledger: Ledger, job: Job, unit: int) -> None:
    """Enter what the phase `attributes` says of an input unit: records, skipped and quarantined ones."""
    facts = job.facts(ATTRIBUTES, unit)
    account = Account(
        records=facts["records"],
        skipped=facts["skipped"],
        quarantined=Counter(facts["quarantined"]),
        renamed=facts.get("renamed", 0),
    )
    ledger.book(job.units[unit].source, account)


def publish_job(
    plan: Plan, job: Job, destination: Destination | None = None, observer: Observer | None = None
) -> RunResult:
    """Check the ledger of a job whose phases are all done, write manifest and card, and publish its files.

    Args:
        plan: of the run.
        job: of the run; its units have been looked at since this process began (`unfinished`), or were done by it.
        destination: where the files go, if that is not the folder the run is made in; held by this process.
        observer: told how far an upload is.

    Raises:
        DamagedError: a file is not what its entry says; its unit must be done again first.
        InputError: an input changed while it was read, or since.
        RunError: the ledger does not add up.
    """
    now = input_versions(plan.units, plan.config.reads)
    check_unchanged(_versions(job), now)
    return publish_files(job, plan.output, plan.sources, _stated(plan, job, now), destination, observer)


def publish_files(
    job: Job,
    output_folder: Path,
    sources: Iterable[str],
    stated: Mapping[str, Any],
    destination: Destination | None = None,
    observer: Observer | None = None,
) -> RunResult:
    """Check the ledger of a job whose phases are all done, write manifest and card, and publish its files.

    Args:
        job: see `publish_job`.
        output_folder: that the run is made in.
        sources: names of all input files.
        stated: what the manifest says of where the documents come from: model, benchmarks, inputs, dedup.
        destination: see `publish_job`.
        observer: told how far an upload is.

    Raises:
        DamagedError: a file is not what its entry says; its unit must be done again first.
        RunError: the ledger does not add up.
    """
    new = job.work / "new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    ledger = Ledger(sources)
    for unit in range(len(job.units)):
        book_input(ledger, job, unit)
    histograms = histograms_of(job)
    files, lines = _stage(job, new, ledger, histograms)
    rows: Counter[str] = Counter()
    for file in files:
        if not file.pop("turn", 0):
            rows[file["path"].partition("/")[0]] += file.get("rows", 0)
    ledger.check(shard_rows=rows["data"], attribute_rows=rows["attributes"], quarantine_rows=lines)
    if job.config.output.rejected and rows["rejected"] != ledger.total.removed.total():
        raise RunError(
            f"rejected: {rows['rejected']} rows were written where the ledger has {ledger.total.removed.total()}. "
            "Nothing was published; please report this"
        )
    files.sort(key=lambda file: str(file["path"]))
    manifest = _manifest(job, stated, ledger, histograms, files)
    with publishing(new / CARD) as temporary:
        temporary.write_text(card(manifest), encoding="utf-8")
    files.append({"path": CARD, "bytes": (new / CARD).stat().st_size, "sha256": sha256(new / CARD)})
    manifest["digest"] = manifest_digest(manifest)
    with publishing(new / MANIFEST) as temporary:
        temporary.write_text(manifest_text(manifest), encoding="utf-8")
    output: Location = output_folder
    if destination is None:
        if _has_relative(job):
            write_input_folder(new, output_folder, job.config.folder)
        publish(output_folder, new)
    else:
        digests = {file["path"]: file["sha256"] for file in files}
        destination.publish(new, digests | {MANIFEST: sha256(new / MANIFEST)}, observer or Observer())
        output = destination.folder
    drop_work(output_folder)
    shards = [output / file["path"] for file in manifest["files"] if file["path"].startswith("data/")]
    return RunResult(output, ledger, histograms.total, shards, manifest)


def _stage(job: Job, new: Path, ledger: Ledger, histograms: Histograms) -> tuple[list[dict[str, Any]], int]:
    """Put all files where they will lie, and add up what they hold.

    Returns:
        For each file path, bytes, sha256, and where it has any, rows and turn; and the lines of quarantine.jsonl.
    """
    files = []
    for unit in range(phase_named(SHARD).units(job)):
        facts = job.facts(SHARD, unit)
        for file in facts["files"]:
            entry = _link(job, SHARD, unit, file["name"], new / file["path"])
            files.append({"path": file["path"], **entry, "rows": file["rows"], "turn": file.get("turn", 0)})
            for source, account in file.get("sources", {}).items():
                ledger.book(
                    source,
                    Account(kept=account["kept"], removed=Counter(account["removed"]), renamed=account["renamed"]),
                )
        if "histograms" in facts:
            _merge(histograms, facts["histograms"])
    path, lines, digest = new / QUARANTINE, 0, hashlib.sha256()
    with path.open("wb") as joined:
        for unit in range(len(job.units)):
            content = job.file(ATTRIBUTES, unit, QUARANTINE).read_bytes()
            lines += content.count(b"\n")
            digest.update(content)
            joined.write(content)
    files.append({"path": QUARANTINE, "bytes": path.stat().st_size, "sha256": digest.hexdigest()})
    for phase in (phase_named(FINGERPRINTS), phase_named(SETS)):
        for unit in range(phase.units(job)):
            for name, count in job.facts(phase.name, unit)["files"].items():
                entry = _link(job, phase.name, unit, name, new / FINGERPRINTS / name)
                files.append({"path": f"{FINGERPRINTS}/{name}", **entry, "rows": count})
    return files, lines


def _merge(histograms: Histograms, found: dict[str, Any]) -> None:
    histograms.total.merge(Histogram.from_json(found["total"]))
    for name, histogram in histograms.scores.items():
        histogram.merge(Histogram.from_json(found["scores"][name]))
    for by in list(histograms.slices):
        if by in found["slices"] and len(histograms.slices[by]) <= MAX_VALUES:
            histograms.slices[by].merge(SlicedHistogram.from_json(by, found["slices"][by]))
        else:  # one side file alone has more values than the manifest takes
            del histograms.slices[by]


def _link(job: Job, phase: str, unit: int, name: str, target: Path) -> dict[str, Any]:
    """Give a unit's file a second name, so that a run that is killed while it publishes can publish again.

    Returns:
        bytes and sha256 of the file.
    """
    source = job.file(phase, unit, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
    entry = job.entry(phase, unit) or {"files": {}}
    return {key: entry["files"][name][key] for key in ("bytes", "sha256")}


def _versions(job: Job) -> dict[str, str | None]:
    """Versions of the remote input files when the run began."""
    state = read_state(job.work) or {"identity": {"inputs": {}}}
    remote = {unit.source for unit in job.units if is_file(unit) and not is_local(unit.address)}
    return {source: entry["modified"] for source, entry in state["identity"]["inputs"].items() if source in remote}


def _has_relative(job: Job) -> bool:
    """Whether a run has inputs that it names by relative paths."""
    config = job.config
    names = [unit.source for unit in job.units if is_local_file(unit)]
    names += [one.dataset for one in config.reads if one.dataset is not None and os.path.isdir(one.at(one.dataset))]
    names += [name for name in (config.model, *config.scores.values()) if name not in embedded_models()]
    names += () if (rule := rule_of(config, job.scores)) is None else rule.lists
    names += config.dedup.against
    names += () if config.decontaminate is None else config.decontaminate.files
    return any(is_local(name) and not os.path.isabs(name) for name in names)


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """manifest.json of a run."""
    return json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over a manifest without its key `digest`, so that `verify` notices what was edited."""
    content = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stated(plan: Plan, job: Job, versions: Mapping[str, str | None]) -> dict[str, Any]:
    """What the manifest says of where the documents come from."""
    digests = digests_of_read(plan.units, readings(job, range(len(job.units))))
    return {
        "model": {
            "name": plan.model.name,
            "digest": plan.model.digest,
            "languages": list(plan.model.metadata.measured_on),
            "reliability": plan.model.metadata.metrics.get("reliability"),
        },
        "scores": stated_scores(plan.models),
        "benchmarks": [benchmark.to_json() for benchmark in plan.benchmarks],
        "inputs": [
            {"source": source, "bytes": size, "xxh3_128": digests.get(source)}
            | ({"version": versions[source]} if source in versions else {})
            for source, size in plan.sources.items()
        ],
        "dedup": of_deduplication(job),
    }


def _manifest(
    job: Job, stated: Mapping[str, Any], ledger: Ledger, histograms: Histograms, files: list[dict[str, Any]]
) -> dict[str, Any]:
    """Everything that decided the output and what it is; no times, no machine, no number of workers."""
    before = {name: stated[name] for name in ("model", "scores", "benchmarks", "inputs")}
    return {
        "format": FORMAT,
        "finesieve": version("finesieve"),
        "config": job.config.deciding(),
        **before,
        "ledger": ledger.to_json(),
        **summary_of_select(job),
        **{name: value for name, value in stated.items() if name not in before},
        "histogram": histograms.total.to_json(),
        "score_histograms": histograms.scores_to_json(),
        "slices": [name for name in histograms_of(job).slices if name != "language"],
        "histograms": histograms.to_json(),
        "files": files,
    }


SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
         (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"))  # fmt: skip


def card(manifest: dict[str, Any]) -> str:
    """README.md of a run folder, from its manifest."""
    total, config = manifest["ledger"]["total"], manifest["config"]
    suffix = "parquet" if config["output"]["format"] == "parquet" else "jsonl.zst"
    buckets, repeat = config["output"]["buckets"], config["output"]["repeat"]
    folders = _folders(manifest) if buckets and buckets["folders"] else []
    everything = "data/*/*" if folders else "data/*"
    configs = [{"config_name": "default", "data_files": f"{everything}.{suffix}", "default": True}]
    configs += [{"config_name": name, "data_files": f"data/{name}/*.{suffix}"} for name in folders]
    configs.append({"config_name": "attributes", "data_files": "attributes/*.parquet"})
    header: dict[str, Any] = {
        "task_categories": ["text-generation"],
        "tags": ["finesieve", "quality-filtered", "deduplicated"],
        "size_categories": [next((name for bound, name in SIZES if total["kept"] < bound), "n>10B")],
        "configs": configs,
    }
    if config["language"] and config["language"]["keep"]:
        header["language"] = list(config["language"]["keep"])
    kinds = " and ".join(sorted({str(one["kind"]) for one in config["inputs"]}))
    near = config["dedup"]["near"]
    dedup = [
        "exact copies (xxh3-128 of the lower-cased text with white space collapsed)" * config["dedup"]["exact"],
        f"near copies (MinHash over {near['shingle']}-word shingles, {near['bands']} bands of {near['rows']} rows)"
        if near
        else "",
    ]
    keep = config["dedup"]["keep"]
    stays = "every document with a copy goes" if keep == "none" else f"of each group of copies the {keep} one stays"
    return make_card(
        "# Filtered with finesieve",
        f"{total['kept']:,} of {total['records']:,} records of {len(manifest['inputs']):,} {kinds} "
        f"input file(s), {_rule(manifest)}. Copies removed: {' and '.join(filter(None, dedup)) or 'none'}; "
        f"{stays}.",
        card_table(
            ("what became of them", "records"),
            [
                ("kept", f"{total['kept']:,}"),
                *((f"removed: {cell(reason)}", f"{n:,}") for reason, n in total["removed"].items()),
                *((f"quarantined: {cell(cause)}", f"{n:,}") for cause, n in total["quarantined"].items()),
                ("**all records read**", f"{total['records']:,}"),
            ],
            right=[1],
        ),
        bullets(
            "`data/`: the kept documents, in input order.",
            f"Column `bucket`: quality by rank; {', '.join(buckets['names'])}, the best last." if buckets else "",
            f"Column `copies`: a document is there so often, by {repeat['by']}." if repeat else "",
            "`attributes/`: a row for every document read, kept or not: score, language, tokens (an estimate), "
            "duplicate cluster, the id of the copy that stayed, reason.",
            "`rejected/`: the removed documents with their reasons." if config["output"]["rejected"] else "",
            "`quarantine.jsonl`: records that could not be read: source, position, cause, first bytes.",
            "`manifest.json`: config, model digest, ledger of every input file, histogram, SHA-256 of every file.",
        ),
        f"Model digest: `{manifest['model']['digest']}`. finesieve {manifest['finesieve']}.\n"
        "The texts keep the licences of their sources.",
        header=header,
    )


def _rule(manifest: dict[str, Any]) -> str:
    """The keep rule in words."""
    keep, model = manifest["keep"], f"the model `{manifest['model']['name']}`"
    rule, solution = keep.get("rule"), keep["solution"]
    if rule is None:
        return f"kept by {model} at score >= {keep['min_score']:g}"
    words = [f"scored by {model} and kept"]
    if rule["where"] is not None:
        words.append(f"where `{cell(' '.join(rule['where'].split()))}`")
    if rule["by"] is not None:
        words.append(f"from {solution['threshold']:g} of `{cell(' '.join(rule['by'].split()))}`")
    elif "min_score" not in solution["target"] or manifest["config"]["keep"]["min_score"] is not None:
        words.append(f"at score >= {keep['min_score']:g}")
    return " ".join(words)


def _folders(manifest: dict[str, Any]) -> list[str]:
    """The buckets that have shards of their own, the lowest first."""
    present = {file["path"].split("/")[1] for file in manifest["files"] if file["path"].startswith("data/")}
    return [name for name in manifest["config"]["output"]["buckets"]["names"] if name in present]
