"""Encoders, on tiny random models written to a temporary folder; needs torch and transformers (extra `encoder`)."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from filters.cli.main import app
from filters.errors import MissingExtraError, ModelError, install_command
from filters.model import QualityModel
from filters.model.encoder import WHEELS, EncoderOptions, locate
from filters.model.encoder_runtimes import open_encoder, shared_encoder
from filters.model.kinds import classifier_class
from filters.model.kinds.encoder import EncoderConfig, FeatureStore, encoder_store
from filters.model.quality import import_model
from tests.model.tiny_encoders import WORDS, bert, llama
from tests.train.labelled_pages import columns, write


@pytest.fixture
def torch() -> Any:
    pytest.importorskip("transformers", reason="pip install 'finesieve[encoder]'")
    return pytest.importorskip("torch", reason="pip install 'finesieve[encoder]'")


def options(folder: Path, **changes: Any) -> EncoderOptions:
    return EncoderOptions.model_validate({"encoder": str(folder), "layers": [2], "precision": "float32"} | changes)


def test_the_middle_layer_is_read_and_pooled(torch: Any, tmp_path: Path) -> None:
    import transformers

    folder = bert(tmp_path / "bert")
    encoder = open_encoder(options(folder, layers=[1, 2], pooling=["mean", "std"]), "cpu")
    assert not encoder.causal
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    texts = ["the sun", "the sun light a b c d plants", ""]
    features = encoder.features(texts)
    assert features.shape == (3, encoder.columns) == (3, 64)
    for text, row in zip(texts, features, strict=True):
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        expected = [part for k in (1, 2) for part in (states[k][0].mean(0), states[k][0].std(0, unbiased=False))]
        np.testing.assert_allclose(row, torch.cat(expected).numpy(), atol=1e-5)


def test_the_first_token_of_a_causal_model_is_left_out(torch: Any, tmp_path: Path) -> None:
    import transformers

    folder = llama(tmp_path / "llama")
    encoder = open_encoder(options(folder, pooling=["mean", "last"], suffix="a b"), "cpu")
    assert encoder.causal
    ids = transformers.AutoTokenizer.from_pretrained(folder)("the sun light a b", add_special_tokens=False)["input_ids"]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0]
    (row,) = encoder.features(["the sun light"])
    np.testing.assert_allclose(row, torch.cat([states[1:3].mean(0), states[-1]]).numpy(), atol=1e-5)
    ((number, found, spans),) = encoder.token_states(["the sun light"])
    assert number == 0
    assert spans.tolist() == [[4, 7], [8, 13]]
    np.testing.assert_allclose(found, states[1:3].numpy(), atol=1e-5)


@pytest.mark.parametrize("prefix", [None, "a b", "[CLS] a b"])
def test_a_causal_model_begins_with_the_token_it_was_trained_to_begin_with(
    torch: Any, tmp_path: Path, prefix: str | None
) -> None:
    import transformers

    folder = llama(tmp_path / "llama", around="[CLS] $A")
    encoder = open_encoder(options(folder, pooling=["mean"], prefix=prefix), "cpu")
    begin = [WORDS.index(word) for word in ("[CLS]", *("ab" if prefix else ""))]
    assert encoder.surround([7, 8]) == [*begin, 7, 8]
    assert encoder.tokens(["the sun"]) == [[WORDS.index("the"), WORDS.index("sun")]]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    ids = [*begin, *encoder.tokens(["the sun"])[0]]
    with torch.inference_mode():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0]
    (row,) = encoder.features(["the sun"])
    np.testing.assert_allclose(row, states[len(begin) :].mean(0).numpy(), atol=1e-5)
    if prefix is None:
        ((_, found, spans),) = encoder.token_states(["the sun"])
        assert spans.tolist() == [[0, 3], [4, 7]]
        np.testing.assert_allclose(found, states[1:].numpy(), atol=1e-5)


def test_a_text_is_cut_to_characters_and_tokens(torch: Any, tmp_path: Path) -> None:
    folder = llama(tmp_path / "llama")
    encoder = open_encoder(options(folder, max_characters=9, suffix=["a", "b c"], pooling=["mean", "last"]), "cpu")
    assert encoder.features(["the sun light"]).shape == (1, 48)
    np.testing.assert_array_equal(encoder.features(["the sun light"]), encoder.features(["the sun l"]))
    assert [len(ids) for ids in open_encoder(options(folder, max_tokens=8), "cpu").tokens(["a b " * 30, ""])] == [8, 1]
    with pytest.raises(ModelError, match="leave none for the text"):
        open_encoder(options(folder, prefix="a " * 70), "cpu")


@pytest.mark.parametrize("make", [bert, llama])
def test_a_page_that_spells_out_special_tokens_has_none(torch: Any, tmp_path: Path, make: Any) -> None:
    encoder = open_encoder(options(make(tmp_path / "model")), "cpu")
    marker = WORDS.index("[SEP]")
    plain, spelled = encoder.tokens(["the sun", "the [SEP] sun"])
    assert spelled.count(marker) == plain.count(marker)
    assert len(spelled) > len(plain)


def test_a_prompt_may_hold_special_tokens(torch: Any, tmp_path: Path) -> None:
    encoder = open_encoder(
        options(llama(tmp_path / "llama"), pooling=["last"], prefix="a [SEP]", suffix="[CLS] b"), "cpu"
    )
    assert encoder.surround([7]) == [WORDS.index(word) for word in ("a", "[SEP]")] + [7] + [
        WORDS.index(word) for word in ("[CLS]", "b")
    ]


@pytest.mark.parametrize("make", [bert, llama])
def test_precision_is_chosen_by_a_measurement(torch: Any, tmp_path: Path, make: Any) -> None:
    encoder = open_encoder(options(make(tmp_path / "model"), precision="auto"), "cpu")
    assert encoder.precision in ("float32", "bfloat16")
    exact = open_encoder(options(tmp_path / "model"), "cpu").features(["the sun light a b c"])
    np.testing.assert_allclose(encoder.features(["the sun light a b c"]), exact, atol=0.05 * np.abs(exact).max())


def test_company_in_a_batch_changes_nothing(torch: Any, tmp_path: Path) -> None:
    encoder = open_encoder(options(llama(tmp_path / "llama")), "cpu")
    texts = ["a", "the sun " * 20, "plants light", ""]
    alone = np.concatenate([encoder.features([text]) for text in texts])
    np.testing.assert_allclose(encoder.features(texts), alone, atol=1e-5)


def test_what_cannot_be_read_is_said(torch: Any, tmp_path: Path) -> None:
    folder = bert(tmp_path / "bert")
    with pytest.raises(ModelError, match=r"has 3 layers.*\[4\]"):
        open_encoder(options(folder, layers=[4]), "cpu")
    with pytest.raises(ModelError, match="reads both ways"):
        open_encoder(options(folder, suffix="good?"), "cpu")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match="pickles"):
        locate(str(tmp_path))


def test_an_encoder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no such encoder"):
        locate(str(tmp_path / "nothing"))
    monkeypatch.setitem(WHEELS, "absent", ("a_package_that_is_not_there", "*.gguf", "pip install it"))
    with pytest.raises(ModelError, match="pip install it"):
        locate("absent")


def test_without_torch_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=re.escape(install_command("encoder"))):
        QualityModel.load(tmp_path)
    with pytest.raises(MissingExtraError, match=re.escape(install_command("encoder"))):
        open_encoder(options(tmp_path))


def test_the_contract(torch: Any, tmp_path: Path) -> None:
    folder = bert(tmp_path / "bert")
    config = EncoderConfig(encoder=str(folder), layers=(1, 3), precision="float32", cache=str(tmp_path / "cache"))
    (classifier,) = classifier_class("encoder").candidates(config, 200)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["sun", "light", "a", "b", "c"], 12)) for _ in range(80)]
    targets = np.array([text.count("sun") / 3 for text in texts])
    scores = classifier.fit(texts, targets, np.ones(80), 0).score(texts)
    assert np.corrcoef(scores, targets)[0, 1] > 0.9
    from filters.model.folder import Manifest

    scorer = classifier.scorer
    manifest = Manifest(
        name="saved", kind="encoder", window=200, normalisation=scorer.normalisation, features=scorer.features()
    )
    model = QualityModel(scorer, None, manifest, "").save(tmp_path / "model")
    np.testing.assert_allclose(model.score(texts), scores, atol=1e-4)
    # Pages of an earlier training are not encoded again.
    encoder_store.cache_clear()
    again = encoder_store(config.options(), config.cache)
    again._compute = None  # type: ignore[assignment]
    assert again.get(texts).shape == (80, 32)
    # What is the same to the encoder is not either.
    np.testing.assert_array_equal(again.get([text + "  " for text in texts]), again.get(texts))
    # Another encoder at the same place is not the same model.
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | {"x": 1}))
    with pytest.raises(ModelError, match="was trained with"):
        QualityModel.load(tmp_path / "model")
    shared_encoder.cache_clear()


@pytest.mark.parametrize("head", [{"kind": "ridge"}, {"kind": "svr"}, {"kind": "landmarks", "landmarks": 40}])
def test_every_head_learns(torch: Any, tmp_path: Path, head: dict[str, Any]) -> None:
    from filters.model.folder import Manifest

    config = EncoderConfig.model_validate(
        {
            "encoder": str(bert(tmp_path / "bert")),
            "layers": [1, 3],
            "precision": "float32",
            "head": head,
        }
    )
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["sun", "light", "a", "b", "c"], 12)) for _ in range(120)]
    targets = np.array([text.count("sun") / 1.5 for text in texts])
    (classifier,) = classifier_class("encoder").candidates(config, 200)
    classifier.fit(texts[:80], targets[:80], np.ones(80), 0)
    scores = classifier.score(texts)
    kept = targets[80:] >= 1.5
    higher = scores[80:][kept][:, None] > scores[80:][~kept][None]
    assert higher.mean() > 0.9  # of pairs of unseen pages
    scorer = classifier.scorer
    manifest = Manifest(
        name="saved", kind="encoder", window=200, normalisation=scorer.normalisation, features=scorer.features()
    )
    saved = QualityModel(scorer, None, manifest, "").save(tmp_path / "model")
    np.testing.assert_array_equal(QualityModel.load(tmp_path / "model").score(texts), saved.score(texts))
    np.testing.assert_allclose(saved.score(texts), scores, atol=1e-4)
    shared_encoder.cache_clear()
    encoder_store.cache_clear()


def test_a_head_reads_encoders_side_by_side(torch: Any, tmp_path: Path) -> None:
    from filters.model.folder import Manifest

    one, other = bert(tmp_path / "bert"), llama(tmp_path / "llama")
    config = EncoderConfig.model_validate(
        {
            "encoder": str(one),
            "layers": [2],
            "precision": "float32",
            "beside": [{"encoder": str(other), "layers": [1, 3], "pooling": ["mean", "last"], "precision": "float32"}],
            "head": {"kind": "svr"},
            "cache": str(tmp_path / "cache"),
        }
    )
    texts = [f"the sun {letter} light {'a ' * place}" for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz")]
    targets = np.arange(26) / 8
    (classifier,) = classifier_class("encoder").candidates(config, 200)
    scores = classifier.fit(texts, targets, np.ones(26), 0).score(texts)
    scorer = classifier.scorer
    apart = [open_encoder(options, "cpu").features(texts) for options in config.encoders()]
    assert [part.shape[1] for part in apart] == [16, 64]
    np.testing.assert_allclose(scores, scorer.head(np.concatenate(apart, axis=1)), atol=1e-5)
    manifest = Manifest(
        name="saved", kind="encoder", window=200, normalisation=scorer.normalisation, features=scorer.features()
    )
    QualityModel(scorer, None, manifest, "").save(tmp_path / "model")
    np.testing.assert_allclose(QualityModel.load(tmp_path / "model").score(texts), scores, atol=1e-4)
    (other / "config.json").write_text(json.dumps(json.loads((other / "config.json").read_text()) | {"x": 1}))
    with pytest.raises(ModelError, match=r"llama has sha256 .* was trained with"):
        QualityModel.load(tmp_path / "model")
    with pytest.raises(ValidationError, match="an encoder is tuned by itself"):
        EncoderConfig.model_validate(config.model_dump() | {"head": {"kind": "ridge"}, "tune": {"kind": "last_layers"}})
    shared_encoder.cache_clear()
    encoder_store.cache_clear()


def test_the_card_names_what_reads_the_page(torch: Any, tmp_path: Path) -> None:
    from filters.train.config import TrainConfig
    from filters.train.training import train

    one, other = bert(tmp_path / "bert"), llama(tmp_path / "llama")
    classifier = {
        "kind": "encoder",
        "encoder": str(one),
        "layers": [1, 3],
        "beside": [{"encoder": str(other), "layers": [2], "pooling": ["mean", "last"]}],
    }
    given = {
        "annotations": str(write(tmp_path / "labels.parquet", columns(90))),
        "output": str(tmp_path / "model"),
        "name": "side-by-side",
        "classifier": classifier,
        "keep": {"min_score": 1.5},
        "validation": {"folds": 2, "repeats": 1, "inner_folds": 2, "resamples": 100},
    }
    card = (train(TrainConfig.model_validate(given), echo=lambda _: None).path / "README.md").read_text()
    assert "An `encoder` classifier" in card
    assert f"- `{one}`, layers 1, 3: mean (sha256 `{locate(str(one)).digest()}`)" in card
    assert f"- `{other}`, layers 2: mean, last (sha256 `{locate(str(other)).digest()}`)" in card
    shared_encoder.cache_clear()
    encoder_store.cache_clear()


def test_a_sequence_classifier_scores_as_transformers_does(torch: Any, tmp_path: Path) -> None:
    import transformers

    folder = bert(tmp_path / "edu-classifier", outputs=1)
    model = QualityModel.load(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    reference = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = ["the sun", "plants", "", "light " * 500]
    for text, score in zip(texts, model.score(texts), strict=True):
        coded = tokenizer(text, return_tensors="pt", truncation=True, max_length=64)
        with torch.inference_mode():
            assert score == pytest.approx(float(reference(**coded).logits[0, 0]), abs=1e-5)
    assert model.keep.rounded == 3
    assert model.keep.keep(np.float32([2.5, 2.51])).tolist() == [False, True]
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    saved = import_model(str(folder), tmp_path / "model", language="en")
    assert (saved.metadata.kind, saved.metadata.language, saved.name) == ("encoder", "en", "edu-classifier")
    shutil.rmtree(folder)  # nothing of it is needed any more
    np.testing.assert_array_equal(QualityModel.load(tmp_path / "model").score(texts), model.score(texts))
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == sorted(["README.md", "model.json", *saved.metadata.files])
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(names)
    assert not any(name.endswith(".py") for name in names)
    with pytest.raises(ModelError, match="a model folder already"):
        import_model(str(tmp_path / "model"), tmp_path / "again")
    with pytest.raises(ModelError, match="has 2 outputs"):
        QualityModel.load(bert(tmp_path / "two", outputs=2))


def test_both_published_keep_rules_can_be_chosen(torch: Any, tmp_path: Path) -> None:
    folder = bert(tmp_path / "edu-classifier", outputs=1)
    at_half = np.float32([2.4999, 2.5, np.nextafter(np.float32(2.5), np.float32(3))])
    for options, kept in (
        ([], [False, False, True]),  # 2.5 rounds to even, which is 2
        (["--rounded", "3"], [False, False, True]),
        (["--min-score", "2.5"], [False, True, True]),
    ):
        run = CliRunner().invoke(app, ["import-model", str(folder), str(tmp_path / "out"), "--overwrite", *options])
        assert run.exit_code == 0, run.output
        assert QualityModel.load(tmp_path / "out").keep.keep(at_half).tolist() == kept
    run = CliRunner().invoke(app, ["import-model", "a", "b", "--rounded", "3", "--min-score", "2.5"])
    assert run.exit_code == 2
    assert "another rule" in run.output


def test_a_damaged_cache_is_computed_again(tmp_path: Path) -> None:
    def lengths(texts: Any) -> Any:
        return np.array([[len(text)] for text in texts], np.float32)

    store = FeatureStore(lengths, 1, tmp_path)
    assert store.get(["a", "abc", "a"]).ravel().tolist() == [1, 3, 1]
    assert store.get([]).shape == (0, 1)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-2])
    assert FeatureStore(lengths, 1, tmp_path).get(["abc"]).ravel().tolist() == [3]
