"""`finesieve verify`: a finished run held against its manifest, its model, its inputs and a second look at samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from filters.config import FilterConfig
from filters.dedup.bands import id_hashes
from filters.errors import FinesieveError, RunError
from filters.inspect.run import Run
from filters.kernels.packed import PackedText
from filters.pipeline.executor import unit_steps
from filters.pipeline.ledger import Ledger
from filters.publish import sha256
from filters.read.batch import Batch
from filters.read.digest import input_digest
from filters.read.units import Unit, plan_units

MAX_SCORE_DIFFERENCE = 1e-4
"""Scores may differ so much between processors, whose libraries add in another order; a decision must not change."""
REREAD_ROWS = 2000
"""Rows at the beginning of an input unit that are read again."""
_SHOWN = 3


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        ok: None where it could not be looked at.
        detail: what was compared, or what is wrong.
    """

    name: str
    ok: bool | None
    detail: str


def verify_run(
    path: Path,
    *,
    sample: int = 200,
    seed: int = 0,
    inputs: bool = True,
    on_check: Callable[[Check], None] = lambda check: None,
) -> list[Check]:
    """Check everything that can be checked about a finished run.

    Args:
        path: the run's folder.
        sample: kept documents to score and fingerprint again; also the beginning of one input unit is read again.
        seed: of the sample.
        inputs: compare input files with their digests; relative names are looked for from the working directory.
        on_check: called with each check as it is done.

    Raises:
        RunError: there is no finished run.
    """
    verifier = _Verifier(path, sample, seed)
    checks = []
    steps = [verifier.files, verifier.ledger, verifier.documents, verifier.model]
    steps += [verifier.inputs, verifier.input_again] if inputs else []
    steps.append(verifier.sample_again)
    for step in steps:
        for check in _safely(step):
            checks.append(check)
            on_check(check)
    return checks


