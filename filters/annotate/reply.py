"""The reply of an OpenAI-compatible server: which part of it is the answer, and when there is none.

A reasoning model's reply holds more than its answer: reasoning in a key or a part of its own, or between tags in front
of the answer, and log-probabilities that span all of it. A score is only ever read from the answer.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Self

from filters.annotate.endpoints import RequestError, refusal
from filters.annotate.reading import SPECIAL, spelling

MOST_TOKENS = 10_000_000
"""No model reads or writes more in one request: a usage above it, below 0, or of another kind is no count."""
_TEXT_PARTS = ("text", "output_text")

_NAMES = (
    r"(?:[a-z]{1,10}:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?(?:_content)?|analysis|reflection|scratch_?pad|cot|"
    r"inner_(?:monologue|thoughts)|chain_of_thought)"
)
_REASONING = re.compile(
    "|".join(
        (
            rf"<(?P<xml>/?)\s?{_NAMES}(?:\s[^<>]{{0,80}})?>",
            r"\[(?P<mistral>/?)THINK\]",
            r"◁(?P<kimi>/?)think▷",
            r"<\|(?P<cohere>START|END)_THINKING\|>",
            r"<\|channel\|>(?P<harmony>\w{1,20})(?:<\|message\|>)?",
        )
    ),
    re.IGNORECASE,
)
_ENDS = re.compile(rf"(?:\s|{SPECIAL})*")
_LAST_ENDS = re.compile(rf"(?:\s|{SPECIAL})+\Z")


@dataclass(frozen=True, slots=True)
class Reply:
    """A chat completion.

    Attributes:
        written: the message as it came, reasoning between tags included; a character that cannot be stored is U+FFFD.
        text: of the answer alone; "" where there is none.
        tokens: the answer's tokens with log-probabilities, as the API gives them; empty where the server has none, or
            they do not spell the answer.
        finish: the finish reason as given: "stop", "length", "content_filter", ...
        model: the server's name for the model that answered.
        tokens_in: tokens of the prompt as the server counted them; the bound given where it did not say.
        tokens_out: the same of the answer.
    """

    written: str
    text: str
    tokens: tuple[dict[str, Any], ...]
    finish: object
    model: str
    tokens_in: int
    tokens_out: int

    @classmethod
    def of(cls, raw: dict[str, Any], models: tuple[str, ...], most_in: int, most_out: int) -> Self:
        """Take it apart.

        Args:
            raw: the reply's JSON.
            models: names under which the wanted model may answer.
            most_in: bound on the tokens of the prompt.
            most_out: bound on the tokens of the answer.

        Raises:
            RequestError: it is no chat completion, an odd one, or another model's.
        """
        try:
            choice = raw["choices"][0]
            message = choice["message"]
            message = message[0] if isinstance(message, list) else message  # NVIDIA's reward models send a list
            content, logprobs = message.get("content"), choice.get("logprobs")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise refusal(200, raw) from error
        name = raw.get("model")
        model = storable(name[:1000]) if isinstance(name, str) else ""
        if not same_model(model, models):
            said = f"asked for {models[0]!r}, and {model[:100]!r} answered; if that is the same, add it to served_as"
            raise RequestError("fatal", "wrong_model", said, billed=True)
        written = storable(_text(content))
        answer = written[answer_start(written) :]
        ends = _LAST_ENDS.search(answer[-200:])  # special tokens, which some servers leave in the answer
        text = answer[: len(answer) - len(ends[0])] if ends else answer
        usage = raw.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        return cls(
            written,
            text,
            _of_the_answer(_tokens(logprobs), text),
            choice.get("finish_reason"),
            model,
            _count(usage.get("prompt_tokens"), most_in),
            _count(usage.get("completion_tokens"), most_out),
        )

    @property
    def has_alternatives(self) -> bool:
        """Whether log-probabilities of other tokens than the drawn ones are there."""
        return any(len(token.get("top_logprobs") or ()) > 1 for token in self.tokens)


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object of a reply.

    Raises:
        RequestError: it is none (tried again), or one that is nested too deeply or has a key twice (no answer at all).
    """
    try:
        try:
            raw = json.loads(body, object_pairs_hook=_once)
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise
        except ValueError:  # Python refuses integers of more than 4,300 digits
            raw = json.loads(body, object_pairs_hook=_once, parse_int=_integer)
    except RecursionError as error:
        raise RequestError("unreadable", "odd_reply", "JSON nested too deeply", billed=True) from error
    except ValueError as error:
        said = f"the reply is no JSON ({error}): {body[:200].decode(errors='replace')}"
        raise RequestError("bad_answer", "malformed_reply", said, billed=True) from error
    if not isinstance(raw, dict):
        raise RequestError("bad_answer", "malformed_reply", "the reply is no JSON object", billed=True)
    return raw


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RequestError("unreadable", "odd_reply", "a key stands twice in the reply's JSON", billed=True)
    return found


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 100 else math.copysign(math.inf, -1 if digits.startswith("-") else 1)


