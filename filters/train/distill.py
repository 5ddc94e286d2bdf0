"""Raw texts for distillation: read, and cleared of everything that is a labelled page or nearly one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from filters.errors import AnnotationsError
from filters.read.labels import read_labels
from filters.statistics.splits import connected, near_pairs
from filters.train.annotations import Annotations, hosts_of
from filters.train.config import DistillConfig


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
