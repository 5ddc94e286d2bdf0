from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pytest

from filters.errors import ModelError
from filters.kernels.fasttext import CompiledFastText, _row
from filters.kernels.fasttext_format import read_fasttext
from filters.kernels.packed import PackedText
from tests.kernels.hostile import TEXTS

WORDS = {
    "school": "lesson exercise pupil theorem algebra history teacher question learn blåbær 学校",
    "shop": "price buy discount cart delivery product sale order cheap café 値段",
    "sport": "match goal team league coach season player score win målet 試合",
    "food": "recipe oven flour butter sugar bake dish taste soup smør 料理",
    "law": "court clause party contract liable statute appeal judge order § 法律",
    "code": "function array class loop compile string error stack thread return_value 変数",
    "common": "the of and to in a is that for it on with as by",
}
TOPICS = {topic: words.split() for topic, words in WORDS.items()}
COMMON = TOPICS.pop("common")
PREDICT_ADDS = 1e-5  # fastText reports exp(log(p + 1e-5))


def page(draw: random.Random, topic: str) -> str:
    return " ".join(draw.choice(draw.choice([TOPICS[topic], COMMON, COMMON])) for _ in range(draw.randint(3, 60)))


@pytest.fixture(scope="module")
def training_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("fasttext") / "train.txt"
    topics = [topic for count, topic in enumerate(TOPICS, 1) for _ in range(40 * count)]
    draw.shuffle(topics)
    path.write_text("".join(f"__label__{topic} {page(draw, topic)}\n" for topic in topics), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def two_labels(training_file: Path) -> Path:
    lines = training_file.read_text(encoding="utf-8").splitlines()
    path = training_file.with_name("two.txt")
    merged = [f"__label__{'keep' if 'school' in line.split()[0] else 'drop'} {line.split(' ', 1)[1]}" for line in lines]
    path.write_text("\n".join(merged) + "\n", encoding="utf-8")
    return path


def probe_texts() -> list[str]:
    draw = random.Random(1)
    # fastText's own float32 sums are off by more than the tolerance on the longest texts.
    hostile = [text[:10_000].decode("utf-8", "replace").replace("\n", " ") for text in TEXTS]
    pages = [page(draw, topic) for topic in TOPICS for _ in range(20)]
    unknown = ["xyzzy plugh", "lessons pricey goalkeeper", "the </s> lesson", "__label__shop lesson", "__label__ __lab"]
    return hostile + pages + unknown


def reference(model: Any, texts: list[str], labels: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What fastText's own predict says, label by label; 0 for labels it does not report."""
    probabilities = np.zeros((len(texts), len(labels)))
    for row, text in enumerate(texts):
        for probability, label in model.f.predict(text + "\n", len(labels), 0.0, "strict"):
            probabilities[row, labels.index(label)] = probability
    return probabilities


def train(path: Path, **options: Any) -> Any:
    settings = {"epoch": 8, "lr": 0.5, "thread": 1, "verbose": 0, "bucket": 5000, "seed": 3} | options
    return fasttext.train_supervised(str(path), **settings)


OPTIONS: dict[str, dict[str, Any]] = {
    "words": {"dim": 8},
    "bigrams": {"dim": 16, "wordNgrams": 2},
    "4-grams": {"dim": 8, "wordNgrams": 4},
    "subwords": {"dim": 16, "wordNgrams": 2, "minn": 3, "maxn": 6},
    "single characters": {"dim": 8, "minn": 1, "maxn": 2},
    "unfolded": {"dim": 4, "wordNgrams": 2, "minn": 2, "maxn": 3},
    "ova": {"dim": 16, "wordNgrams": 2, "loss": "ova"},
    "hs": {"dim": 16, "wordNgrams": 2, "loss": "hs"},
    "unfolded hs": {"dim": 3, "wordNgrams": 2, "loss": "hs"},
    "ns": {"dim": 16, "wordNgrams": 2, "loss": "ns"},
}


@pytest.mark.parametrize("labels", [2, 6])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_equals_fasttext(
    options: dict[str, Any], labels: int, training_file: Path, two_labels: Path, tmp_path: Path
) -> None:
    model = train(two_labels if labels == 2 else training_file, **options)
    model.save_model(str(tmp_path / "model.bin"))
    tabulated = options.get("loss") in ("ova", "ns")
    compare(model, tmp_path / "model.bin", hierarchical=options.get("loss") == "hs", tabulated=tabulated)


QUANTIZED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"dim": 16, "wordNgrams": 2}, {"qnorm": False}),
    "norms": ({"dim": 16, "wordNgrams": 2}, {"qnorm": True}),
    "odd dim": ({"dim": 7, "wordNgrams": 2}, {"qnorm": True, "dsub": 2}),
    "pruned": ({"dim": 16, "wordNgrams": 2, "minn": 2, "maxn": 4}, {"qnorm": True, "cutoff": 600}),
    "pruned hs": ({"dim": 16, "minn": 2, "maxn": 4, "loss": "hs"}, {"cutoff": 600}),
}


