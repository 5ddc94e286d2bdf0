"""Opening input files: local ones as they are, remote ones with dropped connections resumed."""

from __future__ import annotations

from typing import BinaryIO, cast

from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.read.local import LocalFile, Reading
from filters.read.unit import Unit
from filters.storage.remote import ResumingFile, is_local


def open_input(address: str, config: InputConfig) -> BinaryIO:
    """The stored bytes of an input file.

    A remote file survives dropped connections (`ResumingFile`). An outage that outlasts the retries is an error of the
    run, not a quarantined record: the data is not damaged, and a later run can read it.

    Raises:
        InputError: the file does not exist, may not be read, or cannot be reached.
    """
    if is_local(address):
        try:
            return open(address, "rb")  # the caller closes it
        except OSError as error:
            raise InputError(f"{address}: cannot open this input file: {error.strerror or error}") from error
    return cast(BinaryIO, ResumingFile(address, config.storage_options, config.retries, config.requests_per_second))


def open_unit(unit: Unit, config: InputConfig, reading: Reading | None = None) -> BinaryIO:
    """The stored bytes of the file that a unit is of: a remote one as of `open_input`, a local one as a `LocalFile`.

    Raises:
        InputError: as `open_input`; or the local file is not the one that was planned.
    """
    if not is_local(unit.address):
        return open_input(unit.address, config)
    sequential = unit.kind != "parquet"
    return cast(BinaryIO, LocalFile(unit.address, unit.source, unit.stamp, unit.start, sequential, reading))
