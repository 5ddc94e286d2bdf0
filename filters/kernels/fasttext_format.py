"""Reader of fastText's own model files (.bin and quantised .ftz, format versions 11 and 12), without fastText.

The layout is that of `FastText::saveModel` in facebookresearch/fastText 0.9.2. Every length is checked against the size
of the file before it is used.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from filters.arrays import Float32, Int32, Int64, UInt8
from filters.errors import ModelError

MAGIC = 793712314
HIERARCHICAL_SOFTMAX, NEGATIVE_SAMPLING, SOFTMAX, ONE_VERSUS_ALL = 1, 2, 3, 4
_SUPERVISED = 3
_CENTROIDS = 256
_LONGEST_WORD = 1 << 20
_MAX_BUCKET = 1 << 28
_PRUNED_BUCKETS = 2**24
"""A pruned model may have so many buckets (in memory, four bytes each), or sixteen to each byte of its file."""

_DENSE_BYTES = 2**28
"""A quantised matrix may unpack to so many bytes, or 64 to each byte of its file: parts of 16 columns; usual are 2."""


@dataclass(frozen=True, slots=True)
class FastTextFile:
    """A supervised model as the file holds it, matrices in float32.

    Attributes:
        dim: length of a word's vector.
        word_ngrams: longest word n-gram.
        loss: one of the constants above.
        bucket: rows for hashed n-grams before pruning.
        minn, maxn: shortest and longest character n-gram; none if maxn is 0.
        words: the vocabulary, without labels.
        labels: labels as in the file, prefix included, most frequent first.
        label_counts: int64[labels].
        pruned: None, or int32[bucket]: row (counted from the first n-gram row) of each hash, -1 where it was cut off.
        input: vectors of words, then of n-grams.
        output: float32[labels, dim].
    """

    dim: int
    word_ngrams: int
    loss: int
    bucket: int
    minn: int
    maxn: int
    words: tuple[bytes, ...]
    labels: tuple[bytes, ...]
    label_counts: Int64
    pruned: Int32 | None
    input: DenseMatrix | QuantizedMatrix
    output: Float32


@dataclass(frozen=True, slots=True)
class DenseMatrix:
    """float32[rows, columns] within the mapped file."""

    raw: UInt8
    shape: tuple[int, int]

    def rows(self, start: int, end: int) -> Float32:
        """float32[end - start, columns], a copy."""
        width = 4 * self.shape[1]
        return self.raw[start * width : end * width].view("<f4").reshape(-1, self.shape[1]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A product-quantised matrix: a code per part of a row, and centroids of each part (Jegou et al. 2011)."""

    codes: UInt8
    shape: tuple[int, int]
    centroids: tuple[Float32, ...]
    norms: Float32 | None

    def rows(self, start: int, end: int) -> Float32:
        """float32[end - start, columns], dequantised."""
        parts = [centroid[self.codes[start:end, part]] for part, centroid in enumerate(self.centroids)]
        rows = np.concatenate(parts, axis=1, dtype=np.float32)
        return rows if self.norms is None else np.asarray(rows * self.norms[start:end, None], np.float32)


def read_fasttext(path: str | Path) -> FastTextFile:
    """Read a supervised fastText model.

    Raises:
        ModelError: the file cannot be read, is no fastText model, is truncated or contradicts itself (the message names
            file and byte offset), or is not a supervised model.
    """
    try:
        with Path(path).open("rb") as stream:
            size = stream.seek(0, 2)
            if size == 0:
                raise ModelError(f"{path}: empty file, not a fastText model")
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model: {error.strerror or error}") from error
    return _Reader(str(path), mapped).model()


