"""Select: which of the documents that survive deduplication are kept, how often, and in which output file.

tally       a unit for each input unit: what selecting needs to know of its survivors, in few bytes
select      one unit: the threshold solved, what is kept, and the plan of the output files
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from filters.arrays import Bool, Float32, Int64
from filters.config.filter import FilterConfig
from filters.dedup.bands import reading_blocks
from filters.dedup.clusters import Verdicts, dedup_summary, survivors, times_written, unique_ids, verdicts
from filters.dedup.earlier_runs import BITMAP, SELECT, Fingerprints, KeptSets
from filters.dedup.losses import losses
from filters.kernels.pairs import mark
from filters.phases.blocks import BlockWriter
from filters.phases.phase import Job, Phase
from filters.phases.rows import SLICE, first_rows, read_rows, rule_of, slice_names
from filters.scores.histogram import Histogram
from filters.scores.hosts import hosts
from filters.scores.rules import Rule, rule_line
from filters.scores.threshold import Scored, Solution, Target, solve

TALLY = "tally"
SCORES, KEPT, PLAN, SUMMARY = "scores.bin", "kept.bin", "files.json", "summary.json"
_SCORES = ["<i8", "<i8", "<f4", "<i8", "<i8", "<i8", "|b1", "<f4"]
_KEPT = ["<i8", "<i8", "|i1", "|i1"]
_SHARDS, _SMALLEST, _LARGEST = 16, 64 * 2**20, 512 * 2**20
"""Into how many shards a run is cut that does not say how large they are, and the least and the most text of one."""
_REASONS = ("low_score", "over_quota", "rule", "low_rank", "other_bucket")
"""Why a survivor is not kept, by the number that stands for it in kept.bin."""
_LOW_SCORE, _OVER_QUOTA, _RULE, _LOW_RANK, _OTHER_BUCKET = range(5)


@dataclass(frozen=True, slots=True)
class Decisions:
    """What becomes of the n rows of an input unit.

    Attributes:
        verdicts: of deduplication; the reason is also "low_score", "low_rank", "over_quota", "other_bucket" or "rule"
            where the keep rule removes.
        copies: int64[n], how many times the document is written; 0 for removed ones.
        bucket: string[n], name of its bucket, null for what is no survivor; None where there are no buckets.
    """

    verdicts: Verdicts
    copies: Int64
    bucket: pa.Array | None


@dataclass(frozen=True, slots=True)
class OutputFile:
    """An output file of documents, as a stretch of the run in input order.

    Attributes:
        rejected: a file of removed documents instead of kept ones.
        turn: the file takes the documents that are to be written more than `turn` times (0: all that are kept).
        first: (input unit, row in it) of the first row of the stretch.
        stop: (input unit, row) behind its last row.
        rows: documents in the file.
        bucket: the file takes documents of this bucket only, and lies in its folder; None: of all.
    """

    rejected: bool
    turn: int
    first: tuple[int, int]
    stop: tuple[int, int]
    rows: int
    bucket: str | None = None


class Tally:
    """scores.bin: text bytes of all rows; of the survivors row, score, tokens, times to write, and language; with a
    rule whether it keeps them, and with `keep.by` what they are ranked by.

    Facts: languages, by the numbers that stand for them in the file; held, of how many survivors each part of
    `keep.where` is true.
    """

    name = TALLY

    def units(self, job: Job) -> int:
        """The units of the input."""
        return len(job.units)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Look at the survivors of an input unit."""
        repeat = job.config.output.repeat
        rule = rule_of(job.config, job.scores)
        columns = ["bytes", "score", "tokens", "language", "reason"]
        columns += ["id"] * (repeat is not None or rule is not None)
        if rule is not None:
            columns += ["url", "position", "language_score", *job.scores, *(SLICE + name for name in job.config.slices)]
        about = read_rows(job, unit, columns)
        stay, sizes = survivors(job, unit, about["reason"].is_null().to_numpy())
        score = about["score"].to_numpy(zero_copy_only=False).astype(np.float32)
        stay &= ~np.isnan(score)  # a document whose score is not a number is never kept
        rows = np.flatnonzero(stay)
        taken = about.take(pa.array(rows))
        tokens = taken["tokens"].to_numpy().astype(np.int64)
        times = np.ones(len(rows), np.int64)
        if "id" in columns:
            ids = unique_ids(job, unit, taken["id"].combine_chunks(), rows)
            taken = taken.set_column(taken.column_names.index("id"), "id", ids)
        if repeat:
            times = times_written(repeat, sizes[rows], score[rows], taken["id"].combine_chunks())
        fits, rank, held = np.empty(0, np.bool_), np.empty(0, np.float32), []
        if rule is not None:
            names = dict(zip(job.config.slices, slice_names(job.config.slices), strict=True))
            decided = rule.decide(rule_table(rule, taken, job.units[unit].source, sizes[rows], names))
            fits, held = decided.keeps, decided.held
            rank = rank if decided.values is None else decided.values
        encoded = taken["language"].combine_chunks().fill_null("").dictionary_encode()
        languages = encoded.dictionary.to_pylist() if len(rows) else []
        numbers = encoded.indices.to_numpy() if len(rows) else np.empty(0, np.int64)
        with BlockWriter(folder / SCORES, _SCORES) as blocks:
            blocks.write(about["bytes"].to_numpy(), rows, score[rows], tokens, times, numbers, fits, rank)
        return {"languages": languages, "held": held}


