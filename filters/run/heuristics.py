"""datatrove's own heuristic filters, by name, on batches."""

from __future__ import annotations

from importlib import import_module

import pyarrow as pa
import regex
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.word_tokenizers import WordTokenizer, load_word_tokenizer, simple_span_tokenize

from filters.config.filter import HeuristicConfig
from filters.errors import ConfigError, MissingExtraError
from filters.read.batch import Batch
from filters.run.documents import to_documents

FILTERS = {
    "gopher_quality": ("datatrove.pipeline.filters.gopher_quality_filter", "GopherQualityFilter"),
    "gopher_repetition": ("datatrove.pipeline.filters.gopher_repetition_filter", "GopherRepetitionFilter"),
    "c4_quality": ("datatrove.pipeline.filters.c4_filters", "C4QualityFilter"),
    "fineweb_quality": ("datatrove.pipeline.filters.fineweb_quality_filter", "FineWebQualityFilter"),
    "url": ("datatrove.pipeline.filters.url_filter", "URLFilter"),
}
WORD = regex.compile(r"\p{Alnum}+(?:['\u2019.\-]\p{Alnum}+)*|[^\s\p{Alnum}]")
SENTENCE = regex.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s+|\n+")


class RegexTokenizer(WordTokenizer):
    """Words and punctuation marks by one regular expression: 40 times spaCy's speed, and no model to install.

    It differs from spaCy's English rules in contractions ("don't" is one word here, two there), which moves the
    filters' word counts by a few per cent.
    """

    def word_tokenize(self, text: str) -> list[str]:
        """Words and punctuation marks of the text, in order."""
        return [match[0] for match in WORD.finditer(text)]

    def sent_tokenize(self, text: str) -> list[str]:
        """Sentences of the text, stripped, in order."""
        return [sentence.strip() for sentence in SENTENCE.split(text) if sentence.strip()]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of each sentence in the text."""
        return list(simple_span_tokenize(text, self.sent_tokenize(text)))


def load_filter(config: HeuristicConfig) -> BaseFilter:
    """The datatrove filter a config names.

    Raises:
        ConfigError: datatrove's filter does not take one of the options, or one would count for nothing.
        MissingExtraError: the filter needs a package that is not installed.
    """
    module, name = FILTERS[config.name]
    options = dict(config.options)
    if config.name != "url" and config.tokenizer == "words":
        if "language" in options:
            raise ConfigError(
                f"heuristics: {config.name}: options.language decides nothing: the tokenizer `words` splits every "
                "language alike. Remedy: leave it out, or take tokenizer: spacy; stop words are options.stop_words"
            )
        options["language"] = RegexTokenizer("en")
    try:
        step = getattr(import_module(module), name)(**options)
        if config.name == "url":
            from tldextract import TLDExtract

            # The list of public suffixes its wheel carries; by default it would fetch one.
            step.tldextractor = TLDExtract(suffix_list_urls=(), cache_dir=None)
        elif config.tokenizer == "spacy":
            load_word_tokenizer(options.get("language", "en"))
    except ImportError as error:
        raise MissingExtraError(f"heuristics: {config.name}", "heuristics", str(error)) from error
    except TypeError as error:
        raise ConfigError(f"heuristics: {config.name}: options do not fit datatrove's {name}: {error}") from error
    return step


def apply_filter(step: BaseFilter, name: str, batch: Batch) -> None:
    """Give documents the filter drops the reason `name:datatrove's reason`; keep its changes of the text.

    A document the filter raises on is quarantined; one without an address passes the url filter.

    Raises:
        ConfigError: the url filter on an input without a column "url".
    """
    if name == "url" and "url" not in batch.columns:
        raise ConfigError('heuristics: url: the input has no column "url"; add it to input.columns')
    edited: dict[int, str] = {}
    failed: dict[int, tuple[str, bytes]] = {}
    for row, document in to_documents(batch):
        if name == "url" and not document.metadata["url"]:
            continue
        before = document.text
        try:
            result = step.filter(document)
        except Exception as error:  # datatrove's filters raise whatever their regular expressions meet
            failed[row] = (f"heuristic_failed: {name}: {error!r:.200}", before[:200].encode())
            continue
        kept, reason = result if isinstance(result, tuple) else (result, None)
        if not kept:
            batch.reason[row] = f"{name}:{reason}" if reason else name
        elif document.text is not before:
            edited[row] = document.text
    if edited:
        texts = batch.text.to_pylist()
        for row, text in edited.items():
            texts[row] = text
        batch.text = pa.array(texts, type=pa.large_string())
    if failed:
        batch.quarantine(list(failed), [cause for cause, _ in failed.values()], [raw for _, raw in failed.values()])
