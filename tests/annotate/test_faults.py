"""A server that goes wrong in every way: nothing is lost, nothing asked twice without need, nothing guessed."""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from rich.console import Console

from filters.annotate.config import AnnotateConfig
from filters.annotate.judge import settings
from filters.annotate.run import AnnotateResult, Hooks, run_annotate
from filters.annotate.store import Store
from filters.annotate.terminal import result_view
from filters.errors import AnnotationsError
from tests.annotate.judge_server import Fault, Held, Http, JudgeServer, Raw, Slow, reply

Make = Callable[..., AnnotateConfig]
Serve = Callable[..., JudgeServer]
pytestmark = pytest.mark.usefixtures("quick")


def statuses(config: AnnotateConfig) -> Counter[tuple[str, str | None]]:
    with Store(config.store, create=False) as store:
        return Counter((answer.status, answer.cause) for _, answer in store.answers(1))


def first_time(fault: Any, then: Any = None) -> Callable[[int, dict[str, Any]], Any]:
    """Every page's first request meets the fault, its second is answered."""
    seen: set[str] = set()

    def behave(n: int, body: dict[str, Any]) -> Any:
        page = body["messages"][-1]["content"]
        if page in seen:
            return then or reply()
        seen.add(page)
        return fault

    return behave


@pytest.mark.parametrize(
    "fault",
    [
        Http(429),
        Http(500, b"Internal Server Error"),
        Http(502, b"<html>bad gateway</html>"),
        Http(503),
        Http(408),
        Fault("reset"),
        Fault("short_body"),
        Fault("half_json"),
        b"",
        {"error": {"message": "overloaded", "code": 500}},
        {"choices": []},
        {"choices": [{"message": {"content": 5}}]},
        ["a", "list"],
        "a string",
    ],
    ids=lambda fault: repr(fault)[:40],
)
def test_what_goes_wrong_once_is_asked_again(config: Make, serve: Serve, fault: Any) -> None:
    server = serve(first_time(fault))
    made = config(server.url, 20, {"retries": 20})
    result = run_annotate(made)
    assert result.outcome == "complete"
    assert statuses(made) == {("ok", None): 20}
    assert Counter(Counter(server.pages).values()) == {2: 20}
    assert result.judges[0].progress.retries == 20
    assert result.judges[0].failed == {}


def test_a_server_that_hangs_is_given_up_and_asked_again(config: Make, serve: Serve) -> None:
    server = serve(first_time(Fault("hang")))
    made = config(server.url, 5, {"timeout_seconds": 1, "retries": 20})
    result = run_annotate(made)
    assert statuses(made) == {("ok", None): 5}
    # Whether those that hung (and those that a busy machine answered late) were billed is not known, so they count, at
    # their upper bound.
    late = result.judges[0].progress.retries
    assert late >= 5
    assert result.spent.requests == 5 + late
    assert result.spent.tokens_in > 5 * 100 + late * 100
    assert result.spent.tokens_out == 5 + late * 8


def test_a_storm_of_429_costs_no_page(config: Make, serve: Serve) -> None:
    server = serve()
    server.behave = lambda n, body: Http(429) if server.now > 4 else Slow(0.01)
    made = config(server.url, 150, {"max_concurrency": 64, "retries": 20})
    result = run_annotate(made)
    assert statuses(made) == {("ok", None): 150}
    assert result.judges[0].progress.retries == len(server.requests) - 150


@pytest.mark.parametrize("form", ["seconds", "date", "milliseconds"])
def test_retry_after_is_honoured(config: Make, serve: Serve, form: str) -> None:
    times: list[float] = []

    def behave(n: int, body: dict[str, Any]) -> Any:
        times.append(time.time())
        if n:
            return reply()
        value = {
            "seconds": ("Retry-After", "1"),
            "milliseconds": ("retry-after-ms", "800"),
            "date": ("Retry-After", formatdate(time.time() + 2, usegmt=True)),
        }
        return Http(429, headers=dict([value[form]]))

    server = serve(behave)
    assert run_annotate(config(server.url, 5, {"max_concurrency": 1})).outcome == "complete"
    assert times[1] - times[0] > 0.75


def test_a_server_that_wants_hours_is_not_waited_for(config: Make, serve: Serve) -> None:
    server = serve(lambda n, body: Http(429, {"error": {"message": "quota used up"}}, {"Retry-After": "7200"}))
    result = run_annotate(config(server.url, 20))
    assert result.outcome == "stopped"
    assert "7,200 s: " in str(result.judges[0].error)
    assert "quota used up" in str(result.judges[0].error)