def storable(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which JSON can spell and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def answer_start(written: str) -> int:
    """Place at which the answer begins: after the last reasoning between tags, or at the end if one is still open."""
    depth = end = 0
    for match in _REASONING.finditer(written):
        closes = (
            match["xml"] or match["mistral"] or match["kimi"] or match["cohere"] or match["harmony"] or ""
        ).lower()
        depth = max(depth - 1, 0) if closes in ("/", "end", "final") else depth + 1
        end = match.end()
    return len(written) if depth else end


def _text(content: object) -> str:
    """A message's text: of parts the text after the last one that is something else, such as reasoning."""
    if content is None or isinstance(content, str):
        return content or ""
    texts: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text", "") if isinstance(part, dict) else part
        if kind not in _TEXT_PARTS and isinstance(kind, str):
            texts.clear()
        elif isinstance(text, str):
            texts.append(text)
        else:
            raise RequestError("unreadable", "odd_reply", "a message whose content is no text", billed=True)
    return "".join(texts)


def _tokens(logprobs: object) -> list[dict[str, Any]]:
    """`logprobs.content`; empty where there is none."""
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else logprobs
    if not tokens:
        return []
    if not isinstance(tokens, list) or not all(
        isinstance(token, dict)
        and isinstance(token.get("token"), str)
        and isinstance(token.get("top_logprobs") or [], list)
        and all(isinstance(candidate, dict) for candidate in token.get("top_logprobs") or [])
        for token in tokens
    ):
        raise RequestError("unreadable", "odd_logprobs", "log-probabilities in no known form", billed=True)
    return tokens


def _of_the_answer(tokens: list[dict[str, Any]], text: str) -> tuple[dict[str, Any], ...]:
    """Those of the tokens that spell the answer: the last ones, special tokens at the end left aside.

    What is not ASCII does not count, because a tokenizer may cut a character into several tokens.
    """
    pieces = [spelling(token) for token in tokens]
    plain = [_ascii(piece) for piece in pieces]
    spelt, wanted = "".join(plain), _ascii(spelling({"token": text})).strip()
    start = spelt.rfind(wanted) if wanted else -1
    if start < 0 or not _ENDS.fullmatch(spelt, start + len(wanted)):
        return ()
    index = 0
    while start >= len(plain[index]):
        start -= len(plain[index])
        index += 1
    before = "".join((*pieces[max(index - 8, 0) : index], plain[index][:start]))
    if before and not before[-1].isspace() and before[-1] not in ">]▷|":
        return ()
    return tuple(tokens[index:])


def _ascii(text: str) -> str:
    return text.encode("ascii", "ignore").decode()


def same_model(answered: str, asked: tuple[str, ...]) -> bool:
    """Whether a server's name for its model can mean the one asked for.

    It can be the same name, a path that ends in it, or a dated version of it ("-2024-07-18"); a server that gives no
    name is trusted.
    """
    name = _base(answered)
    return not name or any(re.fullmatch(re.escape(_base(other)) + r"(-[0-9]+)*", name) for other in asked)


def _base(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower().removesuffix(".gguf")


def _count(value: object, bound: int) -> int:
    """A usage count; the bound in the place of what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_TOKENS:
        return bound
    return int(value)
