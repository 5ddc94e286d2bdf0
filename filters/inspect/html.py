"""`finesieve inspect RUN --html FILE`: a run as one interactive page (`filters.page`) of bounded size."""

from __future__ import annotations

import sys
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from filters.errors import InputError
from filters.evaluate.report import Report
from filters.evaluate.view import chart, charts_of
from filters.inspect import evidence, samples
from filters.inspect.evidence import ModelCard, model_card
from filters.inspect.thresholds import thresholds, what_if
from filters.model.reliability import Reliability
from filters.page import check_page, make_page, publish_page
from filters.scores.histogram import BINS, EDGES, HIGH, LOW, SCORE_UNIT, WEIGHTS, Histogram, SlicedHistogram, bins_of
from filters.scores.summary import GROUPS, SURVIVOR_COLUMNS, Summary, survivors, values_of
from filters.scores.threshold import Target
from filters.terminal import path_end, printable

if TYPE_CHECKING:
    from filters.scores.finished_run import Run
    from filters.scores.threshold import Target

MAX_BYTES = 5_000_000
"""Size of a page at most; the texts of samples are shortened until it fits."""
CHARACTERS = (2000, 1200, 600, 300, 120, 0)
"""Characters of each document's text that are tried, in this order."""

ASSETS = Path(__file__).parent / "page"
SCRIPTS = tuple(ASSETS / name for name in ("state.js", "charts.js", "documents.js", "panels.js"))


def write_page(
    run: Run,
    path: Path,
    *,
    target: Target | None = None,
    evaluation: Path | None = None,
    annotations: Path | None = None,
) -> int:
    """Write the page of a run, whole or not at all, and return its size in bytes.

    Args:
        run: the run.
        path: of the page.
        target: what the threshold of the page shall keep at first; None: the run's own threshold.
        evaluation: what `finesieve evaluate --json` printed about the run's model.
        annotations: labels of documents of the run; see `filters.inspect.evidence.labels_of`.

    Raises:
        InputError: the page cannot be written, or `evaluation` cannot be read.
        AnnotationsError: `annotations` cannot be read.
        RunError: the side files are missing or damaged.
    """
    check_page(path)
    data = page_data(run, evaluation=evaluation, annotations=annotations, characters=CHARACTERS[0], target=target)
    content = page(data)
    publish_page(path, content)
    return len(content)


def page(data: dict[str, Any]) -> bytes:
    """The page with `data` (from `page_data`), of at most `MAX_BYTES`."""
    name = data["run"]["name"]
    bar = (ASSETS / "bar.html").read_text(encoding="utf-8")
    for characters in CHARACTERS:
        content = make_page(
            f"{name}: finesieve inspect", _shortened(data, characters), SCRIPTS, bar=bar, skip="threshold"
        )
        if len(content) <= MAX_BYTES:
            return content
    raise InputError(
        f"{name}: its page would be larger than {MAX_BYTES / 1e6:.0f} MB even without texts; "
        "please report this with the run's manifest.json"
    )


def _shortened(data: dict[str, Any], characters: int) -> dict[str, Any]:
    def shorter(item: dict[str, Any]) -> dict[str, Any]:
        text = item["text"]
        if text is None or len(text) <= characters:
            return item
        return item | {"text": text[:characters], "cut": True}

    samples = data["samples"] | {"items": [shorter(item) for item in data["samples"]["items"]]}
    clusters = [
        cluster | {"members": [shorter(member) for member in cluster["members"]]}
        for cluster in data["clusters"]["items"]
    ]
    return data | {"samples": samples, "clusters": data["clusters"] | {"items": clusters}}


SAMPLES = 25
"""Documents from each of the buckets of the score."""
BUCKETS = np.array([-np.inf, *EDGES[25:-1:25], np.inf], np.float32)
"""Of a quarter of a point."""
EXTREMES = 10
SLICES = 24
CLUSTERS = 24
CANDIDATES = 400
"""Largest clusters among which those with near copies are looked for."""
PAIRS, GRID = 8, 50
"""Further scores that are shown against the run's own, on a grid of so many cells either way."""
SOURCES = FILES = 50
NAME, ORIGIN, CONFIG, CARD = 120, 300, 20_000, 60_000
"""Characters at most."""
LIST_ITEMS = 20
SIZE_CLASSES = ((2, "2"), (3, "3"), (4, "4-5"), (6, "6-10"), (11, "11-50"), (51, "51-1k"), (1001, ">1k"))
"""Lower ends of classes of cluster sizes, and what they are called."""
MARKS = 3
"""Combining marks in a row at most: more of them climb over the lines above."""
_KEPT_FORMAT = "\u200c\u200d\ufe0f"


