"""Locations of a run's files: a folder of this machine, or an address that fsspec opens (s3://, ...)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self, TypeVar

import pyarrow.parquet as pq

from filters.errors import FinesieveError, InputError, RunError
from filters.storage.remote import ResumingFile, describe, explain, file_system, is_local, retrying

RETRIES = 4
"""How often a request that failed in passing is made again, where no config says."""
_BUFFER = 1 << 20
_MASK = "***"
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss")
_OPEN = ("endpoint_url", "region_name", "anon", "use_ssl", "profile", "requester_pays", "addressing_style")
"""Storage options that are no secret; the values of all others never appear in a message."""

T = TypeVar("T")


class Status(NamedTuple):
    """What `RemotePath.stat` knows, named as os.stat names it."""

    st_size: int


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or folder behind an address, with as much of `pathlib.Path` as readers of a run ask for.

    Args:
        address: what fsspec opens; no slash at its end.
        options: given to fsspec as they are (credentials, endpoint_url, ...).

    Raises:
        InputError: a part of the address is "..": names in a manifest must not lead out of their run.
    """

    address: str
    options: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if ".." in self.address.split("/"):
            raise InputError(f"{self.address}: an address with '..' in it is not followed")

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> Self:
        return type(self)(f"{self.address}/{name}", self.options)

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """End of the name, from its last dot."""
        return PurePosixPath(self.name).suffix

    def system(self) -> tuple[Any, str]:
        """The fsspec file system, and the path in it.

        Raises:
            MissingExtraError: the protocol needs a package that is not installed.
            InputError: there is no such protocol.
        """
        # A listing that s3fs remembers would hide what was written since.
        fresh = {"use_listings_cache": False} if self.is_object else {}
        return file_system(self.address, fresh | dict(self.options))

    @property
    def is_object(self) -> bool:
        """Whether its server keeps objects and no folders: making one may make a bucket."""
        return self.address.partition(":")[0] in _OBJECT_STORES

    def resolve(self) -> Self:
        """Itself: an address is whole."""
        return self

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The bytes; dropped connections are resumed.

        Raises:
            InputError: there is no such file, or it cannot be read.
        """
        if mode != "rb":
            raise ValueError(f"mode {mode!r}: a remote file of a run is only read")
        return io.BufferedReader(ResumingFile(self.address, self.options, RETRIES), _BUFFER)

    def read_bytes(self) -> bytes:
        """All of it.

        Raises:
            FileNotFoundError: there is no such file.
            InputError: it cannot be read.
        """
        system, path = self.system()

        def read() -> bytes:
            try:
                return bytes(system.cat_file(path))
            except FileNotFoundError as error:
                raise _AbsentError from error

        try:
            return retrying(read, RETRIES, failure=self._unreadable)
        except _AbsentError as absent:
            raise FileNotFoundError(f"{self.address}: {describe(absent.__cause__ or absent)}") from absent

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole file as text."""
        return self.read_bytes().decode(encoding)

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        system, path = self.system()
        return bool(retrying(lambda: system.exists(path), RETRIES, failure=self._unreadable))

    def is_file(self) -> bool:
        """Whether there is such a file."""
        system, path = self.system()
        return bool(retrying(lambda: system.isfile(path), RETRIES, failure=self._unreadable))

    def stat(self) -> Status:
        """Size of the file, in bytes."""
        system, path = self.system()
        return Status(int(retrying(lambda: system.info(path), RETRIES, failure=self._unreadable)["size"]))

    def sizes(self) -> dict[str, int]:
        """Stored bytes of every file below it, by the path relative to it; nothing where there is no such folder.

        Raises:
            InputError: it cannot be listed.
        """
        system, path = self.system()
        start = path.rstrip("/") + "/"

        def find() -> dict[str, Any]:
            system.invalidate_cache()
            found: dict[str, Any] = system.find(path, detail=True)
            return found

        found = retrying(find, RETRIES, failure=self._unreadable)
        return {
            name[len(start) :]: int(info["size"])
            for name, info in sorted(found.items())
            if name.startswith(start) and not name.endswith("/") and info["type"] == "file"
        }

    def _unreadable(self, error: Exception, retries: int) -> FinesieveError:
        return InputError(redacted(f"{self.address}: {explain(error, retries)}", self.options))


Location = Path | RemotePath


class _AbsentError(FinesieveError):
    """Carries a file that is not there past the retries."""


def location(path: str | Location, options: Mapping[str, Any] | None = None) -> Location:
    """A path of this machine as it is; an address with what opens it."""
    if isinstance(path, RemotePath):
        return path
    return Path(path) if is_local(str(path)) else RemotePath(str(path).rstrip("/"), options or {})


def inner_name(name: str) -> str:
    """A file name that a manifest gives, if it lies inside the run's folder.

    Raises:
        RunError: it does not.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise RunError(f"manifest.json names {name!r}, which is no file inside a run's folder: it was tampered with")
    return name


def sizes_below(folder: Location) -> dict[str, int]:
    """Stored bytes of every file below a folder, by the path relative to it, in the order of the paths."""
    if isinstance(folder, RemotePath):
        return folder.sizes()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def files_below(folder: Location, suffix: str) -> list[Location]:
    """Files below a folder whose names end so, in the order of their paths; none where there is no such folder."""
    return [folder / name for name in sizes_below(folder) if name.endswith(suffix)]


def parquet_file(path: Location, **options: Any) -> pq.ParquetFile:
    """A Parquet file, wherever it lies."""
    return pq.ParquetFile(path if isinstance(path, Path) else path.open(), **options)


def parquet_dataset(paths: Iterable[Location], **options: Any) -> Any:
    """Parquet files of one folder as a pyarrow data set."""
    import pyarrow.dataset as ds  # imports pandas

    files = list(paths)
    if files and isinstance(files[0], RemotePath):
        system, _ = files[0].system()
        names = [path.system()[1] for path in files if isinstance(path, RemotePath)]
        return ds.dataset(names, filesystem=system, **options)
    return ds.dataset([str(path) for path in files], **options)


def redacted(text: str, options: Mapping[str, Any]) -> str:
    """A text without the values of storage options that may be secret."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            text = redacted(text, value)
        elif isinstance(value, str) and len(value) > 2 and name not in _OPEN:
            text = text.replace(value, _MASK)
    return text
