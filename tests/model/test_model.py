"""The model folder and its loading, mostly against folders that want to do harm."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from filters.errors import ModelError
from filters.kernels.packed import PackedText
from filters.model import Calibration, QualityModel
from filters.model.folder import KeepRule, Manifest
from filters.model.kinds.linear import LinearFeatures, LinearScorer
from filters.models import embedded_models

BITS = 8
TEXTS = ["Light is energy. Plants use light.", "Buy now, cheap!", "", "x" * 5000, "é 漢字 \U0001f600 \ud800"]


def linear_model(**changes: Any) -> QualityModel:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=2**BITS).astype(np.float16).astype(np.float32)
    idf = (1 + rng.random(2**BITS)).astype(np.float16).astype(np.float32)
    scorer = LinearScorer(LinearFeatures(bits=BITS), weights, idf, 0.25)
    manifest = Manifest(
        name="small",
        kind="linear",
        window=1000,
        normalisation=scorer.normalisation,
        features=scorer.features(),
        calibration="isotonic",
    )
    calibration = Calibration(np.array([-2.0, 0.0, 2.0]), np.array([0.0, 1.0, 5.0]))
    return QualityModel(scorer, calibration, manifest.model_copy(update=changes), "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    linear_model().save(tmp_path / "model")
    return tmp_path / "model"


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change model.json as an attacker who knows the format would: digests of the files stay right."""
    data = json.loads((folder / "model.json").read_text())
    change(data)
    (folder / "model.json").write_text(json.dumps(data))


def put(folder: Path, name: str, content: bytes) -> None:
    """Put a file into the folder and list it in model.json with its right size and digest."""
    (folder / name).write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(folder, lambda data: data["files"].__setitem__(name, entry))


def arrays(**changes: Any) -> bytes:
    good = {
        "weights": np.zeros(2**BITS, np.float16),
        "idf": np.ones(2**BITS, np.float16),
        "intercept": np.zeros(1, np.float64),
    }
    return save({name: value for name, value in (good | changes).items() if value is not None})