def page_data(
    run: Run, *, evaluation: Path | None, annotations: Path | None, characters: int, target: Target | None = None
) -> dict[str, Any]:
    """The data of the page.

    Args:
        run: the run.
        evaluation: what `finesieve evaluate --json` printed, or None.
        annotations: labels of documents of the run, or None.
        characters: of each document's text at most.
        target: what the page's threshold shall keep; None: the run's own threshold.

    Raises:
        RunError: the side files are missing or damaged.
        InputError: `evaluation` is no evaluation report.
        AnnotationsError: `annotations` cannot be used.
    """
    report = None if evaluation is None else evidence.read_evaluation(evaluation)
    card = model_card(run)
    labelled = (
        None if annotations is None else evidence.labels_of(run, annotations, None if card is None else card.texts)
    )
    summary = run.summary(extremes=EXTREMES)
    histogram = run.histogram()
    total = run.ledger["total"]
    model = printable(str(run.manifest["model"]["name"]), NAME)
    solution = run.solve(target or Target("min_score", run.min_score))
    return {
        "format": "finesieve-page",
        "version": 1,
        "run": {
            "name": printable(run.path.resolve().name, NAME),
            "command": path_end(str(run.path), NAME),
            "finesieve": run.manifest["finesieve"],
            "subtitle": f"{total['kept']:,} of {total['records']:,} records kept by the model {model} at score >= "
            f"{run.min_score:g}",
        },
        "histogram": _trimmed(histogram, ends=True),
        "threshold": {
            "score": run.min_score if target is None else solution.threshold,
            "kept": vars(solution.kept),
            "name": "the run's own threshold" if target is None else f"the threshold of {target}",
        },
        "thresholds": list(thresholds(histogram, run.min_score)),
        "expected": _expected(run, histogram, report, labelled),
        "pairs": _pairs(run, histogram),
        "slices": _slices(run, summary),
        "samples": _samples(run, summary, characters),
        "clusters": _clusters(run, summary, characters),
        "ledger": _ledger(run),
        "trust": _trust(run, report, labelled, card),
        "lineage": _lineage(run, card),
    }


def readable(text: str, limit: int) -> str:
    """Page text that is safe to show over several lines: at most `limit` characters, of which none controls anything.

    Control, private and format characters (among them the overrides of writing direction) are dropped, but for line
    ends and the joiners that scripts and emoji need; so are combining marks beyond `MARKS` in a row, and line ends
    beyond two.
    """
    shown: list[str] = []
    marks = lines = 0
    for character in text[: limit * 4].replace("\r\n", "\n").replace("\r", "\n"):
        if len(shown) >= limit:
            break
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        lines = lines + 1 if character == "\n" else 0 if character.strip() else lines
        if character == "\n":
            if lines <= 2:
                shown.append(character)
        elif character == "\t" or (character.isspace() and category != "Cc"):
            shown.append(" ")
        elif marks <= MARKS and (character in _KEPT_FORMAT or category not in ("Cc", "Cf", "Cs", "Co", "Cn")):
            shown.append(character)
    return "".join(shown).strip()


def _trimmed(histogram: Histogram, *, ends: bool = False) -> dict[str, Any]:
    """Counts from the first to the last bin that holds a document."""
    some = np.flatnonzero(histogram.counts[0])
    first, end = (int(some[0]), int(some[-1]) + 1) if len(some) else (0, 0)
    counts = {name: histogram.counts[row, first:end].tolist() for row, name in enumerate(WEIGHTS)}
    if not ends:
        return {"first": first, **counts}
    means = [round(units * SCORE_UNIT, 6) for units in histogram.score_sums[first:end].tolist()]
    return {"first": first, **counts, "score_sums": means, "low": LOW, "high": HIGH, "bins": BINS}


def _slices(run: Run, summary: Summary) -> list[dict[str, Any]]:
    few = dict.fromkeys(("language", *run.slices))
    facets = [(by, run.histogram(by)) for by in few]
    facets += _of_largest(run, summary).items()
    shown = []
    for by, part in facets:
        values = part.largest(SLICES)
        if [value for value in values if value is not None]:
            items = [{"name": _name(value), **_trimmed(part[value])} for value in values]
            total = len(part) if by in few else len(summary.groups[by])
            shown.append({"by": printable(by, NAME), "total": total, "items": items})
    return shown


