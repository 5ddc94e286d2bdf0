# ruff: noqa: E501 (what servers say stands as they say it)
"""What servers say when they do not answer: a page that is too long is told from everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from filters.annotate.endpoints import refusal

TOO_LONG = {
    "OpenAI": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
    "OpenAI, Responses": "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "OpenAI, a minute's tokens": "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, "
    "Requested 40000. The input or output tokens must be reduced in order to run successfully.",
    "vLLM": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4992 in the messages, 8 "
    "in the completion). Please reduce the length of the messages or completion.",
    "vLLM, decoder": "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that "
    "`max_model_len` is no smaller than the number of text tokens.",
    "vLLM, no room": "'max_tokens' or 'max_completion_tokens' is too large: 8. This model's maximum context length is 4096 "
    "tokens and your request has 4093 input tokens (8 > 4096 - 4093).",
    "vLLM, newer": "You passed 5000 input tokens and requested 8 output tokens. However, the model's context length is only "
    "4096 tokens, resulting in a maximum input length of 4088 tokens. Please reduce the length of the input prompt.",
    "TGI": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 8 "
    "`max_new_tokens`",
    "TGI, inputs": "Input validation error: `inputs` must have less than 1024 tokens. Given: 3000",
    "Gemini": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Groq": "Please reduce the length of the messages or completion.",
    "Groq, a minute's tokens": "Request too large for model `llama3-70b-8192` in organization `org_x` service tier `on_demand` "
    "on tokens per minute (TPM): Limit 6000, Requested 9000, please reduce your message size and try again.",
    "llama.cpp": "the request exceeds the available context size. try increasing the context size or enable context shift",
    "llama.cpp, newer": "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
    "llama.cpp, older": "Context size has been exceeded.",
    "SGLang": "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "SGLang, total": "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total "
    "of 5000 tokens: 4992 tokens from the input messages and 8 tokens for the completion.",
    "SGLang, input": "Input length (5000 tokens) exceeds the maximum allowed length (4090 tokens). Use a shorter input or "
    "enable --allow-auto-truncate.",
    "Mistral": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
    "Anthropic": "prompt is too long: 210000 tokens > 200000 maximum",
    "Anthropic, both": "input length and `max_tokens` exceed context limit: 199996 + 8 > 200000, decrease input length or "
    "`max_tokens` and try again",
    "Bedrock": "Input is too long for requested model.",
    "Cohere": "too many tokens: size limit exceeded by 20 tokens. Try using shorter or fewer inputs.",
    "xAI": "This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
    "DashScope": "Range of input length should be [1, 30720]",
    "Moonshot": "Invalid request: Your request exceeded model token limit: 8192",
}

OTHER = [
    "Invalid value for context: expected a string",
    "Unknown field `context` in message",
    "In this context roles must alternate user/assistant/user/assistant/...",
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided 100000.",
    "The response was filtered due to the prompt triggering our content management policy",
    "temperature exceeds the maximum of 2",
    "top_logprobs must be at most 5",
    "Invalid 'user': string too long. Expected a string with maximum length 64, but got a string with length 90 instead.",
    "stop: list too long, maximum length is 4",
    "request rate exceeds the limit of your plan",
    "System role not supported",
    "context deadline exceeded",
    "The context cache does not exist",
    "",
]


def forms(message: str) -> list[Any]:
    """How servers put a message into JSON."""
    return [
        {"error": {"message": message, "type": "invalid_request_error", "code": 400}},
        {"error": message, "error_type": "validation"},
        {"object": "error", "message": message, "type": "BadRequestError", "code": 400},
        {"detail": [{"loc": ["body"], "msg": message}]},
        {"detail": message},
        [{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}],
    ]


@pytest.mark.parametrize("server", TOO_LONG)
def test_too_long_in_the_words_of(server: str) -> None:
    bodies = [json.dumps(form).encode() for form in forms(TOO_LONG[server])]
    for status in (400, 413, 422, 500):
        for body in [*bodies, TOO_LONG[server].encode()]:
            assert refusal(status, body).trouble == "too_long", body


@pytest.mark.parametrize("code", ["context_length_exceeded", "exceed_context_size_error"])
def test_too_long_by_its_code(code: str) -> None:
    for key in ("code", "type"):
        body = json.dumps({"error": {"message": "Bad request", key: code}}).encode()
        assert refusal(400, body).trouble == "too_long"


@pytest.mark.parametrize("message", OTHER)
def test_any_other_refusal_is_none_of_the_page_s_length(message: str) -> None:
    for form in forms(message):
        error = refusal(400, json.dumps(form).encode())
        assert (error.trouble, error.cause) == ("refused", "http_400")
        assert message[:60] in error.message


def test_words_are_printable_and_short() -> None:
    hostile = {"error": {"message": "no\x1b[2J\u202e\ud800 " + "x" * 10_000, "code": "\x1b" * 500}}
    for body in (json.dumps(hostile).encode(), b"\x1b[31m" + b"x" * 10_000, b"[" * 100_000, b"\xff\xfe"):
        error = refusal(400, body)
        assert str(error).isprintable()
        assert len(str(error)) < 400


def test_a_redirect_names_where_to() -> None:
    error = refusal(307, b"", {"location": "https://elsewhere.example/v1?token=secret"})
    assert error.trouble == "fatal"
    assert "https://elsewhere.example/v1" in error.message
    assert "secret" not in error.message