class Explosive:
    """Unpickling this creates the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_saved_model_scores_as_before(folder: Path) -> None:
    before, after = linear_model(), QualityModel.load(folder)
    np.testing.assert_array_equal(after.score(TEXTS), before.score(TEXTS))
    assert after.score(TEXTS).dtype == np.float32
    assert len(set(after.score(TEXTS).tolist())) > 2
    assert after.name == "small"
    assert after.window == 1000
    assert after.keep == KeepRule(min_score=1.5, tie=">=")
    assert after.metadata.kind == "linear"
    assert sorted(after.metadata.files) == ["calibration.safetensors", "weights.safetensors"]


def test_packed_texts_score_as_strings_do(folder: Path) -> None:
    model = QualityModel.load(str(folder))
    np.testing.assert_array_equal(model.score_packed(PackedText.from_strings(TEXTS)), model.score(TEXTS))
    assert model.score([]).shape == (0,)


def test_text_beyond_the_window_does_not_count(folder: Path) -> None:
    model = QualityModel.load(folder)
    long = "word " * 200
    first, second = model.score([long, long + "photosynthesis " * 50])
    assert len(long) == model.window
    assert first == second


def test_keep_rule_keeps_ties_in_float32() -> None:
    rule = KeepRule(min_score=1.6)
    scores = np.array([1.6, np.nextafter(np.float32(1.6), np.float32(0)), 3.0], np.float32)
    assert rule.keep(scores).tolist() == [True, False, True]


def test_digest_follows_the_content(tmp_path: Path) -> None:
    first = linear_model().save(tmp_path / "a")
    assert linear_model().save(tmp_path / "b").digest == first.digest
    assert len(first.digest) == 64
    assert linear_model(window=999).save(tmp_path / "c").digest != first.digest
    model = linear_model()
    weights = model.scorer.weights.copy()
    weights[0] += 1
    assert replace(model, scorer=replace(model.scorer, weights=weights)).save(tmp_path / "d").digest != first.digest


def test_a_card_may_be_edited_without_changing_the_model(folder: Path) -> None:
    digest = QualityModel.load(folder).digest
    (folder / "README.md").write_text("a card")
    assert QualityModel.load(folder).digest == digest


def test_saving_never_overwrites_unless_told(folder: Path) -> None:
    before = QualityModel.load(folder).digest
    with pytest.raises(ModelError, match=r"a model is already there\. Remedy: .*--overwrite"):
        linear_model(window=5).save(folder)
    assert QualityModel.load(folder).digest == before
    assert linear_model(window=5).save(folder, overwrite=True).window == 5
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_saving_never_replaces_what_is_no_model(tmp_path: Path, folder: Path, kind: str) -> None:
    target = tmp_path / "thesis"
    if kind == "folder":
        target.mkdir()
        (target / "chapter1.tex").write_text("years of work")
    elif kind == "file":
        target.write_text("years of work")
    else:
        target.symlink_to(folder)
    with pytest.raises(ModelError, match="exists and is not a model folder"):
        linear_model().save(target, overwrite=True)
    assert target.exists()


@pytest.mark.parametrize("present", [False, True])
def test_interrupted_saving_leaves_things_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: bool
) -> None:
    target = tmp_path / "model"
    digest = linear_model().save(target).digest if present else None
    real, calls = Path.rename, []

    def rename(self: Path, other: Path) -> Path:
        calls.append(self)
        if Path(other) == target and len(calls) <= 2:
            raise KeyboardInterrupt
        return real(self, other)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        linear_model(window=5).save(target, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == (["model"] if present else [])
    if present:
        assert QualityModel.load(target).digest == digest


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"edu-xx: no such model\. Remedy: .*edu-en"):
        QualityModel.load("edu-xx")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="#__label__NAME"):
        QualityModel.load(tmp_path / "model.bin")
    with pytest.raises(ModelError, match="missing, so this is no model folder"):
        QualityModel.load(tmp_path)


def test_a_pickle_beside_the_model_is_refused_and_not_run(tmp_path: Path, folder: Path) -> None:
    (folder / "model.pkl").write_bytes(pickle.dumps(Explosive(tmp_path / "exploded")))
    with pytest.raises(ModelError, match=r"model\.pkl: not listed in model\.json\. Remedy"):
        QualityModel.load(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("disguise", ["pickle", "npz", "npy"])
def test_a_pickle_in_place_of_the_arrays_is_refused_and_not_run(tmp_path: Path, folder: Path, disguise: str) -> None:
    bomb = np.array([Explosive(tmp_path / "exploded")], dtype=object)
    path = tmp_path / "bomb"
    with path.open("wb") as stream:
        if disguise == "pickle":
            pickle.dump(bomb, stream)
        elif disguise == "npz":
            np.savez(stream, weights=bomb)
        else:
            np.save(stream, bomb, allow_pickle=True)
    put(folder, "weights.safetensors", path.read_bytes())
    with pytest.raises(ModelError, match=r"weights\.safetensors: not a readable safetensors file"):
        QualityModel.load(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", "", "model.json", "README.md"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, folder: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(b"outside")
    entry = {"bytes": 7, "sha256": hashlib.sha256(b"outside").hexdigest()}
    edit(folder, lambda data: data["files"].__setitem__(name, entry))
    with pytest.raises(ModelError, match="is not a plain file name inside the folder"):
        QualityModel.load(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json", "extra"])
def test_links_are_refused(tmp_path: Path, folder: Path, name: str) -> None:
    if (folder / name).exists():
        (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(ModelError, match=rf"{name}: .*Remedy"):
        QualityModel.load(folder)


def test_folders_inside_are_refused(folder: Path) -> None:
    (folder / "more").mkdir()
    with pytest.raises(ModelError, match="a link or a folder"):
        QualityModel.load(folder)


def test_a_changed_byte_is_noticed(folder: Path) -> None:
    path = folder / "weights.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ModelError, match=r"weights\.safetensors: its sha256 differs"):
        QualityModel.load(folder)
    path.write_bytes(raw[:-1])
    with pytest.raises(ModelError, match=r"weights\.safetensors: \d+ bytes where model\.json says \d+"):
        QualityModel.load(folder)
    path.unlink()
    with pytest.raises(ModelError, match=r"weights\.safetensors: listed in model\.json but missing"):
        QualityModel.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.full(2**BITS, np.nan, np.float16)}, "'weights' holds NaN"),
        ({"idf": np.full(2**BITS, np.inf, np.float16)}, "'idf' holds NaN or infinite"),
        ({"intercept": np.array([np.nan])}, "'intercept' holds NaN"),
        ({"weights": np.zeros(2**BITS, np.float32)}, r"'weights' is float32\[256\] where float16\[256\] belongs"),
        ({"weights": np.zeros(2**BITS - 1, np.float16)}, "'weights' is float16"),
        ({"weights": np.zeros((2**BITS, 1), np.float16)}, "'weights' is float16"),
        ({"idf": None}, "holds arrays"),
        ({"more": np.zeros(3, np.float16)}, "holds arrays"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    put(folder, "weights.safetensors", arrays(**changes))
    with pytest.raises(ModelError, match=message):
        QualityModel.load(folder)


def test_a_header_that_claims_an_absurd_size_is_refused_without_reading_it(folder: Path) -> None:
    header = b'{"weights":{"dtype":"F16","shape":[1099511627776],"data_offsets":[0,2199023255552]}}'
    put(folder, "weights.safetensors", len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        QualityModel.load(folder)
    put(folder, "weights.safetensors", (2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        QualityModel.load(folder)


def test_a_file_larger_than_its_arrays_is_not_read(folder: Path) -> None:
    put(folder, "weights.safetensors", bytes(2**20))
    with pytest.raises(ModelError, match="1048576 bytes, and the arrays that belong in it have"):
        QualityModel.load(folder)


@pytest.mark.parametrize(
    ("raw", "score"),
    [
        ([0.0, 0.0], [1.0, 2.0]),
        ([1.0, 0.0], [1.0, 2.0]),
        ([0.0, 1.0], [2.0, 1.0]),
        ([0.0, 1.0], [0.0, 6.0]),
        ([0.0, 1.0], [-1.0, 2.0]),
        ([0.0, 1.0], [1.0]),
        ([], []),
    ],
)
def test_a_calibration_that_is_not_monotone_is_refused(folder: Path, raw: list[float], score: list[float]) -> None:
    put(folder, "calibration.safetensors", save({"raw": np.array(raw), "score": np.array(score)}))
    with pytest.raises(ModelError, match="not a monotone map into 0-5"):
        QualityModel.load(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "pickle", 'no "format": "finesieve-model"'),
        ("version", 2, "format version 2; this finesieve reads version 1"),
        ("version", None, "format version None"),
        ("kind", "os.system", "kind 'os.system' is not known here; known: linear, fasttext"),
        ("window", 0, "window: "),
        ("window", "all", "window: "),
        ("surprise", 1, "surprise: "),
        ("keep", {"min_score": 1.5, "tie": ">"}, "keep.tie: "),
        ("features", {"bits": 60}, "features.bits: "),
        ("features", {"bits": BITS, "callback": "os.system"}, "features.callback: "),
        ("features", {"bits": BITS, "word_ngrams": 0}, "features: "),
        ("files", {"weights.safetensors": {"bytes": -1, "sha256": "0" * 64}}, "files.weights.safetensors.bytes: "),
        ("files", {"weights.safetensors": {"bytes": 1, "sha256": "short"}}, "files.weights.safetensors.sha256: "),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(folder: Path, key: str, value: object, message: str) -> None:
    edit(folder, lambda data: data.__setitem__(key, value))
    with pytest.raises(ModelError, match=r"model\.json: .*Remedy") as caught:
        QualityModel.load(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": "finesieve-model", "version": NaN}']
)
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, raw: bytes) -> None:
    (folder / "model.json").write_bytes(raw)
    with pytest.raises(ModelError, match=r"model\.json: "):
        QualityModel.load(folder)


def test_a_manifest_of_absurd_size_is_not_read(folder: Path) -> None:
    with (folder / "model.json").open("ab") as stream:
        os.ftruncate(stream.fileno(), 2**40)
    with pytest.raises(ModelError, match="larger than"):
        QualityModel.load(folder)


def test_metadata_may_not_hold_infinite_metrics() -> None:
    with pytest.raises(ValueError, match="finite"):
        KeepRule(min_score=float("nan"))


def test_the_embedded_models_are_named() -> None:
    assert "edu-en" in embedded_models()


def test_edu_en_tells_a_lesson_from_spam() -> None:
    model = QualityModel.load("edu-en")
    lesson = (
        "Photosynthesis is the process by which green plants make their own food. In the leaves, cells contain a "
        "pigment called chlorophyll, which absorbs light energy from the Sun. The plant uses this energy to turn "
        "carbon dioxide and water into glucose and oxygen. For example, when a leaf is kept in the dark for two "
        "days, it no longer contains starch. Students can test this with iodine solution. Why does the leaf turn blue? "
        "Because starch and iodine form a blue compound. The word equation is: carbon dioxide + water -> glucose. "
    ) * 3
    spam = (
        "Buy cheap designer handbags online! Free shipping on all orders over $50. Click here to add to cart. Best "
        "price guaranteed, 70% off, limited time offer. Sign up to our newsletter for deals. Customer reviews: great "
        "seller, fast delivery, five stars. Copyright 2019. All rights reserved. Privacy policy. Contact us. "
    ) * 3
    scores = model.score([lesson, spam])
    assert model.keep.keep(scores).tolist() == [True, False]
    assert scores[0] > scores[1] + 1
    assert 0 <= scores.min() <= scores.max() <= 5


def test_edu_en_fits_its_limits() -> None:
    model = QualityModel.load("edu-en")
    assert sum(entry.bytes for entry in model.metadata.files.values()) <= 10 * 2**20
    assert model.keep == KeepRule(min_score=1.5)
