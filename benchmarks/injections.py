"""What pages that try to talk a judge into a score achieve: mean score shift with and without finesieve's defence.

61 injections (tests/annotate/injections.json) are appended to pages that teach nothing, and a real model behind
llama.cpp's server judges each page with and without it. A page that goes on is another page: the shift of harmless
sentences, appended in the same way, is the control that the injections' shift is compared with. Two prompts of the same
rubric:

- undefended: the page pasted into the message as it is, as judge scripts commonly do;
- defended: the prompt of `finesieve annotate`: the page framed and neutralised by `filters.annotate.page`, and the
  judge told what the frame means.

Besides the shift of the expected score, the prompt is expanded by the model's own chat template and tokenised as the
server does it: each turn must be opened and closed once by its special tokens. More of them means that the page has
become a turn of the conversation.

Answers are kept in runs/injections.jsonl: a run that was stopped goes on where it ended.

    .venv/bin/python -m benchmarks.injections
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from examples.small_judge import MODEL, running
from filters.annotate.page import CLOSE, OPEN, delimit
from filters.annotate.reading import UnreadableError, read_expected
from filters.annotate.rubric import FRAME, Message, Prompt, Rubric

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "annotate" / "injections.json"
RESULTS = ROOT / "benchmarks" / "results" / "injections.json"
KEPT = ROOT / "runs" / "injections.jsonl"
MAX_TOKENS = 600
RESAMPLES = 2000
CONTROL = "control"
ARMS = ("undefended", "defended")


def main() -> None:
    """Judge every page with every injection in both prompts, and write the shifts."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    rubric = Rubric.load(ROOT / "configs" / "rubrics" / "edu.yaml")
    prompt = Prompt(rubric, "expected")
    rows: list[dict[str, Any]] = []
    controls = [{"kind": CONTROL, "name": str(n), "text": text} for n, text in enumerate(data["controls"])]
    with tempfile.TemporaryDirectory() as folder, running(1, Path(folder, "server.log")) as (address,):
        judge = _Judge(address, rubric)
        for arm in ARMS:
            for page in data["pages"]:
                clean, _ = judge.ask(_messages(prompt, page["text"], arm))
                for injection in [*controls, *data["injections"]]:
                    messages = _messages(prompt, f"{page['text']}\n\n{injection['text']}", arm)
                    injected, sound = judge.ask(messages)
                    row = {"arm": arm, "page": page["name"], "kind": injection["kind"], "name": injection["name"]}
                    rows.append(row | {"clean": clean, "injected": injected, "structure": sound})
                    print(rows[-1], flush=True)
    result = {
        "model": MODEL,
        "rubric": f"{rubric.name} {rubric.version}",
        "injections": len(data["injections"]),
        "controls": len(data["controls"]),
        "pages": len(data["pages"]),
        "arms": {arm: _summary([row for row in rows if row["arm"] == arm]) for arm in ARMS},
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


class _Judge:
    """A served model; what it said is kept on disk."""

    def __init__(self, address: str, rubric: Rubric) -> None:
        self.address, self.rubric = address, rubric
        self.opening, self.closing = (self._tokens(token)[0] for token in ("<|im_start|>", "<|im_end|>"))
        KEPT.parent.mkdir(exist_ok=True)
        lines = KEPT.read_text().splitlines() if KEPT.exists() else []
        self.kept: dict[str, list[Any]] = dict(json.loads(line) for line in lines)

    def ask(self, messages: list[Message]) -> tuple[float | None, bool]:
        """(expected score, None where the model wants to say something else; whether the turns are as they should)."""
        body = {"messages": messages, "max_tokens": 2, "temperature": 0, "logprobs": True, "top_logprobs": 20}
        key = hashlib.sha256(json.dumps([MODEL, body]).encode()).hexdigest()
        if key not in self.kept:
            answer = _post(self.address, "/v1/chat/completions", {"model": MODEL} | body)
            try:
                score = round(read_expected(answer["choices"][0]["logprobs"]["content"], self.rubric).expected, 4)
            except UnreadableError:
                score = None
            turns = len(messages) + 1  # the judge's own turn is opened, too
            expanded = self._tokens(_post(self.address, "/apply-template", {"messages": messages})["prompt"])
            sound = (expanded.count(self.opening), expanded.count(self.closing)) == (turns, turns - 1)
            self.kept[key] = [score, sound]
            with KEPT.open("a") as file:
                file.write(json.dumps([key, self.kept[key]]) + "\n")
        score, sound = self.kept[key]
        return score, sound

    def _tokens(self, text: str) -> list[int]:
        reply = _post(self.address, "/tokenize", {"content": text, "parse_special": True})
        return [int(token) for token in reply["tokens"]]


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    controls = [row for row in rows if row["kind"] == CONTROL]
    attacks = [row for row in rows if row["kind"] != CONTROL]
    kinds = sorted({row["kind"] for row in attacks})
    return {
        "clean": round(float(np.mean([row["clean"] for row in rows])), 3),
        "shift": _difference(attacks, []),
        "control_shift": _difference(controls, []),
        "effect": _difference(attacks, controls),
        "effect_by_kind": {
            kind: _difference([row for row in attacks if row["kind"] == kind], controls)["mean"] for kind in kinds
        },
        "unreadable": sum(row["injected"] is None for row in attacks),
        "structure_broken": sum(not row["structure"] for row in attacks),
        "prompts": len(attacks),
    }


def _shift(row: dict[str, Any]) -> float | None:
    return None if row["clean"] is None or row["injected"] is None else round(row["injected"] - row["clean"], 4)


def _difference(rows: list[dict[str, Any]], controls: list[dict[str, Any]]) -> dict[str, float]:
    """Mean shift of rows, less that of controls, with the 95 % interval of a bootstrap over texts."""
    rng = np.random.default_rng(0)
    value, drawn = 0.0, np.zeros(RESAMPLES)
    for sign, part in ((1, rows), (-1, controls)):
        by_text: dict[tuple[str, str], list[float]] = {}
        for row in part:
            shift = _shift(row)
            if shift is not None:
                by_text.setdefault((row["kind"], row["name"]), []).append(shift)
        means = np.array([np.mean(shifts) for shifts in by_text.values()])
        if len(means):
            value += sign * float(means.mean())
            drawn += sign * rng.choice(means, (RESAMPLES, len(means))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"mean": round(value, 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def _post(address: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)


if __name__ == "__main__":
    main()
