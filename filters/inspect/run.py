"""A finished run as an object: its ledger, its histogram, its attributes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from filters.errors import RunError
from filters.inspect.histogram import Histogram


@dataclass(frozen=True)
class Extreme:
    """A document from an end of the score scale; `text` is its beginning, None where the run did not keep it."""

    id: str
    score: float
    origin: str
    text: str | None


class Run:
    """A run folder.

    Args:
        path: the folder `finesieve filter` wrote.

    Raises:
        RunError: the folder holds no finished run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.manifest: dict[str, Any] = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
            self.min_score = float(self.manifest["keep"]["min_score"])
            self.ledger: dict[str, Any] = self.manifest["ledger"]
        except FileNotFoundError:
            raise RunError(
                f"{path}: no manifest.json here, so no finished run. Remedy: name the output.path of a filter run"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.path / 'manifest.json'}: not the manifest of a run: {error!r}") from error

    @property
    def histogram(self) -> Histogram:
        """Scores of the documents that survived deduplication."""
        try:
            return Histogram.from_json(self.manifest["histogram"])
        except (KeyError, ValueError, TypeError) as error:
            raise RunError(f"{self.path / 'manifest.json'}: key histogram: {error!r}") from error

    def attributes(self, columns: list[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """Rows of the side files, in input order.

        Raises:
            RunError: they are missing or damaged.
        """
        try:
            files = sorted(str(path) for path in (self.path / "attributes").glob("*.parquet"))
            return ds.dataset(files, format="parquet").to_table(columns=columns, filter=where)
        except (OSError, pa.ArrowInvalid) as error:
            raise RunError(f"{self.path / 'attributes'}: cannot read the side files: {error}") from error

    def extremes(self, count: int, *, best: bool) -> list[Extreme]:
        """The documents with the highest (or lowest) scores among those that survived deduplication.

        Ties go to the smaller id. Their text is looked up in data/ or rejected/ where that was written.
        """
        survives = pc.is_null(pc.field("reason")) | (pc.field("reason") == "low_score")
        rows = self.attributes(["id", "score", "url", "source", "position"], survives & pc.is_valid(pc.field("score")))
        order = [("score", "descending" if best else "ascending"), ("id", "ascending")]
        chosen = rows.take(pc.select_k_unstable(rows, k=min(count, rows.num_rows), sort_keys=order)).to_pylist()
        texts = self._texts([row["id"] for row in chosen])
        return [
            Extreme(
                row["id"], row["score"], row["url"] or f"{row['source']} at {row['position']}", texts.get(row["id"])
            )
            for row in chosen
        ]

    def _texts(self, ids: list[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for folder in ("data", "rejected"):
            files = sorted(str(path) for path in (self.path / folder).glob("*.parquet"))
            if files:
                dataset = ds.dataset(files, format="parquet")
                wanted = pc.field("id").isin(ids)
                beginning = {"id": pc.field("id"), "text": pc.utf8_slice_codeunits(pc.field("text"), 0, 400)}
                found |= {row["id"]: row["text"] for row in dataset.to_table(beginning, filter=wanted).to_pylist()}
        return found
