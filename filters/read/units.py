"""The plan of a run's input: which files there are, in which order, cut into which units; and how a unit is read."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from filters.config.filter import InputConfig
from filters.errors import FinesieveError, InputError, has_user, shown
from filters.read.batch import Batch, pass_through
from filters.read.columns import as_settled, settle
from filters.read.decompress import DamagedError, MemberStream
from filters.read.unit import (
    ARC_REFUSED,
    COMPRESSED,
    SUFFIXES,
    Reading,
    Unit,
    file_digest,
    open_input,
    stamp_of,
    stored_file,
)
from filters.storage.remote import Pace, describe, file_system, is_local, retrying

CHECKED_REMOTE_FILES = 1_000
"""So many listed remote files are looked up while planning; the rest (a whole crawl) when they are opened."""
CONNECTIONS = 16
LIST_BYTES = 256 * 2**20
"""Most bytes of a `paths_file`, decompressed: two million paths of a crawl."""

NAMED = 2
"""Files of each suffix that are named where a folder holds some that are not read."""
_ARC = re.compile(r"\.arc(?:\.(?:gz|bz2|xz|zst|zstd))?$", re.IGNORECASE)


def plan_units(
    inputs: InputConfig | Sequence[InputConfig], notice: Callable[[str], None] = lambda line: None
) -> list[Unit]:
    """The units of an input, or of several, in the order of the run: those of the first input first.

    A file that is named more than once is read once.

    Args:
        inputs: their configs.
        notice: told of each folder how many of its files are not taken, and of files that are named more than once.

    Raises:
        InputError: a pattern matches nothing, a file does not exist or may not be read, a data set cannot be opened,
            or two inputs name the same file and would read it differently.
        MissingExtraError: an address needs a package that is not installed.
    """
    given = (inputs,) if isinstance(inputs, InputConfig) else tuple(inputs)
    found = [replace(file, input=place) for place, one in enumerate(given) for file in _files(one, notice)]
    files = _each_once(found, given, notice)
    names = _numbered(file.source for file in files)
    files = [replace(file, source=name) for file, name in zip(files, names, strict=True)]
    return [replace(unit, index=index) for index, unit in enumerate(_units_of_files(files, given))]


def _files(config: InputConfig, notice: Callable[[str], None]) -> list[Unit]:
    if config.kind == "hub":
        from filters.read.hub import plan_dataset

        return plan_dataset(config)
    named = _addresses(config, notice)
    if not named:
        raise InputError(f"{config.paths_file}: lists no paths")
    sources = source_names([name for name, _ in named])
    files = [stored_file(config.kind, source, address) for source, (_, address) in zip(sources, named, strict=True)]
    remote = [address for _, address in named if not is_local(address)][:CHECKED_REMOTE_FILES]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        sizes = dict(zip(remote, pool.map(lambda address: _remote_size(address, config), remote), strict=True))
    return [replace(file, size=sizes.get(file.address, file.size)) for file in files]


_OPENING = {
    "kind",  # that of the file counts: kind hub may find Parquet
    *("paths", "paths_file", "prefix", "max_files", "dataset", "subset", "split"),
    *("storage_options", "retries", "requests_per_second"),
}
"""Keys of an input that say which files there are and how to reach them; the others say how to read them."""


def _each_once(found: Sequence[Unit], inputs: Sequence[InputConfig], notice: Callable[[str], None]) -> list[Unit]:
    """The files of all inputs, without those that an input before names too.

    Raises:
        InputError: the two would read it differently.
    """
    first: dict[str, Unit] = {}
    twice: list[str] = []
    for file in found:
        local = is_local(file.address) and file.kind in SUFFIXES
        key = _identity(file.address) if local else f"{file.kind} {file.source} {file.address}"
        same = first.setdefault(key, file)
        if same.input == file.input:
            continue
        twice.append(file.source)
        one, other = (inputs[place].model_dump(exclude=_OPENING) for place in (same.input, file.input))
        differ = ["kind"] * (same.kind != file.kind) + [name for name in one if one[name] != other[name]]
        if differ:
            raise InputError(
                f"{file.source}: inputs.{same.input} and inputs.{file.input} both name this file, with another "
                f"{', '.join(differ)}. Remedy: name it in one of them"
            )
    _tell_twice(twice, notice)
    return list(first.values())


def _identity(address: str) -> str:
    """The same for two spellings of a file: its path without links; of a file with hard links, its place on disk."""
    if not is_local(address):
        return address
    try:
        about = os.stat(address)
    except OSError:
        return os.path.realpath(address)
    return os.path.realpath(address) if about.st_nlink < 2 else f"{about.st_dev} {about.st_ino}"


def _tell_twice(names: Sequence[str], notice: Callable[[str], None]) -> None:
    if names:
        distinct = list(dict.fromkeys(map(_printable, map(shown, names))))
        more = f" and {len(distinct) - NAMED:,} more" if len(distinct) > NAMED else ""
        notice(f"named more than once, read once: {', '.join(distinct[:NAMED])}{more}")


def _units_of_files(files: Sequence[Unit], inputs: Sequence[InputConfig]) -> Iterator[Unit]:
    """The units of the files, with the types of their columns settled: from all footers, and over all inputs."""
    from filters.read.jsonl import units_of_lines
    from filters.read.parquet import units_of_groups

    total = sum(file.size or 0 for file in files)

    def cut(file: Unit) -> tuple[list[Unit], pa.Schema | None]:
        if file.kind == "parquet":
            return units_of_groups(file, inputs[file.input])
        return units_of_lines(file, inputs[file.input], total) if file.kind == "jsonl" else [file], None

    remote = any(file.kind == "parquet" and not is_local(file.address) for file in files)
    with ThreadPoolExecutor(CONNECTIONS if remote else 1) as pool:
        by_file = list(pool.map(cut, files))
    schemas: dict[str, pa.Schema] = {}
    for file, (_, schema) in zip(files, by_file, strict=True):
        if schema is None and len(inputs) > 1:
            schema = pa.schema([(name, pa.string()) for name in pass_through(inputs[file.input])])
        if schema is not None:
            schemas[file.source] = schema
    columns = settle(list(schemas.items())) if len(schemas) > 1 else None
    for file, (units, _) in zip(files, by_file, strict=True):
        yield from (replace(unit, columns=columns if file.source in schemas else None) for unit in units)


def _addresses(config: InputConfig, notice: Callable[[str], None]) -> list[tuple[str, str]]:
    """The files that an input names, each once: (its path as the config has it, where it lies)."""
    found: list[tuple[str, str]] = []
    for pattern in config.paths:
        expand = _expand_local if is_local(pattern) else _expand_remote
        before = "" if os.path.isabs(pattern) else config.at("")
        found += [(address.removeprefix(before), address) for address in expand(pattern, config, notice)]
    found.sort(key=lambda file: (shown(file[0]), file[0]))
    if config.paths_file is not None:
        listed = [config.prefix + line for line in _listed(config.paths_file, config)]
        if any(map(has_user, listed)):
            raise InputError(
                f"{config.paths_file}: lists an address with a user name or password. Remedy: leave them out, and put "
                "them into input.storage_options"
            )
        found += ((path, config.at(path)) for path in listed)
    files: dict[str, tuple[str, str]] = {}
    twice: list[str] = []
    for name, address in found:
        key = _identity(address)
        if key in files:
            twice.append(files[key][0])
            continue
        if len(files) == config.max_files:
            break
        if config.kind in ("warc", "wet") and _ARC.search(address):
            raise InputError(f"{_printable(name)}: {ARC_REFUSED}")
        files[key] = name, address
    _tell_twice(twice, notice)
    return list(files.values())


def _expand_local(pattern: str, config: InputConfig, notice: Callable[[str], None]) -> list[str]:
    place = config.at(pattern)
    if os.path.isdir(place):
        found = {os.path.relpath(path, place) + path[len(path.rstrip(os.sep)) :]: path for path in _walk(place)}
        return _of_kind(pattern, {inside: str(Path(path)) for inside, path in found.items()}, config, notice)
    if os.path.exists(place):
        if not os.path.isfile(place):
            raise InputError(
                f"{pattern}: no ordinary file, so it cannot be read twice. Remedy: write it to a file first"
            )
        return [place]
    if not glob.has_magic(pattern):
        raise InputError(
            f"{pattern}: no such file or folder (paths in a config are relative to its folder, in --set to yours"
            f"{'' if place == pattern else f': this is {place}'})"
        )
    matches = [path for path in _matching(os.path.join(glob.escape(config.folder), pattern)) if os.path.isfile(path)]
    if not matches:
        raise InputError(f"{pattern}: this pattern matches no file")
    return matches


def _matching(pattern: str) -> Iterator[str]:
    """The paths that match a pattern; what `**` stands for is walked as a folder is."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    from fsspec.utils import glob_translate

    place = parts.index("**")
    below = re.compile(glob_translate("/".join(parts[place:])))
    for folder in glob.glob(os.path.join(os.sep.join(parts[:place]), "")) if place else ["."]:
        for path in _walk(folder):
            inside = os.path.relpath(path, folder)
            if below.match(inside) and not any(map(_hidden, inside.split(os.sep))):
                yield path if place else inside