def _safely(step: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from step()
    except (FinesieveError, OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        yield Check(step.__name__.replace("_", " "), False, f"{type(error).__name__}: {error}")


class _Verifier:
    def __init__(self, path: Path, sample: int, seed: int) -> None:
        self.path = path
        self.manifest = Run(path).manifest
        self.size, self.random = sample, np.random.default_rng(seed)
        data = self.manifest["config"]
        data["output"] = {**data["output"], "path": str(path)}
        self.config = FilterConfig.model_validate(data)

    def _listed(self, folder: str) -> list[Path]:
        return [self.path / entry["path"] for entry in self.manifest["files"] if entry["path"].startswith(f"{folder}/")]

    def files(self) -> Iterator[Check]:
        """Every file of the manifest is there, byte for byte, and no other."""
        wrong, total = [], 0
        for entry in self.manifest["files"]:
            file = self.path / entry["path"]
            total += entry["bytes"]
            if not file.is_file():
                wrong.append(f"{entry['path']} is missing")
            elif file.stat().st_size != entry["bytes"] or sha256(file) != entry["sha256"]:
                wrong.append(f"{entry['path']} is not what was written")
        listed = {entry["path"] for entry in self.manifest["files"]} | {"manifest.json", "README.md"}
        found = {file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if file.is_file()}
        wrong += [f"{name} is not the run's" for name in sorted(found - listed) if not name.startswith(".")]
        good = f"{len(self.manifest['files']):,} files, {total / 1e6:,.1f} MB, are what was written (SHA-256)"
        yield _check("files", wrong, good)

    def ledger(self) -> Iterator[Check]:
        """The accounts add up, and the files have the rows they say."""
        ledger = Ledger.from_json(self.manifest["ledger"])
        copies = _total_copies(self._listed("attributes"))
        quarantine = self.path / "quarantine.jsonl"
        try:
            ledger.check(
                shard_rows=ledger.total.kept,
                attribute_rows=sum(pq.read_metadata(file).num_rows for file in self._listed("attributes")),
                quarantine_rows=sum(1 for _ in quarantine.open("rb")),
            )
        except RunError as error:
            yield Check("ledger", False, str(error))
            return
        rows = sum(entry["rows"] for entry in self.manifest["files"] if entry["path"].startswith("data/"))
        wrong = [f"shards have {rows:,} rows, the side files ask for {copies:,}"] if rows != copies else []
        total = ledger.total
        good = (
            f"{total.records:,} in = {total.kept:,} kept + {total.removed.total():,} removed + "
            f"{total.quarantined.total():,} quarantined, in {len(ledger.accounts):,} input file(s)"
        )
        yield _check("ledger", wrong, good)

    def documents(self) -> Iterator[Check]:
        """The documents of the shards are those the side files keep, each as often as they say."""
        wanted = _IdSum()
        for file in self._listed("attributes"):
            for table in _tables(file, ["id", "keep", "copies"]):
                times = (
                    table["copies"].to_numpy()
                    if "copies" in table.column_names
                    else table["keep"].to_numpy().astype(np.int64)
                )
                wanted.add(table["id"], times)
        found = _IdSum()
        for file in self._listed("data"):
            for ids in _ids(file):
                found.add(ids, np.ones(len(ids), np.int64))
        wrong = [] if (wanted.value, wanted.count) == (found.value, found.count) else [
            f"shards hold {found.count:,} documents, the side files keep {wanted.count:,}, or they are others"
        ]  # fmt: skip
        yield _check("documents", wrong, f"{found.count:,} documents in shards are those the side files keep")

    def model(self) -> Iterator[Check]:
        """The model is the one the run was scored with."""
        from filters.model import QualityModel

        digest = QualityModel.load(self.config.model).digest
        expected = self.manifest["model"]["digest"]
        wrong = [f"{self.config.model} has digest {digest[:12]}, the run used {expected[:12]}"]
        yield _check("model", wrong if digest != expected else [], f"{self.config.model}, digest {digest[:12]}")

    def _units(self) -> list[Unit]:
        return plan_units(self.config.input)

    def inputs(self) -> Iterator[Check]:
        """The input files are those that were read."""
        units = {unit.source: unit for unit in reversed(self._units())}
        wrong, unknown = [], 0
        for entry in self.manifest["inputs"]:
            unit = units.pop(entry["source"], None)
            if unit is None:
                wrong.append(f"{entry['source']} is missing")
            elif entry["xxh3_128"] is None:
                unknown += 1
            elif input_digest(unit) != entry["xxh3_128"]:
                wrong.append(f"{entry['source']} is not what was read")
        wrong += [f"{source} was not there" for source in units]
        rest = f"; {unknown:,} have no digest (not local files)" if unknown else ""
        yield _check("inputs", wrong, f"{len(self.manifest['inputs']):,} inputs are what was read (xxh3-128){rest}")

    def input_again(self) -> Iterator[Check]:
        """The beginning of one input unit, read, fingerprinted and scored again, gives the same side file rows."""
        units = self._units()
        if not units:
            yield Check("input again", None, "there is no input")
            return
        number = int(self.random.integers(len(units)))
        read, *steps = unit_steps(self.config, units)
        batches: Iterable[Batch] = read.run(None, rank=number, world_size=len(units))
        for step in steps:
            batches = step.run(batches)
        unit = units[number]
        rows = _rows_of(self._listed("attributes"), unit.source, unit.start, unit.stop)
        wrong, seen = [], 0
        for batch in batches:
            for n, position in enumerate(batch.position.tolist()):
                row = rows.get(position)
                where = f"{unit.source} at {position}"
                if row is None:
                    wrong.append(f"{where}: not in the side files")
                    continue
                exact = batch.attributes["exact"][n].tobytes()
                if row["exact_hash"] is not None and row["exact_hash"] != exact:
                    wrong.append(f"{where}: another fingerprint")
                if row["score"] is not None and not _close(row["score"], float(batch.attributes["score"][n])):
                    wrong.append(f"{where}: score {batch.attributes['score'][n]:.4f}, was {row['score']:.4f}")
            seen += len(batch)
            if seen >= REREAD_ROWS:
                break
        yield _check(
            "input again", wrong, f"{seen:,} documents of {unit.source} read again: same fingerprints, same scores"
        )

    def _sample(self) -> tuple[list[str], list[str]]:
        """(ids, texts) of documents drawn from all shards, each row with the same chance."""
        shards = [
            (entry["path"], entry["rows"]) for entry in self.manifest["files"] if entry["path"].startswith("data/")
        ]
        total = sum(rows for _, rows in shards)
        drawn = np.sort(self.random.choice(total, min(self.size, total), replace=False)) if total else np.empty(0, int)
        ids: list[str] = []
        texts: list[str] = []
        first = 0
        for name, rows in shards:
            here = drawn[(drawn >= first) & (drawn < first + rows)] - first
            first += rows
            if len(here):
                for table in _rows_at(self.path / name, here):
                    ids += table["id"].to_pylist()
                    texts += table["text"].to_pylist()
        return ids, texts

    def sample_again(self) -> Iterator[Check]:
        """A random sample of the shards, scored and fingerprinted again."""
        from filters.dedup.exact import exact_hashes
        from filters.model import QualityModel

        ids, texts = self._sample()
        if not ids:
            yield Check("sample", None, "no document was kept")
            return
        scores = QualityModel.load(self.config.model).score(texts)
        exact = exact_hashes(PackedText.from_strings(texts))
        known = _rows_by_id(self._listed("attributes"), ids)
        wrong = []
        for number, name in enumerate(ids):
            row = known.get(name)
            if row is None:
                wrong.append(f"{name}: not in the side files")
            elif row["exact_hash"] != exact[number].tobytes():
                wrong.append(f"{name}: another fingerprint")
            elif not _close(row["score"], float(scores[number])):
                wrong.append(f"{name}: score {scores[number]:.4f}, was {row['score']:.4f}")
        yield _check("sample", wrong, f"{len(ids):,} kept documents: same fingerprints, same scores")


class _IdSum:
    """A multiset of ids as a sum of their hashes: equal for equal multisets in any order, in constant memory."""

    def __init__(self) -> None:
        self.value, self.count = 0, 0

    def add(self, ids: pa.ChunkedArray, times: npt.NDArray[np.integer[Any]]) -> None:
        summed = int((id_hashes(ids) * times.astype(np.uint64)).sum(dtype=np.uint64))  # both wrap at 2^64, as meant
        self.value = (self.value + summed) % 2**64
        self.count += int(times.sum())


def _check(name: str, wrong: list[str], good: str) -> Check:
    if not wrong:
        return Check(name, True, good)
    more = f" (and {len(wrong) - _SHOWN:,} more)" if len(wrong) > _SHOWN else ""
    return Check(name, False, "; ".join(wrong[:_SHOWN]) + more)


def _close(before: float, now: float) -> bool:
    return abs(before - now) <= MAX_SCORE_DIFFERENCE


def _tables(file: Path, columns: list[str]) -> Iterator[pa.Table]:
    parquet = pq.ParquetFile(file)
    present = [name for name in columns if name in parquet.schema_arrow.names]
    for batch in parquet.iter_batches(columns=present):
        yield pa.Table.from_batches([batch])


def _rows_at(file: Path, rows: npt.NDArray[np.int64]) -> Iterator[pa.Table]:
    """(id, text) of the given rows, ascending; only the row groups that hold some are read."""
    if file.suffix == ".parquet":
        parquet = pq.ParquetFile(file)
        first = 0
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            here = rows[(rows >= first) & (rows < first + count)] - first
            first += count
            if len(here):
                yield parquet.read_row_group(group, columns=["id", "text"]).take(pa.array(here))
        return
    wanted = set(rows.tolist())
    with zstandard.open(file, "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for number, line in enumerate(lines) if number in wanted]
    yield pa.table({name: pa.array([row[name] for row in found], pa.string()) for name in ("id", "text")})


def _ids(file: Path) -> Iterator[pa.ChunkedArray]:
    if file.suffix == ".parquet":
        for table in _tables(file, ["id"]):
            yield table["id"]
        return
    with zstandard.open(file, "rt", encoding="utf-8") as lines:
        yield pa.chunked_array([pa.array([json.loads(line)["id"] for line in lines], pa.string())])


def _total_copies(files: list[Path]) -> int:
    total = 0
    for file in files:
        for table in _tables(file, ["keep", "copies"]):
            column = table["copies"] if "copies" in table.column_names else table["keep"]
            total += pc.sum(column.cast(pa.int64())).as_py() or 0
    return total


def _rows_of(files: list[Path], source: str, start: int | None, stop: int | None) -> dict[int, dict[str, Any]]:
    """Side file rows of the first documents of an input unit, by position."""
    rows: dict[int, dict[str, Any]] = {}
    for file in files:
        for table in _tables(file, ["source", "position", "exact_hash", "score"]):
            mine = pc.equal(table["source"], source)
            if start is not None and stop is not None:
                position = table["position"]
                mine = pc.and_(mine, pc.and_(pc.greater_equal(position, start), pc.less(position, stop)))
            for row in table.filter(mine).to_pylist():
                rows[row["position"]] = row
            if len(rows) > 2 * REREAD_ROWS:
                return rows
    return rows


def _rows_by_id(files: list[Path], ids: list[str]) -> dict[str, dict[str, Any]]:
    wanted = pa.array(sorted(set(ids)), pa.string())
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        for table in _tables(file, ["id", "exact_hash", "score"]):
            mine = table.filter(pc.is_in(table["id"], value_set=wanted))
            found |= {row["id"]: row for row in mine.to_pylist()}
    return found


def check_view(check: Check) -> str:
    """A line for a terminal."""
    mark = {True: "ok     ", False: "WRONG  ", None: "skipped"}[check.ok]
    return f"{mark} {check.name}: {check.detail}"
