"""Runs over the loopback: what is asked, what is stored, what a second run asks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.annotate.config import AnnotateConfig
from filters.annotate.run import Hooks, plan_annotate, run_annotate, unsure_scripts
from filters.annotate.store import Store
from filters.errors import ConfigError, MissingExtraError
from tests.annotate.judge_server import JudgeServer, reply

Make = Callable[..., AnnotateConfig]
Serve = Callable[..., JudgeServer]
pytestmark = pytest.mark.usefixtures("quick")


def answers(config: AnnotateConfig) -> list[Any]:
    with Store(config.store, create=False) as store:
        return [answer for _, answer in store.answers(1)]


def test_every_page_is_asked_once_and_never_again(config: Make, serve: Serve) -> None:
    server = serve()
    made = config(server.url, 60)
    result = run_annotate(made)
    assert (result.outcome, result.exit_status) == ("complete", 0)
    assert len(server.requests) == len(set(server.pages)) == 60
    stored = answers(made)
    assert len(stored) == 60
    assert {(a.status, a.score, a.mode) for a in stored} == {("ok", 3.0, "expected")}
    assert stored[0].expected == pytest.approx(2.8)
    assert result.judges[0].progress.scores == Counter({3: 60})
    assert (result.spent.requests, result.spent.tokens_in, result.spent.tokens_out) == (60, 6000, 60)
    assert result.spent.cost == pytest.approx(60 * (100 + 2) / 1e6)
    again = run_annotate(made)
    assert (again.outcome, len(server.requests)) == ("complete", 60)
    assert again.spent == result.spent


def test_what_is_asked(config: Make, serve: Serve) -> None:
    server = serve()
    run_annotate(
        config(server.url, 5, {"extra_body": {"chat_template_kwargs": {"thinking": False}}}, language="Danish")
    )
    request = server.requests[0]
    assert request["model"] == "judge-1"
    assert (request["temperature"], request["logprobs"], request["top_logprobs"]) == (0, True, 20)
    assert request["chat_template_kwargs"] == {"thinking": False}
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    assert "Danish" in request["messages"][0]["content"]
    assert request["messages"][1]["content"].startswith("<page>\nPage number")
    assert "\n</page>\n" in request["messages"][1]["content"]


def test_sampled_answers_are_drawn_apart(config: Make, serve: Serve) -> None:
    server = serve(lambda n, body: reply(str(n % 4), logprobs=False))
    made = config(server.url, 10, {"mode": "sample", "repeats": 3})
    assert run_annotate(made).outcome == "complete"
    assert Counter(server.pages).most_common()[0][1] == Counter(server.pages).most_common()[-1][1] == 3
    assert {request["temperature"] for request in server.requests} == {1}
    assert "logprobs" not in server.requests[0]
    assert [answer.repeat for answer in answers(made)] == [0, 1, 2] * 10


def test_justified_answers(config: Make, serve: Serve) -> None:
    def behave(n: int, body: dict[str, Any]) -> Any:
        if n % 3 == 1:
            return reply("It teaches, I would say 3.", logprobs=False)
        if n % 3 == 2:
            return reply("It teaches and then goes on and on", logprobs=False, finish="length")
        return reply("It teaches.\n\nEducational score: 4", logprobs=False)

    server = serve(behave)
    result = run_annotate(config(server.url, 30, {"mode": "justify"}))
    assert result.outcome == "complete"
    assert result.judges[0].rejected == {"cut_off": 10, "no_score": 10}
    assert result.judges[0].progress.scores == Counter({4: 10})
    stored = answers(config(server.url, 30))
    assert Counter((a.status, a.cause, a.score is None) for a in stored) == {
        ("ok", None, False): 10, ("rejected", "no_score", True): 10, ("rejected", "cut_off", True): 10,
    }  # fmt: skip
    assert all(answer.raw for answer in stored)
    run_annotate(config(server.url, 30, {"mode": "justify"}))
    assert len(server.requests) == 30


def test_reward_models_score_the_page_as_an_answer(config: Make, serve: Serve) -> None:
    told = "helpfulness:3.5,correctness:3.0,coherence:3.25,complexity:1.0,verbosity:0.5"

    def behave(n: int, body: dict[str, Any]) -> Any:
        made = reply(told, logprobs=False)
        made["choices"][0]["message"] = [made["choices"][0]["message"]]
        return made

    server = serve(behave)
    made = config(server.url, 5, {"mode": "reward"}, rubric="configs/rubrics/helpsteer.yaml")
    assert run_annotate(made).outcome == "complete"
    messages = server.requests[0]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[1]["content"].startswith("Page number")
    assert "page>" not in messages[1]["content"]
    assert answers(made)[0].attributes["coherence"] == 3.25


def test_several_judges_and_a_pilot_before_the_rest(config: Make, serve: Serve) -> None:
    one, two = serve(lambda n, body: reply("1")), serve(lambda n, body: reply("4", model="other"))
    made = config(one.url, 50)
    second = made.judges[0].model_copy(update={"name": "two", "model": "other", "base_urls": (two.url,)})
    made = made.model_copy(update={"judges": (made.judges[0], second), "pilot": 20})
    seen: list[tuple[str, int, int, int]] = []
    asked: list[int] = []

    def confirm(forecasts: Any) -> bool:
        seen.extend((part.judge, part.documents, part.answers, round(part.tokens.value)) for part in forecasts)
        asked.extend([len(one.requests), len(two.requests)])
        return len(seen) > 2

    from filters.annotate.run import Hooks

    result = run_annotate(made, Hooks(confirm=confirm))
    assert (result.outcome, result.exit_status) == ("declined", 3)
    assert seen == [("judge", 20, 30, 3030), ("two", 20, 30, 3030)]
    assert asked == [20, 20]
    assert run_annotate(made, Hooks(confirm=confirm)).outcome == "complete"
    assert (len(one.requests), len(two.requests)) == (50, 50)
    with Store(made.store) as store:
        assert [list(store.scores(judge.number, 1).values()) for judge in store.judges()] == [[1] * 50, [4] * 50]


def test_a_judge_without_a_tokenizer_is_warned_of(config: Make, serve: Serve, tmp_path: Any) -> None:
    made = config(serve().url, 4)
    khmer = "\u1780\u1798\u17d2\u1796 " * 50
    pq.write_table(
        pa.table({"text": ["Plain words.", "\u0433\u043e\u0434 " * 50, khmer, khmer + "x"], "id": list("abcd")}),
        made.input.paths[0],
    )
    lines = plan_annotate(made).lines
    assert "Khmer 2. Remedy: give `tokenizer` (the model's tokenizer.json) for judge" in lines[-1]
    echoed: list[str] = []
    run_annotate(made, Hooks(echo=echoed.append))
    assert [line for line in echoed if "above 15 %: Khmer 2" in line] == [f"warning: {lines[-1]}"]
    assert unsure_scripts(made, ["Plain words."]) == []


def test_pages_are_bounded_in_the_judge_s_own_tokens(config: Make, serve: Serve, tmp_path: Any) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split

    letters = Tokenizer(WordLevel({"x": 0, "[UNK]": 1}, unk_token="[UNK]"))
    letters.pre_tokenizer = Split("", "isolated")  # a token is a character
    path = tmp_path / "tokenizer.json"
    letters.save(str(path))
    server = serve()
    run_annotate(config(server.url, 5, {"tokenizer": str(path), "max_page_tokens": 200}, words=200))
    framed = [page.partition("</page>")[0] for page in server.pages]
    assert all(100 < len(page) <= 200 for page in framed)
    with pytest.raises(ConfigError, match="no such file"):
        run_annotate(config(server.url, 5, {"tokenizer": "none.json"}))
    path.write_text("{}")
    with pytest.raises(ConfigError, match=r"not a tokenizer\.json"):
        run_annotate(config(server.url, 5, {"tokenizer": str(path)}))


def test_a_config_that_cannot_work_is_refused_before_anything_is_asked(config: Make, serve: Serve) -> None:
    server = serve()
    for judge, match in (
        ({"context_tokens": 256, "max_answer_tokens": 200}, "no room for a page"),
        ({"mode": "reward"}, "needs a rubric with `request`"),
        ({"api_key_env": "FINESIEVE_NO_SUCH_KEY"}, "FINESIEVE_NO_SUCH_KEY is not set"),
    ):
        with pytest.raises(ConfigError, match=match):
            run_annotate(config(server.url, 5, judge))
    assert server.requests == []
    for judge in (
        {"base_urls": ["ftp://x/v1"]},
        {"base_urls": ["http://me:secret@x/v1"]},
        {"mode": "sample", "temperature": 0},
        {"repeats": 2},
        {"repeats": 2, "temperature": 0},
        {"mode": "justify", "repeats": 3, "temperature": 0},
        {"mode": "reward", "repeats": 2},
    ):
        with pytest.raises(ValueError, match=r"base_urls|judges"):
            config(server.url, 5, judge)


def test_the_key_is_sent_and_stored_nowhere(
    config: Make, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    server = serve()
    made = config(server.url, 5, {"api_key_env": "JUDGE_KEY"})
    run_annotate(made)
    assert {head["authorization"] for head in server.heads} == {"bearer sk-very-secret"}
    for path in tmp_path.iterdir():
        assert b"sk-very-secret" not in path.read_bytes()


def test_the_missing_extra_is_named(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MissingExtraError, match=r"\[annotate\]"):
        run_annotate(config("http://127.0.0.1:9/v1", 5))


def test_credentials_of_the_input_are_not_stored(config: Make, serve: Serve) -> None:
    made = config(serve().url, 5)
    source = made.input.model_copy(update={"storage_options": {"secret": "s3-very-secret"}})
    run_annotate(made.model_copy(update={"input": source}))
    assert b"s3-very-secret" not in Path(made.store).read_bytes()
