"""Tables of static vectors, for the kind `static`: read from a folder that recipes/edu-en made, or from a model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from filters.arrays import Float32
from filters.config.yaml_file import Section
from filters.errors import ModelError
from filters.model import QualityModel
from filters.model.folder import Sha256, read_arrays, read_manifest
from filters.model.static_scorer import TABLE, StaticScorer, TableShape, Vectors
from filters.models import EMBEDDED, embedded_models

ABOUT = "table.json"
LEFT_OUT = "left_out.safetensors"


class TableInfo(Section):
    """Schema of table.json."""

    format: Literal["finesieve-static-table"] = "finesieve-static-table"
    source: str
    texts: tuple[str, ...]
    documents: Annotated[int, Field(ge=0)]
    window: int
    shape: TableShape
    columns: int
    settings: dict[str, Any]
    files: dict[str, Sha256]


@dataclass(frozen=True)
class StaticTableFolder:
    """A table that was built.

    Attributes:
        source: what it was made of, in words.
        window: characters of a text whose grams it counts.
        digest: of table.json.
        vectors: the table.
        left_out: sha256 of a text's window -> its features by a table without it.
    """

    source: str
    window: int
    digest: str
    vectors: Vectors
    left_out: dict[bytes, Float32]


def read_table(folder: str | Path) -> StaticTableFolder:
    """Read a folder of recipes/edu-en/build_table.py.

    The vectors of a table that an embedded model was made of need not be in its folder: they are taken from the model.

    Raises:
        ModelError: it is none, or damaged.
    """
    folder = Path(folder)
    path = folder / ABOUT
    try:
        raw = path.read_bytes()
        info = TableInfo.model_validate_json(raw)
    except OSError as error:
        raise ModelError(
            f"{path}: no table of static vectors ({error}). Remedy: build it with "
            "recipes/edu-en/build_table.py, or give edu-en, the table of the embedded model"
        ) from error
    except ValidationError as error:
        raise ModelError(f"{path}: {error.errors()[0]['msg']}. Remedy: build the table again") from error
    files = {name: folder / name for name in (TABLE, LEFT_OUT)}
    if set(info.files) != set(files):
        raise ModelError(f"{path}: files must be {', '.join(files)}. Remedy: build the table again")
    if not files[TABLE].exists():
        files[TABLE] = _embedded(info.files[TABLE]) or files[TABLE]
    for name, file in files.items():
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != info.files[name]:
            raise ModelError(f"{file}: missing, or not the file {ABOUT} speaks of. Remedy: build the table again")
    vectors = Vectors.read(files[TABLE], info.shape)
    columns = vectors.table().columns
    if info.columns != columns:
        raise ModelError(
            f"{path}: features of {info.columns} columns, and there are {columns} now. Remedy: build the table again"
        )
    size = info.documents
    arrays = read_arrays(
        files[LEFT_OUT], {"keys": ("uint8", (size, 32)), "features": ("float16", (size, info.columns))}
    )
    features = arrays["features"].astype(np.float32)
    left_out = {key.tobytes(): row for key, row in zip(arrays["keys"], features, strict=True)}
    return StaticTableFolder(info.source, info.window, hashlib.sha256(raw).hexdigest(), vectors, left_out)


def _embedded(digest: str) -> Path | None:
    """The table of an embedded model, if it is that of this digest."""
    for name in embedded_models():
        manifest, _ = read_manifest(EMBEDDED / name)
        if TABLE in manifest.files and manifest.files[TABLE].sha256 == digest:
            return EMBEDDED / name / TABLE
    return None


def table_of_model(name_or_folder: str) -> StaticTableFolder:
    """The table inside a model of kind `static`: a page it was made from is not known to it as such.

    Raises:
        ModelError: it is no such model.
    """
    model = QualityModel.load(name_or_folder)
    if not isinstance(model.scorer, StaticScorer):
        raise ModelError(
            f"{name_or_folder}: kind {model.metadata.kind!r} has no table. Remedy: give one of kind static"
        )
    options = model.scorer.options
    return StaticTableFolder(options.source, model.window, options.source_sha256, model.scorer.vectors, {})
