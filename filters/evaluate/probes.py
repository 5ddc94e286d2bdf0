"""Robustness probes: how many keep/drop decisions flip when a page says the same and looks different?

Each probe is a deterministic change of the text. None of them makes a page better or worse for a reader (keyword
stuffing and the wrappers add words without content), so a good model's decision stays.

For comparison: rewriting pages in the style of Wikipedia reverses about 7 % of the decisions of the FineWeb-Edu
classifier (Klimaszewski and Andruszkiewicz 2026, "Is a Document Educational or Just Wikipedia-Style?",
arXiv 2605.23721). Their rewrite is an LLM's; ours are templates, so the figures can be set side by side but are not the
same measurement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from filters.arrays import Float32
from filters.statistics.agreement import Scores
from filters.statistics.resampling import Estimate, Measure
from filters.train.annotations import Annotations

REFERENCE = 0.07
"""Share of decisions that a style rewrite flips in the FineWeb-Edu classifier; see the module."""
NEAR = 0.5
"""A page is near the threshold when its score is at most this far from it."""

_BOILERPLATE = (
    "Skip to main content\nHome | About us | Contact | Log in | Register\n"
    "We use cookies to make this site work and to understand how visitors use it. By continuing to browse you agree to "
    "our cookie policy. Accept all | Reject | Settings\n"
    "Subscribe to our newsletter and never miss an update. Follow us on social media. Share this page | Print | "
    "Send to a friend\nSearch\nMenu\n\n"
)
_TEXTBOOK_START = (
    "Chapter 4\n\nLearning objectives\nAfter reading this section you will be able to:\n"
    "- name the main ideas of the section in your own words\n- explain how they are connected\n"
    "- use them to answer the review questions\n\nIntroduction\n"
)
_TEXTBOOK_END = (
    "\n\nSummary\nIn this section we have learned the main ideas and how they are connected.\n\n"
    "Review questions\n1. What is the main idea of this section?\n2. Give an example of your own.\n"
    "3. Why is this important?\n"
)
_ENCYCLOPEDIA = ("Overview", "Background", "Description", "Characteristics", "Reception and use")
_ENCYCLOPEDIA_END = (
    "\n\n== See also ==\n* List of related topics\n\n== References ==\n1. ^ Archived from the original.\n"
)
_KEYWORDS = (
    "lesson, exercise, students, teacher, curriculum, homework, classroom, learning, education, textbook, chapter, "
    "worksheet, definition, example, explanation, science, mathematics, history, theory, knowledge"
)


def boilerplate(text: str) -> str:
    """A site's menu, cookie notice and newsletter box before the text."""
    return _BOILERPLATE + text


