"""Between batches and datatrove's Documents, so that our steps and datatrove's own can stand in one pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from filters.read.batch import Batch


def to_documents(batch: Batch) -> Iterator[tuple[int, Document]]:
    """(row, Document) of every document in the batch that is still alive; its columns become metadata."""
    rows = np.flatnonzero(batch.alive).tolist()
    texts = batch.text.take(pa.array(rows, type=pa.int64())).to_pylist()
    ids = batch.id.to_pylist()
    metadata = {name: column.to_pylist() for name, column in batch.columns.items()}
    for row, text in zip(rows, texts, strict=True):
        yield row, Document(text=text, id=ids[row], metadata={name: values[row] for name, values in metadata.items()})


class ToBatches(PipelineStep):
    """Collect the Documents of any datatrove reader into batches for finesieve's steps.

    Args:
        size: documents in a batch.
    """

    type = "FINESIEVE"
    name = "To batches"

    def __init__(self, size: int = 1000) -> None:
        super().__init__()
        self.size = size

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield batches; position counts the documents of this rank, attribute `document` (object[n]) holds them."""
        documents, start = iter(data), 0
        while chunk := list(islice(documents, self.size)):
            yield Batch(
                source=f"rank-{rank:05d}",
                position=np.arange(start, start + len(chunk), dtype=np.int64),
                id=pa.array([str(document.id) for document in chunk], type=pa.string()),
                text=pa.array([document.text for document in chunk], type=pa.large_string()),
                reason=np.full(len(chunk), None, dtype=object),
                attributes={"document": _objects(chunk)},
                records=len(chunk),
            )
            start += len(chunk)


class ToDocuments(PipelineStep):
    """Turn batches made by `ToBatches` back into Documents, with what our steps found in their metadata.

    Removed documents are dropped (counted in the step's statistics by reason).
    """

    type = "FINESIEVE"
    name = "To documents"

    def run(self, data: Iterable[Batch], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents that are alive."""
        for batch in data:
            found = {
                name: values.tolist()
                for name, values in batch.attributes.items()
                if name in ("score", "language", "language_score", "tokens")
            }
            texts = batch.text.to_pylist()
            for row, document in enumerate(batch.attributes["document"].tolist()):
                if batch.reason[row] is not None:
                    self.stat_update("dropped", f"dropped_{batch.reason[row]}")
                    continue
                document.text = texts[row]
                document.metadata.update({name: values[row] for name, values in found.items()})
                self.stat_update("forwarded")
                yield document


def _objects(values: list[Any]) -> np.ndarray[Any, np.dtype[np.object_]]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
