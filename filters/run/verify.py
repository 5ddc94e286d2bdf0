"""`finesieve verify`: a finished run held against its manifest, its model, its inputs and a second look at samples."""

from __future__ import annotations

import json
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zstandard

from filters.config.filter import FilterConfig, InputConfig
from filters.dedup.fingerprinter import similarity
from filters.errors import FinesieveError, RunError, as_shown, without_secrets
from filters.kernels.packed import PackedText
from filters.phases.rows import rule_of
from filters.read.unit import Unit
from filters.read.units import input_digest, input_version, plan_units
from filters.run.finish import FORMAT, manifest_digest, manifest_text
from filters.run.folder import MANIFEST, input_folder
from filters.run.ledger import Ledger
from filters.run.run_files import (
    SideFiles,
    documents_at,
    killers_of,
    quarantine_accounts,
    rows_by_id,
    rows_of_unit,
    shard_documents,
    tables,
)
from filters.run.steps import load_models, predicted, unit_batches, unit_steps
from filters.scores.finished_run import Run
from filters.scores.summary import BELOW, DUPLICATES
from filters.storage.files import sha256
from filters.storage.location import Location, inner_name, location, sizes_below
from filters.terminal import printable

if TYPE_CHECKING:
    from filters.model import QualityModel

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
    path: Location,
    *,
    sample: int = 200,
    seed: int = 0,
    inputs: bool = True,
    all_witnesses: bool = False,
    input_options: Mapping[str, Any] | None = None,
    opens: Sequence[InputConfig] = (),
    on_check: Callable[[Check], None] = lambda check: None,
) -> list[Check]:
    """Check everything that can be checked about a finished run.

    Args:
        path: the run's folder, here or behind an address.
        sample: kept documents to score and fingerprint again, and near copies to compare again with the document they
            name; also the beginning of one input unit is read again.
        all_witnesses: compare all near copies again.
        seed: of the sample.
        inputs: compare input files with their digests. Relative names are relative to the folder of the run's config,
            which is that of `opens`, or what the run's folder says; else to the working directory.
        input_options: given to fsspec to open remote input (no manifest holds credentials).
        opens: the inputs of the run's config; their addresses may be signed, those of a manifest are not.
        on_check: called with each check as it is done.

    Raises:
        RunError: there is no finished run, or its manifest is none.
    """
    verifier = _Verifier(path, sample, seed, input_options or {}, opens)
    checks = []
    steps = [
        verifier.manifest_itself,
        verifier.files,
        verifier.ledger,
        verifier.rule,
        verifier.documents,
        verifier.model,
        verifier.joined,
    ]
    steps += [verifier.inputs, verifier.input_again, partial(verifier.witnesses, all_witnesses)] if inputs else []
    steps.append(verifier.sample_again)
    for step in steps:
        for check in _safely(step):
            checks.append(check)
            on_check(check)
    return checks


