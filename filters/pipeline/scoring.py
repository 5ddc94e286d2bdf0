"""Scores of a handful of files, without a run: what `finesieve score` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from filters.config import ExtractConfig, InputConfig
from filters.errors import InputError
from filters.kernels.packed import PackedText
from filters.model import QualityModel
from filters.pipeline.blocks import Extract, Score
from filters.read.reader import read_unit
from filters.read.units import plan_units

KINDS = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".warc": "warc", ".wet": "wet"}
COMPRESSIONS = (".gz", ".zst", ".bz2")


def score_files(model: str, files: list[str], *, text_key: str = "text", id_key: str | None = None) -> Iterator[str]:
    """A JSON line for each document (id, source, position, score, keep) and each record that could not be read (cause).

    A file whose suffix names no other kind is one document of UTF-8 text.

    Raises:
        InputError: a file cannot be read.
        ModelError: the model cannot be loaded.
    """
    loaded = QualityModel.load(model)
    for file in files:
        suffixes = [suffix for suffix in Path(file).suffixes if suffix not in COMPRESSIONS]
        kind = KINDS.get(suffixes[-1] if suffixes else "")
        if kind is None:
            try:
                text = Path(file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"{file}: cannot read it as a text file: {error}") from error
            score = float(loaded.score_packed(PackedText.from_strings([text]))[0])
            yield _line(id=file, source=file, position=0, score=score, keep=score >= loaded.keep.min_score)
            continue
        config = InputConfig.model_validate({"kind": kind, "paths": [file], "text_key": text_key, "id_key": id_key})
        extract, scorer = Extract(ExtractConfig()), Score(loaded)
        for unit in plan_units(config):
            for batch in scorer.run(extract.run(read_unit(unit, config))):
                scores = batch.attributes["score"].tolist()
                ids, positions = batch.id.to_pylist(), batch.position.tolist()
                for row, reason in enumerate(batch.reason.tolist()):
                    about = {"id": ids[row], "source": batch.source, "position": positions[row]}
                    if reason is None:
                        yield _line(**about, score=scores[row], keep=scores[row] >= loaded.keep.min_score)
                    else:
                        yield _line(**about, score=None, keep=False, reason=reason)
                for record in batch.quarantined:
                    yield _line(source=record.source, position=record.position, cause=record.cause)


def _line(**fields: str | float | int | bool | None) -> str:
    return json.dumps(fields, ensure_ascii=False) + "\n"
