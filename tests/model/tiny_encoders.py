"""Tiny language models with random weights, written as transformers writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "sun", "light", "plants", "the"]
_SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def save(folder: Path, model: Any, around: str = "[CLS] $A [SEP]") -> Path:
    """A folder of safetensors, config and tokenizer, which puts special tokens `around` a text."""
    import transformers
    from tokenizers import processors

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    tokens = transformers.BertTokenizerFast(str(folder / "vocab.txt")).backend_tokenizer
    special = [(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]")]
    tokens.post_processor = processors.TemplateProcessing(single=around, special_tokens=special)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, **names).save_pretrained(folder)
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def bert(folder: Path, outputs: int = 0) -> Path:
    """Reads both ways; with `outputs`, a sequence classifier."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(**_SIZES, num_labels=outputs or 2)
    kind = transformers.BertForSequenceClassification if outputs else transformers.BertModel
    return save(folder, kind(config))


def llama(folder: Path, around: str = "$A") -> Path:
    """Causal."""
    import torch
    import transformers

    torch.manual_seed(0)
    return save(folder, transformers.LlamaModel(transformers.LlamaConfig(**_SIZES, num_key_value_heads=2)), around)