def _safely(step: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from step()
    except (FinesieveError, OSError, pa.ArrowException, zstandard.ZstdError, *_NONSENSE) as error:
        name = getattr(step, "__name__", "witnesses").replace("_", " ").removesuffix(" itself")
        name = name.replace("sample again", "sample")
        detail = str(error) if isinstance(error, FinesieveError) else f"{type(error).__name__}: {error}"
        yield Check(name, False, without_secrets(detail))


_NONSENSE = (ValueError, KeyError, TypeError, AttributeError, IndexError)
"""Errors of reading a manifest that somebody edited."""


class _Verifier:
    def __init__(
        self,
        path: Location,
        sample: int,
        seed: int,
        input_options: Mapping[str, Any],
        opens: Sequence[InputConfig] = (),
    ) -> None:
        self.path = path
        run = Run(path)
        self.manifest, self.scores = run.manifest, run.scores
        self.size, self.random = sample, np.random.default_rng(seed)
        if self.manifest.get("format") != FORMAT:
            raise RunError(
                f"{path / MANIFEST}: of format {self.manifest.get('format')!r}, by finesieve "
                f"{self.manifest.get('finesieve')}; this version verifies format {FORMAT}. Remedy: verify the run with "
                "the version that made it, or filter again"
            )
        try:
            data = self.manifest["config"]
            data["output"] = {**data["output"], "path": "run"}
            inputs = data["inputs"]
            options = (
                [one.storage_options for one in opens] if len(opens) == len(inputs) else [input_options] * len(inputs)
            )
            inputs = [{**one, "storage_options": dict(some)} for one, some in zip(inputs, options, strict=True)]
            folder = input_folder(path)
            self.config = FilterConfig.in_folder({**data, "inputs": inputs}, opens[0].folder if opens else folder)
            given = [as_shown(one.model_dump(mode="json")) for one in opens]
            if len(given) == len(inputs) and given == list(map(operator.or_, given, inputs)):
                self.config = self.config.model_copy(update={"inputs": tuple(opens)})
            self.listed = {inner_name(str(entry["path"])): entry for entry in self.manifest["files"]}
        except _NONSENSE as error:
            raise RunError(f"{path / MANIFEST}: not the manifest of a run by this version: {error!r:.300}") from error

    def _files(self, folder: str) -> list[Location]:
        return [self.path / name for name in self.listed if name.startswith(f"{folder}/")]

    @cached_property
    def _side_files(self) -> SideFiles:
        quota = self.config.keep.quota
        numbers = [name for name, kind in self.scores.items() if kind == "float"]
        return SideFiles(self._files("attributes"), quota.by if quota else None, numbers)

    def manifest_itself(self) -> Iterator[Check]:
        """The manifest is as it was written, to the byte."""
        text = (self.path / MANIFEST).read_text(encoding="utf-8")
        written = json.loads(text)
        same = written.get("digest") == manifest_digest(written) and text == manifest_text(written)
        wrong = [] if same else ["manifest.json was changed since"]
        yield _check("manifest", wrong, "manifest.json is what was written (SHA-256 of itself)")

    def files(self) -> Iterator[Check]:
        """Every file of the manifest is there, byte for byte, and no other."""
        wrong, total = [], 0
        there = sizes_below(self.path)
        for name, entry in self.listed.items():
            total += entry["bytes"]
            if name not in there:
                wrong.append(f"{name} is missing")
            elif there[name] != entry["bytes"] or sha256(self.path / name) != entry["sha256"]:
                wrong.append(f"{name} is not what was written")
        extra = sorted(there.keys() - self.listed.keys() - {MANIFEST})
        wrong += [f"{name} is not the run's" for name in extra if not name.startswith(".")]
        good = f"{len(self.listed):,} files, {total / 1e6:,.1f} MB, are what was written (SHA-256)"
        yield _check("files", wrong, good)

    def ledger(self) -> Iterator[Check]:
        """The accounts add up, are those of the side files, and the threshold parts kept from dropped."""
        ledger, side = Ledger.from_json(self.manifest["ledger"]), self._side_files
        quarantined = quarantine_accounts(self.path / "quarantine.jsonl")
        try:
            ledger.check(shard_rows=ledger.total.kept, attribute_rows=side.rows, quarantine_rows=quarantined.total())
        except RunError as error:
            yield Check("ledger", False, str(error).partition(" Nothing was published")[0])
            return
        wrong = _misbooked(ledger, side.accounts, quarantined)
        if ledger.total.to_json() != self.manifest["ledger"]["total"]:
            wrong.append("the total of the ledger is not the sum of its accounts")
        rows = sum(entry["rows"] for name, entry in self.listed.items() if name.startswith("data/"))
        if rows != side.copies:
            wrong.append(f"shards have {rows:,} rows, the side files ask for {side.copies:,}")
        if side.histogram.to_json() != self.manifest["histogram"]:
            wrong.append("the histogram of manifest.json is not that of the side files")
        wrong += [
            f"the histogram of {name} in manifest.json is not that of the side files"
            for name, histogram in side.scores.items()
            if histogram.to_json() != self.manifest["score_histograms"][name]
        ]
        wrong += self._wrong_decisions(side)
        total = ledger.total
        good = (
            f"{total.records:,} in = {total.kept:,} kept + {total.removed.total():,} removed + "
            f"{total.quarantined.total():,} quarantined, in {len(ledger.accounts):,} input file(s)"
        )
        yield _check("ledger", wrong, good)

    def _wrong_decisions(self, side: SideFiles) -> list[str]:
        threshold = np.float32(self.manifest["keep"]["min_score"])
        keep, wrong = self.config.keep, []
        if keep.buckets is None and side.lowest_kept is not None and np.float32(side.lowest_kept) < threshold:
            wrong.append(f"a document of score {side.lowest_kept:g} is kept, below the threshold {threshold:g}")
        if keep.buckets is None and side.highest_dropped is not None and np.float32(side.highest_dropped) >= threshold:
            wrong.append(f"a document of score {side.highest_dropped:g} is dropped, the threshold is {threshold:g}")
        quotas = self.manifest["keep"]["solution"]["quotas"] if keep.quota is not None else {}
        for value, (low, high) in side.over_quota.items():
            above = np.float32(quotas[value]["threshold"]) if value in quotas else threshold
            if np.float32(low) < threshold or np.float32(high) >= above:
                wrong.append(f"documents of {value} are over_quota with scores {low:g} to {high:g}, outside its quota")
        for value, low in side.kept_from.items():
            if value in quotas and np.float32(low) < np.float32(quotas[value]["threshold"]):
                wrong.append(f"a document of {value} of score {low:g} is kept, which its quota leaves out")
        return wrong

    def rule(self) -> Iterator[Check]:
        """The rule says of each survivor what was decided."""
        rule = rule_of(self.config, self.scores)
        if rule is None:
            return
        stated = self.manifest["keep"]["rule"]
        wrong = [
            f"the list {path} is not what was read"
            for path, digest in stated["lists"].items()
            if rule.read(path).sha256 != digest
        ]
        threshold, survivors = np.float32(self.manifest["keep"]["solution"]["threshold"]), 0
        for file in [] if wrong else self._files("attributes"):
            for table in tables(file, list(dict.fromkeys([*rule.columns, "id", "reason", "score"]))):
                reason = np.array(table["reason"].to_pylist(), dtype=object)
                stays = np.array([why is None or why in BELOW for why in reason.tolist()], np.bool_)
                stays &= ~np.isnan(table["score"].to_numpy())
                decided = rule.decide(table)
                expected = np.where(decided.keeps, "", "rule").astype(object)
                if decided.values is not None:
                    expected[decided.keeps & ~(decided.values >= threshold)] = "low_rank"
                found = np.where(np.isin(reason, ["rule", "low_rank"]), reason, "")
                odd = np.flatnonzero(stays & (found != expected))
                wrong += [
                    f"{table['id'][row].as_py()}: {reason[row] or 'kept'}, which is not what the rule says"
                    for row in odd[:_SHOWN].tolist()
                ]
                survivors += int(stays.sum())
        yield _check("rule", wrong, f"the rule says of all {survivors:,} survivors what was decided")

    def documents(self) -> Iterator[Check]:
        """The documents of the shards are those the side files keep, each as often as they say, with its score."""
        wanted, found = self._side_files.documents, shard_documents(self._files("data"))
        wrong = [] if wanted == found else [
            f"shards hold {found.count:,} documents, the side files keep {wanted.count:,}"
            + (", and some have another id or score" if wanted.count == found.count else "")
        ]  # fmt: skip
        yield _check("documents", wrong, f"{found.count:,} documents in shards are those the side files keep")

    def model(self) -> Iterator[Check]:
        """The models are those the run was scored with."""
        stated = {"score": self.manifest["model"], **self.manifest["scores"]}
        names = {"score": self.config.model, **self.config.scores}
        for column, model in self._models.items():
            digest, expected = model.digest, stated[column]["digest"]
            wrong = [f"{names[column]} has digest {digest[:12]}, the run used {expected[:12]}"]
            title = "model" if column == "score" else f"model of {column}"
            yield _check(title, wrong if digest != expected else [], f"{names[column]}, digest {digest[:12]}")

    def joined(self) -> Iterator[Check]:
        """Files of scores that were joined to the run are the same, where they are still there."""
        files: dict[tuple[str, str], list[str]] = {}
        for column, about in self.manifest["scores"].items():
            if "joined" in about:
                files.setdefault((about["name"], about["digest"]), []).append(column)
        for (name, digest), columns in files.items():
            title, again = f"scores {', '.join(columns)}", "and what it says cannot be computed again"
            try:
                now = sha256(location(self.config.at(name)))
            except (FinesieveError, OSError):
                yield Check(title, None, f"{name}, which they were joined from, is not there any more, {again}")
            else:
                wrong = [] if now == digest else [f"{name} is not what they were joined from"]
                yield _check(title, wrong, f"{name} is what they were joined from (SHA-256), {again}")

    @cached_property
    def _models(self) -> dict[str, QualityModel]:
        return load_models(self.config.models)

    def _units(self) -> list[Unit]:
        return plan_units(self.config.reads)

    def inputs(self) -> Iterator[Check]:
        """The input files are those that were read."""
        units = {unit.source: unit for unit in reversed(self._units())}
        reads = self.config.reads
        wrong, unknown, versions = [], 0, 0
        for entry in self.manifest["inputs"]:
            unit = units.pop(entry["source"], None)
            if unit is None:
                wrong.append(f"{entry['source']} is missing")
            elif entry["xxh3_128"] is not None:
                wrong += [f"{unit.source} is not what was read"] * (input_digest(unit) != entry["xxh3_128"])
            elif entry.get("version") is not None:
                versions += 1
                if input_version(unit, reads[unit.input].storage_options) != entry["version"]:
                    wrong.append(f"{unit.source} is not what was read (its server says)")
            else:
                unknown += 1
        wrong += [f"{source} was not there" for source in units]
        local = len(self.manifest["inputs"]) - versions - unknown
        how = ", ".join(
            text
            for count, text in (
                (local, f"{local:,} by xxh3-128"),
                (versions, f"{versions:,} by version (ETag) at their server"),
                (unknown, f"{unknown:,} have no digest"),
            )
            if count
        )
        count = len(self.manifest["inputs"])
        yield _check("inputs", wrong, f"{count:,} input(s) are what was read: {how or 'none'}")

    def input_again(self) -> Iterator[Check]:
        """The beginning of one input unit, read, fingerprinted and scored again, gives the same side file rows."""
        units = self._units()
        if not units:
            yield Check("input again", None, "there is no input")
            return
        number = int(self.random.integers(len(units)))
        unit = units[number]
        killers = killers_of(self.path / "quarantine.jsonl", unit.source)
        batches = unit_batches(unit_steps(self.config, units), number, len(units), killers)
        rows = rows_of_unit(
            self._files("attributes"), unit.source, unit.start, unit.stop, REREAD_ROWS, ("score", *self.scores)
        )
        again = ["score", *(name for name in self.scores if "joined" not in self.manifest["scores"].get(name, ()))]
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
                for name in again:
                    now = batch.attributes[name][n]
                    if row[name] is not None and not _same(row[name], now):
                        wrong.append(f"{where}: {name} {_shown(now)}, was {_shown(row[name])}")
            seen += len(batch)
            if seen >= REREAD_ROWS:
                break
        yield _check(
            "input again", wrong, f"{seen:,} documents of {unit.source} read again: same fingerprints, same scores"
        )

    def witnesses(self, every: bool) -> Iterator[Check]:
        """Near copies resemble who they are said to be a copy of, and that document stays: a sample, or all."""
        files, units = self._files("attributes"), self._units()
        wrong: list[str] = []
        count = 0
        for copies in near_copies(files, None if every else self.size, self.random):
            wrong += wrong_witnesses(self.config, files, units, copies)
            count += len(copies)
        if not count:
            yield Check("witnesses", None, "no document was removed as a near copy")
            return
        near = self.config.dedup.near
        least = f" by {near.similarity:g} or more" if near else ""
        good = f"{'all ' * every}{count:,} near copies read again resemble the document they name{least}, which stays"
        yield _check("witnesses", wrong, good)

    def _sample(self) -> list[dict[str, Any]]:
        """Documents drawn from all shards, each row with the same chance."""
        shards = [(name, int(entry["rows"])) for name, entry in self.listed.items() if name.startswith("data/")]
        total = sum(rows for _, rows in shards)
        drawn = np.sort(self.random.choice(total, min(self.size, total), replace=False)) if total else np.empty(0, int)
        found: list[dict[str, Any]] = []
        first = 0
        for name, rows in shards:
            here = drawn[(drawn >= first) & (drawn < first + rows)] - first
            first += rows
            if len(here):
                found += documents_at(self.path / name, here, self.scores)
        return found

    def sample_again(self) -> Iterator[Check]:
        """A random sample of the shards, scored and fingerprinted again."""
        from filters.dedup.fingerprinter import exact_hashes

        sample = self._sample()
        if not sample:
            yield Check("sample", None, "no document was kept")
            return
        texts = [str(document["text"]) for document in sample]
        packed = PackedText.from_strings(texts)
        again, exact = predicted(self._models, packed), exact_hashes(packed)
        known = rows_by_id(self._files("attributes"), [document["id"] for document in sample], again)
        wrong = []
        for place, (document, found) in enumerate(zip(sample, exact, strict=True)):
            name, row = document["id"], known.get(document["id"])
            if row is None:
                wrong.append(f"{name}: not in the side files")
            elif row["exact_hash"] != (found.tobytes() if self.config.dedup.exact else None):
                wrong.append(f"{name}: another fingerprint, so another text")
            elif odd := [
                f"{name}: {column} {_shown(values[place])}, was {_shown(before)}"
                for column, values in again.items()
                for before in (row[column], document[column])
                if not _same(before, values[place])
            ]:
                wrong.append(odd[0])
            else:
                columns = ("language", "tokens", "source", "position")
                other = next((column for column in columns if document[column] != row[column]), None)
                wrong += [f"{name}: {other} {document[other]!r}, in the side files {row[other]!r}"] if other else []
        yield _check("sample", wrong, f"{len(sample):,} kept documents: same fingerprints, same scores")


def _misbooked(
    ledger: Ledger, documents: Counter[tuple[str, str | None]], quarantined: Counter[tuple[str, str]]
) -> list[str]:
    """Differences between the accounts and what is in the side files and in quarantine.jsonl."""
    kept: Counter[tuple[str, str | None]] = Counter()
    causes: Counter[tuple[str, str | None]] = Counter()
    for source, account in ledger.accounts.items():
        kept[source, None] = account.kept
        kept.update({(source, reason): count for reason, count in account.removed.items()})
        causes.update({(source, cause): count for cause, count in account.quarantined.items()})
    found_causes: Counter[tuple[str, str | None]] = Counter(
        {(source, why): n for (source, why), n in quarantined.items()}
    )
    return [
        f"{source}: the ledger has {books[source, why]:,} {why or 'kept'}, {place} {found[source, why]:,}"
        for books, found, place in (
            (kept, documents, "attributes/ has"),
            (causes, found_causes, "quarantine.jsonl has"),
        )
        for source, why in sorted({*books, *found}, key=str)
        if books[source, why] != found[source, why]
    ]


def _check(name: str, wrong: list[str], good: str) -> Check:
    if not wrong:
        return Check(name, True, good)
    more = f" (and {len(wrong) - _SHOWN:,} more)" if len(wrong) > _SHOWN else ""
    return Check(name, False, "; ".join(wrong[:_SHOWN]) + more)


def _same(before: float | str | None, now: Any) -> bool:
    """Whether a score is near enough, or a label the same."""
    if isinstance(before, float):
        return abs(before - float(now)) <= MAX_SCORE_DIFFERENCE
    return before is not None and before == str(now)


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, str | pa.Scalar) or value is None else f"{float(value):.4f}"


