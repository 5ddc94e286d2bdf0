"""Views of a run for a terminal, in colour or piped, at 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from filters.inspect.thresholds import scale
from filters.scores.histogram import HIGH, LOW, Histogram, SlicedHistogram, nearest_edge
from filters.scores.rules import rule_line
from filters.terminal import BAR, BLOCKS, path_end, printable, short

if TYPE_CHECKING:
    from filters.inspect.compare import RunDrift
    from filters.inspect.extrapolate import SampleInterval
    from filters.inspect.leaks import Leaks
    from filters.inspect.query import Cell
    from filters.inspect.reading import ReadingResult
    from filters.inspect.samples import ShownDocument
    from filters.inspect.thresholds import Interval, WhatIf
    from filters.scores.finished_run import Ruled
    from filters.scores.summary import Clusters, Groups
    from filters.scores.threshold import Solution, Weights

T = TypeVar("T")
SOURCE, NAME, CURVE, SPARK = 36, 20, 10, 10
"""Characters of an input file, of a value, of a bar beside numbers, and of a histogram in a line."""
DRIFTS = 15
CROSSED = 12, 10
"""Values of the first column that a table of two shows, and of the second column for each."""
HEIGHTS, ASCII_HEIGHTS = " ▁▂▃▄▅▆▇█", " .:-=+*#%"
SIZE_CLASSES = ((2, 2), (3, 3), (4, 5), (6, 10), (11, 100), (101, 1000), (1001, 0))
"""Sizes of clusters that are counted together; the last class is open."""
FEW = 200
"""Documents below which half as many bars are enough."""


def histogram_view(
    histogram: Histogram,
    min_score: float,
    bins: int | None = None,
    weight: str = "documents",
    *,
    unicode: bool = True,
    name: str = "scores",
) -> RenderableType:
    """Bars of equal bins of the scores' scale; the bin the threshold falls in is marked. Without `unicode`, of "#".

    Without `bins` there are 20, or 10 for few documents.
    """
    high = scale(histogram, min_score)
    if bins is None or (high == 1 and bins > 100):
        bins = 20 if histogram.total() >= FEW else 10
    counts = histogram.coarse(bins, weight, high)
    total, top = int(counts.sum()), int(counts.max(initial=0))
    width = (high - LOW) / bins
    lines = [_bold(f"{name} of {total:,} {weight} that survived deduplication")]
    mark = f" < keep >= {min_score:.4g}"
    count_width = max(9, len(f"{top:,}"))
    bar_width = min(BAR, 80 - 6 - 1 - count_width - 7 - len(mark))
    for number, count in enumerate(counts.tolist()):
        low = LOW + number * width
        bar = _bar(count / top if top else 0.0, bar_width, unicode)
        line = Text(f"{low:5.2f} ", style="dim")
        line.append(f"{bar:<{bar_width}}", style="green" if low >= min_score else "yellow")
        line.append(f" {count:>{count_width},} {count / total if total else 0:6.1%}")
        line.append(mark if low <= min_score < low + width + 1e-9 * (number + 1 == bins) else "", style="bold")
        lines.append(line)
    return Group(*lines)


def what_if_view(rows: Sequence[WhatIf], min_score: float, *, unicode: bool = True) -> RenderableType:
    """What each threshold would keep, as a curve of the share of documents beside the numbers."""
    columns = ">=", "documents", "share", "", "tokens", "share", "mean", "precision", "recall"
    table = _table("what a threshold keeps", *columns, left=0)
    marked = nearest_edge(min_score)
    for row in rows:
        table.add_row(
            f"{row.min_score:g}",
            f"{row.documents:,}",
            f"{row.document_share:.1%}",
            _bar(row.document_share, CURVE, unicode),
            short(row.tokens),
            f"{row.token_share:.1%}",
            "" if row.mean_score is None else f"{row.mean_score:.2f}",
            _span(row.precision, unicode),
            _span(row.recall, unicode),
            style="bold" if nearest_edge(row.min_score) == marked else None,
        )
    if not any(row.documents for row in rows):
        return table
    if any(row.precision for row in rows):
        note = "precision, recall: expected share the judge would keep, from the model's own evaluation"
    else:
        note = "precision, recall: this model does not say what its scores are worth (finesieve train does)"
    return Group(table, _dim(note))


def rule_view(ruled: Ruled) -> RenderableType:
    """What a rule keeps, and how many documents each part of its condition is true of."""
    what = "is true of" if ruled.where else "can be ranked:"
    lines = [
        _bold(f"where {printable(ruled.where, 400)}" if ruled.where else "every document"),
        Text(f"  {what} {_of(ruled.fits, ruled.total)}"),
    ]
    if len(ruled.parts) > 1:
        lines += [Text(f"  {count:>15,}  {printable(part, 200)}") for part, count in ruled.parts]
    return Group(*lines)


def solution_view(solution: Solution, estimate: SampleInterval | None = None) -> RenderableType:
    """A solved threshold: what it keeps, and the group of equal scores it had to decide about."""
    tied, tie = solution.at_threshold.documents, solution.tie
    if not solution.total.documents:
        return _bold(f"keep {solution.target}: no document of this run has a score")
    what = "score" if solution.target.by is None else "it is"
    lines = [
        _bold(f"keep {printable(str(solution.target), 400)}: {what} >= {solution.threshold!r}"),
        Text(f"  keeps {_of(solution.kept, solution.total)}"),
    ]
    if tied:
        has, are = ("has", "is") if tied == 1 else ("have", "are")
        lines.append(Text(f"  {tied:,} {has} precisely that score, and {are} kept"))
    if tie is not None:
        group = f"{tie.weights.documents:,} at {tie.score!r} ({short(tie.weights.tokens)} tokens)"
        lines.append(Text(f"  next below: {group}, too many; dropped whole"))
    for value, part in solution.quotas.items():
        full = value in solution.thresholds
        what = f"quota full at score >= {solution.thresholds[value]:.6g}" if full else "quota not reached"
        kept = f"{part.documents:,} documents, {short(part.tokens)} tokens"
        lines.append(Text(f"  {printable(value, 24)}: {kept}; {what}"))
    if estimate is not None:
        one, documents, tokens, distinct = estimate.threshold, estimate.documents, estimate.tokens, estimate.distinct
        lines.append(
            Text(
                f"  of the whole (this run is {estimate.share:g} of it), 95 % intervals over {estimate.resampled}:\n"
                f"    threshold there {one.value:.3f} [{one.low:.3f}, {one.high:.3f}]; this one keeps\n"
                f"    documents {short(documents.value)} [{short(documents.low)}, {short(documents.high)}], "
                f"tokens {short(tokens.value)} [{short(tokens.low)}, {short(tokens.high)}]\n"
                f"    share that is no copy of what this run lacks {distinct.value:.2f} [{distinct.low:.2f}, "
                f"{distinct.high:.2f}]\n"
                "    not covered: files unlike these; copies more frequent at some scores;\n"
                "    few documents kept here; a few very long pages with most tokens"
            )
        )
    return Group(*lines)


def slices_view(
    by: str, slices: Mapping[str | None, Histogram], min_score: float, *, unicode: bool = True, hidden: int = 0
) -> RenderableType:
    """A line for each slice: how much, how good, and its histogram in small."""
    table = _table(f"by {printable(by, 40)}", by, "documents", "tokens", "median", "mean", "kept")
    high = max((scale(part, min_score) for part in slices.values()), default=HIGH)
    table.add_column(f"scores 0-{high:g}", width=SPARK, no_wrap=True)
    for value, histogram in slices.items():
        total = histogram.total()
        table.add_row(
            _value(value),
            f"{total:,}",
            short(histogram.total("tokens")),
            f"{histogram.quantile(0.5):.2f}",
            f"{histogram.mean_at_least(LOW):.2f}",
            f"{histogram.at_least(min_score) / max(total, 1):.1%}",
            sparkline(histogram.coarse(SPARK, top=high), unicode=unicode),
        )
    return Group(table, _dim(f"... {hidden:,} smaller ones")) if hidden > 0 else table


def cross_view(columns: tuple[str, str], cells: Sequence[Cell], scores: Sequence[str]) -> RenderableType:
    """Two columns: the largest values of the first, and for each the largest of the second; scores ascend."""
    title = f"by {printable(columns[0], 30)} and {printable(columns[1], 30)}"
    table = _table(title, *columns, "documents", "kept", "share", "mean", left=2)
    rows: dict[str | None, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.values[0], []).append(cell)
    by_size = sorted(rows.values(), key=lambda row: -sum(cell.documents for cell in row))[: CROSSED[0]]
    for row in _ascending(by_size, columns[0] in scores, lambda row: row[0].values[0]):
        shown = _ascending(row[: CROSSED[1]], columns[1] in scores, lambda cell: cell.values[1])
        for number, cell in enumerate(shown):
            counts = f"{cell.documents:,}", f"{cell.kept:,}", f"{cell.kept_share:.1%}", f"{cell.mean_score:.2f}"
            table.add_row("" if number else _value(cell.values[0]), _value(cell.values[1]), *counts)
    hidden = len(cells) - table.row_count
    return Group(table, _dim(f"... {hidden:,} smaller ones; --json has all")) if hidden else table


def _ascending(items: list[T], ordered: bool, value: Callable[[T], str | None]) -> list[T]:
    return sorted(items, key=lambda item: value(item) or "") if ordered else items


def groups_view(groups: Groups, count: int, *, least: int = 5) -> RenderableType:
    """The largest, best and worst values of a column with many, such as hosts."""
    by = groups.by
    parts: list[RenderableType] = []
    views = [
        (f"{by}s with most documents ({len(groups):,} {by}s in all)", groups.largest(count)),
        (f"best {by}s, of those with {least} documents or more", groups.ranked(count, best=True, least=least)),
        (f"worst {by}s", groups.ranked(count, best=False, least=least)),
    ]
    for title, rows in views:
        if not rows:
            continue
        table = _table(title, by, "documents", "kept", "share", "mean", width=SOURCE, least=9)
        table.show_header = not parts
        for row in rows:
            counts = f"{row.survivors:,}", f"{row.kept:,}", f"{row.keep_rate:.1%}", f"{row.mean_score:.2f}"
            table.add_row(path_end(row.value, SOURCE), *counts)
        parts.append(table)
    return Group(*parts)


def clusters_view(clusters: Clusters, *, unicode: bool = True) -> RenderableType:
    """Clusters of duplicates by size."""
    if not len(clusters):
        return Text("no duplicates were found")
    lines = [_bold(f"{len(clusters):,} clusters of duplicates; {clusters.copies:,} copies removed")]
    counts = {}
    for low, high in SIZE_CLASSES:
        name = f"{low:,}" if low == high else f"{low:,}-{high:,}" if high else f"{low:,}+"
        counts[name] = sum(n for size, n in clusters.sizes.items() if size >= low and (not high or size <= high))
    for name, count in counts.items():
        if count:
            bar = _bar(count / max(counts.values()), BAR, unicode)
            lines.append(Text(f"  {name:>9} documents  {bar:<{BAR}} {count:>9,}"))
    return Group(*lines)


def sparkline(counts: npt.NDArray[np.int64], *, unicode: bool = True) -> str:
    """A character for each count, higher for more; on a square-root scale, so that small ones are seen."""
    levels = HEIGHTS if unicode else ASCII_HEIGHTS
    top = int(counts.max(initial=0))
    if not top:
        return levels[0] * len(counts)
    # A bar of a value above zero is never empty.
    heights = np.ceil(np.sqrt(counts / top) * (len(levels) - 1)).astype(int)
    return "".join(levels[height] for height in heights)


def ledger_view(manifest: Mapping[str, Any], sources: int = 8) -> RenderableType:
    """The ledger of a manifest: the files with most records, the sum, and why records were not kept."""
    ledger = manifest["ledger"]
    columns = "input file", "in", "kept", "removed", "quarantined"
    table = _table("ledger: in = kept + removed + quarantined", *columns, width=SOURCE)
    accounts = sorted(ledger["sources"].items(), key=lambda item: -item[1]["records"])
    for name, account in accounts[:sources]:
        table.add_row(path_end(name, SOURCE), *_sums(account))
    if len(accounts) > sources:
        table.add_row(f"... {len(accounts) - sources:,} more input files", style="dim")
    total = ledger["total"]
    table.add_row("all input files", *_sums(total), style="bold")
    why = [(count, f"removed: {reason}") for reason, count in total["removed"].items()]
    why += [(count, f"quarantined: {cause}") for cause, count in total["quarantined"].items()]
    lines = [Text(f"  {count:>9,}  {printable(text, 67)}") for count, text in sorted(why, key=lambda item: -item[0])]
    notes = [
        (total["skipped"], "records that are no documents by their kind (beside the ledger)"),
        (total["renamed"], "documents whose id was taken already, and got a suffix"),
    ]
    lines += [_dim(f"  {count:>9,}  {note}") for count, note in notes if count]
    if count := unmeasured(manifest):
        what = f"  {count:>9,}  scored in languages that the model was not measured on (inspect --by language)"
        warn = manifest["config"]["language"].get("unmeasured") == "warn"
        lines.append(Text(f"warning: {what.strip()}", style="bold") if warn else _dim(what))
    return Group(table, *lines)


def unmeasured(manifest: Mapping[str, Any]) -> int:
    """Scored documents whose identified language is none that the model was measured on."""
    measured = manifest["model"].get("languages")
    if not measured or not manifest["config"].get("language"):
        return 0
    sliced = SlicedHistogram.from_json("language", manifest["histograms"]["language"])
    return sum(int(sliced[value].total()) for value in sliced if value not in (None, "", *measured))


def _sums(account: dict[str, Any]) -> Iterable[str]:
    sums = (account["records"], account["kept"], sum(account["removed"].values()), sum(account["quarantined"].values()))
    return (f"{number:,}" for number in sums)


def comparison_view(found: RunDrift, names: tuple[str, str]) -> RenderableType:
    """What differs between two runs, the drifted first."""
    parts: list[RenderableType] = []
    if found.models[0] != found.models[1]:
        parts.append(_bold("the runs were scored by different models: their scores need not mean the same"))
    columns = "slice", "documents", "other", "mean", "other", "kept", "other", "PSI", "KS"
    table = _table(f"this run against {path_end(names[1], 50)}", *columns)
    slices = sorted(found.slices, key=lambda drift: (-(drift.psi or 0.0), -sum(drift.documents)))
    for drift in (found.total, *slices[:DRIFTS]):
        over = found.is_over(drift)
        table.add_row(
            ("* " if over else "") + ("all" if drift.by is None else printable(drift.name, NAME - 2)),
            *(short(count) for count in drift.documents),
            *("" if mean is None else f"{mean:.2f}" for mean in drift.mean),
            *("" if kept is None else f"{kept:.1%}" for kept in drift.kept),
            "few" if drift.psi is None else f"{drift.psi:.3f}",
            "" if drift.ks is None else f"{drift.ks:.3f}",
            style="bold" if over else None,
        )
    parts.append(table)
    if len(slices) > DRIFTS:
        parts.append(_dim(f"... {len(slices) - DRIFTS:,} slices that drifted less"))
    parts += [Text(f"mix of {by}: PSI {psi:.3f}") for by, psi in found.mix_psi.items()]
    for drift in (found.total, *found.slices):
        for constant, name in zip(drift.constant, names, strict=True):
            if constant:
                parts.append(_bold(f"near-constant scores: {printable(drift.name, 40)} in {path_end(name, 30)}"))
    parts.append(_bold(f"hosts that moved, of {found.common_hosts:,} with 20 documents or more in both"))
    for moved in found.hosts:
        means = f"mean {moved.mean[1]:.2f} -> {moved.mean[0]:.2f}"
        kept = f"kept {moved.keep_rate[1]:.1%} -> {moved.keep_rate[0]:.1%}"
        parts.append(Text(f"  {path_end(moved.host, 34):<34} {means}, {kept}"))
    drifted = found.drifted
    verdict = f"drift over PSI {found.max_psi:g}: {'; '.join(drifted[:5])}" if drifted else (
        f"no drift over PSI {found.max_psi:g}")  # fmt: skip
    return Group(*parts, _bold(printable(verdict, 400)))


def leaks_view(found: Leaks, *, unicode: bool = True) -> RenderableType:
    """Share of documents that repeat a benchmark, by score."""
    about = found.benchmark
    if found.complete:
        scope = f"examined: all {found.examined:,} documents that survived deduplication"
    else:
        scope = (
            f"examined: {found.examined:,} of {found.survivors:,} documents that survived deduplication, those whose "
            "text the run holds (for all of them filter with output.rejected: true)"
        )
    short_items = f", of which {about['too_short']:,} are too short to be found" if about["too_short"] else ""
    lines = [
        _bold(f"documents with {found.size} words in a row of {path_end(about['path'], 40)}"),
        _dim(f"  {about['items']:,} items{short_items}; {about['ngrams']:,} different n-grams"),
        _dim(f"  {scope}"),
    ]
    if about["left_out"]:
        lines.append(_dim(f"  no items: columns {printable(', '.join(about['left_out']), 60)} (instructions)"))
    if about["frequent"] or found.common:
        common = f"{about['frequent']:,} n-grams of many items, {found.common:,} of many documents"
        lines.append(_dim(f"  passed over: {common}"))
    worst = max((bucket.leaked / bucket.examined for bucket in found.buckets), default=0.0)
    for bucket in found.buckets:
        share = bucket.leaked / bucket.examined
        bar = f"{_bar(share / worst if worst else 0.0, CURVE * 2, unicode):<{CURVE * 2}}"
        lines.append(Text(f"{bucket.low:5.2f} {bar} {bucket.leaked:>9,} of {bucket.examined:>11,} {share:8.3%}"))
    lines.append(_bold(f"leaked: {found.leaked:,} in all, {found.kept[1]:,} of the {found.kept[0]:,} kept"))
    lines += [Text(f"  {score:.2f}  {printable(name, 70)}") for score, name in found.ids]
    if found.leaked:
        lines.append(_dim("to drop them, filter with decontaminate: {files: [...]}"))
    return Group(*lines)


def text_view(text: str, lines: int = 30, width: int = 78) -> Text:
    """A page to read: its lines, safe to show, folded, and cut after `lines`."""
    shown: list[str] = []
    for line in text.splitlines():
        clean = printable(line, 2000)
        shown += textwrap.wrap(clean, width) if clean else [""] * (not shown or shown[-1] != "")
        if len(shown) > lines:
            return Text("\n".join([*shown[:lines], "[...]"]))
    return Text("\n".join(shown))


def reading_view(found: ReadingResult) -> RenderableType:
    """How far a reader agrees with the model, with 95 % Wilson intervals."""
    lines = [
        _bold(f"{found.judge} and the model agree on {found.total} of the documents read"),
        *(Text(f"  {name + ' the threshold':<27} {share}") for name, share in found.strata.items()),
        Text(f"  of those the model keeps, the reader keeps {found.kept_rightly}"),
        Text(f"  of those the model drops, the reader drops {found.dropped_rightly}"),
    ]
    if found.total.total < found.drawn:
        lines.append(_bold(f"{found.drawn - found.total.total} left to read; the same command goes on"))
    if found.without_text:
        without = f"{found.without_text:,}"
        lines.append(Text(f"passed over, because the run holds no text of them (output.rejected): {without}"))
    return Group(*lines)


def extremes_view(title: str, documents: Iterable[ShownDocument]) -> RenderableType:
    """Documents with score, origin and the beginning of their text."""
    lines = [_bold(title)]
    for document in documents:
        lines.append(Text(f"{document.score:5.2f}  {printable(document.origin, 71)}"))
        if document.text is not None:
            lines.append(_dim(f"       {printable(document.text, 72)}"))
    return Group(*lines)


def _table(title: str, *columns: str, left: int = 1, width: int = NAME, least: int = 0) -> Table:
    """A table without lines; its first columns are of one width and stand to the left, numbers to the right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, name in enumerate(columns):
        if number < left or not name:
            table.add_column(printable(name, NAME), no_wrap=True, width=width if name else None)
        else:
            table.add_column(name, no_wrap=True, justify="right", min_width=least)
    return table


