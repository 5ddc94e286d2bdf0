"""Reading annotations: a judge's labels of texts, checked, with a stated policy for everything odd.

Columns: `text` and `score` (whole numbers 0 to 5) are required; a list column `scores` (one or more ratings of the
text, 0 to 5) can stand in for `score`, and its mean is the target. `expected_score` (0 to 5, the mean of the judge's
score distribution) is the target where it is there. Another column can be named as target: numbers 0 to 5, such as the
depth of an explanation, or names, such as topics. `id`, `url`, `natural_weight`, `sampling`, `topic`, `format`,
`language` and a second rating are used where they are there. The layout of
HuggingFaceFW/fineweb-edu-llama3-annotations fits.

Policies, each recorded as a note: rows without text are left out; rows with the same text become one, with the mean
of their labels (an id that names two texts is refused); rows of one host, or with nearly the same text, share a group
and never straddle a split.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.arrays import Float64, Int64
from filters.errors import AnnotationsError
from filters.read.labels import LabelFile, read_labels
from filters.scores.hosts import host_names
from filters.statistics.agreement import HIGHEST, LOWEST
from filters.statistics.resampling import connected, near_pairs
from filters.train.config import DistillConfig

MIN_LABELS = 50
LEAST_OF_LABEL = 10
"""Fewest texts with each name, where the target is names."""
FACETS = ("topic", "format", "language")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Annotations:
    """n labelled texts.

    Attributes:
        texts: n texts, none empty, no two equal.
        score: int64[n], the judge's score, 0 to 5; of `scores` the mean, rounded half to even.
        expected: float64[n], what to predict: expected_score, or where the file has no such column score, or the mean
            of scores.
        target: name of the column `expected` came from.
        names: what numbers in `expected` and `score` stand for where the target is names, sorted; else empty.
        groups: int64[n]; rows of one group (host, near copies) belong on the same side of any split.
        natural_weight: float64[n] or None: from this sample to the natural mix of the crawl.
        random: bool[n]; False where the column `sampling` says something else than "random": a page that was chosen
            for its looks can be trained on, but does not represent the crawl.
        facets: column of `FACETS` that the file has -> n values, "" where there is none.
        ratings: float64[n, 2], two independent ratings of a text; NaN where there are none.
        ratings_source: the columns they came from.
        notes: what was odd, and what was done about it.
    """

    name: str
    sha256: str
    texts: tuple[str, ...]
    score: Int64
    expected: Float64
    target: str
    names: tuple[str, ...]
    groups: Int64
    natural_weight: Float64 | None
    random: npt.NDArray[np.bool_]
    facets: dict[str, tuple[str, ...]]
    ratings: Float64
    ratings_source: str
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes in the column `language` with at least `MIN_LABELS` labels; empty where there is no such column."""
        times = Counter(self.facets.get("language", ()))
        return tuple(sorted(code for code, count in times.items() if code and count >= MIN_LABELS))

    def take(self, rows: Int64) -> Self:
        """Only these rows."""
        weight = self.natural_weight
        return replace(
            self,
            texts=tuple(self.texts[row] for row in rows.tolist()),
            score=self.score[rows],
            expected=self.expected[rows],
            groups=self.groups[rows],
            natural_weight=None if weight is None else weight[rows],
            random=self.random[rows],
            facets={name: tuple(values[row] for row in rows.tolist()) for name, values in self.facets.items()},
            ratings=self.ratings[rows],
        )