def check_view(check: Check) -> str:
    """A line for a terminal."""
    mark = {True: "ok     ", False: "WRONG  ", None: "skipped"}[check.ok]
    return f"{mark} {printable(check.name, 40)}: {printable(check.detail, 1000)}"


AT_A_TIME = 50_000
"""Pairs whose texts are held; for each so many, the input is read once."""
MAX_DIFFERENCE = 1e-9
_COLUMNS = ["id", "source", "position", "reason", "duplicate_of", "similarity"]
Row = dict[str, Any]


def near_copies(files: Sequence[Location], most: int | None, random: np.random.Generator) -> Iterator[list[Row]]:
    """Rows of removed near copies in side files, in lists of at most `AT_A_TIME`; a sample of `most`, or all."""
    counts = [
        sum(int(pc.sum(pc.equal(table["reason"], "near_duplicate")).as_py() or 0) for table in tables(file, ["reason"]))
        for file in files
    ]
    total = sum(counts)
    drawn = None if most is None else np.sort(random.choice(total, min(most, total), replace=False))
    seen = 0
    waiting: list[Row] = []
    for file, count in zip(files, counts, strict=True):
        for table in tables(file, _COLUMNS) if count else ():
            near = table.filter(pc.equal(table["reason"], "near_duplicate"))
            rows = np.arange(near.num_rows)
            if drawn is not None:
                rows = drawn[(drawn >= seen) & (drawn < seen + near.num_rows)] - seen
            seen += near.num_rows
            waiting += near.take(pa.array(rows, pa.int64())).to_pylist()
            while len(waiting) >= AT_A_TIME:
                yield waiting[:AT_A_TIME]
                waiting = waiting[AT_A_TIME:]
    if waiting:
        yield waiting