def test_garbage_is_rejected_kept_and_not_asked_again(config: Make, serve: Serve) -> None:
    garbage = ["I cannot rate this page.", "7", "", "2.5", "\x00\x1b[31m3"]

    def behave(n: int, body: dict[str, Any]) -> Any:
        return reply(garbage[n % 5])

    server = serve(behave)
    made = config(server.url, 50)
    result = run_annotate(made)
    assert (result.outcome, len(server.requests)) == ("complete", 50)
    assert statuses(made) == {
        ("rejected", "no_score"): 20, ("rejected", "off_scale"): 10, ("rejected", "empty_answer"): 10,
        ("rejected", "not_whole"): 10,
    }  # fmt: skip
    assert result.judges[0].scores == {}
    run_annotate(made)
    assert len(server.requests) == 50


def test_another_model_is_not_believed(config: Make, serve: Serve) -> None:
    server = serve(lambda n, body: reply(model="other-model"))
    made = config(server.url, 30)
    result = run_annotate(made)
    assert (result.outcome, result.exit_status) == ("stopped", 1)
    assert "asked for 'judge-1', and 'other-model' answered" in str(result.judges[0].error)
    assert statuses(made) == {}
    assert len(server.requests) <= 8
    allowed = config(server.url, 30, {"served_as": ["other-model"]})
    assert run_annotate(allowed).outcome == "complete"


@pytest.mark.parametrize("name", ["judge-1-2024-07-18", "/models/judge-1.gguf", "JUDGE-1", ""])
def test_other_spellings_of_a_model_are(config: Make, serve: Serve, name: str) -> None:
    assert run_annotate(config(serve(lambda n, body: reply(model=name)).url, 5)).outcome == "complete"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_stops_at_once(config: Make, serve: Serve, status: int) -> None:
    server = serve(lambda n, body: Http(status, {"error": {"message": "no such thing"}}))
    result = run_annotate(config(server.url, 100))
    assert result.outcome == "stopped"
    assert f"http_{status}: " in str(result.judges[0].error)
    assert "no such thing" in str(result.judges[0].error)
    assert len(server.requests) <= 8


def test_most_of_a_window_failing_stops_the_run(config: Make, serve: Serve) -> None:
    server = serve(lambda n, body: Http(500) if n > 30 else reply())
    made = config(server.url, 300, {"retries": 1, "max_concurrency": 4}, stop={"window": 20, "max_failed_share": 0.5})
    result = run_annotate(made)
    assert result.outcome == "stopped"
    assert "http_500" in str(result.judges[0].error)
    assert len(server.requests) < 150
    server.behave = lambda n, body: reply()
    before = len(server.requests)
    assert run_annotate(made).outcome == "complete"
    assert statuses(made) == {("ok", None): 300}
    assert len(server.requests) - before == 300 - 31


def test_pages_the_server_refuses_fail_alone(config: Make, serve: Serve) -> None:
    def behave(n: int, body: dict[str, Any]) -> Any:
        if "Page number 7 " in body["messages"][-1]["content"]:
            return Http(422, {"error": {"message": "I do not like it"}})
        if "Page number 8 " in body["messages"][-1]["content"]:
            return Http(400, {"error": {"message": "triggered the content management policy"}})
        return reply()

    server = serve(behave)
    made = config(server.url, 30)
    result = run_annotate(made)
    assert (result.outcome, result.exit_status) == ("failures", 3)
    assert result.judges[0].failed == {"http_422": 1}
    assert statuses(made) == {("ok", None): 29 - 1, ("rejected", "content_filter"): 1}
    server.behave = lambda n, body: reply()
    again = run_annotate(made)
    assert (again.outcome, again.judges[0].failed) == ("complete", {})
    assert Counter(server.pages).total() - len(set(server.pages)) in (1, 2)  # 2: it failed in the pilot and in the rest


def test_a_page_too_long_for_the_server_is_cut(config: Make, serve: Serve) -> None:
    def behave(n: int, body: dict[str, Any]) -> Any:
        size = len(body["messages"][-1]["content"])
        if size > 500:
            return Http(400, {"error": {"message": f"This model's maximum context length is 9 tokens, not {size}"}})
        return reply()

    server = serve(behave)
    made = config(server.url, 10, words=120)
    assert run_annotate(made).outcome == "complete"
    assert any("(Cut: the first" in page for page in server.pages)