def read_annotations(
    path: str | Path, min_score: float = 1.5, target: str | None = None, named: bool = False
) -> Annotations:
    """Read and check an annotations file.

    Args:
        path: a Parquet, JSON lines or CSV file.
        min_score: the keep rule; labels on both sides of it are required.
        target: the column to learn; None: the judge's score.
        named: the target is names: rows without one are left out, and `min_score` counts for nothing.

    Raises:
        AnnotationsError: the file cannot be read or a column is missing, has another type, NaN, a score out of range,
            an id of two texts, fewer than `MIN_LABELS` labels, labels on one side of `min_score` only, or fewer than
            `LEAST_OF_LABEL` texts with a name.
    """
    path = Path(path)
    file = read_labels(path, () if target is None else (target, f"{target}_2"))
    table, sha256 = file.table, file.sha256
    file.require("text", "rename the column that holds the page's text")
    texts = [text or "" for text in file.strings("text")]
    notes: list[str] = []
    names: tuple[str, ...] = ()
    if target is None:
        target, score, expected = _judged(file, notes)
    elif named:
        file.require(target, "name the column that holds the labels as target")
        given = [value or "" for value in file.strings(target)]
        names = tuple(sorted(set(given) - {""}))
        expected = score = np.array([names.index(value) if value else -1 for value in given], np.float64)
        if unnamed := int(np.count_nonzero(score < 0)):
            notes.append(f"{unnamed} rows without {target} left out")
    else:
        file.require(target, "name the column that holds the numbers to learn as target")
        expected = _numbers(file, target)
        score = np.rint(expected)
    _check_ids(path, table, texts)
    weight = _weights(file)

    blank = np.array([not text.strip() for text in texts], dtype=bool)
    if blank.any():
        notes.append(f"{int(blank.sum())} rows without text left out ({_rows(np.flatnonzero(blank))})")
    blank |= score < 0
    hosts = hosts_of(table)
    if hosts is None:
        notes.append("no column url: splits cannot be grouped by host, so results may be optimistic")
        hosts = [""] * len(texts)
    first: dict[str, int] = {}
    slot = np.full(len(texts), -1, dtype=np.int64)
    for row in np.flatnonzero(~blank).tolist():
        slot[row] = first.setdefault(texts[row], len(first))
    facets = {name: [""] * len(first) for name in FACETS if name in table.column_names}
    for name, values in facets.items():
        for place, value in zip(slot.tolist(), table.column(name).to_pylist(), strict=True):
            if place >= 0 and value is not None:
                values[place] = str(value)
    two_ratings, ratings_source = np.full((len(first), 2), np.nan), ""
    if not named:
        two_ratings, ratings_source = _ratings(file, slot.tolist(), len(first), target)
    rows = np.flatnonzero(slot >= 0)
    slot = slot[rows]
    copies = np.bincount(slot, minlength=len(first))
    mean_expected = np.bincount(slot, expected[rows]) / np.maximum(copies, 1)
    mean_score = np.bincount(slot, score[rows]) / np.maximum(copies, 1)
    _, head = np.unique(slot, return_index=True)
    if len(rows) > len(first):
        spread = np.zeros(len(first), dtype=bool)
        np.logical_or.at(spread, slot, expected[rows] != mean_expected[slot])
        notes.append(
            f"{len(rows) - len(first)} rows repeat another row's text; each text counts once with the "
            f"{'first' if named else 'mean'} of its labels ({int(spread.sum())} texts had labels that disagree)"
        )
    if named:
        mean_expected = mean_score = expected[rows][head]
    unique = tuple(first)
    if len(unique) < MIN_LABELS:
        raise AnnotationsError(
            f"{path}: {len(unique)} labelled texts, and at least {MIN_LABELS} are needed. Remedy: annotate more pages"
        )
    keep = mean_expected >= (0 if named else min_score)
    if named:
        _check_names(path, target, names, mean_expected.astype(np.int64))
    elif keep.all() or not keep.any():
        side = "reaches" if keep.all() else "is below"
        raise AnnotationsError(
            f"{path}: every label {side} the keep rule's {min_score} in column {target!r}, so there is one class only. "
            "Remedy: annotate pages of both kinds, or set keep.min_score between the labels"
        )
    random = np.ones(len(unique), dtype=bool)
    if "sampling" in table.column_names:
        sampling = np.array([str(value) for value in table.column("sampling").to_pylist()])
        random = (sampling == "random")[rows][head]
        if weight is not None and not (random & keep).any():
            weight = None
            notes.append("no row with sampling = random is to be kept: no metrics for the natural mix")
        elif weight is not None and not random.all():
            notes.append(f"metrics for the natural mix come from the {int(random.sum())} rows with sampling = random")
    members: list[tuple[int, str]] = [(int(s), hosts[row]) for s, row in zip(slot, rows.tolist(), strict=True)]
    groups = _group(unique, members)
    return Annotations(
        name=path.name,
        sha256=sha256,
        texts=unique,
        score=np.rint(mean_score).astype(np.int64),
        expected=mean_expected,
        target=target,
        names=names,
        groups=groups,
        natural_weight=None if weight is None else weight[rows][head],
        random=random,
        facets={name: tuple(values) for name, values in facets.items()},
        ratings=two_ratings,
        ratings_source=ratings_source,
        notes=tuple(notes),
    )


