"""Writes a Parquet file of real text that is on every machine: the documentation of the installed Python packages.

    python examples/python_docs.py runs/python-docs.parquet

Columns: text, url ("package/path#qualified.name"), package. Descriptions, documentation files, docstrings; nothing is
imported or executed. Thousands of documents, real duplicates, from legal text to tutorials: what `make demo` filters.
"""

from __future__ import annotations

import argparse
import ast
import re
import warnings
from collections.abc import Iterator
from importlib import metadata
from inspect import cleandoc
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

MIN_DOCSTRING = 200
"""Characters; shorter docstrings are no documents."""
MAX_FILE_BYTES = 512 << 10
"""Larger files are data rather than documentation."""
MAX_SOURCE_BYTES = 1 << 20
"""Python source parsed per package: parsing 100 MB takes a minute."""

_NAMED = re.compile(r"(?:LICEN[CS]E|COPYING|NOTICE|README|CHANGE|AUTHORS).*", re.IGNORECASE)
_LEGAL = re.compile(r"(?:LICEN[CS]E|COPYING|NOTICE).*", re.IGNORECASE)
_DOCUMENT = re.compile(rf"{_NAMED.pattern}|.*\.(?:md|rst|txt)", re.IGNORECASE)
_FOLDERS = {"doc", "docs", "examples", "licenses"}
_NOT_TEXT = (".py", ".pyc", ".pyi", ".json", ".so", ".html", ".png", ".svg", ".gz")

Documents = Iterator[tuple[str, str]]
"""Pairs of (place in the package, text)."""


def packages(limit: int | None = None) -> dict[str, metadata.Distribution]:
    """The packages installed in this environment by name, in the order of their names; at most `limit`."""
    named = {}
    for distribution in metadata.distributions():
        try:
            name = str(distribution.metadata["Name"] or "")
        except UnicodeDecodeError:
            continue
        if name:
            named.setdefault(name.lower(), (name, distribution))
    return dict(named[key] for key in sorted(named)[:limit])


def documents(distribution: metadata.Distribution) -> Documents:
    """A package's description, its documentation files by path, its docstrings by path."""
    body = (distribution.read_text("METADATA") or "").replace("\r\n", "\n").partition("\n\n")[2].strip()
    if body and body != "UNKNOWN":
        yield "METADATA", body
    files = {str(path): path for path in map(PurePosixPath, map(str, distribution.files or ()))}
    for name, path in sorted(files.items()):
        if _is_documentation(path) and (raw := _read(distribution, name)):
            yield name, raw.decode("utf-8-sig", "replace").replace("\r\n", "\n")
    budget = MAX_SOURCE_BYTES
    for name, path in sorted(files.items()):
        if path.suffix != ".py" or {"tests", "test"} & set(path.parts):
            continue
        raw = _read(distribution, name, min(budget, MAX_FILE_BYTES))
        budget -= len(raw)
        if b'"""' in raw or b"'''" in raw:
            yield from _docstrings(name, raw)


def _read(distribution: metadata.Distribution, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """Content of a file; empty if it is missing or larger than `limit`."""
    path = Path(str(distribution.locate_file(name)))
    try:
        return path.read_bytes() if path.stat().st_size <= limit else b""
    except OSError:
        return b""


def _docstrings(name: str, source: bytes) -> Documents:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's source
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    nodes: list[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]] = [("", tree)]
    while nodes:
        qualname, node = nodes.pop(0)
        text = ast.get_docstring(node, clean=False) or ""
        if len(text) >= MIN_DOCSTRING:
            # A source may spell lone surrogates as escapes, which no UTF-8 text can hold.
            yield f"{name}#{qualname}" if qualname else name, cleandoc(text).encode("utf-8", "replace").decode()
        if isinstance(node, ast.Module | ast.ClassDef):
            nodes += [
                (f"{qualname}.{child.name}".removeprefix("."), child)
                for child in node.body
                if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            ]


def _is_documentation(path: PurePosixPath) -> bool:
    if not _DOCUMENT.fullmatch(path.name) or path.suffix.lower() in _NOT_TEXT:
        return False
    if path.suffix.lower() == ".txt" and not (_NAMED.fullmatch(path.name) or _FOLDERS & set(path.parts)):
        return False  # word lists, test data: a .txt by itself says nothing
    in_metadata = path.parts[0].endswith((".dist-info", ".egg-info"))
    return not in_metadata or bool(_LEGAL.fullmatch(path.name)) or "licenses" in path.parts


def write(output: Path, limit: int | None = None) -> int:
    """Write the documents of at most `limit` packages to `output`, a row group for each; returns their number."""
    output.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema({"text": pa.string(), "url": pa.string(), "package": pa.string()})
    count = 0
    with pq.ParquetWriter(output, schema) as writer:
        for package, distribution in packages(limit).items():
            rows = [
                {"text": text, "url": f"{package}/{place}", "package": package}
                for place, text in documents(distribution)
            ]
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema))
            count += len(rows)
    return count


def main() -> None:
    """Write the file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--packages", type=int, help="Of so many packages only, in the order of their names.")
    options = parser.parse_args()
    print(f"{options.output}: {write(options.output, options.packages):,} documents")


if __name__ == "__main__":
    main()
