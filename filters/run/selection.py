"""Select: which of the documents that survive deduplication are kept, how often, and in which output file.

tally       a unit for each input unit: what selecting needs to know of its survivors, in few bytes
select      one unit: the threshold solved, what is kept, and the plan of the output files
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from filters.config.filter import FilterConfig
from filters.dedup.bands import reading_blocks
from filters.dedup.clusters import dedup_summary, survivors, unique_ids, verdicts
from filters.dedup.decisions import Decisions, OutputFile
from filters.dedup.keep_fingerprints import BITMAP, SELECT, Fingerprints, KeptSets
from filters.dedup.losses import losses
from filters.dedup.repeat import copies
from filters.kernels.arrays import Bool, Float32, Int64
from filters.kernels.pairs import mark
from filters.phases.blocks import BlockWriter
from filters.phases.phase import Job, Phase
from filters.phases.rows import first_rows, read_rows
from filters.scores.histogram import Histogram
from filters.scores.threshold import Scored, Solution, Target, solve

TALLY = "tally"
SCORES, KEPT, PLAN, SUMMARY = "scores.bin", "kept.bin", "files.json", "summary.json"
_SCORES = ["<i8", "<i8", "<f4", "<i8", "<i8", "<i8"]
_KEPT = ["<i8", "<i8", "|i1", "|i1"]


class Tally:
    """scores.bin: text bytes of all rows; of the survivors row, score, tokens, times to write, and language.

    Facts: languages, by the numbers that stand for them in the file.
    """

    name = TALLY

    def units(self, job: Job) -> int:
        """The units of the input."""
        return len(job.units)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Look at the survivors of an input unit."""
        repeat = job.config.output.repeat
        columns = ["bytes", "score", "tokens", "language", "reason", *(["id"] if repeat else [])]
        about = read_rows(job, unit, columns)
        stay, sizes = survivors(job, unit, about["reason"].is_null().to_numpy())
        score = about["score"].to_numpy(zero_copy_only=False).astype(np.float32)
        stay &= ~np.isnan(score)  # a document whose score is not a number is never kept
        rows = np.flatnonzero(stay)
        taken = about.take(pa.array(rows))
        tokens = taken["tokens"].to_numpy().astype(np.int64)
        times = np.ones(len(rows), np.int64)
        if repeat:
            ids = unique_ids(job, unit, taken["id"].combine_chunks(), rows)
            times = copies(repeat, sizes[rows], score[rows], ids)
        encoded = taken["language"].combine_chunks().fill_null("").dictionary_encode()
        languages = encoded.dictionary.to_pylist() if len(rows) else []
        numbers = encoded.indices.to_numpy() if len(rows) else np.empty(0, np.int64)
        with BlockWriter(folder / SCORES, _SCORES) as blocks:
            blocks.write(about["bytes"].to_numpy(), rows, score[rows], tokens, times, numbers)
        return {"languages": languages}