def test_a_server_without_log_probabilities_falls_back_to_samples(config: Make, serve: Serve) -> None:
    warnings: list[str] = []
    server = serve(lambda n, body: reply(str(n % 2 + 2), logprobs=False))
    made = config(server.url, 20)
    assert run_annotate(made, Hooks(echo=warnings.append)).outcome == "complete"
    assert [w for w in warnings if "falling back to mode sample with 5 answers" in w and server.url in w]
    assert len([w for w in warnings if "falling back" in w]) == 1
    assert statuses(made) == {("ok", None): 100}
    assert len(server.requests) == 100
    assert "logprobs" not in server.requests[-1]
    assert server.requests[-1]["temperature"] == 1
    with Store(made.store) as store:
        assert {answer.mode for _, answer in store.answers(1)} == {"sample"}
    run_annotate(made)
    assert len(server.requests) == 100


@pytest.mark.parametrize(("most", "left"), [(5, 5), (0, 0)])
def test_a_server_that_refuses_so_many_log_probabilities(config: Make, serve: Serve, most: int, left: int) -> None:
    def behave(n: int, body: dict[str, Any]) -> Any:
        if body.get("top_logprobs", 0) > most:
            return Http(400, {"error": {"message": f"top_logprobs must be at most {most}"}})
        return reply()

    server = serve(behave)
    made = config(server.url, 20)
    assert run_annotate(made).outcome == "complete"
    with Store(made.store) as store:
        assert store.judges()[0].logprobs == left
        assert {answer.mode for _, answer in store.answers(1)} == {"expected" if most else "sample"}


def test_a_dead_endpoint_is_dropped_and_tried_again(config: Make, serve: Serve) -> None:
    revived: list[JudgeServer] = []
    good = serve(
        lambda n, body: reply() if n < 50 else Held(lambda: bool(revived) and len(revived[0].requests) > 10, reply())
    )
    dead = serve()
    port = dead.port
    dead.close()
    made = config([f"http://127.0.0.1:{port}/v1", good.url], 200, {"max_concurrency": 4, "retries": 20})

    class Watch:
        def __init__(self, judges: Any, budget: Any) -> None:
            self.judge = judges[0]

        def __enter__(self) -> Callable[[], None]:
            return self.look

        def __exit__(self, *error: object) -> None:
            pass

        def look(self) -> None:
            if not revived and self.judge.progress.answered > 40:
                revived.append(serve(lambda n, body: reply(), port=port))

    result: AnnotateResult = run_annotate(made, Hooks(progress=Watch))
    assert result.outcome == "complete"
    assert statuses(made) == {("ok", None): 200}
    assert len(revived[0].requests) > 10
    assert len(good.requests) + len(revived[0].requests) == 200


def test_no_server_at_all_stops_with_its_address(config: Make, serve: Serve) -> None:
    server = serve()
    server.close()
    result = run_annotate(config(server.url, 50, {"retries": 2}))
    assert result.outcome == "stopped"
    assert server.url in str(result.judges[0].error)
    assert "connection" in str(result.judges[0].error)


def test_one_judge_s_end_is_not_the_others(config: Make, serve: Serve) -> None:
    good, bad = serve(), serve(lambda n, body: Http(401))
    made = config(good.url, 30)
    second = made.judges[0].model_copy(update={"name": "bad", "base_urls": (bad.url,)})
    result = run_annotate(made.model_copy(update={"judges": (made.judges[0], second)}))
    assert (result.outcome, result.exit_status) == ("stopped", 1)
    assert [judge.error is None for judge in result.judges] == [True, False]
    assert len(good.requests) == 30


def test_a_usage_that_is_missing_counts_as_the_upper_bound(config: Make, serve: Serve) -> None:
    server = serve(lambda n, body: reply(usage=False))
    result = run_annotate(config(server.url, 5))
    assert result.spent.tokens_in > 5 * 500
    assert result.spent.tokens_out == 5 * 8


def odd(content: Any = "3", logprobs: Any = None, **more: Any) -> dict[str, Any]:
    """A reply with something odd in it."""
    made = reply()
    made["choices"][0]["message"]["content"] = content
    if logprobs is not None:
        made["choices"][0]["logprobs"] = logprobs
    return made | more


def junk(logprob: str) -> bytes:
    """A reply whose log-probabilities are all this JSON."""
    return json.dumps(odd(logprobs={"content": [{"token": "3", "logprob": 0.125}]})).replace("0.125", logprob).encode()


def usage(count: str) -> bytes:
    """A reply whose usage is this JSON."""
    return json.dumps(odd(usage={"prompt_tokens": 0.125, "completion_tokens": 0.125})).replace("0.125", count).encode()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
