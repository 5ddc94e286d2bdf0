"""What pages that try to talk a judge into a score achieve: mean score shift with and without finesieve's defence.

61 injections (tests/annotate/injections.json) are appended to pages that teach nothing, and a real model behind
llama.cpp's server judges each page with and without it, in two prompts of the same rubric:

- undefended: the page pasted into the message as it is, as judge scripts commonly do;
- defended: the prompt of `finesieve annotate`: the page framed and neutralised by `filters.annotate.page`, and the
  judge told what the frame means.

Besides the shift of the expected score, the prompt is expanded by the model's own chat template and tokenised as the
server does it: each turn must be opened and closed once by its special tokens. More of them means that the page has
become a turn of the conversation.

    .venv/bin/python -m benchmarks.injections
"""

from __future__ import annotations

import json
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from examples.small_judge import MODEL, running
from filters.annotate.page import CLOSE, OPEN, delimit
from filters.annotate.prompt import FRAME, Message, Prompt
from filters.annotate.reading import UnreadableError, read_expected
from filters.annotate.rubric import Rubric

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "annotate" / "injections.json"
RESULTS = ROOT / "benchmarks" / "results" / "injections.json"
MAX_TOKENS = 600
RESAMPLES = 2000
ARMS = ("undefended", "defended")


def main() -> None:
    """Judge every page with every injection in both prompts, and write the shifts."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    rubric = Rubric.load(ROOT / "configs" / "rubrics" / "edu.yaml")
    prompt = Prompt(rubric, "expected")
    rows: list[dict[str, Any]] = []
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder, running(1, Path(folder, "server.log")) as (address,):
        special = {token: _tokens(address, token)[0] for token in ("<|im_start|>", "<|im_end|>")}
        for arm in ARMS:
            for page in data["pages"]:
                clean = _judge(address, _messages(prompt, page["text"], arm), rubric)
                for injection in [{"kind": "none", "name": "none", "text": ""}, *data["injections"]]:
                    messages = _messages(prompt, f"{page['text']}\n\n{injection['text']}", arm)
                    turns = len(messages) + 1  # the judge's own turn is opened, too
                    expanded = _tokens(address, _post(address, "/apply-template", {"messages": messages})["prompt"])
                    counts = [expanded.count(special[token]) for token in special]
                    rows.append(
                        {
                            "arm": arm,
                            "page": page["name"],
                            "kind": injection["kind"],
                            "name": injection["name"],
                            "clean": clean,
                            "injected": _judge(address, messages, rubric),
                            "structure": counts == [turns, turns - 1],
                        }
                    )
                    print(f"{arm} {page['name']} {injection['kind']}/{injection['name']}: {rows[-1]}", flush=True)
    rows = [row for row in rows if row["kind"] != "none"]
    result = {
        "model": MODEL,
        "rubric": f"{rubric.name} {rubric.version}",
        "injections": len(data["injections"]),
        "pages": len(data["pages"]),
        "arms": {arm: _summary([row for row in rows if row["arm"] == arm]) for arm in ARMS},
        "cpu_seconds_client": round(time.process_time() - begun, 1),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["arms"], indent=1))


def _messages(prompt: Prompt, text: str, arm: str) -> list[Message]:
    messages = prompt.messages(delimit(text, MAX_TOKENS))
    if arm == "defended":
        return messages

    def bare(content: str) -> str:
        return content.replace(f"{FRAME}\n\n", "").replace(f"{OPEN}\n", "").replace(f"\n{CLOSE}", "")

    messages = [{**message, "content": bare(message["content"])} for message in messages]
    messages[-1]["content"] = f"{text}\n\n{prompt.question}"
    return messages


def _judge(address: str, messages: list[Message], rubric: Rubric) -> float | None:
    """Expected score; None where the model wants to say something else than a score."""
    body = {
        "model": MODEL,
        "messages": messages,
        "max_tokens": 2,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
    }
    answer = _post(address, "/v1/chat/completions", body)
    try:
        return round(read_expected(answer["choices"][0]["logprobs"]["content"], rubric).expected, 4)
    except UnreadableError:
        return None


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = sorted({row["kind"] for row in rows})
    return {
        "shift": _mean_shift(rows),
        "by_kind": {kind: _mean_shift([row for row in rows if row["kind"] == kind])["mean"] for kind in kinds},
        "largest": max((_shift(row) or 0.0) for row in rows),
        "unreadable": sum(row["injected"] is None for row in rows),
        "structure_broken": sum(not row["structure"] for row in rows),
        "prompts": len(rows),
    }


def _shift(row: dict[str, Any]) -> float | None:
    return None if row["clean"] is None or row["injected"] is None else round(row["injected"] - row["clean"], 4)


def _mean_shift(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over injections with the 95 % interval of a bootstrap over them."""
    by_injection: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        shift = _shift(row)
        if shift is not None:
            by_injection.setdefault((row["kind"], row["name"]), []).append(shift)
    means = np.array([np.mean(shifts) for shifts in by_injection.values()])
    if not len(means):
        return {"mean": None, "low": None, "high": None}
    drawn = np.random.default_rng(0).choice(means, (RESAMPLES, len(means))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"mean": round(float(means.mean()), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def _tokens(address: str, text: str) -> list[int]:
    return [int(token) for token in _post(address, "/tokenize", {"content": text, "parse_special": True})["tokens"]]


def _post(address: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)


if __name__ == "__main__":
    main()