class Select:
    """kept.bin: a block for each input unit with its survivors: row, times to write (0: not kept), bucket,
    and whether nothing but a quota removes it.

    kept.bits: a bit for each document of the run, set where it is kept. files.json: the plan of the output files.
    summary.json: the keep rule, solved, and what it writes.
    """

    name = SELECT

    def units(self, job: Job) -> int:
        """One."""
        return 1

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Solve the threshold, then go through the survivors once more."""
        config = job.config
        histogram = Histogram()
        for number in range(len(job.units)):
            scored = _scored(job, number)
            histogram.add(scored.scores, tokens=scored.tokens, text_bytes=scored.text_bytes)
        borders = _borders(job, histogram)
        solution = _solve(job, histogram, borders)
        plan, firsts = _Plan(config), first_rows(job)
        bitmap = np.zeros(-(-int(firsts[-1]) // 64), np.uint64)
        written = 0
        with BlockWriter(folder / KEPT, _KEPT) as blocks:
            for number in range(len(job.units)):
                sizes, rows, score, tokens, times, _ = _tally(job, number)
                bucket = np.searchsorted(borders, score, side="right")
                keep = solution.keeps(score, _values(job, number))
                over_quota = ~keep & (score >= np.float32(solution.threshold))
                if config.keep.buckets is not None:
                    keep = np.isin(bucket, _wanted(config))
                times = np.where(keep, times, 0)
                blocks.write(rows, times, bucket, over_quota)
                mark(bitmap, rows[times > 0] + firsts[number])
                plan.add(number, sizes, rows, times, bucket)
                written += int((times * tokens).sum())
        bitmap.tofile(folder / BITMAP)
        files = plan.finish()
        (folder / PLAN).write_text(json.dumps([asdict(file) for file in files]))
        (folder / SUMMARY).write_text(
            json.dumps(
                {
                    "keep": _rule(config, solution, borders),
                    "documents_written": sum(file.rows for file in files if not file.rejected),
                    "tokens_written": written,
                }
            )
        )
        return {}


def _tally(job: Job, unit: int) -> list[Any]:
    with reading_blocks(job, TALLY, unit, SCORES, _SCORES) as reader:
        return reader.arrays(0)


def _values(job: Job, unit: int) -> Any:
    """object[n]: the column that a quota looks at, of the survivors of an input unit; None without a quota."""
    quota = job.config.keep.quota
    if quota is None:
        return None
    numbers = _tally(job, unit)[-1]
    if quota.by == "source":
        return np.full(len(numbers), job.units[unit].source, dtype=object)
    return np.array([*job.facts(TALLY, unit)["languages"], ""], dtype=object)[numbers]


def _scored(job: Job, unit: int, *, as_written: bool = False) -> Scored:
    sizes, rows, score, tokens, times, _ = _tally(job, unit)
    return Scored(score, tokens * times if as_written else tokens, sizes[rows], _values(job, unit))


def _borders(job: Job, histogram: Histogram) -> Float32:
    """float32[buckets - 1]: the lowest score of each bucket but the first; none without buckets."""
    buckets = job.config.output.buckets
    if buckets is None:
        return np.empty(0, np.float32)

    def batches() -> Iterator[Scored]:
        return (_scored(job, unit) for unit in range(len(job.units)))

    # Rounded, or 1 - 0.9 would be a hair less than a tenth and cost the tenth its last document.
    targets = [Target("fraction", round(1 - border, 12)) for border in buckets.borders]
    return np.array([solve(target, batches, histogram=histogram).threshold for target in targets], np.float32)


def _wanted(config: FilterConfig) -> list[int]:
    buckets = config.output.buckets
    names = buckets.names if buckets else ()
    return [names.index(name) for name in config.keep.buckets or ()]


def _solve(job: Job, histogram: Histogram, borders: Float32) -> Solution:
    keep = job.config.keep
    if keep.buckets is not None:
        lowest = min(_wanted(job.config))
        at_least = Target("min_score", float(borders[lowest - 1]) if lowest else min(histogram.lowest, 0.0))
        return solve(at_least, lambda: (_scored(job, unit) for unit in range(len(job.units))), histogram=histogram)
    if keep.tokens is not None:
        target = Target("tokens", keep.tokens)
    elif keep.fraction is not None:
        target = Target("fraction", keep.fraction)
    else:
        target = Target("min_score", job.min_score)
    # A budget of tokens counts what is written: a document that is repeated uses it up several times.
    repeated = keep.tokens is not None and job.config.output.repeat is not None
    return solve(
        target,
        lambda: (_scored(job, unit, as_written=repeated) for unit in range(len(job.units))),
        histogram=None if repeated else histogram,
        by=keep.quota.by if keep.quota else None,
        quotas=keep.quota.shares if keep.quota else None,
    )


def _rule(config: FilterConfig, solution: Solution, borders: Float32) -> dict[str, Any]:
    rule: dict[str, Any] = {"min_score": solution.threshold, "tie": "score >= min_score, in float32"}
    rule["solution"] = solution.to_json()
    if config.output.buckets:
        rule["buckets"] = {"names": list(config.output.buckets.names), "borders": borders.tolist()}
        if config.keep.buckets is not None:
            rule["buckets"]["kept"] = list(config.keep.buckets)
    return rule


class _Series:
    """Output files of one kind: a file ends with the document that brings its text to `size` bytes."""

    def __init__(self, size: int, file: OutputFile) -> None:
        self._size, self._blank, self._file = size, file, file
        self._weight = 0
        self.files: list[OutputFile] = []

    def add(self, unit: int, rows: Int64, weights: Int64) -> None:
        """Append rows of an input unit."""
        total = np.cumsum(weights)
        start = 0
        while start < len(rows):
            if not self._file.rows:
                self._file = replace(self._file, first=(unit, int(rows[start])))
            before = int(total[start - 1]) if start else 0
            stop = min(int(total.searchsorted(before + self._size - self._weight)) + 1, len(rows))
            self._weight += int(total[stop - 1]) - before
            self._file = replace(self._file, stop=(unit, int(rows[stop - 1]) + 1), rows=self._file.rows + stop - start)
            if self._weight >= self._size:
                self.finish()
            start = stop

    def finish(self) -> None:
        """End the file that is begun, if any."""
        if self._file.rows:
            self.files.append(self._file)
        self._file, self._weight = self._blank, 0


class _Plan:
    """Which document goes to which output file: all that are kept in input order, then those written twice, ..."""

    def __init__(self, config: FilterConfig) -> None:
        self._config = config
        buckets = config.output.buckets
        self._folders: tuple[str | None, ...] = buckets.names if buckets and buckets.folders else (None,)
        self._kept: dict[tuple[int, int], _Series] = {}
        self._rejected = self._series(OutputFile(True, 0, (0, 0), (0, 0), 0))

    def _series(self, file: OutputFile) -> _Series:
        return _Series(self._config.output.shard_size, file)

    def add(self, unit: int, sizes: Int64, rows: Int64, times: Int64, bucket: Int64) -> None:
        """Enter an input unit: text bytes of all its rows; its survivors, how often each is written, its bucket."""
        for place, folder in enumerate(self._folders):
            here = times if folder is None else np.where(bucket == place, times, 0)
            for turn in range(int(here.max(initial=0))):
                chosen = rows[here > turn]
                blank = OutputFile(False, turn, (0, 0), (0, 0), 0, folder)
                self._kept.setdefault((place, turn), self._series(blank)).add(unit, chosen, sizes[chosen])
        if self._config.output.rejected:
            removed: Bool = np.ones(len(sizes), np.bool_)
            removed[rows[times > 0]] = False
            chosen = np.flatnonzero(removed)
            self._rejected.add(unit, chosen, sizes[chosen])

    def finish(self) -> list[OutputFile]:
        """All files, in the order of their numbers; one without documents where there would be none."""
        files = []
        for _, series in sorted(self._kept.items()):
            series.finish()
            files += series.files
        files = files or [OutputFile(False, 0, (0, 0), (0, 0), 0)]
        if self._config.output.rejected:
            self._rejected.finish()
            files += self._rejected.files or [OutputFile(True, 0, (0, 0), (0, 0), 0)]
        return files


SELECT_PHASES: tuple[Phase, ...] = (Tally(), Select(), Fingerprints(), KeptSets())


def decisions(job: Job, unit: int) -> Decisions:
    """What becomes of the documents of an input unit.

    Raises:
        DamagedError: a file of an earlier phase is missing or damaged.
    """
    found = verdicts(job, unit)
    with reading_blocks(job, SELECT, 0, KEPT, _KEPT) as reader:
        rows, times, bucket, over_quota = reader.arrays(unit)
    n = len(found.renamed)
    every = np.zeros(n, np.int64)
    every[rows] = times
    buckets = job.config.output.buckets
    names = None
    if buckets:
        column = np.full(n, None, dtype=object)
        column[rows] = np.array(buckets.names, dtype=object)[bucket]
        names = pa.array(column, pa.string())
    reason = np.array(found.reason.to_numpy(zero_copy_only=False), dtype=object)
    stays = found.reason.is_null().to_numpy(zero_copy_only=False)
    reason[stays & (every == 0)] = "low_score" if job.config.keep.buckets is None else "other_bucket"
    reason[rows[over_quota != 0]] = "over_quota"
    return Decisions(replace(found, reason=pa.array(reason, pa.string())), every, names)


def output_files(job: Job) -> list[OutputFile]:
    """The plan of the output files: kept ones in the order of their numbers, then rejected ones.

    Raises:
        DamagedError: it is missing or damaged.
    """
    files = json.loads(job.file(SELECT, 0, PLAN).read_text())
    return [OutputFile(**file | {"first": tuple(file["first"]), "stop": tuple(file["stop"])}) for file in files]


def summary(job: Job) -> dict[str, Any]:
    """For the manifest: keep (the rule, solved), documents_written, tokens_written, dedup.

    Raises:
        DamagedError: a file of an earlier phase is missing or damaged.
    """
    found: dict[str, Any] = json.loads(job.file(SELECT, 0, SUMMARY).read_text())
    return found | {"dedup": dedup_summary(job) | {"source_losses": losses(job)}}