def _judged(file: LabelFile, notes: list[str]) -> tuple[str, Float64, Float64]:
    """(column of the target, the judge's scores, what to predict) of each row; adds to `notes`."""
    columns = file.table.column_names
    if "scores" not in columns:
        file.require(
            "score", "rename the column that holds the judge's score, 0 to 5, or give a list of ratings as 'scores'"
        )
    ratings = _means(file) if "score" not in columns else None
    score = np.rint(ratings) if ratings is not None else _numbers(file, "score")
    fractional = np.flatnonzero(score != np.rint(score))
    if len(fractional):
        raise AnnotationsError(
            f"{file.path}: column 'score' must hold whole numbers {LOWEST} to {HIGHEST}, not fractions "
            f"({_rows(fractional)}). Remedy: put fractions into a column 'expected_score'"
        )
    target = "expected_score" if "expected_score" in columns else "score" if ratings is None else "scores"
    expected = ratings if ratings is not None and target == "scores" else _numbers(file, target)
    if target == "scores":
        notes.append("no columns score and expected_score: the mean of each row's scores is the target")
    if target == "score":
        notes.append("no column expected_score: the whole-number score is the target")
    apart = int(np.count_nonzero(np.abs(score - expected) > 0.5 + 1e-6))
    if apart:
        notes.append(f"{apart} rows have |score - expected_score| > 0.5; expected_score counts")
    return target, score, expected


def _check_names(path: Path, target: str, names: tuple[str, ...], labels: Int64) -> None:
    counts = np.bincount(labels, minlength=len(names))
    if len(names) < 2 or counts.min() < LEAST_OF_LABEL:
        rare = names[int(counts.argmin())] if len(names) > 1 else None
        found = f"{counts.min()} texts have {rare!r:.60}" if rare else f"{len(names)} names"
        raise AnnotationsError(
            f"{path}: column {target!r}: {found}, where two names at least, and {LEAST_OF_LABEL} texts of each, are "
            "needed. Remedy: annotate more pages, or join rare names"
        )


def _rows(rows: Int64) -> str:
    shown = ", ".join(str(row) for row in rows[:_SHOWN].tolist())
    return f"row{'s' if len(rows) > 1 else ''} {shown}{', ...' if len(rows) > _SHOWN else ''}, {len(rows)} in all"


def _numbers(file: LabelFile, name: str) -> Float64:
    path, values = file.path, file.numbers(name)
    absent = np.flatnonzero(np.isnan(values))
    if len(absent):
        raise AnnotationsError(
            f"{path}: column {name!r} is null or NaN in {_rows(absent)}. Remedy: leave such rows out"
        )
    outside = np.flatnonzero((values < LOWEST) | (values > HIGHEST))
    if len(outside):
        raise AnnotationsError(
            f"{path}: column {name!r} must lie between {LOWEST} and {HIGHEST}; {values[outside[0]]:g} found "
            f"({_rows(outside)}). Remedy: map the judge's scale to {LOWEST}-{HIGHEST}"
        )
    return values


def _means(file: LabelFile) -> Float64:
    """float64[rows]: mean of each list of `scores`."""
    path, lists = file.path, file.lists("scores")
    rows = np.array([[i, rating] for i, each in enumerate(lists) for rating in each or [None]], np.float64)
    rows = rows.reshape(-1, 2)
    place = rows[:, 0].astype(np.int64)
    absent = np.unique(place[np.isnan(rows[:, 1])])
    if len(absent):
        raise AnnotationsError(
            f"{path}: column 'scores' is null, empty or holds NaN in {_rows(absent)}. Remedy: leave such rows out"
        )
    outside = np.flatnonzero((rows[:, 1] < LOWEST) | (rows[:, 1] > HIGHEST))
    if len(outside):
        raise AnnotationsError(
            f"{path}: column 'scores' must lie between {LOWEST} and {HIGHEST}; {rows[outside[0], 1]:g} found "
            f"({_rows(np.unique(place[outside]))}). Remedy: map the judge's scale to {LOWEST}-{HIGHEST}"
        )
    means: Float64 = np.bincount(place, rows[:, 1], len(lists)) / np.bincount(place, minlength=len(lists))
    return means


def _weights(file: LabelFile) -> Float64 | None:
    if "natural_weight" not in file.table.column_names:
        return None
    path, values = file.path, file.numbers("natural_weight")
    bad = np.flatnonzero(~np.isfinite(values) | (values <= 0))
    if len(bad):
        raise AnnotationsError(
            f"{path}: column 'natural_weight' must be positive and finite ({_rows(bad)}). Remedy: mend or drop "
            "the column"
        )
    return values


def _check_ids(path: Path, table: pa.Table, texts: list[str]) -> None:
    """An id may come back with the same text, as a repeated rating, but not with another."""
    if "id" not in table.column_names:
        return
    seen: dict[object, int] = {}
    for row, value in enumerate(table.column("id").to_pylist()):
        if value is not None and texts[row] != texts[seen.setdefault(value, row)]:
            raise AnnotationsError(
                f"{path}: column 'id': {value!r} names two texts, in rows {seen[value]} and {row}. "
                "Remedy: give each text its own id, or drop the column"
            )


