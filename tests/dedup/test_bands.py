"""Band files: every entry is in the slice of its hash range, in input order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from filters.dedup import bands
from filters.dedup.bands import BandReader, BandWriter, id_hashes
from filters.phases.blocks import BlockFileError
from tests.kernels.test_pairs import partition_of

Entries = list[tuple[int, int]]


def write(path: Path, partitions: int, batches: int = 4) -> dict[str, Entries]:
    """A file of `batches` batches of 100 documents; every entry that must be found, by kind."""
    draw = np.random.default_rng(0)
    expected: dict[str, Entries] = {kind: [] for kind in bands.KINDS}
    with BandWriter(path, partitions) as writer:
        for batch in range(batches):
            ids = [f"doc {batch}-{n}" if n % 10 else f"doc {n}#{n + 2}" for n in range(100)]
            alive, signed = draw.random(100) > 0.1, draw.random(100) > 0.2
            exact = draw.integers(0, 2**64, (100, 2), np.uint64)
            keys = draw.integers(0, 2**64, (100, 3), np.uint64)
            writer.add(pa.array(ids), alive, exact, keys, signed)
            for n in range(100):
                row = batch * 100 + n
                expected["id"].append((xxhash.xxh3_64_intdigest(ids[n]), row))
                if "#" in ids[n]:
                    expected["suffix"].append((xxhash.xxh3_64_intdigest(f"doc {n}"), n + 2))
                if alive[n]:
                    expected["exact"].append((int(exact[n, 0]), row))
                if alive[n] and signed[n]:
                    expected["near"] += [(int(key), row) for key in keys[n]]
    return expected


def read(path: Path, partitions: int, partition: int, kind: str) -> Entries:
    with BandReader(path, partitions, partition) as reader:
        chunks = list(reader.entries(kind))
        found = [pair for keys, rows in chunks for pair in zip(keys.tolist(), rows.tolist(), strict=True)]
        assert reader.count(kind) == len(found)
    return found


@pytest.mark.parametrize("partitions", [1, 5])
@pytest.mark.parametrize("chunk", [1, 700, 10**6])
def test_every_entry_is_found_in_its_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partitions: int, chunk: int
) -> None:
    monkeypatch.setattr(bands, "_CHUNK", chunk)
    expected = write(tmp_path / "bands.bin", partitions)
    assert len(expected["suffix"]) == 40
    for kind in bands.KINDS:
        found: Entries = []
        for partition in range(partitions):
            here = read(tmp_path / "bands.bin", partitions, partition, kind)
            keys = np.array([key for key, _ in here], np.uint64)
            assert (partition_of(keys, partitions) == partition).all()
            assert kind == "suffix" or [row for _, row in here] == sorted(row for _, row in here)
            found += here
        assert sorted(found) == sorted(expected[kind])


def test_a_unit_without_documents(tmp_path: Path) -> None:
    write(tmp_path / "bands.bin", 3, batches=0)
    assert [read(tmp_path / "bands.bin", 3, 1, kind) for kind in bands.KINDS] == [[], [], [], []]


def test_what_is_not_looked_for_has_no_entries(tmp_path: Path) -> None:
    with BandWriter(tmp_path / "bands.bin", 2) as writer:
        writer.add(pa.array(["a", "b"]), np.ones(2, bool), None, None, None)
    counts = {kind: sum(len(read(tmp_path / "bands.bin", 2, p, kind)) for p in (0, 1)) for kind in bands.KINDS}
    assert counts == {"near": 0, "exact": 0, "id": 2, "suffix": 0}


def test_another_number_of_ranges_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "bands.bin", 3)
    with pytest.raises(BlockFileError, match="another number"):
        BandReader(tmp_path / "bands.bin", 2, 0)
    with pytest.raises(ValueError, match="at least 1"):
        BandWriter(tmp_path / "other", 0)


def test_suffixes_are_only_those_that_finesieve_gives(tmp_path: Path) -> None:
    ids = ["a#2", "a#02", "a#", "#2", "a#2 ", "a#-2", "a#1b", "x\n#3", "a#2#5", "a#9999999999"]
    with BandWriter(tmp_path / "bands.bin", 1) as writer:
        writer.add(pa.array(ids), np.ones(len(ids), bool), None, None, None)
    expected = id_hashes(pa.array(["a", "", "x\n", "a#2"])).tolist()
    assert read(tmp_path / "bands.bin", 1, 0, "suffix") == list(zip(expected, [2, 2, 3, 5], strict=True))
