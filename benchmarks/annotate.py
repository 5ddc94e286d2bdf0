"""How fast `finesieve annotate` asks, what memory it takes, and how soon it resumes.

    python benchmarks/annotate.py [--requests 20000] [--rows 1000000] [--output RESULTS.json]

A stub in another process answers at once, with 20 candidates' log-probabilities as vLLM gives them; pages have about
3,200 characters. The whole path counts: framing the page, building the prompt, reserving, sending, reading, storing.
The rate that counts is per second of the client's CPU time, because a shared machine's wall time is not repeatable; the
wall-clock rate is given beside it. Resuming is timed from opening the store to the first request.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import multiprocessing
import os
import platform
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from filters.annotate.config import AnnotateConfig
from filters.annotate.rubric import Rubric
from filters.annotate.run import Hooks, describe_sample, run_annotate
from filters.annotate.store import Answer, Document, Store
from filters.kernels.tokens import token_estimate  # noqa: F401  compiled before anything is timed

IN_FLIGHT = 256
WINDOW = 10_000
"""Answers between two looks at clock and memory."""
MODEL = "stub"


class _Stub(asyncio.Protocol):
    """Answers every request on a connection at once."""

    def __init__(self, answer: bytes) -> None:
        self._answer, self._data = answer, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self._data) < end + 4 + size:
                return
            self._data = self._data[end + 4 + size :]
            self._transport.write(self._answer)


def serve(port: Any) -> None:
    """Run the stub; its port is put into `port`."""
    top = [{"token": str(n), "logprob": math.log(0.3 / 2**n), "bytes": [48 + n]} for n in range(20)]
    content = [{"token": "3", "logprob": math.log(0.3 / 8), "bytes": [51], "top_logprobs": top}]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "3"},
        "finish_reason": "stop",
        "logprobs": {"content": content},
    }
    reply = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        "usage": {"prompt_tokens": 1500, "completion_tokens": 2, "total_tokens": 1502},
    }
    body = json.dumps(reply).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: _Stub(answer), "127.0.0.1", 0)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def pages(count: int) -> Any:
    """So many different documents of about 3,200 characters."""
    generator = random.Random(0)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 10))) for _ in range(4000)]
    for number in range(count):
        chosen = generator.choices(words, k=480)
        chosen[::12] = [word + ".\n" for word in chosen[::12]]
        yield Document(f"Page {number}. " + " ".join(chosen), id=str(number))


def make_config(folder: Path, port: int, count: int) -> AnnotateConfig:
    """One judge, and a sample that `fill` has entered by hand."""
    judge = {"name": "stub", "base_urls": [f"http://127.0.0.1:{port}/v1"], "model": MODEL, "max_concurrency": IN_FLIGHT}
    return AnnotateConfig.model_validate(
        {
            "input": {"kind": "jsonl", "paths": ["none.jsonl"]},
            "sample": {"size": count},
            "rubric": str(Path(__file__).parents[1] / "configs" / "rubrics" / "edu.yaml"),
            "judges": [judge],
            "store": str(folder / "store.sqlite"),
        }
    )


def rss() -> float:
    """Resident memory in MB, now."""
    pages_ = int(Path("/proc/self/statm").read_text().split()[1])
    return pages_ * resource.getpagesize() / 1e6


def throughput(port: int, requests: int) -> dict[str, Any]:
    """Rates and memory over so many requests, `IN_FLIGHT` of them at a time."""
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(Path(folder), port, requests)
        with Store(config.store) as store:
            store.draw(store.begin_sample(describe_sample(config)), pages(requests))
        marks: list[tuple[int, float, float, float]] = []
        most = 0

        class Watch:
            def __init__(self, judges: Any, budget: Any) -> None:
                self.judges = judges

            def __enter__(self) -> Any:
                return self.look

            def __exit__(self, *error: object) -> None:
                pass

            def look(self) -> None:
                nonlocal most
                most = max(most, self.judges[0].endpoints.in_flight)
                done = self.judges[0].tally.answered
                if done - (marks[-1][0] if marks else 0) >= WINDOW or done == requests:
                    marks.append((done, time.perf_counter(), time.process_time(), rss()))

        wall, cpu = time.perf_counter(), time.process_time()
        result = run_annotate(config, Hooks(progress=Watch))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert result.outcome == "complete", result
        rates = sorted((b[0] - a[0]) / (b[2] - a[2]) for a, b in itertools.pairwise(marks) if b[0] - a[0] >= WINDOW / 2)
        return {
            "requests": requests,
            "in_flight_allowed": IN_FLIGHT,
            "in_flight_seen": most,
            "per_cpu_second": round(requests / cpu, 1),
            "per_cpu_second_median_window": round(rates[len(rates) // 2], 1) if rates else None,
            "per_second": round(requests / wall, 1),
            "rss_mb": {str(done): round(memory, 1) for done, _, _, memory in marks},
        }


def resume(port: int, rows: int) -> dict[str, Any]:
    """Seconds from opening a store with so many answers to the first request of what is left, and to the end."""
    with tempfile.TemporaryDirectory() as folder:
        left = 100
        config = make_config(Path(folder), port, rows + left)
        with Store(config.store) as store:
            sample = store.begin_sample(describe_sample(config))
            store.draw(sample, (Document(f"Page {n}. " + "word " * 40) for n in range(rows + left)))
            judge = store.judge("stub", "model", MODEL, _settings(config))
            store.learn_logprobs(judge.number, 20)
            rubric = store.rubric(Rubric.load(config.rubric))
            answer = {"raw": "3", "score": 3.0, "expected": 2.8, "entropy": 0.5, "coverage": 0.99}
            answer |= {"distribution": [0.0, 0.0, 0.2, 0.8, 0.0, 0.0], "tokens_in": 1500, "tokens_out": 2}
            for start in range(1, rows + 1, 10_000):
                batch = [Answer(n, 0, "ok", **answer) for n in range(start, min(start + 10_000, rows + 1))]
                store.save(1, judge.number, rubric, batch)
        first: list[float] = []

        class Watch:
            def __init__(self, judges: Any, budget: Any) -> None:
                inner = judges[0].endpoints.acquire

                async def acquire() -> Any:
                    if not first:
                        first.extend([time.perf_counter(), time.process_time()])
                    return await inner()

                judges[0].endpoints.acquire = acquire

            def __enter__(self) -> Any:
                return lambda: None

            def __exit__(self, *error: object) -> None:
                pass

        begun, cpu = time.perf_counter(), time.process_time()
        result = run_annotate(config, Hooks(progress=Watch))
        assert result.outcome == "complete"
        assert result.judges[0].tally.answered == left
        return {
            "rows": rows,
            "store_mb": round(os.path.getsize(config.store) / 1e6),
            "seconds_to_first_request": round(first[0] - begun, 2),
            "cpu_seconds_to_first_request": round(first[1] - cpu, 2),
        }


def _settings(config: AnnotateConfig) -> dict[str, Any]:
    from filters.annotate.judge import settings

    return settings(config.judges[0])


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "annotate.json")
    options = parser.parse_args()
    port: Any = multiprocessing.Queue()
    stub = multiprocessing.Process(target=serve, args=(port,), daemon=True)
    stub.start()
    number = port.get()
    results: dict[str, Any] = json.loads(options.output.read_text()) if options.output.is_file() else {}
    results |= {"python": platform.python_version(), "machine": platform.machine()}
    if options.requests:
        results["throughput"] = throughput(number, options.requests)
        print(json.dumps(results["throughput"], indent=1), flush=True)
    if options.rows:
        results["resume"] = resume(number, options.rows)
        print(json.dumps(results["resume"], indent=1), flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    stub.terminate()


if __name__ == "__main__":
    main()
