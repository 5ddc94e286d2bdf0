"""Scores of a handful of files, without a run: what `finesieve score` prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from filters.config.filter import ExtractConfig, InputConfig
from filters.errors import InputError, ModelError
from filters.kernels.packed import PackedText
from filters.model import Prediction, QualityModel, predict_together
from filters.read.jsonl import keys_seen, listed_keys
from filters.read.units import plan_units, read_unit
from filters.run.steps import Extract

KINDS = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".warc": "warc", ".wet": "wet"}
COMPRESSIONS = (".gz", ".zst", ".bz2")
TEXTS = ("", ".txt", ".text", ".md", ".rst")
"""Suffixes of files that are one document each."""


def score_files(
    model: str, files: list[str], *, text_key: str = "text", id_key: str | None = None, error_rate: float | None = None
) -> Iterator[str]:
    """A JSON line for each document (id, source, position, score, keep) and each record that could not be read (cause).

    A model that tells labels apart gives label and probability in the place of score and keep.

    With an error rate each document has a band (low, high) and a decision (keep, drop, undecided) as well; see
    `QualityModel.decide`. A file with a suffix of `TEXTS` is one document of UTF-8 text, and so is "-", standard input.

    Raises:
        InputError: a file cannot be read, has records but no text, or its suffix is of no kind that is known.
        ModelError: the model cannot be loaded, or has no bands for this error rate.
    """
    loaded = QualityModel.load(model)
    if loaded.labels and error_rate is not None:
        raise ModelError(f"{loaded.name}: tells labels apart, which have no bands. Remedy: leave out --error-rate")
    for file in files:
        suffixes = [suffix for suffix in Path(file).suffixes if suffix not in COMPRESSIONS]
        suffix = suffixes[-1].lower() if suffixes else ""
        kind = KINDS.get(suffix)
        if kind is None:
            text = _text(file, suffix)
            if not text.strip():
                raise InputError(f"{file}: empty, so there is no text to score")
            (scored,) = _scored(loaded, loaded.predict([text]), error_rate)
            yield _line(id=file, source=file, position=0, **scored)
            continue
        config = InputConfig.model_validate({"kind": kind, "paths": [file], "text_key": text_key, "id_key": id_key})
        extract = Extract(ExtractConfig())
        units = plan_units(config)
        seen, read = 0, 0
        for unit in units:
            for batch in extract.run(read_unit(unit, config)):
                texts = PackedText.from_arrow(batch.text.filter(pa.array(batch.alive)))
                (said,) = predict_together([loaded], texts)
                rows = _scored(loaded, said, error_rate)
                found = dict(zip(np.flatnonzero(batch.alive).tolist(), rows, strict=True))
                ids, positions = batch.id.to_pylist(), batch.position.tolist()
                for row, reason in enumerate(batch.reason.tolist()):
                    about = {"id": ids[row], "source": batch.source, "position": positions[row]}
                    seen += 1
                    if reason is None:
                        read += 1
                        yield _line(**about, **found[row])
                    else:
                        none = {"label": None} if loaded.labels else {"score": None, "keep": False}
                        yield _line(**about, **none, reason=reason)
                for record in batch.quarantined:
                    seen += 1
                    yield _line(source=record.source, position=record.position, cause=record.cause)
        if seen and not read:
            keys = keys_seen(units[0], config)[0] if kind == "jsonl" else None
            known = f"; they have {listed_keys(keys)}. Remedy: --text-key names the one with the text" if keys else ""
            raise InputError(f"{file}: none of its {seen:,} records has a text under the key {text_key!r}{known}")


def _text(file: str, suffix: str) -> str:
    """One document of UTF-8 text.

    Raises:
        InputError: it cannot be read, is no UTF-8, or has a suffix that says that it is something else.
    """
    if file != "-" and suffix not in TEXTS:
        raise InputError(
            f"{file}: score reads no {suffix} files, only {', '.join(KINDS)} (and {', '.join(COMPRESSIONS)}), "
            f"or one text ({', '.join(filter(None, TEXTS))}). Remedy: convert it, or score it as one text: "
            "finesieve score MODEL - < FILE"
        )
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode()
    except OSError as error:
        raise InputError(
            f"{file}: cannot read it as a text file: {error.strerror or error}. Remedy: name files, or write - and "
            "give the text on standard input"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is no text in UTF-8 (byte {error.start})") from error


def _scored(model: QualityModel, said: Prediction, error_rate: float | None) -> list[dict[str, str | float | bool]]:
    scores = said.score
    if said.label is not None:
        chosen = [model.labels[number] for number in said.label.tolist()]
        return [{"label": label, "probability": share} for label, share in zip(chosen, scores.tolist(), strict=True)]
    rows: list[dict[str, str | float | bool]] = [
        {"score": score, "keep": keep}
        for score, keep in zip(scores.tolist(), model.keep.keep(scores).tolist(), strict=True)
    ]
    if error_rate is not None:
        found = model.decide_scores(scores, error_rate)
        for row, low, high, word in zip(rows, found.low.tolist(), found.high.tolist(), found.words, strict=True):
            row |= {"low": round(low, 4), "high": round(high, 4), "decision": word}
    return rows


def _line(**fields: str | float | int | bool | None) -> str:
    return json.dumps(fields, ensure_ascii=False) + "\n"