def wrong_witnesses(
    config: FilterConfig, files: Sequence[Location], units: Sequence[Unit], copies: Sequence[Row]
) -> Iterator[str]:
    """What is wrong with near copies and who they are said to be a copy of: a sentence each."""
    near = config.dedup.near
    if near is None:
        yield "near copies were not looked for, and there are some"
        return
    wanted = pa.array(sorted({str(row["duplicate_of"]) for row in copies}), pa.string())
    witnesses: dict[str, Row] = {}
    for file in files:
        for table in tables(file, _COLUMNS):
            found = table.filter(pc.is_in(table["id"], value_set=wanted))
            witnesses |= {row["id"]: row for row in found.to_pylist()}
    texts = _texts(config, units, [*copies, *witnesses.values()])
    pairs: list[tuple[Row, bytes, bytes]] = []
    for row in copies:
        witness = witnesses.get(row["duplicate_of"])
        if witness is None:
            yield f"{row['id']}: {row['duplicate_of']} is not in the side files"
            continue
        if config.dedup.keep != "none" and witness["reason"] in (*DUPLICATES, "in_earlier_run"):
            yield f"{row['id']}: {row['duplicate_of']}, whose copy it is said to be, was removed as {witness['reason']}"
        both = [texts.get((some["source"], some["position"])) for some in (row, witness)]
        if both[0] is None or both[1] is None:
            yield f"{row['id']}: its text or that of {row['duplicate_of']} is not in the input"
        else:
            pairs.append((row, both[0], both[1]))
    removed, kept = (PackedText.from_bytes(side) for side in ([pair[1] for pair in pairs], [pair[2] for pair in pairs]))
    for (row, _, _), value in zip(pairs, similarity(removed, kept, near).tolist(), strict=True):
        said = row["similarity"]
        if said is None or abs(said - value) > MAX_DIFFERENCE or value < near.similarity:
            limit = f"{said}; the limit is {near.similarity}"
            yield f"{row['id']}: {value:.4f} like {row['duplicate_of']}, said to be {limit}"


def _texts(config: FilterConfig, units: Sequence[Unit], rows: Sequence[Row]) -> dict[tuple[str, int], bytes]:
    """Texts as they were compared, by source and position."""
    wanted: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        wanted[row["source"]].add(row["position"])
    steps = unit_steps(config, units)[:-2]  # without fingerprints and scores
    texts: dict[tuple[str, int], bytes] = {}
    for number, unit in enumerate(units):
        positions = np.array(sorted(wanted.get(unit.source, ())), np.int64)
        if not len(positions):
            continue
        for batch in unit_batches(steps, number, len(units)):
            chosen = np.flatnonzero(np.isin(batch.position, positions))
            found = batch.text.take(pa.array(chosen)).to_pylist()
            places = batch.position[chosen].tolist()
            texts |= {(unit.source, place): text.encode() for place, text in zip(places, found, strict=True)}
    return texts
