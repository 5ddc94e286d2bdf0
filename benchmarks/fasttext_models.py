"""Scoring a user's own fastText model beside fastText's `predict`: same binding, same documents, equal answers.

    python -m benchmarks.fasttext_models [--documents 4000] [--stock-documents 1000] [--repeats 5]

One core. `predict` is called once per document: on a list it is no faster. Before the clock starts its texts have lost
their newlines, which it refuses; ours starts from the Arrow column. Answers are compared on all of its documents and on
hostile ones: literal `</s>` and `__label__x` tokens, nothing, white space, control characters, one huge token.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import fasttext
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.corpus import build
from benchmarks.filtering import labelled
from benchmarks.measure import Report, Row, arguments, bind_to_one_core, clocked, in_turn, ratios
from filters.kernels.fasttext import CompiledFastText
from filters.kernels.packed import PackedText

MARGIN = 5e-5
"""Largest difference of a probability: fastText sums in float32."""
SIGMOID_STEP = 16 / 512 / 4
"""Most that neighbours in fastText's table of the sigmoid differ by: a sum at the edge of the two may take either."""
TRAINED_ON = 1000
HOSTILE = (
    "",
    " \t ",
    "</s>",
    "before </s> after, which nobody reads",
    "a __label__0 inside and __label__unheard of",
    "__label__1",
    "naïve café 東京 \U0001f600 \x01\x7f",
    "x" * 50_000,
    "word " * 5_000,
)


@dataclass(frozen=True)
class Model:
    """A kind of model people have."""

    row: str
    what: str
    options: dict[str, Any]
    labels: int = 2
    target: float | None = None
    quantized: bool = False


MODELS = (
    Model("bigrams", "fastText .bin, dim 100, word bigrams, 2M buckets", {"bucket": 2_000_000}, target=10),
    Model("characters", "the same and character 3- to 6-grams", {"bucket": 2_000_000, "minn": 3, "maxn": 6}, target=5),
    Model("six-labels", "fastText .bin, word bigrams, 6 labels", {"bucket": 200_000}, labels=6),
    Model("one-versus-all", "the same, loss ova", {"bucket": 200_000, "loss": "ova"}, labels=6),
    Model("hierarchical", "the same, loss hs", {"bucket": 200_000, "loss": "hs"}, labels=6),
    Model("quantized", "fastText .ftz, pruned and quantised", {"bucket": 10_000}, quantized=True),
)


@dataclass(frozen=True)
class Agreement:
    """How two tables of probabilities differ.

    Attributes:
        difference: largest difference of a probability, without those at an edge.
        edge: largest difference at an edge of fastText's table of the sigmoid, at most `SIGMOID_STEP`; 0: none.
        decisions: how many decisions were compared: each label, at one half and at its median, where neither side is
            within `MARGIN` of the threshold.
        different: how many of them differ.
    """

    difference: float
    edge: float
    decisions: int
    different: int


def agreement(ours: np.ndarray, theirs: np.ndarray, *, tabulated: bool = False) -> Agreement:
    """Compare float[n, labels] with float[n, labels]; `tabulated`: the loss takes its probabilities from a table."""
    decisions = different = 0
    for threshold in (np.full(theirs.shape[1], 0.5), np.median(theirs, axis=0)):
        certain = (np.abs(ours - threshold) > MARGIN) & (np.abs(theirs - threshold) > MARGIN)
        decisions += int(certain.sum())
        different += int(((ours > threshold) != (theirs > threshold))[certain].sum())
    differences = np.abs(ours - theirs)
    edges = (differences > MARGIN) & (differences < SIGMOID_STEP + MARGIN) & tabulated
    rest, edge = (float(differences.max(initial=0, where=where)) for where in (~edges, edges))
    return Agreement(rest, edge, decisions, different)


def expected(model: Any, labels: tuple[str, ...], texts: list[str]) -> np.ndarray:
    """fastText's probabilities, float64[n, labels]."""
    # predict adds 1e-5 to a probability; hierarchical softmax adds it at each branch, where it belongs to the model
    added = 0.0 if "hs" in str(model.f.getArgs().loss) else 1e-5
    probabilities = np.zeros((len(texts), len(labels)))
    for row, text in enumerate(texts):
        for probability, label in model.f.predict(text + "\n", len(labels), 0.0, "strict"):
            probabilities[row, labels.index(label)] = probability - added
    return probabilities


def train(kind: Model, texts: list[str], folder: Path) -> tuple[Any, CompiledFastText]:
    """The model, in fastText and in ours; each has read the same file."""
    lines, path = folder / "train.txt", folder / ("model.ftz" if kind.quantized else "model.bin")
    lines.write_text(labelled(texts[:TRAINED_ON], tuple(map(str, range(kind.labels)))), encoding="utf-8")
    model = fasttext.train_supervised(
        str(lines), dim=100, wordNgrams=2, lr=1.0, epoch=4, thread=1, verbose=0, **kind.options
    )
    if kind.quantized:
        model.quantize(qnorm=True, cutoff=10_000)
    model.save_model(str(path))
    loaded = fasttext.load_model(str(path)), CompiledFastText.load(path)
    path.unlink()
    return loaded


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, documents=4000, stock_documents=1000, repeats=5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kind = build(folder / "dump.parquet", options.documents)
        texts = [" ".join(text.split()) for text in pq.read_table(folder / "dump.parquet")["text"].to_pylist()]
        column, few = pa.chunked_array([pa.array(texts, pa.large_string())]), texts[: options.stock_documents]
        report = Report(
            "fasttext_models", f"{options.documents:,} documents of about 3,200 characters, {kind}", bind_to_one_core()
        )
        found: dict[str, Agreement] = {}
        for model in MODELS:
            theirs, ours = train(model, texts, folder)
            compared = [*few, *HOSTILE]
            found[model.row] = agreement(
                ours.predict_proba(PackedText.from_strings(compared)),
                expected(theirs, ours.labels, compared),
                tabulated=model.options.get("loss") == "ova",
            )

            def score(ours: CompiledFastText = ours) -> int:
                return len(ours.predict_proba(PackedText.from_arrow(column)))

            def predict(theirs: Any = theirs) -> int:
                return len([theirs.predict(text) for text in few])

            timings = in_turn({"ours": lambda: clocked(score), "theirs": lambda: clocked(predict)}, options.repeats)
            report.add(
                Row(row=f"score.{model.row}", what=f"scoring: {model.what}", against="fastText's `predict`",
                    target=model.target, **ratios(timings["ours"], timings["theirs"]))
            )  # fmt: skip
        report.details["equality"] = {row: vars(one) for row, one in found.items()}
        report.add(
            Row(row="score.difference", what="largest difference of a probability, all of these", held_to="target",
                against="fastText's `predict`", value=float(f"{max(o.difference for o in found.values()):.2g}"),
                unit="", better="lower", target=MARGIN),
            Row(row="score.decisions",
                what=f"decisions that differ, of {sum(one.decisions for one in found.values()):,} outside that margin",
                against="fastText's `predict`", value=sum(one.different for one in found.values()), unit="",
                better="lower", target=0, held_to="target"),
        )  # fmt: skip
        report.write(options.results)


if __name__ == "__main__":
    main()