def _walk(folder: str) -> Iterator[str]:
    """The files below a folder, and hidden folders (which end with a separator) in place of what is in them.

    A link to a folder is followed when all folders that lie here have been walked, and only if it leads neither to one
    of these nor to one that holds the link: each folder is walked once, under the path that has the fewest links.
    """
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        links: list[str] = []
        for start in sorted(waiting):
            # A link in a circle leads to a folder it lies in itself.
            inside = os.path.realpath(os.path.dirname(start) or ".") + os.sep
            target = os.path.realpath(start)
            if start != folder and inside.startswith(target.rstrip(os.sep) + os.sep):
                continue
            for path, folders, files in os.walk(start, onerror=_unreadable):
                real = os.path.realpath(path)
                if real in seen:
                    folders.clear()
                    continue
                seen.add(real)
                yield from (os.path.join(path, name) for name in files if os.path.isfile(os.path.join(path, name)))
                yield from (os.path.join(path, name, "") for name in folders if _hidden(name))
                shown = sorted(name for name in folders if not _hidden(name))
                folders[:] = [name for name in shown if not os.path.islink(os.path.join(path, name))]
                links += (os.path.join(path, name) for name in shown if name not in folders)
        waiting = links


def _unreadable(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot look into this folder: {error.strerror or error}") from error


def _hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _asked(ask: Callable[[], Any], address: str, config: InputConfig) -> Any:
    """What a server answers, asked again where it is busy."""
    return retrying(ask, config.retries, address, pace=Pace(address, config.requests_per_second))


def _expand_remote(pattern: str, config: InputConfig, notice: Callable[[str], None]) -> list[str]:
    system, path = file_system(pattern, config.storage_options)
    system.invalidate_cache()  # of an earlier run in this process
    on_web = pattern.lower().startswith(("http:", "https:"))
    if glob.has_magic(path.partition("?")[0] if on_web else path):
        matches = _asked(lambda: system.glob(path), pattern, config)
        if not matches:
            raise InputError(f"{pattern}: this pattern matches no file")
        return [str(system.unstrip_protocol(match)) for match in matches]
    if on_web:
        return [pattern]  # a web server has no folders
    if _asked(lambda: system.isdir(path), pattern, config):
        inside = _asked(lambda: system.find(path), pattern, config)
        root = path.rstrip("/")
        below = {match.removeprefix(root).lstrip("/"): str(system.unstrip_protocol(match)) for match in inside}
        return _of_kind(pattern, below, config, notice)
    return [pattern]


def _of_kind(folder: str, below: Mapping[str, str], config: InputConfig, notice: Callable[[str], None]) -> list[str]:
    """The files of the input's kind among those below a folder (path in the folder -> path); the rest is told of."""
    suffixes = SUFFIXES[config.kind]
    files: list[str] = []
    others: dict[str, list[str]] = {}
    for inside, path in below.items():
        if any(map(_hidden, inside.split("/"))):
            others.setdefault("named . or _ first", []).append(inside)
        elif path.lower().endswith(suffixes):
            files.append(path)
        else:
            others.setdefault(_suffix(inside) or "without a suffix", []).append(inside)
    left = _left_out(others)
    if not files:
        there = f"; it has {left}" if left else ""
        raise InputError(
            f"{folder}: no file in this folder ends with {', '.join(suffixes)} (kind {config.kind}){there}"
        )
    if left:
        notice(f"{folder}: not taken: {left}")
    return files


def _suffix(path: str) -> str:
    stem, suffix = os.path.splitext(path.lower())
    return os.path.splitext(stem)[1] + suffix if suffix in COMPRESSED else suffix


def _left_out(others: dict[str, list[str]]) -> str:
    """How many files of which suffix, the first of them by name: "3 .csv (a.csv, b.csv, ...)"."""
    parts = []
    for suffix, names in sorted(others.items()):
        names.sort()
        more = ", ..." if len(names) > NAMED else ""
        parts.append(f"{len(names):,} {suffix} ({', '.join(map(_printable, names[:NAMED]))}{more})")
    return ", ".join(parts)


def _listed(path: str, config: InputConfig) -> list[str]:
    parts: list[bytes] = []
    size = 0
    try:
        with open_input(config.at(path), config) as file:
            stream = MemberStream(file, path)
            while part := stream.read():
                parts.append(part)
                size += len(part)
                if size > LIST_BYTES:
                    raise InputError(f"{path}: a list of paths of more than {LIST_BYTES:,} bytes. Remedy: cut it")
        text = b"".join(parts).decode()
    except (DamagedError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a list of paths (plain text or compressed): {describe(error)}") from error
    return [line for line in (line.strip(" \t\r") for line in text.split("\n")) if line]


def _remote_size(address: str, config: InputConfig) -> int | None:
    system, path = file_system(address, config.storage_options)
    size = _asked(lambda: system.info(path), address, config).get("size")
    return None if size is None else int(size)


def source_names(addresses: Iterable[str]) -> list[str]:
    """Names in the ledger, each another one: addresses without what only opens them.

    Addresses that differ only in what is not shown are numbered.
    """
    return _numbered(_printable(shown(address)) for address in addresses)


def _numbered(given: Iterable[str]) -> list[str]:
    names: list[str] = []
    times: Counter[str] = Counter()
    for name in given:
        times[name] += 1
        while times[name] > 1:
            again = f"{name}#{times[name]}"
            times[again] += 1
            name = again
        names.append(name)
    return names


def _printable(path: str) -> str:
    """A file name as text. One that is not UTF-8 cannot be a name in the ledger: its bytes are written `\\xff`.

    The backslashes of such a name, and of one that looks so by itself, are doubled: no two names become one.
    """
    raw = path.encode("utf-8", "surrogateescape")
    text = raw.decode("utf-8", "backslashreplace")
    if not _ESCAPED.search(text):
        return path
    return raw.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


_ESCAPED = re.compile(r"\\x[0-9a-f]{2}")


_STAMPS = ("ETag", "etag", "e_tag", "LastModified", "last_modified", "mtime", "updated", "md5Hash")
"""What fsspec's file systems call the version of a file."""
_RETRIES = 2


def input_digest(unit: Unit) -> str | None:
    """xxh3-128 of the stored bytes of a unit's input file, in hexadecimal; None for what is no local file."""
    return file_digest(unit.address) if is_local_file(unit) else None


def is_local_file(unit: Unit) -> bool:
    """Whether a unit is of a file of this machine."""
    return is_file(unit) and is_local(unit.address)


def digests_of_read(units: Iterable[Unit], readings: Mapping[str, Iterable[Reading]]) -> dict[str, str | None]:
    """Digests of the input files, by source, if every local one is still what was read of it; None for other input.

    Args:
        units: of the run.
        readings: what its units read, by source.

    Raises:
        InputError: a file is gone, or its content is another; names it.
    """
    digests: dict[str, str | None] = {}
    for unit in units:
        if unit.source in digests:
            continue
        digests[unit.source] = None
        if not is_local_file(unit):
            continue
        read = list(readings.get(unit.source, ()))
        digest = digests[unit.source] = next((some.digest for some in read if some.digest is not None), None)
        try:
            same = {some.stamp for some in read} == {stamp_of(unit.address)} or input_digest(unit) == digest
        except OSError:
            same = False
        if digest is None or not same:
            raise InputError(
                f"{unit.source}: this input file was changed, cut off or replaced after it was read. Nothing was "
                "published. Remedy: restore it and run again, or start afresh with --force-new"
            )
    return digests


def is_file(unit: Unit) -> bool:
    """Whether a unit is of a file, here or behind an address."""
    return unit.kind != "stream"


def input_version(unit: Unit, options: Mapping[str, Any]) -> str | None:
    """What the server says the version of a unit's remote file is: its ETag, or else when it was changed.

    None for what is no remote file, and where the server does not say or cannot be asked (reading it reports that).
    """
    if not is_file(unit) or is_local(unit.address):
        return None
    try:
        system, path = file_system(unit.address, options)

        def ask() -> Mapping[str, Any]:
            system.invalidate_cache()
            info: Mapping[str, Any] = system.info(path)
            return info

        info = retrying(ask, _RETRIES, unit.address)
    except FinesieveError:
        return None
    return next((str(info[key]).strip('"') for key in _STAMPS if info.get(key) is not None), None)


def input_versions(units: Iterable[Unit], inputs: Sequence[InputConfig]) -> dict[str, str | None]:
    """Versions of the remote input files, by source; of the first `CHECKED_REMOTE_FILES`, as planning looks them up."""
    firsts = {unit.source: unit for unit in units if unit.is_first and is_file(unit) and not is_local(unit.address)}
    known = list(firsts.values())[:CHECKED_REMOTE_FILES]
    if not known:
        return {}
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        versions = pool.map(lambda unit: input_version(unit, inputs[unit.input].storage_options), known)
        return dict(zip((unit.source for unit in known), versions, strict=True))


def read_unit(unit: Unit, config: InputConfig, reading: Reading | None = None) -> Iterator[Batch]:
    """Batches of at most 1,000 documents and about 32 MB of text, in input order.

    Every batch accounts for its records: `records == len(batch) + len(batch.quarantined)`.

    Args:
        unit: of the input.
        config: of the input it belongs to.
        reading: told of a local file what was read of it.

    Raises:
        InputError: the unit cannot be read at all. A remote file that stays unreachable half-way fails its unit and
            the run (what it holds is not damaged, only absent; a resumed run reads the unit again); damaged data
            costs quarantined records instead. Or a local file is not the one that was planned, or changes.
    """
    for batch in _batches(unit, config, reading):
        batch.columns = as_settled(batch.columns, unit.columns, unit.source, len(batch))
        yield batch


def _batches(unit: Unit, config: InputConfig, reading: Reading | None) -> Iterator[Batch]:
    if unit.kind == "stream":
        from filters.read.hub import read_stream

        return read_stream(unit, config)
    if unit.kind == "jsonl":
        from filters.read.jsonl import read_jsonl as read
    elif unit.kind == "parquet":
        from filters.read.parquet import read_parquet as read
    else:
        from filters.read.warc import read_warc as read
    return read(unit, config, reading)