def _pairs(run: Run, histogram: Histogram) -> list[dict[str, Any]]:
    """The run's score against each further one: counts on a grid, and the further one's histogram."""
    stated, own = run.manifest.get("scores", {}), run.manifest["model"]["digest"]
    names = [name for name in run.score_columns[1:] if name not in stated or stated[name]["digest"] != own]
    others = {name: run.score_histogram(name) for name in names[:PAIRS]}
    wide, columns = _grid(histogram)
    grids = {name: np.zeros((columns, _grid(other)[1]), np.int64) for name, other in others.items()}
    for table in run.tables([*SURVIVOR_COLUMNS, *others]) if others else ():
        found = survivors(table)
        for name, grid in grids.items():
            scores = table[name].to_numpy()[found.rows].astype(np.float32)
            has = ~np.isnan(scores)
            places = bins_of(found.scores[has]) // wide, bins_of(scores[has]) // _grid(others[name])[0]
            np.add.at(grid, places, 1)
    pairs = []
    for name, grid in grids.items():
        tall, rows = _grid(others[name])
        filled = np.nonzero(grid)
        pairs.append(
            {
                "name": name,
                "score_step": wide * (HIGH - LOW) / BINS,
                "columns": columns,
                "step": tall * (HIGH - LOW) / BINS,
                "rows": rows,
                "cells": np.stack([*filled, grid[filled]], axis=1).tolist(),
                "bars": others[name].counts[0, : tall * rows].reshape(rows, tall).sum(axis=1).tolist(),
                "threshold": others[name].quantile(0.9) if others[name].total() else 0.0,
            }
        )
    return pairs