@pytest.mark.parametrize(("options", "quantization"), QUANTIZED.values(), ids=QUANTIZED)
def test_equals_quantized_fasttext(
    options: dict[str, Any], quantization: dict[str, Any], training_file: Path, tmp_path: Path
) -> None:
    model = train(training_file, **options)
    model.quantize(input=str(training_file), thread=1, verbose=0, **quantization)
    model.save_model(str(tmp_path / "model.ftz"))
    compare(model, tmp_path / "model.ftz", hierarchical=options.get("loss") == "hs")


def test_the_row_of_an_ngram_is_its_hash_modulo_the_buckets() -> None:
    draw = random.Random(3)
    for bucket in (1, 2, 3, 5000, 2_000_000, 2**31 - 1, 2**31):
        inverse = (2**64 - 1) // bucket
        for h in (
            0,
            1,
            bucket - 1,
            bucket,
            2**63,
            2**64 - bucket,
            2**64 - 1,
            *(draw.getrandbits(64) for _ in range(99)),
        ):
            row = _row(7, np.uint64(bucket), np.uint64(inverse), np.empty(0, np.int32), np.uint64(h))
            assert row == 7 + h % bucket


def test_quantized_output_matrix(tmp_path: Path) -> None:
    """fastText quantises the output from 256 labels on."""
    draw = random.Random(2)
    path = tmp_path / "many.txt"
    lines = [f"__label__{number % 300} w{number % 300} {draw.choice(COMMON)} x{number % 7}" for number in range(3000)]
    path.write_text("\n".join(lines) + "\n")
    model = train(path, dim=8, epoch=3)
    model.quantize(input=str(path), qout=True, thread=1, verbose=0)
    model.save_model(str(tmp_path / "model.ftz"))
    compare(model, tmp_path / "model.ftz", hierarchical=False)


SIGMOID_STEP = 16 / 512 / 4
"""Most that neighbours in fastText's table of the sigmoid differ by: its step times the largest slope."""