def truncation(text: str) -> str:
    """The first half of the text, cut between words where it has any."""
    half = text[: (len(text) + 1) // 2]
    cut = half.rfind(" ")
    return half[:cut] if cut > len(half) // 2 else half


def white_space(text: str) -> str:
    """Spaces doubled, lines indented and set apart by empty lines."""
    lines = (line.replace(" ", "  ") for line in text.splitlines())
    return "\n\n".join(f"    {line}" for line in lines)


def markdown(text: str) -> str:
    """Lines made headings (the first, and short ones) and list items, with their first word emphasised."""
    lines = []
    for number, line in enumerate(line.strip() for line in text.splitlines() if line.strip()):
        first, _, rest = line.partition(" ")
        heading = number == 0 or len(line) < 40
        lines.append(f"## {line}\n" if heading else f"- **{first}** {rest}".rstrip())
    return "\n".join(lines)


def upper_case(text: str) -> str:
    """Everything in capitals."""
    return text.upper()


def textbook(text: str) -> str:
    """Dressed as a textbook section: objectives before the text, summary and review questions after it."""
    return _TEXTBOOK_START + text + _TEXTBOOK_END


def encyclopedia(text: str) -> str:
    """Dressed as an encyclopedia article: the text under section headings, with empty references."""
    parts = re.split(r"\n+|(?<=[.!?])\s+", text.strip())
    size = -(-len(parts) // len(_ENCYCLOPEDIA))
    sections = (" ".join(parts[start : start + size]) for start in range(0, len(parts), size))
    named = zip(_ENCYCLOPEDIA, sections, strict=False)
    return "\n\n".join(f"== {name} ==\n{section}" for name, section in named) + _ENCYCLOPEDIA_END


def keywords(text: str) -> str:
    """Twenty words of school life before and after the text."""
    return f"{_KEYWORDS}\n\n{text}\n\n{_KEYWORDS}"


@dataclass(frozen=True, slots=True)
class Probe:
    """A change of the text, with its meaning for a reader of the report."""

    meaning: str
    change: Callable[[str], str]


PROBES = {
    "boilerplate": Probe("menu, cookie notice and newsletter box before the text", boilerplate),
    "truncation": Probe("only the first half of the text", truncation),
    "white space": Probe("spaces doubled, lines indented and set apart", white_space),
    "markdown": Probe("lines made headings and list items, words emphasised", markdown),
    "upper case": Probe("everything in capitals", upper_case),
    "textbook": Probe("learning objectives before, summary and review questions after the text", textbook),
    "encyclopedia": Probe("the text under an encyclopedia's section headings", encyclopedia),
    "keywords": Probe("twenty words of school life before and after the text", keywords),
}


class ProbeResult(BaseModel):
    """What one probe did to the decisions.

    Attributes:
        probe: name in `PROBES`.
        flips: share of all decisions that flip.
        natural: the same in the natural mix of the crawl; None where the annotations have no weights.
        near: share of flips among pages with a score at most `NEAR` from the threshold.
        near_rows: how many those are (averaged over repeated predictions).
        gained: share of all pages that turn from drop to keep.
        lost: share of all pages that turn from keep to drop.
    """

    model_config = ConfigDict(frozen=True)

    probe: str
    meaning: str
    flips: Estimate
    natural: Estimate | None
    near: Estimate
    near_rows: int
    gained: float
    lost: float
    shift: Estimate
    above_reference: bool


def probe_scores(score: Callable[[Sequence[str]], Float32], texts: Sequence[str]) -> dict[str, Float32]:
    """Scores of `texts` under every probe: name -> float32[n]."""
    return {name: score([probe.change(text) for text in texts]) for name, probe in PROBES.items()}


def measure_probes(
    original: Scores,
    probed: Mapping[str, Scores],
    labels: Annotations,
    measure: Measure,
) -> tuple[ProbeResult, ...]:
    """Compare decisions before and after.

    Args:
        original: float[n], scores of the texts as they are.
        probed: probe -> float[n], scores of the changed texts by the same models.
        labels: the n texts.
        measure: the keep rule and the bootstrap.
    """
    before = np.asarray(original, dtype=np.float32)
    cut = np.float32(measure.min_score)
    kept = before >= cut
    near = (np.abs(before.astype(np.float64) - measure.min_score) <= NEAR).astype(np.float64)
    every = np.ones(len(labels))
    natural = None if labels.natural_weight is None else labels.natural_weight * labels.random
    weights = [every, every, near, *([] if natural is None else [natural])]
    results = []
    for name, scores in probed.items():
        after = np.asarray(scores, dtype=np.float32)
        keeps = after >= cut
        flip = kept != keeps
        shift = after.astype(np.float64) - before
        means = measure.means([flip, shift, *[flip] * (len(weights) - 2)], weights, labels.groups)
        flips = means[0]
        results.append(
            ProbeResult(
                probe=name,
                meaning=PROBES[name].meaning,
                flips=flips,
                natural=None if natural is None else means[3],
                near=means[2],
                near_rows=int(near.sum()),
                gained=float(np.mean(keeps & ~kept)),
                lost=float(np.mean(kept & ~keeps)),
                shift=means[1],
                above_reference=flips.value is not None and flips.value > REFERENCE,
            )
        )
    return tuple(results)
