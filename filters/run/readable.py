"""Nothing readable is an error: a run that found no text at all was told the wrong key or the wrong kind of input."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping

from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.phases.phase import Job
from filters.phases.rows import ATTRIBUTES
from filters.read.batch import NO_TEXT
from filters.read.jsonl import keys_seen, listed_keys
from filters.run.ledger import Account


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
