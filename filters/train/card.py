"""The model card: README.md of a model folder, written from its manifest."""

from __future__ import annotations

from typing import Any

from filters.cards import bullets, card_table, cell, make_card
from filters.model.folder import Manifest
from filters.model.kinds.encoder import EncoderFeatures
from filters.model.windows import MAX_WINDOWS
from filters.statistics.agreement import METRICS
from filters.statistics.resampling import Estimate
from filters.train.evaluation import Coverage

MIX = '"Sample" counts every labelled page once; "natural mix" weights them back to the mix of the crawl.'
ONE_MIX = "The metrics hold for pages drawn as these were; on another mix of pages precision differs most."
LABEL_METRICS = {
    "accuracy": "accuracy",
    "majority_accuracy": "accuracy of naming the commonest label always",
    "macro_f1": "macro-F1",
    "majority_macro_f1": "macro-F1 of naming the commonest label always",
    "top_two": "the label is among the two likeliest",
    "calibration_error": "calibration error of the probability",
}
"""Metrics of labels, in words."""


def write_card(manifest: Manifest) -> str:
    """Markdown that says what the model is, what it was trained on, how it was measured and how to use it."""
    training = manifest.training
    assert training is not None, "a card is written for a trained model"
    metrics: dict[str, Any] = manifest.metrics
    parts = [part for part in (metrics["sample"], metrics["natural"]) if part]
    judge = f"an LLM judge with the rubric `{manifest.rubric.name}`" if manifest.rubric else "a judge"
    scale = "the score, 0 to 5, that"
    if manifest.settings.get("target") is not None:
        scale = f"the {training.target}, a number from 0 up, that"
    precisely = ", both as float32; a tie is kept" if manifest.keep.rounded is None else " (as float32)"
    return make_card(
        *_opening(manifest, f"predicts {scale} {judge} gives a page", "options and calibration were"),
        card_table(
            ("metric", "sample", "natural mix")[: len(parts) + 1],
            [(label, *(str(Estimate.model_validate(part[name])) for part in parts)) for name, label in METRICS.items()],
        ),
        MIX if metrics["natural"] else ONE_MIX,
        "## Keep rule",
        f"Keep a page when {manifest.keep}{precisely}. "
        f"Scores are mapped to the judge's scale by {manifest.calibration} calibration on out-of-fold predictions: "
        "a score is what the judge gives such pages on average, as nearly as a map can be that also keeps, at the keep "
        "rule, the share of pages that the judge keeps.",
        *_three_way(metrics["conformal"]),
        "## What it is bad at",
        bullets(*_limits(manifest)),
        *_remarks(manifest),
    )


def write_label_card(manifest: Manifest) -> str:
    """As `write_card`, of a model that tells labels apart."""
    metrics: dict[str, Any] = manifest.metrics
    parts = [part for part in (metrics["sample"], metrics["natural"]) if part]
    target = manifest.training.target if manifest.training else "label"
    rows = [
        (cell(part["label"]), str(part["rows"]), *(f"{part[name]:.2f}" for name in ("precision", "recall", "f1")))
        for part in metrics["labels"]
    ]
    return make_card(
        *_opening(manifest, f"says which {target} a page has, of {len(manifest.labels)}", "options were"),
        card_table(
            ("metric", "sample", "natural mix")[: len(parts) + 1],
            [
                (label, *(str(Estimate.model_validate(part[name])) for part in parts))
                for name, label in LABEL_METRICS.items()
            ],
        ),
        MIX if metrics["natural"] else ONE_MIX,
        "## Labels",
        "It gives one label of these, and the probability that it is right (`finesieve score MODEL page.txt`). Each "
        "counts on its own:",
        card_table(("label", "pages", "precision", "recall", "F1"), rows, right=range(1, 5)),
        "## What it is bad at",
        bullets(
            "Labels that are near each other: it names the likeliest one, with a low probability then.",
            "A page that fits none of the labels gets one all the same.",
            *_limits_of_all(manifest),
        ),
        *_remarks(manifest),
    )


def _opening(manifest: Manifest, does: str, chosen: str) -> list[str]:
    training = manifest.training
    assert training is not None, "a card is written for a trained model"
    metrics: dict[str, Any] = manifest.metrics
    article = "An" if manifest.kind.startswith("e") else "A"
    inside = f"{chosen} chosen inside each training part ({metrics['inner_folds']} folds)"
    return [
        f"# {manifest.name}",
        f"{article} `{manifest.kind}` classifier that {does}. {_reads(manifest)}",
        *_encoders(manifest),
        "## Trained on",
        f"{training.rows} labelled texts in `{training.name}` (sha256 `{training.sha256}`), target `{training.target}`"
        + (f", language {manifest.language}." if manifest.language else "."),
        bullets(*training.notes),
        "## How it was measured",
        f"{metrics['method'].capitalize()}: {metrics['repeats']} repeats of {metrics['folds']} folds; {inside}. "
        f"Intervals: {metrics['confidence']:.0%} bootstrap over {metrics['groups']} groups.",
    ]


def _remarks(manifest: Manifest) -> list[str]:
    remarks = manifest.settings.get("remarks")
    return ["## Remarks", bullets(*map(str, remarks))] if isinstance(remarks, list) and remarks else []


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
        *_limits_of_all(manifest),
    ]


def _limits_of_all(manifest: Manifest) -> list[str]:
    return [
        f"{_reads(manifest)} What it does not read does not count.",
        "Pages in another language than its training data get scores without meaning.",
    ]
