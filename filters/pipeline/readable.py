"""Nothing readable is an error: a run that found no text at all was told the wrong key or the wrong kind of input."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping

import orjson

from filters.config import InputConfig
from filters.errors import InputError
from filters.pipeline.ledger import Account, Ledger
from filters.pipeline.plan import Plan
from filters.read.decompress import DamagedError, MemberStream
from filters.read.remote import open_input
from filters.read.units import Unit

NO_TEXT = {"missing_text", "empty_text", "blank_line"}
"""Reasons of documents that the reader found no text in."""
_LOOKED_AT = 1000
_KEYS = 20


def check_readable(plan: Plan, ledger: Ledger) -> None:
    """Refuse to publish a run whose input holds no text, or a JSON lines file that never has the text's key.

    An input without any records is no error: its run has none.

    Raises:
        InputError: names the input and what it has instead.
    """
    units = {unit.source: unit for unit in reversed(plan.units)}
    for source, account in ledger.accounts.items():
        unit = units.get(source)
        without = account.removed["missing_text"]
        others = account.records - without - account.removed["blank_line"]
        if unit is None or unit.kind != "jsonl" or not without or others:
            continue
        config = plan.config.reads[unit.input]
        keys = keys_seen(unit, config)
        if keys and config.text_key not in keys:
            raise InputError(
                f"{source}: none of its {without:,} records has the key {config.text_key!r}; they have {listed(keys)}."
                " Nothing was published. Remedy: set input.text_key to the one with the text, or leave the file out"
            )
    for place, config in enumerate(plan.config.reads):
        accounts = {source: ledger.accounts[source] for source, unit in units.items() if unit.input == place}
        _check_input(config, accounts)


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
        f"({told}; {len(accounts):,} file(s)). Nothing was published. Remedy: set input.kind and input.text_key "
        "to what the files are"
    )


def keys_seen(unit: Unit, config: InputConfig) -> Counter[str]:
    """Keys of the objects in the first lines of a JSON lines file, with how many have each."""
    from filters.read.jsonl import line_groups

    keys: Counter[str] = Counter()
    with open_input(unit.address, config) as file:
        stream = MemberStream(file, unit.address)
        try:
            groups = line_groups(stream, config.max_document_bytes)
            for line in itertools.islice((line for group in groups for line in group.lines), _LOOKED_AT):
                try:
                    row = orjson.loads(line)
                except ValueError:
                    continue
                keys.update([*row] if isinstance(row, dict) else ())
        except DamagedError:
            pass
    return keys


def listed(keys: Counter[str]) -> str:
    names = [repr(key[:60]) for key, _ in keys.most_common(_KEYS)]
    more = f" and {len(keys) - _KEYS:,} more" if len(keys) > _KEYS else ""
    return ", ".join(names) + more
