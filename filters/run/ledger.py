"""Every record accounted for: in = kept + removed (by reason) + quarantined (by cause), per input file.

A run that found no text at all is an error: it was told the wrong key or the wrong kind of input.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from filters.config.filter import InputConfig, QuarantineConfig
from filters.errors import InputError, RunError
from filters.phases.phase import Job
from filters.phases.rows import ATTRIBUTES
from filters.read.batch import NO_TEXT
from filters.read.jsonl import keys_seen, listed_keys


@dataclass(slots=True)
class Account:
    """What became of the records of one input file.

    Attributes:
        records: as the reader delimited them, counted before anything is made of them.
        kept: documents written to shards.
        removed: documents not kept, by reason.
        quarantined: records that did not become documents, by cause.
        skipped: records that are no documents by their kind (WARC requests, metadata); not part of the sum.
        renamed: documents whose id was taken already and that got a suffix; not part of the sum.
    """

    records: int = 0
    kept: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    renamed: int = 0

    @property
    def balanced(self) -> bool:
        """Whether in = kept + removed + quarantined."""
        return self.records == self.kept + self.removed.total() + self.quarantined.total()

    def __add__(self, other: Account) -> Account:
        return Account(
            self.records + other.records,
            self.kept + other.kept,
            self.removed + other.removed,
            self.quarantined + other.quarantined,
            self.skipped + other.skipped,
            self.renamed + other.renamed,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types, reasons and causes sorted by name."""
        return {
            "records": self.records,
            "kept": self.kept,
            "removed": dict(sorted(self.removed.items())),
            "quarantined": dict(sorted(self.quarantined.items())),
            "skipped": self.skipped,
            "renamed": self.renamed,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Account:
        """Read what `to_json` wrote."""
        return cls(**data | {"removed": Counter(data["removed"]), "quarantined": Counter(data["quarantined"])})


class Ledger:
    """Accounts of all input files of a run, in input order.

    Args:
        sources: names of all input files; one without records has an account of zeros.
    """

    def __init__(self, sources: Iterable[str]) -> None:
        self.accounts: dict[str, Account] = {source: Account() for source in sources}
        self._records = self._quarantined = 0

    def book(self, source: str, account: Account) -> None:
        """Add to the account of an input file."""
        self.accounts[source] = self.accounts.get(source, Account()) + account
        self._records += account.records
        self._quarantined += account.quarantined.total()

    def check_quarantine(self, config: QuarantineConfig, *, at_end: bool) -> None:
        """Stop a run of which too many records are quarantined.

        Args:
            config: how many may be.
            at_end: everything is booked; before that, nothing is said of the first `config.grace` records.

        Raises:
            RunError: more than the configured share of the records so far is quarantined.
        """
        records = max(self._records, config.grace) if at_end else self._records
        if records < config.grace or self._quarantined <= config.max_share * records:
            return
        causes = ", ".join(f"{cause} {n:,}" for cause, n in self.total.quarantined.most_common(3))
        worst = max(self.accounts.items(), key=lambda item: item[1].quarantined.total())[0]
        raise RunError(
            f"{self._quarantined:,} of {self._records:,} records are quarantined ({causes}; most in {worst}), more "
            f"than quarantine.max_share = {config.max_share:g} allows. Nothing was published. Check that input.kind "
            "and the keys fit the files, or raise quarantine.max_share"
        )

    @property
    def total(self) -> Account:
        """The sum over all input files."""
        return sum(self.accounts.values(), Account())

    def check(self, *, shard_rows: int, attribute_rows: int, quarantine_rows: int) -> None:
        """Hold the accounts against themselves and against the rows found in the files written.

        Raises:
            RunError: a sum is off; the message names the first input file where it is.
        """
        for source, account in self.accounts.items():
            if not account.balanced:
                raise RunError(
                    f"{source}: the ledger does not add up: {account.records} records read, but {account.kept} kept + "
                    f"{account.removed.total()} removed + {account.quarantined.total()} quarantined. "
                    "Nothing was published; please report this with the input file"
                )
        total = self.total
        for what, written, booked in (
            ("shards", shard_rows, total.kept),
            ("attributes", attribute_rows, total.kept + total.removed.total()),
            ("quarantine", quarantine_rows, total.quarantined.total()),
        ):
            if written != booked:
                raise RunError(
                    f"{what}: {written} rows were written where the ledger has {booked}. Nothing was published; "
                    "please report this"
                )

    def to_json(self) -> dict[str, Any]:
        """The total and every input file's account."""
        return {
            "total": self.total.to_json(),
            "sources": {source: account.to_json() for source, account in self.accounts.items()},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Ledger:
        """Read what `to_json` wrote."""
        ledger = cls(data["sources"])
        ledger.accounts = {source: Account.from_json(account) for source, account in data["sources"].items()}
        return ledger


def check_readable(job: Job) -> None:
    """Give up a job whose input holds no text, or a JSON lines file that never has the text's key.

    Ask as soon as the phase `attributes` is done. What it did is of no use then and is forgotten, so that the run can
    be begun anew with another config. An input without any records is no error: its run has none.

    Raises:
        DamagedError: a unit of the phase has no entry.
        InputError: names the input and what it has instead.
    """
    try:
        _check(job)
    except InputError:
        shutil.rmtree(job.work / "done", ignore_errors=True)
        raise


def _check(job: Job) -> None:
    units = {unit.source: unit for unit in reversed(job.units)}
    found = {unit.source: Account() for unit in job.units}
    for number, unit in enumerate(job.units):
        found[unit.source] += _account(job, number)
    for source, account in found.items():
        unit = units[source]
        without = account.removed["missing_text"]
        others = account.records - without - account.removed["blank_line"]
        if unit.kind != "jsonl" or not without or others:
            continue
        config = job.config.reads[unit.input]
        keys, _ = keys_seen(unit, config)
        if keys and config.text_key not in keys:
            raise InputError(
                f"{source}: none of its {without:,} records has the key {config.text_key!r}; they have "
                f"{listed_keys(keys)}. Nothing was published or kept. Remedy: set input.text_key to the one with the "
                "text, or leave the file out"
            )
    for place, config in enumerate(job.config.reads):
        accounts = {source: found[source] for source, unit in units.items() if unit.input == place}
        _check_input(config, accounts)


def _account(job: Job, number: int) -> Account:
    """Account of an input unit; documents that have text count as kept."""
    facts = job.facts(ATTRIBUTES, number)
    without = Counter(facts["without_text"])
    return Account(
        records=facts["records"],
        kept=facts["rows"] - without.total(),
        removed=without,
        quarantined=Counter(facts["quarantined"]),
        skipped=facts["skipped"],
    )


def _check_input(config: InputConfig, accounts: Mapping[str, Account]) -> None:
    total = sum(accounts.values(), Account())
    if not total.records and not total.skipped:
        return
    documents = total.kept + total.removed.total()
    if documents and not (set(total.removed) <= NO_TEXT and not total.kept):
        return
    first = next(source for source, account in accounts.items() if account.records or account.skipped)
    causes = total.removed + total.quarantined
    told = ", ".join(f"{count:,} {cause}" for cause, count in causes.most_common(5))
    if total.skipped and not total.records:
        told = f"all {total.skipped:,} records are of kinds that are no documents"
    raise InputError(
        f"{first}: nothing in this input could be read as kind {config.kind} with input.text_key {config.text_key!r} "
        f"({told}; {len(accounts):,} file(s)). Nothing was published or kept. Remedy: set input.kind and "
        "input.text_key to what the files are"
    )