def rule_table(rule: Rule, rows: pa.Table, source: str, sizes: Int64, slices: Mapping[str, str]) -> pa.Table:
    """What a rule looks at, of rows of rows.arrow.

    Args:
        rule: whose columns are needed.
        rows: with unique ids.
        source: their input file.
        sizes: int64[n], documents in the cluster of each.
        slices: column of `input.slices` -> its name in the side files.
    """
    columns = {name: rows[name] for name in rows.column_names if not name.startswith(SLICE)}
    columns |= {name: rows[SLICE + column] for column, name in slices.items()}
    columns |= {"source": pa.repeat(pa.scalar(source), rows.num_rows), "cluster_size": pa.array(sizes)}
    if "host" in rule.columns:
        columns["host"] = hosts(rows["url"].combine_chunks()) if rows.num_rows else pa.array([], pa.string())
    return pa.table({name: columns[name] for name in rule.columns})


class Select:
    """kept.bin: a block for each input unit with its survivors: row, times to write (0: not kept), bucket,
    and why it is not kept, a number in `_REASONS`.

    kept.bits: a bit for each document of the run, set where it is kept. files.json: the plan of the output files.
    summary.json: the keep rule, solved, and what it writes.
    """

    name = SELECT

    def units(self, job: Job) -> int:
        """One unit."""
        return 1

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Solve the threshold, then go through the survivors once more."""
        config = job.config
        histogram, text_bytes = Histogram(), 0
        for number in range(len(job.units)):
            found = _Tallied(job, number)
            histogram.add(found.score, tokens=found.tokens, text_bytes=found.text_bytes)
            text_bytes += int(found.text_bytes.sum())
        borders = _borders(job, histogram)
        solution = _solve(job, histogram, borders)
        plan, firsts = _Plan(config, text_bytes), first_rows(job)
        bitmap = np.zeros(-(-int(firsts[-1]) // 64), np.uint64)
        written = 0
        with BlockWriter(folder / KEPT, _KEPT) as blocks:
            for number in range(len(job.units)):
                found = _Tallied(job, number)
                bucket = np.searchsorted(borders, found.score, side="right")
                keep = solution.keeps(found.rank, found.values())
                low = _LOW_SCORE if config.keep.by is None else _LOW_RANK
                why = np.where(found.rank >= np.float32(solution.threshold), _OVER_QUOTA, low)
                if config.keep.buckets is not None:
                    keep, why = np.isin(bucket, _wanted(config)), np.full(len(keep), _OTHER_BUCKET)
                keep, why = keep & found.fits, np.where(found.fits, why, _RULE)
                times = np.where(keep, found.times, 0)
                blocks.write(found.rows, times, bucket, why)
                mark(bitmap, found.rows[times > 0] + firsts[number])
                plan.add(number, found.sizes, found.rows, times, bucket)
                written += int((times * found.tokens).sum())
        bitmap.tofile(folder / BITMAP)
        files = plan.finish()
        (folder / PLAN).write_text(json.dumps([asdict(file) for file in files]))
        (folder / SUMMARY).write_text(
            json.dumps(
                {
                    "keep": _rule(job, solution, borders, histogram),
                    "documents_written": sum(file.rows for file in files if not file.rejected),
                    "tokens_written": written,
                }
            )
        )
        return {}


class _Tallied:
    """What the phase `tally` wrote of an input unit.

    Attributes:
        sizes: int64[rows of the unit], bytes of text.
        rows, score, tokens, times: [n], of the survivors.
        text_bytes: int64[n].
        fits: bool[n], whether the rule keeps them; true without one.
        rank: float32[n], what they are ranked by; NaN: they have no rank.
    """

    def __init__(self, job: Job, unit: int) -> None:
        with reading_blocks(job, TALLY, unit, SCORES, _SCORES) as reader:
            self.sizes, self.rows, self.score, self.tokens, self.times, self._languages, fits, rank = reader.arrays(0)
        self._job, self._unit, keep = job, unit, job.config.keep
        ruled = keep.where is not None or keep.by is not None
        self.fits: Bool = fits if ruled else np.ones(len(self.rows), np.bool_)
        self.rank: Float32 = rank if keep.by is not None else self.score
        self.text_bytes: Int64 = self.sizes[self.rows]

    def values(self) -> Any:
        """object[n]: the column that a quota looks at; None without a quota."""
        quota = self._job.config.keep.quota
        if quota is None:
            return None
        if quota.by == "source":
            return np.full(len(self.rows), self._job.units[self._unit].source, dtype=object)
        return np.array([*self._job.facts(TALLY, self._unit)["languages"], ""], dtype=object)[self._languages]

    def scored(self, *, as_written: bool = False) -> Scored:
        """What may be kept, by its rank."""
        tokens = self.tokens * self.times if as_written else self.tokens
        chosen = self.fits & ~np.isnan(self.rank)
        values = self.values()
        return Scored(
            self.rank[chosen], tokens[chosen], self.text_bytes[chosen], None if values is None else values[chosen]
        )


def _borders(job: Job, histogram: Histogram) -> Float32:
    """float32[buckets - 1]: the lowest score of each bucket but the first; none without buckets."""
    buckets = job.config.output.buckets
    if buckets is None:
        return np.empty(0, np.float32)

    def batches() -> Iterator[Scored]:
        found = (_Tallied(job, unit) for unit in range(len(job.units)))
        return (Scored(some.score, some.tokens, some.text_bytes) for some in found)

    # Rounded, or 1 - 0.9 would be a hair less than a tenth and cost the tenth its last document.
    targets = [Target("fraction", round(1 - border, 12)) for border in buckets.borders]
    return np.array([solve(target, batches, histogram=histogram).threshold for target in targets], np.float32)


def _wanted(config: FilterConfig) -> list[int]:
    buckets = config.output.buckets
    names = buckets.names if buckets else ()
    return [names.index(name) for name in config.keep.buckets or ()]


def _solve(job: Job, histogram: Histogram, borders: Float32) -> Solution:
    keep = job.config.keep
    everything = min(histogram.lowest, 0.0)
    if keep.buckets is not None:
        lowest = min(_wanted(job.config))
        target = Target("min_score", float(borders[lowest - 1]) if lowest else everything)
    elif keep.tokens is not None:
        target = Target("tokens", keep.tokens)
    elif keep.fraction is not None:
        target = Target("fraction", keep.fraction)
    elif keep.where is not None and keep.min_score is None:
        target = Target("min_score", everything)
    else:
        target = Target("min_score", job.min_score)
    # A budget of tokens counts what is written: a document that is repeated uses it up several times.
    repeated = keep.tokens is not None and job.config.output.repeat is not None
    other = repeated or keep.where is not None or keep.by is not None
    return solve(
        target,
        lambda: (_Tallied(job, unit).scored(as_written=repeated) for unit in range(len(job.units))),
        histogram=None if other else histogram,
        by=keep.quota.by if keep.quota else None,
        quotas=keep.quota.shares if keep.quota else None,
    )


def _rule(job: Job, solution: Solution, borders: Float32, histogram: Histogram) -> dict[str, Any]:
    config, rule = job.config, rule_of(job.config, job.scores)
    rank = config.keep.by is not None
    found: dict[str, Any] = {
        "min_score": min(histogram.lowest, 0.0) if rank else solution.threshold,
        "tie": "score >= min_score, in float32",
        "solution": solution.to_json(),
    }
    if rule is not None:
        held = np.array([job.facts(TALLY, unit)["held"] for unit in range(len(job.units))], np.int64)
        held = held.reshape(len(job.units), len(rule.parts))
        found["rule"] = {
            "where": rule.where,
            "by": rule.by,
            "documents": histogram.total(),
            "parts": [
                {"where": part, "documents": int(count)}
                for part, count in zip(rule.parts, held.sum(axis=0).tolist(), strict=True)
            ],
            "lists": {path: rule.read(path).sha256 for path in rule.lists},
        }
    if config.output.buckets:
        found["buckets"] = {"names": list(config.output.buckets.names), "borders": borders.tolist()}
        if config.keep.buckets is not None:
            found["buckets"]["kept"] = list(config.keep.buckets)
    return found


def shard_bytes(config: FilterConfig, text_bytes: float) -> int:
    """Bytes of text of a shard, given those behind deduplication."""
    return config.output.shard_size or int(min(max(text_bytes // _SHARDS, _SMALLEST), _LARGEST))


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
    """Which document goes to which output file: all that are kept in input order, then those written twice, ...

    Args:
        config: of the run.
        text_bytes: of the survivors of deduplication.
    """

    def __init__(self, config: FilterConfig, text_bytes: int) -> None:
        self._config = config
        self._size = shard_bytes(config, text_bytes)
        buckets = config.output.buckets
        self._folders: tuple[str | None, ...] = buckets.names if buckets and buckets.folders else (None,)
        self._kept: dict[tuple[int, int], _Series] = {}
        self._rejected = self._series(OutputFile(True, 0, (0, 0), (0, 0), 0))

    def _series(self, file: OutputFile) -> _Series:
        return _Series(self._size, file)

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
        rows, times, bucket, why = reader.arrays(unit)
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
    # Those whose score is not a number, too.
    reason[stays & (every == 0)] = "low_score" if job.config.keep.buckets is None else "other_bucket"
    gone = times == 0
    reason[rows[gone]] = np.array(_REASONS, dtype=object)[why[gone]]
    return Decisions(replace(found, reason=pa.array(reason, pa.string())), every, names)


def check_kept(job: Job, notice: Callable[[str], None]) -> None:
    """Say so where nothing is kept because of `keep.where`, and how many documents each part of it is true of.

    Raises:
        DamagedError: a file of the phase `select` is missing or damaged.
    """
    found = summary_of_select(job)
    rule = found["keep"].get("rule")
    if rule is not None and rule["documents"] and not found["documents_written"]:
        notice(f"nothing is kept: {rule_line(rule, found['keep']['solution']['total']['documents'])}")


def summary_of_select(job: Job) -> dict[str, Any]:
    """For the manifest: keep (the rule, solved), documents_written, tokens_written.

    Raises:
        DamagedError: it is missing or damaged.
    """
    found: dict[str, Any] = json.loads(job.file(SELECT, 0, SUMMARY).read_text())
    return found


def output_files(job: Job) -> list[OutputFile]:
    """The plan of the output files: kept ones in the order of their numbers, then rejected ones.

    Raises:
        DamagedError: it is missing or damaged.
    """
    files = json.loads(job.file(SELECT, 0, PLAN).read_text())
    return [OutputFile(**file | {"first": tuple(file["first"]), "stop": tuple(file["stop"])}) for file in files]


def of_deduplication(job: Job) -> dict[str, Any]:
    """For the manifest: what deduplication met.

    Raises:
        DamagedError: a file of an earlier phase is missing or damaged.
    """
    return dedup_summary(job) | {"source_losses": losses(job)}