def _grid(histogram: Histogram) -> tuple[int, int]:
    """(bins in a cell, cells) of at most `GRID` cells up to the highest score."""
    end = int(np.flatnonzero(histogram.counts[0]).max(initial=0)) + 1
    bins = -(-end // GRID)
    return bins, -(-end // bins)


def _of_largest(run: Run, summary: Summary) -> dict[str, SlicedHistogram]:
    """Histograms of the hosts and of the input files with most survivors, where there are two or more of them."""
    columns = [by for by in GROUPS if len(summary.groups[by]) > 1]
    wanted = {by: {group.value for group in summary.groups[by].largest(SLICES)} for by in columns}
    sliced = {by: SlicedHistogram(by) for by in columns}
    for table in run.tables([*SURVIVOR_COLUMNS, *columns]) if columns else ():
        found = survivors(table)
        for by in columns:
            values, places = values_of(table, by, found.rows)
            shown = np.array([value in wanted[by] for value in values])
            weights = {"tokens": found.tokens, "text_bytes": found.text_bytes}
            sliced[by].add(values, np.where(shown[places], places, -1), found.scores, **weights)
    return sliced


def _name(value: str | None) -> str:
    return "(none)" if value is None else printable(value, NAME) or "(empty)"


def _shown(document: samples.ShownDocument, sizes: dict[int, int], characters: int) -> dict[str, Any]:
    text = None if document.text is None else readable(document.text, characters)
    return {
        "id": printable(document.id, NAME),
        "origin": printable(document.origin, ORIGIN),
        "score": None if document.score is None or not np.isfinite(document.score) else round(document.score, 6),
        "language": None if document.language is None else printable(document.language, 20),
        "tokens": document.tokens,
        "reason": None if document.reason is None else printable(document.reason, NAME),
        "cluster": document.cluster,
        "copies": 1 if document.cluster is None else sizes.get(document.cluster, 1),
        "text": text,
        "cut": document.cut,
    }


def _samples(run: Run, summary: Summary, characters: int) -> dict[str, Any]:
    rows = {place.row for best in (True, False) for place in summary.extremes(best=best)}
    chosen, _ = samples.sample_rows(run, BUCKETS, SAMPLES)
    found = samples.documents(run, rows.union(*chosen), characters)
    sizes = dict(summary.clusters.largest(len(summary.clusters)))
    items = [_shown(document, sizes, characters) for _, document in sorted(found.items())]
    texts = sum(item["text"] is not None for item in items)
    note = (
        f"A seeded sample of up to {SAMPLES} documents from each quarter of a point of the score, and the {EXTREMES} "
        f"best and worst: {len(items):,} documents that deduplication left"
    )
    note += "." if texts == len(items) else f"; the run holds the text of {texts:,} of them."
    return {
        "bucket": (HIGH - LOW) / (len(BUCKETS) - 1),
        "note": note,
        "missing": "No text: the run did not keep the text of removed documents (output.rejected: true does)."
        if not run.manifest["config"]["output"]["rejected"]
        else "No text here: it lies in one of many files, and only some of them were read.",
        "items": items,
    }


def _clusters(run: Run, summary: Summary, characters: int) -> dict[str, Any]:
    largest = summary.clusters.largest(CANDIDATES)
    members = samples.cluster_members(run, [root for root, _ in largest])
    near = [(root, size) for root, size in largest if members[root].near]
    chosen = list(dict.fromkeys([*largest[: CLUSTERS // 2], *near]))[:CLUSTERS]
    found = samples.documents(run, [row for root, _ in chosen for row in members[root].rows], characters)
    sizes = dict(largest)
    items = []
    for root, size in sorted(chosen, key=lambda one: (-one[1], one[0])):
        shown = [_shown(found[row], sizes, characters) for row in members[root].rows]
        kind = "with near copies" if members[root].near else "exact copies"
        if len(shown) > 1:
            items.append({"size": size, "kind": kind, "root": root, "members": shown})
    counts = summary.clusters.sizes
    classes = []
    for (low, label), (after, _) in pairwise((*SIZE_CLASSES, (sys.maxsize, ""))):
        number = sum(n for size, n in counts.items() if low <= size < after)
        classes.append({"label": label, "clusters": number})
    total, copies = len(summary.clusters), summary.clusters.copies
    return {
        "total": total,
        "sizes": classes,
        "note": f"{copies:,} copies of {total:,} documents were removed. Differences are marked word by word."
        if total
        else "",
        "items": items,
    }


def _ledger(run: Run) -> dict[str, Any]:
    total = run.ledger["total"]
    removed = sorted(total["removed"].items(), key=lambda item: (-item[1], item[0]))
    quarantined = sorted(total["quarantined"].items(), key=lambda item: (-item[1], item[0]))
    notes = []
    if total["skipped"]:
        notes.append(f"{total['skipped']:,} records that are no documents by their kind are beside the ledger.")
    if total["renamed"]:
        notes.append(f"{total['renamed']:,} documents whose id was taken already got a suffix.")
    sources = sorted(run.ledger["sources"].items(), key=lambda item: (-item[1]["records"], item[0]))
    return {
        "total": {
            "records": total["records"],
            "kept": total["kept"],
            "removed": _sum(total["removed"]),
            "quarantined": _sum(total["quarantined"]),
        },
        "reasons": [
            *([f"removed: {printable(name, NAME).replace('_', ' ')}", n, "dropped"] for name, n in removed[:30]),
            *([f"quarantined: {printable(name, NAME).replace('_', ' ')}", n, "alarm"] for name, n in quarantined[:30]),
        ],
        "notes": notes,
        "sources_total": len(sources),
        "sources": [
            [path_end(name, NAME), part["records"], part["kept"], _sum(part["removed"]), _sum(part["quarantined"])]
            for name, part in sources[:SOURCES]
        ],
    }


def _sum(counts: dict[str, int]) -> int:
    return sum(counts.values())


def _expected(
    run: Run, histogram: Histogram, report: Report | None, labelled: evidence.Labelled | None
) -> dict[str, Any] | None:
    """Precision and recall at every bin border: what the model's reliability makes one expect of this run's scores.

    A model that does not say how reliable it is leaves what was measured on labelled pages.
    """
    found = run.manifest["model"].get("reliability")
    if found is not None:
        rows = what_if(histogram, EDGES.tolist(), Reliability.from_json(found))
        return {
            "kind": "expected",
            "source": "the model's own evaluation in training, carried over to the scores of this run",
            "precision": [None if row.precision is None else round(row.precision.value, 4) for row in rows],
            "recall": [None if row.recall is None else round(row.recall.value, 4) for row in rows],
            "precision_low": [None if row.precision is None else round(row.precision.low, 4) for row in rows],
            "precision_high": [None if row.precision is None else round(row.precision.high, 4) for row in rows],
        }
    if report is not None:
        points = [(point.threshold, point.precision, point.recall) for point in report.curve]
        return evidence.at_borders(points, f"the pages of {printable(report.annotations.name, NAME)}")
    if labelled is not None and len(labelled.model):
        points = evidence.curve(labelled.model, labelled.judge, run.min_score)
        return evidence.at_borders(points, f"the labelled pages of {printable(labelled.name, NAME)}")
    return None


def _trust(
    run: Run, report: Report | None, labelled: evidence.Labelled | None, card: ModelCard | None
) -> dict[str, Any]:
    notes: list[dict[str, Any]] = []
    shown: dict[str, Any] = {
        "lead": "What labelled pages say of the model whose scores these are.",
        "charts": [],
        "metrics": [],
        "metrics_columns": [],
        "metrics_title": "",
    }
    metrics = None if card is None else card.metrics
    if metrics:
        shown |= {
            "metrics_title": f"The model's card: {metrics.method}",
            "metrics_columns": ["", *metrics.columns],
            "metrics": [list(row) for row in metrics.rows],
        }
    if report is not None:
        if report.subject.digest != run.manifest["model"]["digest"]:
            name = printable(report.subject.name, NAME)
            notes.append({"alarm": True, "text": f"The evaluation is of another model ({name}) than this run's."})
        parts = [("sample", report.sample), ("natural mix", report.natural)]
        columns = [(name, part) for name, part in parts if part is not None]
        shown |= {
            "metrics_title": f"Evaluated against {printable(report.annotations.name, NAME)}: "
            f"{report.annotations.rows:,} pages, {printable(report.protocol, NAME)}",
            "metrics_columns": ["", *(name for name, _ in columns)],
            "metrics": [
                [printable(name, NAME).replace("_", " "), *(str(part[name]) for _, part in columns if name in part)]
                for name in report.sample
            ],
            "charts": charts_of(report),
        }
    if labelled is not None:
        found = len(labelled.model)
        notes.append(
            {
                "alarm": False,
                "text": f"{found:,} of {labelled.rows:,} labels in {printable(labelled.name, NAME)} are of scored "
                f"documents of this run (column {labelled.target}; each page counts once).",
            }
        )
        if labelled.seen:
            text = f"{labelled.seen:,} more are left out: the model was trained on their texts, or on near copies."
            notes.append({"alarm": not found, "text": text})
        elif labelled.seen is None and card is not None and card.trained_on == labelled.sha256:
            notes.append(
                {"alarm": True, "text": "The model was trained on these very labels: the agreement is too good."}
            )
        elif labelled.seen is None:
            text = "Whether the model was trained on some of these texts is not known: the agreement may be too good."
            notes.append({"alarm": True, "text": text})
    if labelled is not None and len(labelled.model):
        model, judge = labelled.model, labelled.judge
        points = [[edge, round(a, 4), round(b, 4)] for edge, a, b in evidence.curve(model, judge, run.min_score)]
        own = [
            chart("reliability", evidence.reliability(model, judge)),
            *([chart("curve", points)] if points else []),
            chart("decisions", evidence.decisions(model, judge, run.min_score)),
        ]
        shown["charts"] = [
            *(own if report is None else shown["charts"]),
            chart("agreement", evidence.agreement(model, judge)),
        ]
    if report is None and labelled is None:
        notes.append({"alarm": False, "text": NO_LABELS})
    return shown | {"notes": notes}


NO_LABELS = (
    "No labels were given. finesieve inspect RUN --html FILE --annotations LABELS.parquet shows the judge's scores "
    "beside the model's; --evaluation REPORT.json shows what finesieve evaluate --json found."
)


def _lineage(run: Run, card: ModelCard | None) -> dict[str, Any]:
    manifest = run.manifest
    keep = manifest["keep"]
    rule = keep.get("rule")
    kinds = " and ".join(sorted({str(one["kind"]) for one in manifest["config"]["inputs"]}))
    rows = [
        ["finesieve", str(manifest["finesieve"])],
        ["run", path_end(str(run.path), ORIGIN)],
        ["input", f"{len(manifest['inputs']):,} file(s), kind {kinds}"],
        ["keep rule", f"score >= {np.float32(run.min_score)!s} ({printable(str(keep.get('tie', '')), NAME)})"],
        *([["rule", printable(str(rule[key]), NAME)] for key in ("where", "by") if rule[key]] if rule else []),
        ["model", printable(str(manifest["model"]["name"]), NAME)],
        ["model digest", str(manifest["model"]["digest"])],
        *([] if card is None else [list(row) for row in card.rows]),
    ]
    files = manifest["files"]
    config = yaml.safe_dump(_short_lists(manifest["config"]), sort_keys=False, allow_unicode=True, width=100)
    return {
        "rows": [[name, printable(value, ORIGIN)] for name, value in rows],
        "card": None if card is None else readable(card.text, CARD),
        "config": readable(config, CONFIG),
        "files_total": len(files),
        "files": [[path_end(f["path"], NAME), f.get("rows"), f["bytes"], f["sha256"]] for f in files[:FILES]],
    }


def _short_lists(value: Any) -> Any:
    """Lists of more than `LIST_ITEMS` items shortened; credentials are not shown."""
    if isinstance(value, dict):
        return {
            key: "(not shown)" if key == "storage_options" and part else _short_lists(part)
            for key, part in value.items()
        }
    if isinstance(value, list):
        more = [f"... and {len(value) - LIST_ITEMS:,} more"] if len(value) > LIST_ITEMS else []
        return [_short_lists(part) for part in value[:LIST_ITEMS]] + more
    return value
