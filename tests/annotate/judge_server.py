"""An OpenAI-compatible server on the loopback that answers as a test wants it, faults included."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MODEL = "judge-1"


def reply(
    text: str = "3", *, logprobs: bool = True, model: str = MODEL, finish: str = "stop", usage: bool = True
) -> dict[str, Any]:
    """A chat completion; with log-probabilities its first token has 0.8, and the digit below it 0.2."""
    below = str(max(int(text[0]) - 1, 0)) if text[:1].isdigit() else "?"
    top = [{"token": text[:1], "logprob": math.log(0.8)}, {"token": below, "logprob": math.log(0.2)}]
    content = [{"token": text[:1], "logprob": math.log(0.8), "top_logprobs": top}]
    content += [{"token": text[1:], "logprob": 0.0, "top_logprobs": top}] if text[1:] else []
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    choice["logprobs"] = {"content": content} if logprobs else None
    made: dict[str, Any] = {"id": "x", "object": "chat.completion", "model": model, "choices": [choice]}
    if usage:
        made["usage"] = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101}
    return made


@dataclass(frozen=True)
class Http:
    """A response of a status other than 200, or with headers of its own."""

    status: int
    body: Any = field(default_factory=lambda: {"error": {"message": "no"}})
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """What goes wrong: "reset", "hang", "short_body" (the connection ends early) or "half_json"."""

    kind: str


@dataclass(frozen=True)
class Raw:
    """Bytes on the wire as they are, head included; `forever`: then chunks of blanks until the client is gone."""

    data: bytes
    forever: bool = False


@dataclass(frozen=True)
class Slow:
    """An answer after some seconds."""

    seconds: float
    answer: Any = field(default_factory=reply)


@dataclass(frozen=True)
class Held:
    """An answer as soon as something has happened."""

    until: Callable[[], bool]
    answer: Any = field(default_factory=reply)


class JudgeServer:
    """The server.

    Args:
        behave: (number of the request from 0, its JSON) -> what is answered. Called in the server's own thread.
        port: 0: any.

    Attributes:
        requests: the JSON of every request.
        heads: its headers, all in lower case.
        most: the most requests that were under way together.
    """

    def __init__(self, behave: Callable[[int, dict[str, Any]], Any] = lambda n, body: reply(), port: int = 0) -> None:
        self.behave = behave
        self.requests: list[dict[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.now = self.most = 0
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(port, ready), daemon=True)
        self._thread.start()
        ready.wait()
        self.url = f"http://127.0.0.1:{self.port}/v1"

    @property
    def pages(self) -> list[str]:
        """The last message of every request."""
        return [request["messages"][-1]["content"] for request in self.requests]

    def close(self) -> None:
        """Stop serving and drop all connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    def _serve(self, port: int, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main(port, ready))
        self._loop.close()

    async def _main(self, port: int, ready: threading.Event) -> None:
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", port, limit=2**24)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stopped.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        size = int(head.split("content-length:")[1].split("\r\n")[0])
        body = json.loads(await reader.readexactly(size))
        number = len(self.requests)
        self.requests.append(body)
        self.heads.append(dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            answer = self.behave(number, body)
            if isinstance(answer, Slow):
                await asyncio.sleep(answer.seconds)
                answer = answer.answer
            if isinstance(answer, Held):
                while not answer.until():
                    await asyncio.sleep(0.01)
                answer = answer.answer
            if isinstance(answer, Fault):
                if answer.kind == "hang":
                    await asyncio.sleep(3600)
                if answer.kind == "reset":
                    return False
        finally:
            self.now -= 1
        if isinstance(answer, Raw):
            writer.write(answer.data)
            while answer.forever:
                writer.write(b"10000\r\n" + b" " * 2**16 + b"\r\n")
                await writer.drain()
            return False
        status, headers = (answer.status, answer.headers) if isinstance(answer, Http) else (200, {})
        content = answer.body if isinstance(answer, Http) else reply() if isinstance(answer, Fault) else answer
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        if isinstance(answer, Fault) and answer.kind == "half_json":
            data = data[: len(data) // 2]
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}"]
        lines += [] if "Content-Type" in headers else ["Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        short = isinstance(answer, Fault) and answer.kind == "short_body"
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (data[: len(data) // 2] if short else data))
        await writer.drain()
        return not short