def _ratings(file: LabelFile, slots: list[int], count: int, target_name: str) -> tuple[Float64, str]:
    """(float64[count, 2], the columns they came from); see `Annotations.ratings`.

    A second rating is looked for in `expected_score_2`, `score_2`, a list column `scores` (its first two), and in rows
    that repeat a text.
    """
    found = np.full((count, 2), np.nan)
    table, names = file.table, file.table.column_names
    target = table.column(target_name).to_pylist()
    second: tuple[str, ...] = (f"{target_name}_2",)
    if target_name in ("expected_score", "score", "scores"):
        second = ("scores",) if target_name == "scores" else ("expected_score_2", "score_2", "scores")
    column = next((name for name in second if name in names), None)
    if column is None:
        source = "rows that repeat a text"
        seen = np.zeros(count, dtype=np.int64)
        for slot, value in zip(slots, target, strict=True):
            if slot >= 0 and seen[slot] < 2:
                found[slot, seen[slot]] = value
                seen[slot] += 1
    else:
        source = f"column {column}" if column == "scores" else f"columns {target_name} and {column}"
        for row, (slot, first, value) in enumerate(zip(slots, target, table.column(column).to_pylist(), strict=True)):
            if slot < 0 or value is None:
                continue
            pair = value[:2] if isinstance(value, list) else [first, value]
            if len(pair) == 2 and None not in pair:
                found[slot] = [_rating(file.path, column, row, rating) for rating in pair]
    found[~np.isfinite(found).all(axis=1)] = np.nan
    return found, source


def _rating(path: Path, column: str, row: int, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not LOWEST <= value <= HIGHEST:
        raise AnnotationsError(
            f"{path}: column {column!r} must hold ratings between {LOWEST} and {HIGHEST}; {value!r:.40} found in row "
            f"{row}. Remedy: mend or drop the column"
        )
    return float(value)


def hosts_of(table: pa.Table) -> list[str] | None:
    """Host of each row by its column `url`; None without one."""
    if "url" not in table.column_names:
        return None
    return host_names([None if url is None else str(url) for url in table.column("url").to_pylist()])


def _group(texts: tuple[str, ...], members: list[tuple[int, str]]) -> Int64:
    """int64[n]: connected components of "same host" and "nearly the same text", numbered by first member."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(host, slot), slot) for slot, host in members if host]
    return connected(len(texts), pairs + near_pairs(texts))


@dataclass(frozen=True)
class Pages:
    """Texts of a file that are not blank, with the host of each ("" where the file says none)."""

    texts: list[str]
    hosts: list[str]
    sha256: str


def read_pages(path: str | Path) -> Pages:
    """Read the columns `text` and, where it is there, `url` of a Parquet, JSON lines or CSV file.

    Raises:
        AnnotationsError: it cannot be read, or has no such column of strings.
    """
    file = read_labels(path)
    file.require("text", "rename the column that holds the page's text")
    texts = [text or "" for text in file.strings("text")]
    hosts = hosts_of(file.table) or [""] * len(texts)
    pages = [(text, host) for text, host in zip(texts, hosts, strict=True) if text.strip()]
    return Pages([text for text, _ in pages], [host for _, host in pages], file.sha256)


def read_raw_texts(config: DistillConfig, labels: Annotations, random_state: int) -> tuple[list[str], str]:
    """(texts to pseudo-label, what was done, in words).

    A text that nearly repeats a labelled page is left out: a student that had learnt the teacher's score of a test page
    would look better than it is.

    Raises:
        AnnotationsError: a file cannot be read, or nothing is left.
    """
    read: dict[str, None] = {}
    names = []
    for path in config.texts:
        pages = read_pages(path)
        read.update(dict.fromkeys(pages.texts))
        names.append(f"{Path(path).name} (sha256 {pages.sha256})")
    unique = list(read)
    count = len(labels)
    groups = connected(count + len(unique), near_pairs([*labels.texts, *unique]))
    near = np.isin(groups[count:], groups[:count])
    # One of each group of near copies is enough.
    heads = np.unique(groups[count:], return_index=True)[1]
    chosen = np.sort(heads[~near[heads]])
    if config.limit is not None and len(chosen) > config.limit:
        chosen = np.sort(np.random.default_rng(random_state).permutation(chosen)[: config.limit])
    if len(chosen) == 0:
        raise AnnotationsError(
            f"{', '.join(config.texts)}: every text repeats a labelled page. Remedy: give other texts to distil on"
        )
    note = (
        f"distilled on {len(chosen)} texts of {', '.join(names)}; {int(near.sum())} that nearly repeat a labelled page "
        f"and {len(unique) - len(heads)} near copies of others left out"
    )
    return [unique[row] for row in chosen.tolist()], note
