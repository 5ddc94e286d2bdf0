"""The model folder on disk: model.json, safetensors arrays and a card. Reading one executes nothing.

A folder holds `model.json` (schema: `Manifest`), the files it lists with size and sha256, optionally README.md, and, if
it is an ensemble, the model folders of its members. Anything else in it is refused. Arrays are safetensors: no pickles
and no compression, so that a file can neither run code nor grow when it is read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, JsonValue, ValidationError, model_validator

from filters.config.yaml_file import Section
from filters.errors import ModelError
from filters.model.reliability import ConformalTable
from filters.model.windows import WindowRule
from filters.models import EMBEDDED, embedded_models
from filters.storage.files import sha256, sync_to_disk

MANIFEST = "model.json"
CARD = "README.md"
MAX_MANIFEST_BYTES = 4 * 2**20
MAX_FILE_BYTES = 8 * 2**30
MAX_HEADER_BYTES = 2**16
MAX_ENTRY_BYTES = 512
"""Most bytes that one array may take in the header of a safetensors file."""
MAX_FREE_LENGTH = 2**16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class KeepRule(Section):
    """Which scores are kept: score >= min_score, both as float32.

    FineWeb-Edu publishes two rules for its classifier: score >= 2.5, which is `KeepRule(min_score=2.5)`, and the score
    rounded half to even >= 3, which is `KeepRule(rounded=3)`. They differ at 2.5, which rounds to 2. Rounding is
    monotone, so the second rule is a threshold too: `min_score` becomes the smallest float32 that rounds to 3.
    """

    min_score: Annotated[float, Field(ge=0, le=5)] = 1.5
    """Lowest score that is kept."""
    tie: Literal[">="] = ">="
    """A score equal to `min_score` is kept."""
    rounded: Annotated[int, Field(ge=1, le=5)] | None = None
    """Keep scores that round, half to even, to at least this; it sets `min_score`. null: no such rule."""

    @model_validator(mode="before")
    @classmethod
    def _threshold_of_rounding(cls, data: Any) -> Any:
        if not isinstance(data, dict) or type(data.get("rounded")) is not int:
            return data
        rounded = data["rounded"]
        half = np.float32(rounded - 0.5)
        smallest = float(half if np.rint(half) >= rounded else np.nextafter(half, np.float32(np.inf)))
        if data.get("min_score", smallest) != smallest:
            raise ValueError(f"rounded {rounded} and min_score {data['min_score']} are two rules; give one of them")
        return data | {"min_score": smallest}

    def __str__(self) -> str:
        if self.rounded is not None:
            return f"score rounded half to even >= {self.rounded}"
        return f"score >= {self.min_score:g}"

    def keep(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """bool[n]: which of `scores` (float32[n]) are kept."""
        return np.asarray(scores, dtype=np.float32) >= np.float32(self.min_score)


class Rubric(Section):
    """What the judge was asked, so that scores of two models can be told apart."""

    name: str
    """Name of the rubric."""
    sha256: Sha256
    """SHA-256 of its text."""


class TrainingData(Section):
    """What a model was trained on."""

    name: str
    """Name of the annotations file."""
    sha256: Sha256
    """SHA-256 of the annotations file, as stored."""
    rows: Annotated[int, Field(gt=0)]
    """Number of labels that were used, after rows were left out or merged."""
    target: str
    """Column that was learned."""
    notes: tuple[str, ...] = ()
    """What was odd in the labels, and what was done about it."""


class FileEntry(Section):
    """Size and digest of one file of the folder."""

    bytes: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]
    """Size of the file."""
    sha256: Sha256
    """SHA-256 of the file."""


class Manifest(Section):
    """The content of model.json."""

    format: Literal["finesieve-model"] = "finesieve-model"
    """Says what the file is."""
    version: Literal[1] = 1
    """Version of the format."""
    name: Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]{1,200}$")]
    """Name of the model."""
    kind: str
    """Kind of classifier: linear, fasttext, static, encoder, ensemble."""
    language: str | None = None
    """ISO 639-1 code of the language it was trained on. null: not said."""
    languages: tuple[str, ...] = ()
    """Codes of the languages it was measured on, if there are several. Empty: `language` alone."""
    rubric: Rubric | None = None
    """What the judge was asked. null: not said."""
    training: TrainingData | None = None
    """The labels it was trained on. null: the model was imported."""
    window: Annotated[int, Field(gt=0, le=10**9)]
    """Characters (Unicode code points) of one window."""
    windows: WindowRule = "first"
    """Which windows of a text are read, and how their raw scores become one."""
    normalisation: str
    """What happens to the text before features are taken, in words."""
    features: dict[str, JsonValue]
    """Options of the kind of classifier."""
    keep: KeepRule = KeepRule()
    """Which scores are kept."""
    labels: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    """Labels that the model tells apart, such as topics; it then gives a label with its probability, and `keep` says
    nothing. Empty: it gives a score."""
    calibration: str | None = None
    """Method that fitted the calibration in calibration.safetensors. null: the raw score is the score."""
    conformal: ConformalTable | None = None
    """Bands around a calibrated score, from scores of pages that the models had not seen. null: none."""
    metrics: dict[str, JsonValue] = Field(default_factory=dict)
    """Metrics of the cross-validation, with intervals."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """The training config, with random_state: enough to train the same model again."""
    files: dict[str, FileEntry] = Field(default_factory=dict)
    """Every other file of the folder. A file that is not named here is refused."""
    members: dict[str, Sha256] = Field(default_factory=dict)
    """Sub-folders that are model folders of their own (kind ensemble), with the sha256 of their model.json."""

    @property
    def measured_on(self) -> tuple[str, ...]:
        """Codes of the languages it was measured on; empty: not said."""
        return self.languages or (() if self.language is None else (self.language,))

    @property
    def reads(self) -> int | None:
        """Characters that are read of a text; None: all of it."""
        return self.window if self.windows == "first" else None


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest of a model folder and its digest, after every listed file was checked.

    Raises:
        ModelError: names the file at fault: missing or unlisted files, links, names that leave the folder, sizes or
            digests that differ, an unknown format version, JSON that does not fit the schema.
    """

    def check(where: Path | str, sound: bool, fault: str, remedy: str) -> None:
        if not sound:
            raise ModelError(f"{where}: {fault}. Remedy: {remedy}")

    written = "give the name of an embedded model, or a folder that `finesieve train` wrote"
    check(folder, folder.is_dir(), "no such model folder", written)
    path = folder / MANIFEST
    check(path, path.is_file() and not path.is_symlink(), "missing, so this is no model folder", written)
    small = path.stat().st_size <= MAX_MANIFEST_BYTES
    check(path, small, f"larger than {MAX_MANIFEST_BYTES} bytes, which no model.json is", "train again")
    raw = path.read_bytes()
    manifest = _parse(path, raw)
    distrust = "do not use this model unless you trust who made it; train it again"
    for name in (*manifest.files, *manifest.members):
        plain = _NAME.fullmatch(name) is not None and name not in (MANIFEST, CARD)
        check(path, plain, f"files: {name!r} is not a plain file name inside the folder", distrust)
    known = {*manifest.files, MANIFEST, CARD}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name in manifest.members and entry.is_dir(follow_symlinks=False):
            continue
        plain = entry.is_file(follow_symlinks=False)
        fault = "a link or a folder; a model folder holds plain files only"
        check(entry.path, plain, fault, "copy the model folder again, following links")
        remedy = "remove it if you put it there; otherwise get the model from its source again"
        check(entry.path, entry.name in known, f"not listed in {MANIFEST}", remedy)
    for name, expected in manifest.files.items():
        file = folder / name
        check(file, file.is_file(), f"listed in {MANIFEST} but missing", "copy the whole model folder again")
        size = file.stat().st_size
        fault = f"{size} bytes where {MANIFEST} says {expected.bytes}"
        check(file, size == expected.bytes, fault, "the copy is incomplete or altered; copy it again")
        fault = f"its sha256 differs from the one in {MANIFEST}"
        check(file, sha256(file) == expected.sha256, fault, "the file is damaged or altered; copy it again")
    for name, digest in manifest.members.items():
        # Read whole, with its own digests, when the scorer loads it.
        member = folder / name / MANIFEST
        if member.parent.is_symlink() or member.is_symlink() or not member.is_file():
            raise ModelError(f"{member}: a member of {path}, but missing. Remedy: copy the whole model folder again")
        if member.stat().st_size > MAX_MANIFEST_BYTES or sha256(member) != digest:
            raise ModelError(
                f"{member}: its sha256 differs from the one in {path}. Remedy: the file is damaged or altered; copy "
                "the model folder again"
            )
    return manifest, hashlib.sha256(raw).hexdigest()