def _bold(text: str) -> Text:
    return Text(text, style="bold")


def _dim(text: str) -> Text:
    return Text(text, style="dim")


def _value(value: str | None) -> str:
    return "(none)" if value is None else printable(value, NAME)


def _of(part: Weights, total: Weights) -> str:
    return (
        f"{part.documents:,} of {total.documents:,} documents ({part.documents / max(total.documents, 1):.2%}), "
        f"{short(part.tokens)} of {short(total.tokens)} tokens ({part.tokens / max(total.tokens, 1):.2%})"
    )


def _bar(share: float, width: int, unicode: bool) -> str:
    eighths = round(share * width * 8)
    if not unicode:
        return "#" * round(eighths / 8)
    full, part = divmod(eighths, 8)
    return BLOCKS[8] * full + BLOCKS[part].strip()


def _span(interval: Interval | None, unicode: bool) -> str:
    if interval is None:
        return ""
    return f"{interval.value:.2f}{'±' if unicode else '+-'}{(interval.high - interval.low) / 2:.2f}"


def decided(manifest: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each decision; none for a run by 0.1 that solved nothing."""
    solution = manifest["keep"].get("solution")
    if solution is None:
        return
    if (ruled := manifest["keep"].get("rule")) is not None:
        yield rule_line(ruled, solution["total"]["documents"])
    by = ruled["by"] if ruled else None
    rule, value = next(iter(solution["target"].items()))
    if "kept" in manifest["keep"].get("buckets", {}):
        yield f"kept are the buckets {', '.join(manifest['keep']['buckets']['kept'])}"
    elif rule != "min_score":
        kept = solution["kept"]
        asked = f"a share of {value:g}" if rule == "fraction" else f"a budget of {value:,.0f} tokens"
        yield (
            f"{asked} gives the threshold {solution['threshold']:.6g}{f' of {by}' * bool(by)}: "
            f"{kept['documents']:,} documents, "
            f"{kept['tokens']:,} tokens"
        )
        if solution["tie"]:
            tie = solution["tie"]
            yield (
                f"next below are {tie['documents']:,} document(s) of score {tie['score']:.6g} with {tie['tokens']:,} "
                "tokens, which would have been too much"
            )
        for name, quota in solution.get("quotas", {}).items():
            yield (
                f"quota of {name}: {quota['documents']:,} documents, {quota['tokens']:,} tokens from score "
                f"{quota['threshold']:.6g}"
            )
    if manifest["documents_written"] != manifest["ledger"]["total"]["kept"]:
        yield f"with repeats, {manifest['documents_written']:,} documents and {manifest['tokens_written']:,} tokens"
    near = manifest["dedup"].get("near")
    if near:
        yield f"near copies: {near['alike']:,} of {near['compared']:,} pairs that share a band are alike"
        if near["crowded_buckets"]:
            yield (
                f"{near['documents_in_crowded_buckets']:,} documents are in {near['crowded_buckets']:,} crowded "
                "buckets, where each was compared with the best only, not with all"
            )
    for loss in manifest["dedup"].get("source_losses", ()):
        yield (
            f"{loss['source']} loses {loss['lost']:,} of {loss['documents']:,} documents as near copies; the largest "
            f"cluster has {loss['size']:,}, of which document {loss['kept']} stays"
        )
