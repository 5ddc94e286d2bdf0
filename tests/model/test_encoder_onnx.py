"""ONNX encoders, on a handmade graph of embedding and context; needs onnx, onnxruntime and tokenizers, not torch."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from filters.errors import MissingExtraError, ModelError, install_command
from filters.model import QualityModel
from filters.model.encoder import Encoder, EncoderOptions, locate
from filters.model.encoder_runtimes import open_encoder, shared_encoder
from filters.model.folder import Manifest
from filters.model.kinds import classifier_class
from filters.model.kinds.encoder import EncoderConfig, encoder_store

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime", reason="pip install 'finesieve[onnx]'")

WIDTH = 6
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh", "sun", "light", "plants", "the"]
TABLE = np.random.default_rng(0).standard_normal((len(WORDS), WIDTH)).astype(np.float32)


def write_graph(path: Path, output: str = "last_hidden_state", causal: bool = False, extra: bool = False) -> None:
    """States = embedding + the running sum (causal) or the masked mean of all embeddings."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask2"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask2", "two"], ["mask"]),
        helper.make_node("Mul", ["embedded", "mask"], ["real"]),
    ]
    if causal:
        nodes.append(helper.make_node("CumSum", ["real", "one"], ["context"]))
    else:
        nodes += [
            helper.make_node("ReduceSum", ["real", "axis"], ["total"]),
            helper.make_node("ReduceSum", ["mask", "axis"], ["count"]),
            helper.make_node("Div", ["total", "count"], ["context"]),
        ]
    nodes.append(helper.make_node("Add", ["embedded", "context"], [output]))
    names = ["input_ids", "attention_mask", *(["past"] if extra else [])]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in names],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", "t", WIDTH])],
        [
            numpy_helper.from_array(TABLE, "table"),
            numpy_helper.from_array(np.array([2], np.int64), "two"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
            numpy_helper.from_array(np.array(1, np.int64), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.enable_padding()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    """As sentence-transformers lays it out: onnx/model.onnx and no safetensors."""
    write_tokenizer(tmp_path / "encoder")
    write_graph(tmp_path / "encoder" / "onnx" / "model.onnx")
    yield tmp_path / "encoder"
    shared_encoder.cache_clear()
    encoder_store.cache_clear()


def open_(encoder: Path, **changes: Any) -> Encoder:
    return open_encoder(EncoderOptions.model_validate({"encoder": str(encoder), "layers": "output"} | changes))


def states(text: str, special: bool = True) -> Any:
    ids = [WORDS.index(word) if word in WORDS else 1 for word in text.split()]
    rows = TABLE[[2, *ids, 3] if special else ids]
    return rows + rows.mean(axis=0)


def test_a_page_that_spells_out_special_tokens_has_none(folder: Path) -> None:
    encoder = open_(folder)
    ends = WORDS.index("[SEP]")
    assert encoder.tokens(["the [SEP] sun"])[0].count(ends) == encoder.tokens(["the sun"])[0].count(ends) == 1


def test_states_are_pooled(folder: Path) -> None:
    encoder = open_(folder, pooling=["mean", "std", "first"])
    assert not encoder.causal
    texts = ["the sun", "the sun light a b c d plants", "never seen", "a " * 40]
    features = encoder.features(texts)
    assert features.shape == (4, encoder.columns) == (4, 3 * WIDTH)
    for text, row in zip(texts, features, strict=True):
        found = states(text)
        np.testing.assert_allclose(row, np.r_[found.mean(0), found.std(0), found[0]], atol=1e-5)
    alone = np.concatenate([encoder.features([text]) for text in texts])
    np.testing.assert_allclose(features, alone, atol=1e-5)


def test_a_causal_graph_answers_a_question(folder: Path) -> None:
    write_graph(folder / "causal.onnx", causal=True, output="token_embeddings")
    encoder = open_(folder / "causal.onnx", pooling=["mean", "last"], prefix="the", suffix=["a b"])
    assert encoder.causal
    (row,) = encoder.features(["sun light"])
    ids = [WORDS.index(word) for word in ("[CLS]", "the", "sun", "light", "a", "b")]
    every = TABLE[ids] + TABLE[ids].cumsum(axis=0)
    np.testing.assert_allclose(row, np.r_[every[2:4].mean(0), every[5]], atol=1e-5)
    with pytest.raises(ModelError, match="reads both ways"):
        open_(folder, suffix="good?")


def test_positions_are_those_of_the_config(folder: Path) -> None:
    assert open_(folder, max_tokens=4000).max_tokens == 512
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 20}))
    encoder = open_(folder, max_tokens=4000)
    assert encoder.max_tokens == 20
    assert [len(ids) for ids in encoder.tokens(["a b " * 100])] == [20]