GOOD = json.dumps(reply()).encode()
ODD: dict[str, tuple[Any, str]] = {
    "a lone surrogate": (odd("\ud800"), "no_score"),
    "a surrogate behind the score": (odd("3\udfff"), "no_score"),
    "2**64 as the score": (odd(str(2**64)), "off_scale"),
    "-10**400 as the score": (odd("-1" + "0" * 400), "off_scale"),
    "5,000 digits as the score": (odd("3" * 5000), "off_scale"),
    "a usage of 2**64": (usage(str(2**64)), "ok"),
    "a usage of -10**400": (usage("-1" + "0" * 400), "ok"),
    "a usage of 5,000 digits": (usage("9" * 5000), "ok"),
    "a usage of NaN": (usage("NaN"), "ok"),
    "a usage of 1e999": (usage("1e999"), "ok"),
    "a usage of words": (usage('"many"'), "ok"),
    "a number as content": (odd(3), "odd_reply"),
    "deep JSON": (b'{"choices": ' + b"[" * 100_000, "odd_reply"),
    "deep JSON in the content": (GOOD.replace(b'"3"}', b"[" * 300 + b"]" * 300 + b"}", 1), "odd_reply"),
    "a key twice": (GOOD.replace(b'"content": "3"', b'"content": "3", "content": "4"'), "odd_reply"),
    "NaN": (junk("NaN"), "ok"),
    "Infinity": (junk("Infinity"), "ok"),
    "a string": (junk('"-0.1"'), "ok"),
    "5,000 digits as a logprob": (junk("-" + "9" * 5000), "ok"),
    "probabilities of 1 for each": (
        odd(logprobs={"content": [{"token": "3", "logprob": 0, "top_logprobs": [
            {"token": str(n), "logprob": 0} for n in range(6)]}]}), "odd_logprobs",
    ),
    "wrong nesting": (odd(logprobs={"content": [[{"token": "3"}]]}), "odd_logprobs"),
    "candidates by name": (odd(logprobs={"content": [{"token": "3", "top_logprobs": {"3": 0}}]}), "odd_logprobs"),
    "null as a token": (odd(logprobs={"content": [None]}), "odd_logprobs"),
    "text/plain": (Http(200, reply(), {"Content-Type": "text/plain; charset=nonsense"}), "ok"),
    "text/html": (Http(200, b"<html>Sign in", {"Content-Type": "text/html"}), "malformed_reply"),
    "an event stream": (Http(200, b"data: {}\n\n", {"Content-Type": "text/event-stream"}), "malformed_reply"),
    "gzip that is none": (Http(200, GOOD, {"Content-Encoding": "gzip"}), "connection"),
    "a body without end": (Raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", forever=True), "endless_reply"),
    "an error without end": (Raw(b"HTTP/1.1 400 X\r\nTransfer-Encoding: chunked\r\n\r\n", forever=True), "http_400"),
    "a header of 1 MB": (Raw(HEAD + b"X: " + b"x" * 2**20 + b"\r\n\r\n"), "odd_reply"),
    "no HTTP": (Raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "odd_reply"),
    "fewer bytes than promised": (Raw(HEAD + b"Content-Length: 999999\r\n\r\n" + GOOD), "connection"),
    "two lengths": (Raw(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), "odd_reply"),
}  # fmt: skip
"""What comes -> what becomes of the page."""


def test_an_odd_reply_costs_no_other_answer(config: Make, serve: Serve) -> None:
    kinds = list(ODD)
    server = serve()
    made = config(server.url, 80, {"retries": 1, "max_concurrency": 4})
    with Store(made.store) as store:  # servers are known to have log-probabilities, whoever answers first
        record = store.judge("judge", "model", "judge-1", settings(made.judges[0]))
        store.learn_logprobs(record.number, 20)

    def number(body: dict[str, Any]) -> int:
        return int(body["messages"][-1]["content"].split("Page number ")[1].split()[0])

    def behave(n: int, body: dict[str, Any]) -> Any:
        page = number(body)
        return ODD[kinds[page]][0] if page < len(kinds) else reply()

    server.behave = behave
    result = run_annotate(made)
    assert result.outcome == "failures"
    with Store(made.store, create=False) as store:
        names = {place: int(document.id or 0) for place, document in store.drawn(1)}
        became = {names[answer.document]: answer.cause or "ok" for _, answer in store.answers(1)}
        failed = store.causes(1, 1)[1]
    assert [became.pop(page, "") for page in range(len(kinds), 80)] == ["ok"] * (80 - len(kinds))
    for page, kind in enumerate(kinds):
        cause = became.get(page)
        if cause is None:
            failed[ODD[kind][1]] -= 1
        else:
            assert cause == ODD[kind][1], kind
    assert set(failed.values()) == {0}
    assert result.spent.requests == len(server.requests)
    asked = len(server.requests)
    run_annotate(made)
    again = {number(body) for body in server.requests[asked:]}
    assert again == set(range(len(kinds))) - became.keys()


def test_answers_that_cannot_be_saved_are_kept_until_they_can(
    config: Make, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    made = config(server.url, 30, {"max_concurrency": 4})
    save, calls = Store.save, []

    def full(self: Store, *arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            raise AnnotationsError("no space left")
        save(self, *arguments)

    monkeypatch.setattr(Store, "save", full)
    with pytest.raises(AnnotationsError, match="no space left"):
        run_annotate(made)
    with Store(made.store, create=False) as store:
        assert len(list(store.answers(1))) == store.spent().requests == len(server.requests)
    assert run_annotate(made).outcome == "complete"
    assert len(server.requests) == len(set(server.pages)) == 30


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(config: Make, serve: Serve, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    other = serve()
    server = serve(lambda n, body: Http(status, b"", {"Location": f"{other.url}/chat/completions"}))
    result = run_annotate(config(server.url, 5, {"api_key_env": "JUDGE_KEY"}))
    assert result.outcome == "stopped"
    assert f"redirects to {other.url}" in str(result.judges[0].error)
    assert other.heads == []


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'", "answer_limit: max_comp"),
        ("max_tokens is too large: 8. This model supports at most 4 completion tokens", "max_answer_tokens"),
        ("Unsupported value: 'temperature' does not support 0 with this model", "temperature"),
        ("extra_forbidden: Extra inputs are not permitted: top_k", "extra_body: leave out top_k"),
    ],
)
def test_a_parameter_that_is_refused_is_named_with_its_key(config: Make, serve: Serve, words: str, key: str) -> None:
    server = serve(lambda n, body: Http(400, {"error": {"message": words}}))
    result = run_annotate(config(server.url, 60, {"extra_body": {"top_k": 1}}))
    assert result.outcome == "stopped"
    assert words in str(result.judges[0].error)
    assert f"judges.judge.{key}" in str(result.judges[0].error)
    assert len(server.requests) <= 8


def test_refusals_are_shown_in_the_server_s_words(config: Make, serve: Serve) -> None:
    def behave(n: int, body: dict[str, Any]) -> Any:
        refused = "Page number 7 " in body["messages"][-1]["content"]
        return Http(422, {"error": "\x1b[31mNo essays about this context"}) if refused else reply()

    server = serve(behave)
    made = config(server.url, 20)
    result = run_annotate(made)
    assert all("(Cut: the first" not in page for page in server.pages)
    console = Console(file=io.StringIO(), width=200)
    console.print(result_view(result))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1  without an answer: http_422 ([31mNo essays about this context)" in shown


def test_an_answer_to_a_page_that_was_cut_says_so(config: Make, serve: Serve) -> None:
    def behave(n: int, body: dict[str, Any]) -> Any:
        return reply() if len(body["messages"][-1]["content"]) < 500 else Http(413, {"error": "prompt is too long"})

    server = serve(behave)
    made = config(server.url, 10, words=120)
    assert run_annotate(made).outcome == "complete"
    with Store(made.store, create=False) as store:
        cuts = {answer.text_cut for _, answer in store.answers(1)}
    told = {
        int(page.split("(Cut: the first ")[1].split(" of")[0]) for page in server.pages if "(Cut: the first" in page
    }
    assert cuts <= told
    assert max(cut for cut in cuts if cut is not None) < 500


def test_one_answer_without_log_probabilities_among_many_is_read_as_written(config: Make, serve: Serve) -> None:
    def behave(n: int, body: dict[str, Any]) -> Any:
        return reply("4", logprobs=False) if "Page number 7 " in body["messages"][-1]["content"] else reply()

    server = serve(behave)
    made = config(server.url, 20, {"max_concurrency": 1})
    with Store(made.store) as store:
        record = store.judge("judge", "model", "judge-1", settings(made.judges[0]))
        store.learn_logprobs(record.number, 20)
    assert run_annotate(made).outcome == "complete"
    assert len(server.requests) == 20
    with Store(made.store, create=False) as store:
        modes = Counter((answer.mode, round(answer.expected or 0, 2)) for _, answer in store.answers(1))
        assert store.judges()[0].logprobs == 20
    assert modes == {("sample", 4.0): 1, ("expected", 2.8): 19}


def test_a_judge_that_falls_back_at_temperature_0_is_asked_once(config: Make, serve: Serve) -> None:
    server = serve(lambda n, body: reply(logprobs=False))
    assert run_annotate(config(server.url, 10, {"temperature": 0})).outcome == "complete"
    assert len(server.requests) == 10
    assert {request["temperature"] for request in server.requests} == {0}
