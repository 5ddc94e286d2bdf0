"""What a run looks like in a terminal, in colour or piped, at 80 columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from filters.inspect.histogram import HIGH, LOW, Histogram
from filters.inspect.run import Extreme

BAR = 40
SOURCE = 36
BLOCKS = " ▏▎▍▌▋▊▉█"
THRESHOLDS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)


def printable(text: str, limit: int) -> str:
    """Page text that is safe to show: one line, control and format characters gone, at most `limit` characters."""
    shown = "".join(
        " " if character.isspace() else character
        for character in text[: limit * 4]
        if character.isspace() or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def path_end(name: str, limit: int) -> str:
    """A file name that is safe to show; of a long one the end, which tells files apart."""
    shown = printable(name, 4096)
    return shown if len(shown) <= limit else f"...{shown[3 - limit :]}"


def histogram_view(
    histogram: Histogram, min_score: float, bins: int = 20, weight: str = "documents", *, unicode: bool = True
) -> RenderableType:
    """Bars of `bins` equal bins; the bin the threshold falls in is marked. Without `unicode`, bars are of "#"."""
    counts = histogram.coarse(bins, weight)
    total, top = int(counts.sum()), int(counts.max(initial=0))
    width = (HIGH - LOW) / bins
    lines = [Text(f"scores of {total:,} {weight} that survived deduplication", style="bold")]
    for number, count in enumerate(counts.tolist()):
        low = LOW + number * width
        eighths = round(count / top * BAR * 8) if top else 0
        full, part = divmod(eighths, 8)
        bar = BLOCKS[8] * full + BLOCKS[part].strip() if unicode else "#" * round(eighths / 8)
        marked = low <= min_score < low + width
        line = Text(f"{low:5.2f} ", style="dim")
        line.append(f"{bar:<{BAR}}", style="green" if low >= min_score else "yellow")
        line.append(f" {count:>9,} {count / total if total else 0:6.1%}")
        line.append(f" < keep >= {min_score:g}" if marked else "", style="bold")
        lines.append(line)
    return Group(*lines)


def keep_table(histogram: Histogram, min_score: float) -> Table:
    """What each threshold would keep of the documents that survived deduplication."""
    table = Table(title="what a threshold keeps", title_justify="left", box=None, pad_edge=False)
    for name in ("min_score", "documents", "share", "tokens (est.)", "share", "text"):
        table.add_column(name, justify="right")
    documents, tokens = histogram.at_least(LOW), histogram.at_least(LOW, "tokens")
    for threshold in sorted({*THRESHOLDS, min_score}):
        kept, kept_tokens = histogram.at_least(threshold), histogram.at_least(threshold, "tokens")
        table.add_row(
            f"{threshold:g}",
            f"{kept:,}",
            f"{kept / max(documents, 1):.1%}",
            f"{kept_tokens:,}",
            f"{kept_tokens / max(tokens, 1):.1%}",
            f"{histogram.at_least(threshold, 'bytes') / 1e6:,.1f} MB",
            style="bold" if threshold == min_score else None,
        )
    return table


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


def extremes_view(title: str, extremes: Iterable[Extreme]) -> RenderableType:
    """Documents with score, origin and the beginning of their text."""
    lines = [Text(title, style="bold")]
    for extreme in extremes:
        lines.append(Text(f"{extreme.score:5.2f}  {printable(extreme.origin, 71)}"))
        if extreme.text is not None:
            lines.append(Text(f"       {printable(extreme.text, 72)}", style="dim"))
    return Group(*lines)


def make_console(*, stderr: bool = False) -> Console:
    """A console that does not guess at markup or numbers in page text; 80 columns where there is no terminal."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=False)
