"""Documentation on every machine: READMEs, licences, documentation files and docstrings of the installed packages."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from inspect import cleandoc
from pathlib import Path, PurePosixPath

import pyarrow as pa

from filters.config import InputConfig
from filters.errors import InputError
from filters.read.batch import Batch
from filters.read.rows import BATCH_BYTES, BATCH_ROWS, batch_of_rows, quarantined, text_reason
from filters.read.units import InputFile, Unit

MIN_DOCSTRING = 200
"""Characters; shorter docstrings are no documents."""
MAX_FILE_BYTES = 512 << 10
"""Larger files are data rather than documentation; they are counted as skipped."""
MAX_SOURCE_BYTES = 1 << 20
"""Python source parsed per distribution (parsing 100 MB takes a minute); the files behind it are counted as skipped."""

_NAMED = re.compile(r"(?:LICEN[CS]E|COPYING|NOTICE|README|CHANGE|AUTHORS).*", re.IGNORECASE)
_FOLDERS = {"doc", "docs", "examples", "licenses"}
_DOCUMENT = re.compile(rf"{_NAMED.pattern}|.*\.(?:md|rst|txt)", re.IGNORECASE)
_LEGAL = re.compile(r"(?:LICEN[CS]E|COPYING|NOTICE).*", re.IGNORECASE)
_NOT_TEXT = (".py", ".pyc", ".pyi", ".json", ".so", ".html", ".png", ".svg", ".gz")


@dataclass(frozen=True, slots=True)
class _Record:
    """A document, or a file that could not be read (`cause`)."""

    url: str
    text: str = ""
    cause: str | None = None
    raw: bytes = b""


def plan_distributions(config: InputConfig) -> list[InputFile]:
    """The distributions installed in this environment, by name; `config.max_files` of them at most."""
    names = sorted({name.lower(): name for name in map(_name, metadata.distributions()) if name}.items())
    if not names:
        raise InputError("python-docs: this environment has no installed packages")
    return [InputFile("python-docs", name, name, None) for _, name in names[: config.max_files]]


def read_distribution(unit: Unit, config: InputConfig) -> Iterator[Batch]:
    """Batches of one distribution's documents: its description, documentation files by path, docstrings by path.

    Nothing is imported or executed. Column `url` is "package/path#qualified.name".

    Raises:
        InputError: the distribution is not installed any more.
    """
    try:
        distribution = metadata.distribution(unit.address)
    except metadata.PackageNotFoundError as error:
        raise InputError(f"python-docs: {unit.address} is no longer installed") from error
    walk = _Walk(unit.source, distribution)
    group: list[_Record] = []
    position = size = skipped = 0
    for record in walk.records():
        group.append(record)
        size += len(record.text)
        if len(group) == BATCH_ROWS or size >= BATCH_BYTES:
            batch = _batch(unit.source, position, group, config)
            batch.skipped, skipped = walk.skipped - skipped, walk.skipped
            yield batch
            position += len(group)
            group, size = [], 0
    if group or walk.skipped > skipped:
        batch = _batch(unit.source, position, group, config)
        batch.skipped = walk.skipped - skipped
        yield batch


def _name(distribution: metadata.Distribution) -> str:
    try:
        return str(distribution.metadata["Name"] or "")
    except UnicodeDecodeError:  # a description that is no UTF-8: the folder is called name-version.dist-info
        return Path(str(getattr(distribution, "_path", ""))).name.partition("-")[0]


def _batch(source: str, first: int, group: list[_Record], config: InputConfig) -> Batch:
    rows = [(first + index, record) for index, record in enumerate(group) if record.cause is None]
    urls = pa.array([record.url for _, record in rows], pa.string())
    columns = {name: pa.nulls(len(rows), pa.string()) for name in config.columns if name != "url"}
    batch = batch_of_rows(
        source,
        [position for position, _ in rows],
        [record.text for _, record in rows],
        [text_reason(record.text) for _, record in rows],
        [None] * len(rows),
        {"url": urls, **columns},
    )
    batch.quarantined = [
        quarantined(source, first + index, f"{record.cause} ({record.url})", record.raw)
        for index, record in enumerate(group)
        if record.cause is not None
    ]
    batch.records = len(group)
    batch.input_bytes = sum(len(record.text) for record in group)
    return batch


class _Walk:
    """Reads the files of a distribution in the order of their paths.

    Attributes:
        skipped: files passed over for their size.
    """

    def __init__(self, package: str, distribution: metadata.Distribution) -> None:
        self.skipped = 0
        self._package = package
        self._distribution = distribution

    def records(self) -> Iterator[_Record]:
        yield from self._description()
        documents: dict[str, Path] = {}
        sources: dict[str, Path] = {}
        for file in self._distribution.files or ():
            path = PurePosixPath(*file.parts)
            place = Path(str(self._distribution.locate_file(file)))
            if path.suffix == ".py":
                if not {"tests", "test"} & set(path.parts):
                    sources[str(path)] = place
            elif _is_documentation(path):
                documents[str(path)] = place
        for name, place in sorted(documents.items()):
            yield from self._document(name, place)
        budget = MAX_SOURCE_BYTES
        for name, place in sorted(sources.items()):
            try:
                size = place.stat().st_size
            except OSError:
                continue  # RECORD names files that installation or a user has removed
            if size > min(budget, MAX_FILE_BYTES):
                self.skipped += 1
                continue
            budget -= size
            yield from self._docstrings(name, place)

    def _description(self) -> Iterator[_Record]:
        for name in ("METADATA", "PKG-INFO"):
            url = f"{self._package}/{name}"
            try:
                text = self._distribution.read_text(name)
            except (OSError, UnicodeDecodeError) as error:
                yield _Record(url, cause=_cause(error))
                return
            if text:
                body = text.replace("\r\n", "\n").partition("\n\n")[2].strip()
                if body and body != "UNKNOWN":
                    yield _Record(url, body)
                return

    def _document(self, name: str, place: Path) -> Iterator[_Record]:
        url = f"{self._package}/{name}"
        raw = b""
        try:
            if place.stat().st_size > MAX_FILE_BYTES:
                self.skipped += 1
                return
            raw = place.read_bytes()
            text = raw.decode("utf-8-sig")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            yield _Record(url, cause=_cause(error), raw=raw)
            return
        yield _Record(url, text.replace("\r\n", "\n"))

    def _docstrings(self, name: str, place: Path) -> Iterator[_Record]:
        url = f"{self._package}/{name}"
        raw = b""
        try:
            raw = place.read_bytes()
            if b'"""' not in raw and b"'''" not in raw:
                return
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in other people's source
                tree = ast.parse(raw)
        except FileNotFoundError:
            return
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            yield _Record(url, cause=_cause(error), raw=raw)
            return
        nodes: list[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]] = [("", tree)]
        while nodes:
            qualname, node = nodes.pop(0)
            text = _docstring(node)
            if text is not None:
                yield _Record(f"{url}#{qualname}" if qualname else url, text)
            if isinstance(node, ast.Module | ast.ClassDef):
                prefix = f"{qualname}." if qualname else ""
                nodes += [
                    (prefix + child.name, child)
                    for child in node.body
                    if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                ]


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    text = ast.get_docstring(node, clean=False)
    if text is None or len(text) < MIN_DOCSTRING:
        return None
    # A source may spell lone surrogates as escapes, which no UTF-8 text can hold.
    return cleandoc(text).encode("utf-8", "replace").decode()


def _is_documentation(path: PurePosixPath) -> bool:
    if not _DOCUMENT.fullmatch(path.name) or path.suffix.lower() in _NOT_TEXT:
        return False
    if path.suffix.lower() == ".txt" and not (_NAMED.fullmatch(path.name) or _FOLDERS & set(path.parts)):
        return False  # word lists, test data: a .txt by itself says nothing
    in_metadata = path.parts[0].endswith((".dist-info", ".egg-info"))
    return not in_metadata or bool(_LEGAL.fullmatch(path.name)) or "licenses" in path.parts


def _cause(error: BaseException) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"invalid_utf8: byte 0x{error.object[error.start]:02x} at {error.start}"
    if isinstance(error, OSError):
        return f"unreadable: {error.strerror or error}"
    return f"unparsable: {type(error).__name__}: {error}"
