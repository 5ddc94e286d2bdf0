"""Fine-tuning, on tiny random models; needs torch and transformers (extra `encoder`)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from filters.errors import ModelError
from filters.model import QualityModel
from filters.model.encoder_runtimes import shared_encoder
from filters.model.folder import Manifest
from filters.model.kinds import classifier_class
from filters.model.kinds.encoder import EncoderClassifier, EncoderConfig, encoder_store
from tests.model.tiny_encoders import bert, llama

if not importlib.util.find_spec("torch") or not importlib.util.find_spec("transformers"):
    pytest.skip("pip install 'finesieve[encoder]'", allow_module_level=True)

SEED = 3


def pages(count: int = 160) -> tuple[list[str], Any, Any]:
    """Texts whose score is told by an order of words, which the mean of a random model's states hardly shows."""
    rng = np.random.default_rng(0)
    texts, targets = [], []
    for number in range(count):
        words = rng.choice(["a", "b", "c", "d", "the"], 10).tolist()
        place = int(rng.integers(0, 8))
        words[place : place + 2] = ["sun", "light"] if number % 2 else ["light", "sun"]
        texts.append(" ".join(words))
        targets.append(3.0 if number % 2 else 0.5)
    return texts, np.array(targets), np.arange(count) // 2


@pytest.fixture(autouse=True)
def fresh() -> Any:
    import torch

    torch.set_num_threads(1)  # tiny matrices, and a busy machine makes threads wait for each other
    yield
    shared_encoder.cache_clear()
    encoder_store.cache_clear()


def classifier(folder: Path, **changes: Any) -> EncoderClassifier:
    tune = {"kind": "last_layers", "layers": 2, "epochs": 16, "batch": 8, "lr": [2e-3], "head_lr": 1e-2}
    config = EncoderConfig.model_validate(
        {"encoder": str(folder), "layers": [3], "precision": "float32", "tune": tune | changes.pop("tune", {})}
        | changes
    )
    (found,) = classifier_class("encoder").candidates(config, 500)
    assert isinstance(found, EncoderClassifier)
    return found


