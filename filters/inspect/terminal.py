"""Views of a run for a terminal, in colour or piped, at 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from filters.scores.histogram import HIGH, LOW, Histogram, nearest_edge
from filters.scores.rules import rule_line
from filters.terminal import BAR, BLOCKS, path_end, printable, short

if TYPE_CHECKING:
    from filters.inspect.compare import Comparison
    from filters.inspect.extrapolate import Interval, SampleInterval, WhatIf
    from filters.inspect.leaks import Leaks
    from filters.inspect.reading import Agreement
    from filters.scores.finished_run import Extreme, Ruled
    from filters.scores.summary import Clusters, Groups
    from filters.scores.threshold import Solution

SOURCE = 36
CURVE = 10
DRIFTS, DRIFT_NAME = 15, 20
NAME, SPARK = 20, 10
HEIGHTS, ASCII_HEIGHTS = " ▁▂▃▄▅▆▇█", " .:-=+*#%"
SIZE_CLASSES = ((2, 2), (3, 3), (4, 5), (6, 10), (11, 100), (101, 1000), (1001, 0))
"""Sizes of clusters that are counted together; the last class is open."""
THRESHOLDS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
OF_PROBABILITIES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9)
FEW = 200
"""Documents below which half as many bars are enough."""


def scale(histogram: Histogram, min_score: float) -> float:
    """Upper end of the scale to show: 1 where all scores, and the threshold, are probabilities."""
    return histogram.top if min_score <= histogram.top else HIGH


def thresholds(histogram: Histogram, min_score: float) -> tuple[float, ...]:
    """Thresholds worth comparing: up to the first that keeps nothing."""
    every = OF_PROBABILITIES if scale(histogram, min_score) == 1 else THRESHOLDS
    empty = [place for place, threshold in enumerate(every) if not histogram.at_least(threshold)]
    return every[: empty[0] + 1] if empty else every


def histogram_view(
    histogram: Histogram,
    min_score: float,
    bins: int | None = None,
    weight: str = "documents",
    *,
    unicode: bool = True,
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
    lines = [Text(f"scores of {total:,} {weight} that survived deduplication", style="bold")]
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
    table = Table(title="what a threshold keeps", title_justify="left", box=None, pad_edge=False)
    for name in (">=", "documents", "share", "", "tokens", "share", "mean", "precision", "recall"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
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
    return Group(table, Text(note, style="dim"))


def rule_view(ruled: Ruled) -> RenderableType:
    """What a rule keeps, and how many documents each part of its condition is true of."""
    fits, total = ruled.fits, ruled.total
    lines = [Text(f"where {printable(ruled.where, 400)}" if ruled.where else "every document", style="bold")]
    what = "is true of" if ruled.where else "can be ranked:"
    lines.append(
        Text(
            f"  {what} {fits.documents:,} of {total.documents:,} documents "
            f"({fits.documents / max(total.documents, 1):.2%}), {short(fits.tokens)} of {short(total.tokens)} tokens "
            f"({fits.tokens / max(total.tokens, 1):.2%})"
        )
    )
    if len(ruled.parts) > 1:
        lines += [Text(f"  {count:>15,}  {printable(part, 200)}") for part, count in ruled.parts]
    return Group(*lines)


def solution_view(solution: Solution, estimate: SampleInterval | None = None) -> RenderableType:
    """A solved threshold: what it keeps, and the group of equal scores it had to decide about."""
    kept, total, tied = solution.kept, solution.total, solution.at_threshold.documents
    if not total.documents:
        return Text(f"keep {solution.target}: no document of this run has a score", style="bold")
    lines = [
        Text(
            f"keep {printable(str(solution.target), 400)}: {'score' if solution.target.by is None else 'it is'} >= "
            f"{solution.threshold!r}",
            style="bold",
        ),
        Text(
            f"  keeps {kept.documents:,} of {total.documents:,} documents "
            f"({kept.documents / max(total.documents, 1):.2%}), {short(kept.tokens)} of {short(total.tokens)} tokens "
            f"({kept.tokens / max(total.tokens, 1):.2%})"
        ),
    ]
    if tied:
        agreeing = ("has", "is") if tied == 1 else ("have", "are")
        lines.append(Text(f"  {tied:,} {agreeing[0]} precisely that score, and {agreeing[1]} kept"))
    if solution.tie is not None:
        tie = solution.tie
        lines.append(
            Text(
                f"  next below: {tie.weights.documents:,} at {tie.score!r} ({short(tie.weights.tokens)} tokens), "
                "too many; dropped whole"
            )
        )
    for value, part in solution.quotas.items():
        full = value in solution.thresholds
        what = f"quota full at score >= {solution.thresholds[value]:.6g}" if full else "quota not reached"
        lines.append(
            Text(f"  {printable(value, 24)}: {part.documents:,} documents, {short(part.tokens)} tokens; {what}")
        )
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
    table = Table(title=f"by {printable(by, 40)}", title_justify="left", box=None, pad_edge=False)
    table.add_column(printable(by, NAME), width=NAME, no_wrap=True)
    for name in ("documents", "tokens", "median", "mean", "kept"):
        table.add_column(name, justify="right", no_wrap=True)
    high = max((scale(part, min_score) for part in slices.values()), default=HIGH)
    table.add_column(f"scores 0-{high:g}", width=SPARK, no_wrap=True)
    for value, histogram in slices.items():
        total = histogram.total()
        table.add_row(
            "(none)" if value is None else printable(value, NAME),
            f"{total:,}",
            short(histogram.total("tokens")),
            f"{histogram.quantile(0.5):.2f}",
            f"{histogram.mean_at_least(LOW):.2f}",
            f"{histogram.at_least(min_score) / max(total, 1):.1%}",
            sparkline(histogram.coarse(SPARK, top=high), unicode=unicode),
        )
    return Group(table, Text(f"... {hidden:,} smaller ones", style="dim")) if hidden > 0 else table


def groups_view(groups: Groups, count: int, *, least: int = 5) -> RenderableType:
    """The largest, best and worst values of a column with many, such as hosts."""
    by = groups.by
    parts: list[RenderableType] = []
    views = [
        (f"{by}s with most documents ({len(groups):,} {by}s in all)", groups.largest(count)),
        (f"best {by}s, of those with {least} documents or more", groups.ranked(count, best=True, least=least)),
        (f"worst {by}s", groups.ranked(count, best=False, least=least)),
    ]
    for number, (title, rows) in enumerate(views):
        if not rows:
            continue
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=number == 0)
        table.add_column(by, width=SOURCE, no_wrap=True)
        for name in ("documents", "kept", "share", "mean"):
            table.add_column(name, justify="right", no_wrap=True, width=9)
        for row in rows:
            table.add_row(
                path_end(row.value, SOURCE),
                f"{row.survivors:,}",
                f"{row.kept:,}",
                f"{row.keep_rate:.1%}",
                f"{row.mean_score:.2f}",
            )
        parts.append(table)
    return Group(*parts)


def clusters_view(clusters: Clusters, *, unicode: bool = True) -> RenderableType:
    """Clusters of duplicates by size."""
    if not len(clusters):
        return Text("no duplicates were found")
    lines = [
        Text(f"{len(clusters):,} clusters of duplicates; {clusters.copies:,} copies removed", style="bold"),
    ]
    sizes = clusters.sizes
    classes = [
        (f"{low:,}" if low == high else f"{low:,}-{high:,}" if high else f"{low:,}+", low, high)
        for low, high in SIZE_CLASSES
    ]
    counts = [
        sum(count for size, count in sizes.items() if size >= low and (not high or size <= high))
        for _, low, high in classes
    ]
    for (name, *_), count in zip(classes, counts, strict=True):
        if count:
            bar = _bar(count / max(counts), BAR, unicode)
            lines.append(Text(f"  {name:>9} documents  {bar:<{BAR}} {count:>9,}"))
    return Group(*lines)


def _bar(share: float, width: int, unicode: bool) -> str:
    eighths = round(share * width * 8)
    if not unicode:
        return "#" * round(eighths / 8)
    full, part = divmod(eighths, 8)
    return BLOCKS[8] * full + BLOCKS[part].strip()


def sparkline(counts: npt.NDArray[np.int64], *, unicode: bool = True) -> str:
    """A character for each count, higher for more; on a square-root scale, so that small ones are seen."""
    levels = HEIGHTS if unicode else ASCII_HEIGHTS
    top = int(counts.max(initial=0))
    if not top:
        return levels[0] * len(counts)
    # A bar of a value above zero is never empty.
    heights = np.ceil(np.sqrt(counts / top) * (len(levels) - 1)).astype(int)
    return "".join(levels[height] for height in heights)


def _span(interval: Interval | None, unicode: bool) -> str:
    if interval is None:
        return ""
    return f"{interval.value:.2f}{'±' if unicode else '+-'}{(interval.high - interval.low) / 2:.2f}"


def ledger_view(ledger: dict[str, Any], sources: int = 8) -> RenderableType:
    """The ledger as written to the manifest: the files with most records, the sum, and why records were not kept."""
    table = Table(title="ledger: in = kept + removed + quarantined", title_justify="left", box=None, pad_edge=False)
    table.add_column("input file", no_wrap=True, width=SOURCE)
    for name in ("in", "kept", "removed", "quarantined"):
        table.add_column(name, justify="right", no_wrap=True)
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
    lines += [Text(f"  {count:>9,}  {note}", style="dim") for count, note in notes if count]
    return Group(table, *lines)


def _sums(account: dict[str, Any]) -> Iterable[str]:
    sums = (account["records"], account["kept"], sum(account["removed"].values()), sum(account["quarantined"].values()))
    return (f"{number:,}" for number in sums)


def comparison_view(found: Comparison, names: tuple[str, str]) -> RenderableType:
    """What differs between two runs, the drifted first."""
    parts: list[RenderableType] = []
    if found.models[0] != found.models[1]:
        parts.append(
            Text("the runs were scored by different models: their scores need not mean the same", style="bold")
        )
    table = Table(title=f"this run against {path_end(names[1], 50)}", title_justify="left", box=None, pad_edge=False)
    table.add_column("slice", width=DRIFT_NAME, no_wrap=True)
    for name in ("documents", "other", "mean", "other", "kept", "other", "PSI", "KS"):
        table.add_column(name, justify="right", no_wrap=True)
    slices = sorted(found.slices, key=lambda drift: (-(drift.psi or 0.0), -sum(drift.documents)))
    for drift in (found.total, *slices[:DRIFTS]):
        over = found.is_over(drift)
        table.add_row(
            ("* " if over else "")
            + ("all" if drift.by is None else printable(f"{drift.by} {drift.value or '(none)'}", DRIFT_NAME - 2)),
            *(short(count) for count in drift.documents),
            *("" if mean is None else f"{mean:.2f}" for mean in drift.mean),
            *("" if kept is None else f"{kept:.1%}" for kept in drift.kept),
            "few" if drift.psi is None else f"{drift.psi:.3f}",
            "" if drift.ks is None else f"{drift.ks:.3f}",
            style="bold" if over else None,
        )
    parts.append(table)
    if len(slices) > DRIFTS:
        parts.append(Text(f"... {len(slices) - DRIFTS:,} slices that drifted less", style="dim"))
    parts += [Text(f"mix of {by}: PSI {psi:.3f}") for by, psi in found.mix_psi.items()]
    for drift in (found.total, *found.slices):
        for constant, name in zip(drift.constant, names, strict=True):
            if constant:
                what = "all documents" if drift.by is None else f"{drift.by} {drift.value}"
                parts.append(Text(f"near-constant scores: {printable(what, 40)} in {path_end(name, 30)}", style="bold"))
    parts.append(Text(f"hosts that moved, of {found.common_hosts:,} with 20 documents or more in both", style="bold"))
    for moved in found.hosts:
        parts.append(
            Text(
                f"  {path_end(moved.host, 34):<34} mean {moved.mean[1]:.2f} -> {moved.mean[0]:.2f}, "
                f"kept {moved.keep_rate[1]:.1%} -> {moved.keep_rate[0]:.1%}"
            )
        )
    drifted = found.drifted
    verdict = f"drift over PSI {found.max_psi:g}: {'; '.join(map(str, drifted[:5]))}" if drifted else (
        f"no drift over PSI {found.max_psi:g}")  # fmt: skip
    parts.append(Text(printable(verdict, 400), style="bold"))
    return Group(*parts)


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
    lines: list[RenderableType] = [
        Text(f"documents with {found.size} words in a row of {path_end(about['path'], 40)}", style="bold"),
        Text(f"  {about['items']:,} items{short_items}; {about['ngrams']:,} different n-grams", style="dim"),
        Text(f"  {scope}", style="dim"),
    ]
    if about["left_out"]:
        lines.append(
            Text(f"  no items: columns {printable(', '.join(about['left_out']), 60)} (instructions)", style="dim")
        )
    if about["frequent"] or found.common:
        common = f"  passed over: {about['frequent']:,} n-grams of many items, {found.common:,} of many documents"
        lines.append(Text(common, style="dim"))
    worst = max((bucket.leaked / bucket.examined for bucket in found.buckets), default=0.0)
    for bucket in found.buckets:
        share = bucket.leaked / bucket.examined
        bar = _bar(share / worst if worst else 0.0, CURVE * 2, unicode)
        lines.append(
            Text(f"{bucket.low:5.2f} {bar:<{CURVE * 2}} {bucket.leaked:>9,} of {bucket.examined:>11,} {share:8.3%}")
        )
    lines.append(
        Text(f"leaked: {found.leaked:,} in all, {found.kept[1]:,} of the {found.kept[0]:,} kept", style="bold")
    )
    lines += [Text(f"  {score:.2f}  {printable(name, 70)}") for score, name in found.ids]
    if found.leaked:
        lines.append(Text("to drop them, filter with decontaminate: {files: [...]}", style="dim"))
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


def agreement_view(found: Agreement) -> RenderableType:
    """How far a reader agrees with the model, with 95 % Wilson intervals."""
    lines = [
        Text(f"{found.judge} and the model agree on {found.total} of the documents read", style="bold"),
        *(Text(f"  {name + ' the threshold':<27} {share}") for name, share in found.strata.items()),
        Text(f"  of those the model keeps, the reader keeps {found.kept_rightly}"),
        Text(f"  of those the model drops, the reader drops {found.dropped_rightly}"),
    ]
    if found.total.total < found.drawn:
        lines.append(Text(f"{found.drawn - found.total.total} left to read; the same command goes on", style="bold"))
    if found.without_text:
        lines.append(
            Text(f"passed over, because the run holds no text of them (output.rejected): {found.without_text:,}")
        )
    return Group(*lines)


def extremes_view(title: str, extremes: Iterable[Extreme]) -> RenderableType:
    """Documents with score, origin and the beginning of their text."""
    lines = [Text(title, style="bold")]
    for extreme in extremes:
        lines.append(Text(f"{extreme.score:5.2f}  {printable(extreme.origin, 71)}"))
        if extreme.text is not None:
            lines.append(Text(f"       {printable(extreme.text, 72)}", style="dim"))
    return Group(*lines)


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
            f"cluster has {loss['size']:,}, of which {loss['kept']} stays"
        )
