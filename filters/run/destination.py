"""A run's output behind an address: one run at a time, every file uploaded and read back, the manifest last.

A server that keeps objects cannot rename a folder. So a run is made whole in a folder of this machine (`output.work`),
and only then uploaded under its final names; a folder without manifest.json is no finished run. Beside the files lies

    .finesieve.json    who is at work here: a token, process, host, work folder, and a count that grows while it lives

and in the work folder the same token, by which a resumed run knows the mark as its own. The mark is written under the
condition that there is none, or that it is the one just read, and so is the manifest: where the server knows
conditional writes (S3 does), two runs never publish into one folder; elsewhere the token is read back and compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from filters.config.filter import OutputConfig
from filters.errors import FinesieveError, RunError
from filters.run.folder import LOCK, MANIFEST, PUBLISHED, WORK
from filters.run.plan import Observer
from filters.storage.files import publishing, sha256
from filters.storage.location import RemotePath, redacted
from filters.storage.remote import explain, retrying
from filters.terminal import printable

MARK = ".finesieve.json"
OWN = f"{LOCK}.destination"
"""In the work folder: {token, replaces, manifest}: SHA-256 of the manifest that is to be replaced, and of the own."""
HEARTBEAT = 15.0
"""Seconds between two signs of life in the mark."""
WATCH = 4 * HEARTBEAT
"""A mark that does not change for so many seconds is that of a run that died."""
UPLOADS = 2
"""Files uploaded, and read back, at a time."""
PART = 8 * 2**20
"""Bytes of a part of a large file; `UPLOADS` times `PARTS` of them are in memory."""
PARTS = 4
_MOST_PARTS = 9_000
_CLAIMS = 3


class Destination:
    """The folder behind `output.path` of a run.

    Args:
        output: its path is an address.
    """

    def __init__(self, output: OutputConfig) -> None:
        self.folder = RemotePath(output.path, output.storage_options)
        self.place = output.place
        self.retries = output.retries
        self._system, self._path = self.folder.system()
        protocol = self._system.protocol
        self._s3 = "s3" in ({protocol} if isinstance(protocol, str) else set(protocol))
        self._token = ""
        self._written: set[str] = set()
        self._stop = threading.Event()
        self._pulse: threading.Thread | None = None

    @contextlib.contextmanager
    def held(self, *, force_new: bool, notice: Callable[[str], None]) -> Iterator[None]:
        """Keep other runs away while this one is made, and check that it may be published here.

        When it fails, and there is something to go on from, the mark stays: others see that a run is unfinished. Else
        nothing stays.

        Args:
            force_new: a finished run may be replaced, and a mark that waits for a cluster's jobs.
            notice: told of what takes time.

        Raises:
            RunError: another run is at work or finished here, the folder holds other files, or it cannot be written to.
        """
        self._claim(force_new, notice)
        self._pulse = threading.Thread(target=self._beat, daemon=True)
        self._pulse.start()
        try:
            yield
        except BaseException:
            self._stop_beating()
            if not (self.place / WORK / "done").exists():
                self._abandon()
            raise
        finally:
            self._stop_beating()

    def park(self) -> None:
        """Say in the mark that the run waits for jobs of a cluster: no sign of life is to be expected."""
        self._stop_beating()
        self._write_mark(self._mark(parked=True))

    def publish(self, new: Path, files: Mapping[str, str], observer: Observer) -> None:
        """Upload everything in `new`, read it back, then the manifest; what was there before goes, its manifest first.

        Files an interrupted upload got through are read back and not sent again.

        Args:
            new: folder with the files of the run; its ledger is checked.
            files: SHA-256 of each file by its path below `new`, the manifest among them.
            observer: told how many files are there.

        Raises:
            RunError: a file could not be uploaded or came back different, or another run got here.
        """
        self._check_mine()
        own = self._own()
        there = self._sizes()
        before = self._manifest() if MANIFEST in there else None
        if before is not None and before != own.get("replaces"):
            raise RunError(f"{self.folder}: another run was published here meanwhile. Nothing was published")
        self._remember(own | {"manifest": files[MANIFEST]})
        if before is not None:
            self._remove(MANIFEST)
        stale = {name for name in there if name.partition("/")[0] in PUBLISHED}
        self._written |= stale
        for name in sorted(stale - files.keys()):
            self._remove(name)
        todo = sorted(files.keys() - {MANIFEST})
        observer.phase("upload", 0, len(todo))
        with ThreadPoolExecutor(UPLOADS) as pool:
            waiting = {pool.submit(self._upload, new / name, name, files[name], there.get(name)) for name in todo}
            while waiting:
                done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_EXCEPTION)
                for task in done:
                    if task.exception() is not None:
                        pool.shutdown(cancel_futures=True)
                    task.result()
                observer.phase("upload", len(todo) - len(waiting), len(todo))
        self._check_mine()
        content = (new / MANIFEST).read_bytes()
        if not self._create(MANIFEST, content):
            raise RunError(f"{self.folder}: another run was published here meanwhile. Nothing was published")
        if self._manifest() != files[MANIFEST]:
            self._remove(MANIFEST)
            raise RunError(f"{self.folder / MANIFEST}: came back different from what was sent. Nothing was published")
        self._release()

    def _claim(self, force_new: bool, notice: Callable[[str], None]) -> None:
        own = self._own()
        found = self._read_mark()
        mine = found is not None and self._is_mine(found, own)
        there = self._sizes()
        replaces = own.get("replaces") if mine else None
        manifest = None
        if MANIFEST in there:
            manifest = self._manifest()
            if mine and manifest == own.get("manifest"):  # killed after publishing
                shutil.rmtree(self.place / WORK, ignore_errors=True)
                self._release()
                mine = False
            if not force_new and not (mine and manifest == replaces):
                raise RunError(
                    f"{self.folder}: holds a finished run. Remedy: choose another output.path, or replace it with "
                    "--force-new"
                )
        self._check_foreign(there, began=found is not None)
        self._token = str(own["token"]) if mine and "token" in own else secrets.token_hex(16)
        self._remember({"token": self._token, "replaces": manifest})
        for _ in range(_CLAIMS):
            if found is None:
                if self._create(MARK, self._mark()):
                    break
            else:
                if not mine:
                    self._check_dead(found, force_new, notice)
                if self._replace_mark(found):
                    break
            found = self._read_mark()
            mine = found is not None and self._is_mine(found, self._own())
        else:
            raise self._occupied(found or {})
        self._abort_uploads()

    def _check_foreign(self, there: Mapping[str, int], *, began: bool) -> None:
        """Refuse a folder with anything in it that is not known to be a run's."""
        foreign = {name for name in there if ".." in name.split("/")}
        if MANIFEST in there:
            try:
                listed = {str(entry["path"]) for entry in json.loads(self._get(MANIFEST) or b"")["files"]}
            except (ValueError, KeyError, TypeError):
                listed = set()
            foreign |= there.keys() - listed - {MANIFEST}
        elif not began:
            foreign |= there.keys()
        else:
            foreign |= {name for name in there if name.partition("/")[0] not in PUBLISHED}
        if foreign:
            raise RunError(
                f"{self.folder}: holds files that are no run's ({', '.join(sorted(foreign)[:3])}). Remedy: choose an "
                "empty output.path"
            )

    def _check_dead(self, found: dict[str, Any], force_new: bool, notice: Callable[[str], None]) -> None:
        if found.get("parked"):
            if not force_new:
                raise self._occupied(found)
            return
        notice(f"{self.folder}: a run{_who(found)} left its mark here; watching for {WATCH:.0f} s whether it is alive")
        time.sleep(WATCH)
        if self._read_mark() not in (found, None):
            raise self._occupied(found)

    def _occupied(self, found: dict[str, Any]) -> RunError:
        parked = " It waits for jobs of a cluster." if found.get("parked") else ""
        force = "; if it is gone for good, --force-new" if found.get("parked") else ""
        return RunError(
            f"{self.folder}: another run is writing here{_who(found)}.{parked} Remedy: wait for it, stop it, or choose "
            f"another output.path{force}"
        )

    def _is_mine(self, found: dict[str, Any], own: dict[str, Any]) -> bool:
        """Whether a mark is that of this work folder, which this process holds."""
        here = {"host": socket.gethostname(), "work": str(self.place.resolve())}
        return found.get("token", "") == own.get("token") or here.items() <= found.items()

    def _mark(self, *, parked: bool = False, beat: int = 0) -> bytes:
        who = {"host": socket.gethostname(), "pid": os.getpid(), "work": str(self.place.resolve())}
        return json.dumps({"token": self._token, **who, "parked": parked, "beat": beat}).encode()

    def _beat(self) -> None:
        beat = 0
        while not self._stop.wait(HEARTBEAT):
            beat += 1
            with contextlib.suppress(FinesieveError):  # a server that is away for a while
                found = self._read_mark()
                if found is None or found.get("token") != self._token or not self._replace_mark(found, beat):
                    return  # another run took over; publishing will say so

    def _stop_beating(self) -> None:
        self._stop.set()
        if self._pulse is not None:
            self._pulse.join()

    def _check_mine(self) -> None:
        found = self._read_mark()
        if found is None or found.get("token") != self._token:
            raise RunError(
                f"{self.folder}: another run has taken this folder over{_who(found or {})}. Nothing was published. "
                "Remedy: choose another output.path"
            )

    def _release(self) -> None:
        """Take the mark away; the run is finished, or nothing of it is left."""
        self._stop_beating()
        self._remove(MARK)
        (self.place / OWN).unlink(missing_ok=True)

    def _abandon(self) -> None:
        with contextlib.suppress(FinesieveError):  # the server may be what failed
            found = self._read_mark()
            if found is not None and found.get("token") == self._token:
                self._abort_uploads()
                for name in self._written:
                    self._remove(name)
                self._release()

    def _own(self) -> dict[str, Any]:
        try:
            own = json.loads((self.place / OWN).read_text())
        except (OSError, ValueError):
            return {}
        return own if isinstance(own, dict) else {}

    def _remember(self, own: dict[str, Any]) -> None:
        with publishing(self.place / OWN) as temporary:
            temporary.write_text(json.dumps(own))

    def _read_mark(self) -> dict[str, Any] | None:
        content = self._get(MARK)
        if content is None:
            return None
        try:
            found = json.loads(content)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _write_mark(self, content: bytes) -> None:
        self._ask(MARK, lambda path: self._system.pipe_file(path, content))

    def _replace_mark(self, found: dict[str, Any], beat: int = 0) -> bool:
        """Put the own mark in place of the one found; False if that is not there any more."""
        content = self._mark(beat=beat)
        if self._s3:
            etag = self._ask(MARK, lambda path: _etag(self._system, path))
            if etag is None or self._read_mark() != found:
                return False
            self._ask(MARK, lambda path: _unless_changed(self._system, path, content, etag))
        else:
            self._write_mark(content)
        after = self._read_mark()
        return after is not None and after.get("token") == self._token

    def _sizes(self) -> dict[str, int]:
        """Bytes of what is there, without the mark."""
        sizes: dict[str, int] = self._ask("", lambda path: self.folder.sizes())
        return {name: size for name, size in sizes.items() if name != MARK}

    def _get(self, name: str) -> bytes | None:
        def read(path: str) -> bytes | None:
            try:
                return bytes(self._system.cat_file(path))
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error.__cause__):
                    raise
                return None

        content: bytes | None = self._ask(name, read)
        return content

    def _manifest(self) -> str | None:
        content = self._get(MANIFEST)
        return None if content is None else hashlib.sha256(content).hexdigest()

    def _create(self, name: str, content: bytes) -> bool:
        """Write a small file if there is none of that name; whether it is there now with this content."""
        self._ask(name, lambda path: _create(self._system, path, content))
        if self._get(name) != content:
            return False
        self._written.add(name)
        return True

    def _remove(self, name: str) -> None:
        def remove(path: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self._system.rm_file(path)

        self._ask(name, remove)

    def _upload(self, file: Path, name: str, digest: str, size_there: int | None) -> None:
        """Send a file, read it back and compare size and SHA-256; unless it is there already."""
        size = file.stat().st_size
        if size_there == size and self._ask(name, self._stored_digest) == digest:
            return
        options: dict[str, Any] = {}
        if self._s3:
            options = {"chunksize": max(PART, size // _MOST_PARTS), "max_concurrency": PARTS}

        def send(path: str) -> None:
            self._written.add(name)
            if not self.folder.is_object:
                self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.put_file(str(file), path, **options)
            stored = int(self._system.info(path)["size"])
            if stored != size or self._stored_digest(path) != digest:
                if sha256(file) != digest:
                    raise RunError(f"{file}: changed while it was uploaded. Nothing was published")
                raise OSError(f"{stored:,} bytes came back that are not the {size:,} bytes that were sent")

        self._ask(name, send)

    def _stored_digest(self, path: str) -> str:
        digest = hashlib.sha256()
        with self._system.open(path, "rb", block_size=PART) as file:
            while piece := file.read(PART):
                digest.update(piece)
        return digest.hexdigest()

    def _abort_uploads(self) -> None:
        """End uploads in parts that a killed run left below the folder: they are invisible, and cost money."""
        if not self._s3:
            return
        bucket, _, key = self._path.partition("/")
        start = f"{key}/" if key else ""

        def abort(path: str) -> None:
            marker: dict[str, str] = {}
            while True:
                found = self._system.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=start, **marker)
                for upload in found.get("Uploads", []):
                    if upload["Key"].removeprefix(start).partition("/")[0] in PUBLISHED:
                        with contextlib.suppress(FileNotFoundError):
                            self._system.call_s3(
                                "abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                            )
                if not found.get("IsTruncated"):
                    return
                marker = {"KeyMarker": found["NextKeyMarker"], "UploadIdMarker": found["NextUploadIdMarker"]}

        self._ask("", abort)

    def _ask(self, name: str, request: Callable[[str], Any]) -> Any:
        """The answer to a request about a file, made again when it fails in passing."""
        where = self.folder / name if name else self.folder
        path = f"{self._path}/{name}" if name else self._path

        def failure(error: Exception, retries: int) -> FinesieveError:
            text = redacted(explain(error, retries), self.folder.options)
            return RunError(f"output.path: {where}: {text}. Nothing was published")

        return retrying(lambda: request(path), self.retries, failure=failure)


def _create(system: Any, path: str, content: bytes) -> None:
    """Write a file unless there is one; atomically where the server can."""
    try:
        system.pipe_file(path, content, mode="create")
    except FileExistsError:
        return
    except OSError as error:
        _check_conditional(error, path)
        if not _refused(error):
            raise


def _etag(system: Any, path: str) -> str | None:
    try:
        return str(system.info(path)["ETag"])
    except FileNotFoundError:
        return None


def _unless_changed(system: Any, path: str, content: bytes, etag: str) -> None:
    try:
        system.pipe_file(path, content, IfMatch=etag)
    except FileNotFoundError:
        return
    except OSError as error:
        _check_conditional(error, path)
        if not _refused(error):
            raise


def _check_conditional(error: OSError, path: str) -> None:
    """Raise a RunError if the server does not do writes under a condition at all; asking again is no use."""
    response = getattr(error.__cause__, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status == 501 or response.get("Error", {}).get("Code") in ("NotImplemented", "501"):
        raise RunError(
            f"output.path: {path}: this server does not know conditional writes (it answers 501 NotImplemented to "
            "If-None-Match or If-Match), which keep two runs from publishing into one folder. Nothing was published. "
            "Remedy: let output.path be a folder of this machine, and copy the finished run to the server, "
            "manifest.json last; or write to a server that knows them, as S3 does"
        ) from error


def _refused(error: OSError) -> bool:
    """Whether a server did not do a write because its condition did not hold."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in ("PreconditionFailed", "412")


def _who(found: Mapping[str, Any]) -> str:
    if not {"pid", "host", "work"} <= found.keys():
        return ""
    who = f"(process {found['pid']} on {found['host']}, in {found['work']})"
    return f" {printable(who, 300)}"
