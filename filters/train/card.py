"""The model card: README.md of a model folder, written from its manifest."""

from __future__ import annotations

from typing import Any

from filters.cards import bullets, card_table, make_card
from filters.model.encoder_scorer import EncoderFeatures
from filters.model.folder import Manifest
from filters.model.windows import MAX_WINDOWS
from filters.statistics.agreement import METRICS
from filters.statistics.bootstrap import Estimate
from filters.train.conformal import Coverage


def write_card(manifest: Manifest) -> str:
    """Markdown that says what the model is, what it was trained on, how it was measured and how to use it."""
    training = manifest.training
    assert training is not None, "a card is written for a trained model"
    metrics: dict[str, Any] = manifest.metrics
    parts = [part for part in (metrics["sample"], metrics["natural"]) if part]
    judge = f"an LLM judge with the rubric `{manifest.rubric.name}`" if manifest.rubric else "a judge"
    precisely = ", both as float32; a tie is kept" if manifest.keep.rounded is None else " (as float32)"
    remarks = manifest.settings.get("remarks")
    remarks = remarks if isinstance(remarks, list) else []
    return make_card(
        f"# {manifest.name}",
        f"{'An' if manifest.kind.startswith('e') else 'A'} `{manifest.kind}` classifier that predicts the score, 0 to "
        f"5, that {judge} gives a page. {_reads(manifest)}",
        *_encoders(manifest),
        "## Trained on",
        f"{training.rows} labelled texts in `{training.name}` (sha256 `{training.sha256}`), target `{training.target}`"
        + (f", language {manifest.language}." if manifest.language else "."),
        bullets(*training.notes),
        "## How it was measured",
        f"{metrics['method'].capitalize()}: {metrics['repeats']} repeats of {metrics['folds']} folds; options "
        f"and calibration were chosen inside each training part ({metrics['inner_folds']} folds). "
        f"Intervals: {metrics['confidence']:.0%} bootstrap over {metrics['groups']} groups.",
        card_table(
            ("metric", "sample", "natural mix")[: len(parts) + 1],
            [(label, *(str(Estimate.model_validate(part[name])) for part in parts)) for name, label in METRICS.items()],
        ),
        '"Sample" counts every labelled page once; "natural mix" weights them back to the mix of the crawl.'
        if metrics["natural"]
        else "The metrics hold for pages drawn as these were; on another mix of pages precision differs most.",
        "## Keep rule",
        f"Keep a page when {manifest.keep}{precisely}. "
        f"Scores are mapped to the judge's scale by {manifest.calibration} calibration on out-of-fold predictions: "
        "a score is what the judge gives such pages on average, as nearly as a map can be that also keeps, at the keep "
        "rule, the share of pages that the judge keeps.",
        *_three_way(metrics["conformal"]),
        "## What it is bad at",
        bullets(*_limits(manifest)),
        *(["## Remarks", bullets(*map(str, remarks))] if remarks else []),
    )


def _three_way(found: list[dict[str, Any]]) -> list[str]:
    rows = [Coverage.model_validate(row | {"bins": ()}) for row in found]
    if not rows:
        return []
    return [
        "## Keep, drop or undecided",
        "Round each score lies a band that misses the judge's score at most with the error rate asked for "
        "(`finesieve score --error-rate 0.1`, `model.decide(texts, 0.1)`), for pages drawn as those above. A page is "
        "decided where its whole band is on one side of the keep rule. Quantiles of residuals by score, from "
        "cross-validation; measured on hosts the quantiles have not seen:",
        card_table(
            ("error rate", "judge in the band", "keep", "undecided", "drop", "wrong among keeps", "wrong among drops"),
            [
                (
                    f"{row.alpha:g}",
                    str(row.coverage),
                    *(f"{share:.1%}" for share in (row.keep, row.undecided, row.drop)),
                    *map(str, (row.wrong_keep, row.wrong_drop)),
                )
                for row in rows
            ],
        ),
    ]


def _encoders(manifest: Manifest) -> list[str]:
    if manifest.kind != "encoder":
        return []
    about = EncoderFeatures.model_validate(manifest.features)
    points = []
    for known in (about, *about.beside):
        options = known.encoder
        layers = "its output" if options.layers == "output" else f"layers {', '.join(map(str, options.layers))}"
        points.append(f"`{options.encoder}`, {layers}: {', '.join(options.pooling)} (sha256 `{known.sha256}`)")
    return ["Its head reads the states of", bullets(*points)]


def _reads(manifest: Manifest) -> str:
    size = manifest.window
    return {
        "first": f"It reads the first {size} characters.",
        "begin-middle-end": f"It reads {size} characters each at the beginning, the middle and the end, and averages.",
        "max": f"It reads windows of {size} characters, up to {MAX_WINDOWS}; the best one counts.",
        "length-weighted": f"It reads windows of {size} characters, up to {MAX_WINDOWS}, and averages by length.",
    }[manifest.windows]


def _limits(manifest: Manifest) -> list[str]:
    metrics: dict[str, Any] = manifest.metrics
    precision, recall = (metrics["sample"][name]["value"] for name in ("precision", "recall"))
    return [
        f"At the keep rule, {1 - precision:.0%} of what it keeps the judge would drop, and it misses {1 - recall:.0%} "
        "of what the judge would keep."
        if precision is not None and recall is not None
        else "",
        "It judges vocabulary, not argument: a page that uses the words of a school subject without explaining "
        "anything can score high, and a good explanation in unusual words low."
        if manifest.kind != "encoder"
        else "",
        f"{_reads(manifest)} What it does not read does not count.",
        "Pages in another language than its training data get scores without meaning.",
    ]