class _Reader:
    def __init__(self, path: str, mapped: mmap.mmap) -> None:
        self.path = path
        self.mapped = mapped
        self.bytes: UInt8 = np.frombuffer(mapped, np.uint8)
        self.offset = 0

    def fail(self, message: str, offset: int | None = None) -> ModelError:
        return ModelError(f"{self.path}: byte {self.offset if offset is None else offset}: {message}")

    def take(self, length: int, what: str) -> UInt8:
        if not 0 <= length <= len(self.bytes) - self.offset:
            left = len(self.bytes) - self.offset
            raise self.fail(f"{what} takes {length} bytes and the file has {left} left: truncated or corrupt")
        taken = self.bytes[self.offset : self.offset + length]
        self.offset += length
        return taken

    def unpack(self, layout: str, what: str) -> tuple[int, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout), what).tobytes())

    def floats(self, count: int, what: str) -> Float32:
        start = self.offset
        values = self.take(4 * count, what).view("<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise self.fail(f"{what} are not all finite numbers: corrupt", start)
        return values

    def model(self) -> FastTextFile:
        magic, version = self.unpack("2i", "the header")
        if magic != MAGIC:
            raise self.fail("not a fastText model (wrong magic number)", 0)
        if version not in (11, 12):
            raise self.fail(f"format version {version}; versions 11 and 12 can be read. Retrain with fastText 0.9", 4)
        start = self.offset
        dim, _ws, _epoch, _min_count, _neg, word_ngrams, loss, kind, bucket, minn, maxn, _lr_rate = self.unpack(
            "12i", "the options"
        )
        self.unpack("d", "the options")
        if kind != _SUPERVISED:
            raise self.fail("not a supervised model: word vectors cannot score texts", start + 28)
        if loss not in (HIERARCHICAL_SOFTMAX, NEGATIVE_SAMPLING, SOFTMAX, ONE_VERSUS_ALL):
            raise self.fail(f"unknown loss {loss}", start + 24)
        if version == 11:
            maxn = 0  # as fastText does: supervised models had no character n-grams then
        uses_ngrams = maxn > 0 or word_ngrams > 1
        if not 0 < dim < 2**20 or not uses_ngrams <= bucket <= _MAX_BUCKET or max(maxn, word_ngrams) > 1000:
            raise self.fail(
                f"impossible options: dim {dim}, bucket {bucket}, wordNgrams {word_ngrams}, maxn {maxn}", start
            )
        words, labels, label_counts, pruned = self.dictionary(bucket if uses_ngrams else 0)
        (quantized,) = self.unpack("?", "the input matrix")
        if pruned is not None and not quantized:
            raise self.fail("pruned but not quantised: an outdated model file, which fastText refuses, too")
        start = self.offset
        inputs = self.quantized() if quantized else self.dense()
        kept = bucket if pruned is None else int(pruned.max(initial=-1)) + 1
        needed = len(words) + (kept if uses_ngrams else 0)
        if inputs.shape[1] != dim or inputs.shape[0] < needed:
            raise self.fail(f"the input matrix is {inputs.shape}, expected ({needed}, {dim})", start)
        (quantized_output,) = self.unpack("?", "the output matrix")
        start = self.offset
        outputs = self.quantized() if quantized and quantized_output else self.dense()
        if outputs.shape != (len(labels), dim):
            raise self.fail(f"the output matrix is {outputs.shape}, expected ({len(labels)}, {dim})", start)
        if self.offset != len(self.bytes):
            raise self.fail(f"{len(self.bytes) - self.offset} bytes after the end of the model")
        output = outputs.rows(0, len(labels))
        if not np.isfinite(output).all():
            raise self.fail("the output matrix has values that are no finite numbers", start)
        return FastTextFile(
            dim, word_ngrams, loss, bucket, minn, maxn, words, labels, label_counts, pruned, inputs, output
        )

    def dictionary(self, bucket: int) -> tuple[tuple[bytes, ...], tuple[bytes, ...], Int64, Int32 | None]:
        start = self.offset
        size, nwords, nlabels = self.unpack("3i", "the dictionary")
        _tokens, pruned_size = self.unpack("2q", "the dictionary")
        # An entry has at least ten bytes.
        if nwords < 0 or nlabels < 1 or size != nwords + nlabels or size > (len(self.bytes) - self.offset) // 10:
            raise self.fail(f"impossible dictionary: {size} entries, {nwords} words, {nlabels} labels", start)
        entries: list[bytes] = []
        counts: list[int] = []
        position, find, mapped = self.offset, self.mapped.find, self.mapped
        entry = struct.Struct("<qb")
        for number in range(size):
            end = find(b"\0", position, position + _LONGEST_WORD)
            if end < 0 or end + 10 > len(self.bytes):
                raise self.fail(f"dictionary entry {number} does not end: truncated or corrupt", position)
            count, kind = entry.unpack_from(mapped, end + 1)
            if kind != (number >= nwords):
                raise self.fail(
                    f"dictionary entry {number} is of kind {kind}, expected words and then labels", position
                )
            entries.append(mapped[position:end])
            counts.append(count)
            position = end + 10
        self.offset = position
        if len(set(entries)) != size:
            raise self.fail("the dictionary has an entry twice", start)
        pruned = None
        if pruned_size >= 0:
            start = self.offset
            pairs = self.take(8 * pruned_size, "the list of pruned n-grams").view("<i4").reshape(-1, 2)
            if bucket > _PRUNED_BUCKETS and bucket > 16 * len(self.bytes):
                raise self.fail(f"{bucket:,} buckets in a file of {len(self.bytes):,} bytes", start)
            pruned = np.full(max(bucket, 1), -1, np.int32)
            if pairs.size and (pairs.min() < 0 or pairs[:, 0].max() >= bucket):
                raise self.fail("the list of pruned n-grams points outside of the buckets", start)
            pruned[pairs[:, 0]] = pairs[:, 1]
        return tuple(entries[:nwords]), tuple(entries[nwords:]), np.array(counts[nwords:], np.int64), pruned

    def dense(self) -> DenseMatrix:
        rows, columns = self.unpack("2q", "a matrix")
        if rows < 0 or columns < 1:
            raise self.fail(f"impossible matrix of {rows} x {columns}", self.offset - 16)
        return DenseMatrix(self.take(4 * rows * columns, "a matrix"), (rows, columns))

    def quantized(self) -> QuantizedMatrix:
        start = self.offset
        (has_norms,) = self.unpack("?", "a quantised matrix")
        rows, columns, size = self.unpack("2qi", "a quantised matrix")
        if rows < 0 or columns < 1 or size < 0:
            raise self.fail(f"impossible quantised matrix of {rows} x {columns}", start)
        if 4 * rows * columns > max(_DENSE_BYTES, 64 * len(self.bytes)):
            raise self.fail(f"a table of {4 * rows * columns:,} bytes in a file of {len(self.bytes):,}", start)
        codes = self.take(size, "quantised codes")
        centroids = self.centroids(columns)
        if size != rows * len(centroids):
            raise self.fail(f"{size} codes for {rows} rows of {len(centroids)} parts", start)
        norms = None
        if has_norms:
            norm_codes = self.take(rows, "quantised norms")
            norms = self.centroids(1)[0][norm_codes, 0]
        return QuantizedMatrix(codes.reshape(rows, len(centroids)), (rows, columns), centroids, norms)

    def centroids(self, columns: int) -> tuple[Float32, ...]:
        start = self.offset
        dim, parts, width, last = self.unpack("4i", "a product quantiser")
        if dim != columns or parts < 1 or width < 1 or last < 1 or (parts - 1) * width + last != dim:
            raise self.fail(f"impossible product quantiser: dim {dim}, {parts} parts of {width}, last {last}", start)
        values = self.floats(dim * _CENTROIDS, "centroids")
        cut = (parts - 1) * width * _CENTROIDS
        first = values[:cut].reshape(parts - 1, _CENTROIDS, width)
        return (*first, values[cut:].reshape(_CENTROIDS, last))