@pytest.mark.parametrize(
    ("make", "tune", "left"),
    # The random BERT starts with next to no weight on positions, and does not get far.
    [(llama, {}, 0.2), (llama, {"layers": 3}, 0.5), (bert, {"epochs": 3}, 1.0)],
)
def test_tuning_learns_and_is_saved(make: Any, tune: dict[str, Any], left: float, tmp_path: Path) -> None:
    texts, targets, groups = pages()
    folder = make(tmp_path / "encoder")
    tuned = classifier(folder, tune=tune).fit(texts, targets, np.ones(len(texts)), SEED, groups)
    assert tuned._tuned is not None
    before, after = tuned._tuned.error
    assert after < left * before
    assert 0 < tuned._tuned.epochs <= 16
    assert f"-> {after:.4f}" in tuned.setting
    scores = tuned.score(texts)
    assert np.mean((scores - targets) ** 2) < left * before
    scorer = tuned.scorer
    manifest = Manifest(
        name="t", kind="encoder", window=500, normalisation=scorer.normalisation, features=scorer.features()
    )
    saved = QualityModel(scorer, None, manifest, "").save(tmp_path / "model")
    assert (tmp_path / "model" / "tuned.safetensors").is_file()
    shared_encoder.cache_clear()
    np.testing.assert_array_equal(QualityModel.load(tmp_path / "model").score(texts), scores)
    np.testing.assert_array_equal(saved.score(texts), scores)
    # Only the uppermost blocks changed, and the encoder on disk did not.
    blocks = {int(name.split(".")[0]) for name in scorer.options.tuned.shapes}  # type: ignore[union-attr]
    assert blocks == set(range(3 - tune.get("layers", 2), 3))
    assert shared_encoder(scorer.options.encoder).features(texts[:1]).shape == (1, 16)


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    texts, targets, groups = pages(60)
    folder = llama(tmp_path / "encoder")
    first, again, other = (
        classifier(folder, tune={"epochs": 2}).fit(texts, targets, np.ones(60), seed, groups).score(texts)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4


def test_states_of_frozen_blocks_are_computed_once_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, targets, groups = pages(60)
    folder = llama(tmp_path / "encoder")
    options = {"layers": [1, 2, 3], "pooling": ["mean", "last"], "prefix": "the a", "suffix": ["b", "c d"]}
    one = {"tune": {"layers": 1, "epochs": 2}, **options}
    remembered = classifier(folder, **one).fit(texts, targets, np.ones(60), SEED, groups).score(texts)
    monkeypatch.setattr("filters.model.kinds.tuning.MAX_STATE_BYTES", 0)
    computed = classifier(folder, **one).fit(texts, targets, np.ones(60), SEED, groups).score(texts)
    np.testing.assert_allclose(remembered, computed, atol=2e-4)


def test_gradients_of_parts_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, targets, groups = pages(60)
    folder = bert(tmp_path / "encoder")
    whole = classifier(folder, tune={"epochs": 2}).fit(texts, targets, np.ones(60), SEED, groups).score(texts)
    monkeypatch.setattr("filters.model.encoder.BATCH_TOKENS", 25)
    parts = classifier(folder, tune={"epochs": 2}).fit(texts, targets, np.ones(60), SEED, groups).score(texts)
    np.testing.assert_allclose(whole, parts, atol=2e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(tmp_path: Path, precision: str) -> None:
    texts, targets, groups = pages()
    folder = llama(tmp_path / "encoder")
    tuned = classifier(folder, precision=precision).fit(texts, targets, np.ones(len(texts)), SEED, groups)
    assert tuned._tuned is not None
    assert tuned._tuned.error[1] < 0.5 * tuned._tuned.error[0]
    assert np.isfinite(tuned.score(texts)).all()


def test_it_stops_early_and_keeps_the_start_if_nothing_is_better(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts, _, groups = pages(80)
    noise = rng.uniform(0, 3, 80)
    tuned = classifier(bert(tmp_path / "encoder"), tune={"epochs": 50, "lr": [0.5], "patience": 2})
    tuned.fit(texts, noise, np.ones(80), SEED, groups)
    assert tuned._tuned is not None
    before, after = tuned._tuned.error
    assert after <= before
    assert tuned._tuned.epochs < 10


def test_pages_kept_aside_are_of_other_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filters.model.kinds import tuning

    texts, targets, groups = pages(60)
    seen = []
    run = tuning._Trainer.run

    def watched(self: Any, *given: Any) -> Any:
        seen.append(given[-2:])
        return run(self, *given)

    monkeypatch.setattr(tuning._Trainer, "run", watched)
    classifier(bert(tmp_path / "encoder"), tune={"epochs": 1}).fit(texts, targets, np.ones(60), SEED, groups)
    ((learnt, aside),) = seen
    assert len(learnt) + len(aside) == 60
    assert len(aside) >= 6
    assert not set(groups[learnt]) & set(groups[aside])


def test_what_cannot_be_tuned_is_said(tmp_path: Path) -> None:
    texts, targets, groups = pages(60)
    folder = bert(tmp_path / "encoder")
    with pytest.raises(ModelError, match=r"4 layers are to be tuned, and 3 are read"):
        classifier(folder, tune={"layers": 4}).fit(texts, targets, np.ones(60), SEED, groups)
    with pytest.raises(ValidationError, match="ends in, a ridge head"):
        classifier(folder, head={"kind": "svr"})


def test_tuned_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    texts, targets, groups = pages(60)
    tuned = classifier(bert(tmp_path / "encoder"), tune={"epochs": 1}).fit(texts, targets, np.ones(60), SEED, groups)
    weights = tuned.scorer.tuned
    assert weights is not None
    options = tuned.config.options().model_copy(update={"encoder": str(llama(tmp_path / "other"))})
    with pytest.raises(ModelError, match="do not fit it"):
        shared_encoder(options, weights)