def compare(model: Any, path: Path, *, hierarchical: bool, tabulated: bool = False) -> None:
    texts = probe_texts()
    compiled = CompiledFastText.load(path)
    assert set(compiled.labels) == set(model.labels)
    expected = reference(model, texts, compiled.labels)
    found = compiled.predict_proba(PackedText.from_strings(texts))
    assert found.dtype == np.float32
    reported = expected > 0
    added = 0 if hierarchical else PREDICT_ADDS
    difference = np.abs(found[reported] + added - expected[reported])
    if tabulated:
        # A sum at the edge between two values of the table falls on either side of it.
        edges = difference > 5e-5
        assert edges.mean() < 0.01
        assert difference.max() < SIGMOID_STEP + 5e-5
        difference[edges] = 0
    np.testing.assert_allclose(difference, 0, atol=5e-5)
    assert (found[~reported] < 2e-5).all()
    top = np.sort(expected, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-4
    assert clear.any()
    np.testing.assert_array_equal(found.argmax(axis=1)[clear], expected.argmax(axis=1)[clear])
    label = compiled.labels[1]
    packed = PackedText.from_strings(texts)
    np.testing.assert_array_equal(compiled.score(packed, label), found[:, 1])
    np.testing.assert_array_equal(compiled.score(packed, label.removeprefix("__label__")), found[:, 1])


@pytest.fixture(scope="module")
def small_model(two_labels: Path) -> Path:
    path = two_labels.with_name("small.bin")
    train(two_labels, dim=4, wordNgrams=2, bucket=50, minn=2, maxn=3).save_model(str(path))
    return path


def test_newlines_separate_words_like_spaces(small_model: Path) -> None:
    texts = ["lesson\nexercise\r\npupil\n", "lesson exercise pupil"]
    found = CompiledFastText.load(small_model).predict_proba(PackedText.from_strings(texts))
    assert found[0].tolist() == found[1].tolist()


def test_text_after_a_literal_end_of_line_is_ignored(small_model: Path) -> None:
    texts = ["lesson exercise </s> price buy cart", "lesson exercise", "lesson exercise x</s> price buy cart"]
    found = CompiledFastText.load(small_model).predict_proba(PackedText.from_strings(texts))
    assert found[0].tolist() == found[1].tolist()
    assert found[0].tolist() != found[2].tolist()


def test_result_does_not_depend_on_the_batch(small_model: Path) -> None:
    compiled = CompiledFastText.load(small_model)
    whole = compiled.predict_proba(PackedText.from_bytes(TEXTS))
    for row in range(0, len(TEXTS), 17):
        assert compiled.predict_proba(PackedText.from_bytes([TEXTS[row]])).tolist() == [whole[row].tolist()]
    assert compiled.predict_proba(PackedText.from_bytes([])).shape == (0, 2)


def test_large_texts(small_model: Path) -> None:
    texts = [b"x" * 50_000_000, b"lesson " * 500_000, b" " * 5_000_000, b"\xff" * 1_000_000]
    found = CompiledFastText.load(small_model).predict_proba(PackedText.from_bytes(texts))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_unknown_label(small_model: Path) -> None:
    with pytest.raises(ModelError, match=r"'spam'.*__label__drop"):
        CompiledFastText.load(small_model).score(PackedText.from_strings(["a"]), "spam")


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.bin"):
        read_fasttext(tmp_path / "absent.bin")
    (tmp_path / "empty.bin").touch()
    with pytest.raises(ModelError, match=r"empty\.bin"):
        read_fasttext(tmp_path / "empty.bin")


def test_unsupervised_models_are_refused(training_file: Path, tmp_path: Path) -> None:
    model = fasttext.train_unsupervised(str(training_file), dim=4, epoch=1, thread=1, verbose=0, bucket=100, minCount=1)
    model.save_model(str(tmp_path / "vectors.bin"))
    with pytest.raises(ModelError, match="supervised"):
        read_fasttext(tmp_path / "vectors.bin")


def test_every_truncation_names_file_and_offset(small_model: Path, tmp_path: Path) -> None:
    whole = small_model.read_bytes()
    path = tmp_path / "cut.bin"
    for length in [*range(1, 400), *range(400, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.bin: byte \d+: "):
            read_fasttext(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ModelError, match="after the end"):
        read_fasttext(path)


@pytest.mark.parametrize(
    ("offset", "layout", "value", "message"),
    [
        (0, "i", 1, "magic"),
        (4, "i", 13, "version 13"),
        (8, "i", -5, "dim -5"),
        (8, "i", 5, "input matrix"),
        (32, "i", 9, "loss 9"),
        (40, "i", 0, "bucket 0"),
        (40, "i", 2**28, "input matrix"),
        (40, "i", 2**31 - 1, "bucket 2147483647"),
        (64, "i", 2**31 - 1, "dictionary"),
        (68, "i", -1, "dictionary"),
        (84, "q", 2**60, "pruned"),
        (84, "q", 0, "outdated"),
    ],
)
def test_corrupt_headers(small_model: Path, tmp_path: Path, offset: int, layout: str, value: int, message: str) -> None:
    content = bytearray(small_model.read_bytes())
    struct.pack_into("<" + layout, content, offset, value)
    path = tmp_path / "corrupt.bin"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_fasttext(path)


def test_a_pruned_model_has_no_more_buckets_than_its_file_could_fill(training_file: Path, tmp_path: Path) -> None:
    quantized = train(training_file, dim=6, minn=2, maxn=3, bucket=2000)
    quantized.quantize(input=str(training_file), cutoff=300, thread=1, verbose=0)
    path = tmp_path / "model.ftz"
    quantized.save_model(str(path))
    content = bytearray(path.read_bytes())
    struct.pack_into("<i", content, 40, 2**28)
    path.write_bytes(content)
    with pytest.raises(ModelError, match="268,435,456 buckets in a file of"):
        read_fasttext(path)


def test_a_quantised_matrix_unpacks_to_what_its_file_can_hold(training_file: Path, tmp_path: Path) -> None:
    """Ten million rows of 1,000 columns, each a single code: 40 GB from 10 MB."""
    quantized = train(training_file, dim=6, minn=2, maxn=3, bucket=200)
    quantized.quantize(input=str(training_file), thread=1, verbose=0)
    path = tmp_path / "model.ftz"
    quantized.save_model(str(path))
    content = path.read_bytes()
    read_fasttext(path)
    at = next(
        place
        for place in range(len(content) - 21)
        if struct.unpack_from("<q", content, place + 9)[0] == 6
        and content[place] in (0, 1)
        and 0 < struct.unpack_from("<q", content, place + 1)[0] < 100_000
        and struct.unpack_from("<i", content, place + 17)[0] == 3 * struct.unpack_from("<q", content, place + 1)[0]
    )
    path.write_bytes(content[: at + 1] + struct.pack("<2qi", 10_000_000, 1000, 10_000_000) + content[at + 21 :])
    with pytest.raises(ModelError, match="a table of 40,000,000,000 bytes in a file of"):
        read_fasttext(path)


def test_random_corruption_never_crashes(training_file: Path, small_model: Path, tmp_path: Path) -> None:
    """A flipped byte gives a ModelError or a model that still scores within bounds."""
    quantized = train(training_file, dim=6, minn=2, maxn=3, bucket=200)
    quantized.quantize(input=str(training_file), qnorm=True, cutoff=300, thread=1, verbose=0)
    quantized.save_model(str(tmp_path / "model.ftz"))
    draw = random.Random(4)
    packed = PackedText.from_bytes([text for text in TEXTS if len(text) < 2000])
    refused = 0
    for source in (small_model, tmp_path / "model.ftz"):
        whole = source.read_bytes()
        for _ in range(150):
            content = bytearray(whole)
            content[draw.randrange(draw.choice([100, len(whole)]))] = draw.randrange(256)
            (tmp_path / "flipped").write_bytes(content)
            try:
                found = CompiledFastText.load(tmp_path / "flipped").predict_proba(packed)
            except ModelError:
                refused += 1
            else:
                assert found.shape[0] == len(packed)
    assert refused > 30
