"""The reply of an OpenAI-compatible server: what is taken from it, and when it is none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self

from filters.annotate.endpoints import RequestError


@dataclass(frozen=True, slots=True)
class Reply:
    """A chat completion.

    Attributes:
        text: of the answer; "" where there is none.
        tokens: its tokens with log-probabilities, as the API gives them; empty where the server has none.
        finish: the finish reason as given: "stop", "length", "content_filter", ...
        model: the server's name for the model that answered.
        tokens_in: tokens of the prompt as the server counted them; the bound given where it did not say.
        tokens_out: the same of the answer.
    """

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
            RequestError: it is no chat completion, or another model's.
        """
        try:
            choice = raw["choices"][0]
            message = choice["message"]
            message = message[0] if isinstance(message, list) else message  # NVIDIA's reward models send a list
            text = message.get("content")
            tokens = tuple((choice.get("logprobs") or {}).get("content") or ())
            finish = choice.get("finish_reason")
            text = "" if text is None else text
            if not isinstance(text, str) or not all(isinstance(token, dict) for token in tokens):
                raise TypeError
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            said = f"no chat completion: {raw.get('error', raw)!r:.200}"
            raise RequestError("bad_answer", "malformed_reply", said, billed=True) from error
        model = str(raw.get("model") or "")
        if not same_model(model, models):
            said = f"asked for {models[0]!r}, and {model[:100]!r} answered; if that is the same, add it to served_as"
            raise RequestError("fatal", "wrong_model", said, billed=True)
        usage = raw.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        return cls(
            text,
            tokens,
            finish,
            model,
            _count(usage.get("prompt_tokens"), most_in),
            _count(usage.get("completion_tokens"), most_out),
        )

    @property
    def has_alternatives(self) -> bool:
        """Whether log-probabilities of other tokens than the drawn ones are there."""
        return any(len(token.get("top_logprobs") or ()) > 1 for token in self.tokens)


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
    return value if isinstance(value, int) and value >= 0 else bound