def measured_languages(name: str) -> tuple[str, ...]:
    """Codes of the languages that a model, named as for `QualityModel.load`, was measured on; empty: it does not say.

    Raises:
        ModelError: its model.json cannot be read.
    """
    path = (EMBEDDED / name if name in embedded_models() else Path(name)) / MANIFEST
    return _parse(path, path.read_bytes()).measured_on if path.is_file() else ()


def _parse(path: Path, raw: bytes) -> Manifest:
    try:
        data: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON: {error}. Remedy: copy the model folder again") from error
    if not isinstance(data, dict) or data.get("format") != "finesieve-model":
        raise ModelError(f'{path}: no "format": "finesieve-model" in it. Remedy: give a folder `finesieve train` wrote')
    if data.get("version") != 1:
        raise ModelError(
            f"{path}: format version {data.get('version')!r}; this finesieve reads version 1. "
            "Remedy: upgrade finesieve, or train the model again with this version"
        )
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelError(
            f"{path}: {key}: {first['msg']}. Remedy: copy the model folder again, or train again"
        ) from error


def write_folder(
    folder: Path, manifest: Manifest, write: Callable[[Path], None], card: str | None = None, overwrite: bool = False
) -> None:
    """Write a model folder so that it exists whole or not at all.

    Files go to a temporary folder beside `folder`, are synced, listed with size and digest, and renamed in one step.

    Args:
        folder: where the model shall be; its parent is created.
        manifest: everything but `files`.
        write: writes the arrays into the folder it is given.
        card: text of README.md.
        overwrite: replace a model folder that is already there. Anything else there is never replaced.

    Raises:
        ModelError: `folder` exists and is not to be overwritten, or is not a model folder.
    """
    check_free(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(temporary)
        paths = sorted(temporary.iterdir())
        files = {
            path.name: FileEntry(bytes=path.stat().st_size, sha256=sha256(path)) for path in paths if path.is_file()
        }
        members = {path.name: sha256(path / MANIFEST) for path in paths if path.is_dir()}
        full = manifest.model_copy(update={"files": files, "members": members})
        text = json.dumps(full.model_dump(mode="json"), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
        (temporary / MANIFEST).write_text(text + "\n", encoding="utf-8")
        if card is not None:
            (temporary / CARD).write_text(card, encoding="utf-8")
        temporary.chmod(0o755)
        for path in temporary.iterdir():
            sync_to_disk(path)
        sync_to_disk(temporary)
        _replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_free(folder: Path, overwrite: bool) -> None:
    """Refuse early, before a long training, to write where `write_folder` would refuse.

    Raises:
        ModelError: as `write_folder`.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink() or (any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
        raise ModelError(f"{folder}: exists and is not a model folder. Remedy: give another output folder")
    if not overwrite:
        raise ModelError(f"{folder}: a model is already there. Remedy: give another output folder, or --overwrite")


def _replace(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
    else:
        # A folder cannot be exchanged for another in one portable call: the old one steps aside and comes back if the
        # new one cannot take its place.
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        folder.rename(aside / folder.name)
        try:
            temporary.rename(folder)
        except BaseException:
            (aside / folder.name).rename(folder)
            aside.rmdir()
            raise
        shutil.rmtree(aside)
    sync_to_disk(folder.parent)


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays as safetensors."""
    from safetensors.numpy import save

    path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_arrays(path: Path, expected: Mapping[str, tuple[str, tuple[int | None, ...]]]) -> dict[str, npt.NDArray[Any]]:
    """Read exactly the `expected` arrays from a safetensors file.

    Args:
        path: the file.
        expected: name -> (dtype name, shape); None in a shape stands for any length up to `MAX_FREE_LENGTH`.

    Raises:
        ModelError: not a safetensors file, larger than these arrays can be; arrays missing, unknown, of another dtype
            or shape, or not finite.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    remedy = "Remedy: get the model from its source again, or train it again"
    limit = MAX_HEADER_BYTES + sum(
        MAX_ENTRY_BYTES
        + np.dtype(dtype).itemsize * math.prod(MAX_FREE_LENGTH if size is None else size for size in shape)
        for dtype, shape in expected.values()
    )
    if path.stat().st_size > limit:
        raise ModelError(
            f"{path}: {path.stat().st_size} bytes, and the arrays that belong in it have {limit}. {remedy}"
        )
    try:
        arrays: dict[str, npt.NDArray[Any]] = load(path.read_bytes())
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}). {remedy}") from error
    if set(arrays) != set(expected):
        raise ModelError(f"{path}: holds arrays {sorted(arrays)} where {sorted(expected)} belong. {remedy}")
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        fits = len(array.shape) == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape, strict=True))
        if array.dtype.name != dtype or not fits:
            raise ModelError(
                f"{path}: array {name!r} is {array.dtype.name}{list(array.shape)} where {dtype}"
                f"{['any' if size is None else size for size in shape]} belongs. {remedy}"
            )
        if not np.isfinite(array).all():
            raise ModelError(f"{path}: array {name!r} holds NaN or infinite values. {remedy}")
    return arrays
