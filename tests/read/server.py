"""A web server on the loopback that misbehaves on demand."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """A web server on the loopback that drops connections in the middle of a body.

    Attributes:
        drops: how many of the next bodies are cut after `cut` bytes.
        ranges: whether it understands Range.
        errors: how many of the next requests for a body are answered 503.
        busy: how many of the next requests of any kind are answered 503.
        requests: (method, path, Range header) of every request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.drops = 0
        self.cut = 1000
        self.ranges = True
        self.errors = 0
        self.busy = 0
        self.requests: list[tuple[str, str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                asked = self.headers.get("Range")
                outer.requests.append((self.command, self.path, asked))
                data = outer.files.get(self.path)
                if outer.busy:
                    outer.busy -= 1
                    self.send_response(503)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if data is None or (body and outer.errors):
                    outer.errors -= data is not None
                    self.send_response(404 if data is None else 503)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
                if match and outer.ranges:
                    first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
                    data = data[first : last + 1]
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if not body:
                    return
                if outer.drops and len(data) > outer.cut:
                    outer.drops -= 1
                    self.wfile.write(data[: outer.cut])
                    self.close_connection = True
                    return
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