def test_the_contract_without_torch(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    config = EncoderConfig.model_validate({"encoder": str(folder), "layers": "output", "head": {"kind": "ridge"}})
    (classifier,) = classifier_class("encoder").candidates(config, 200)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["sun", "light", "a", "b", "c"], 12)) for _ in range(80)]
    targets = np.array([text.count("sun") / 3 for text in texts])
    scores = classifier.fit(texts, targets, np.ones(80), 0).score(texts)
    assert np.corrcoef(scores, targets)[0, 1] > 0.9
    scorer = classifier.scorer
    manifest = Manifest(
        name="saved", kind="encoder", window=200, normalisation=scorer.normalisation, features=scorer.features()
    )
    QualityModel(scorer, None, manifest, "").save(tmp_path / "model")
    model = QualityModel.load(tmp_path / "model")
    np.testing.assert_allclose(model.score(texts), scores, atol=1e-5)
    # A relative path is relative to the folder that names it, whatever the working directory is.
    monkeypatch.chdir(folder.parent)
    relative = scorer.options.encoder.model_copy(update={"encoder": folder.name})
    near = scorer.options.model_copy(update={"encoder": relative})
    (tmp_path / "deep").mkdir()
    QualityModel(dataclasses.replace(scorer, options=near), None, manifest, "").save(tmp_path / "deep" / "model")
    monkeypatch.chdir(tmp_path)
    stored = json.loads((tmp_path / "deep" / "model" / "model.json").read_text())["features"]["encoder"]["encoder"]
    assert (tmp_path / "deep" / "model" / stored).resolve() == folder.resolve()
    assert not Path(stored).is_absolute()
    moved = QualityModel.load(tmp_path / "deep" / "model")
    np.testing.assert_allclose(moved.score(texts), scores, atol=1e-5)
    np.testing.assert_allclose(moved.save(tmp_path / "again").score(texts), scores, atol=1e-5)
    write_graph(folder / "onnx" / "model.onnx", causal=True)
    with pytest.raises(ModelError, match="was trained with"):
        QualityModel.load(tmp_path / "model")


def test_what_cannot_be_read_is_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="its last layer only"):
        open_(folder, layers=[2])
    write_graph(folder / "cached.onnx", extra=True)
    with pytest.raises(ModelError, match="wants the inputs input_ids, attention_mask, past"):
        open_(folder / "cached.onnx")
    (folder / "broken.onnx").write_bytes((folder / "onnx" / "model.onnx").read_bytes()[:50])
    with pytest.raises(ModelError, match=r"broken\.onnx: cannot be loaded"):
        open_(folder / "broken.onnx")
    write_graph(tmp_path / "alone" / "model.onnx")
    with pytest.raises(ModelError, match=r"no tokenizer\.json beside it"):
        open_(tmp_path / "alone")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=re.escape(install_command("onnx"))):
        open_(folder)


def test_modules_json_says_where_the_transformer_is(tmp_path: Path) -> None:
    inner = tmp_path / "0_Transformer"
    inner.mkdir()
    (inner / "config.json").write_text("{}")
    (inner / "model.safetensors").write_bytes(b"")
    module = {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}
    (tmp_path / "modules.json").write_text(json.dumps([module, {"path": "1_Pooling", "type": "x.Pooling"}]))
    assert locate(str(tmp_path)).folder == inner
    (tmp_path / "modules.json").write_text(json.dumps([module | {"path": "../.."}]))
    with pytest.raises(ModelError, match="outside"):
        locate(str(tmp_path))
    (tmp_path / "modules.json").write_text('[{"path": 3}]')
    with pytest.raises(ModelError, match="not as sentence-transformers writes it"):
        locate(str(tmp_path))
