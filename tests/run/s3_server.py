"""A real S3 server on the loopback (moto's), that misbehaves on demand and can be killed and started again."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

KEY, SECRET = "AKIDTESTTESTTEST", "verySecretAccessKey0123456789"
"""Credentials of every client; the server knows no others."""


class S3Server:
    """moto's server in threads of this process; what it holds outlives a kill.

    Attributes:
        faults: how many requests are still to fail, which (method, path), and how: an HTTP status, or 0 to drop the
            connection without an answer.
        requests: (method, path with query) of every request.
        on_request: called with each request before it is answered.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.faults: list[tuple[int, str, str, int]] = []
        self.requests: list[tuple[str, str]] = []
        self.on_request: Callable[[str, str], None] = lambda method, path: None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.start()

    @property
    def options(self) -> dict[str, Any]:
        """storage_options of a client that does not wait long."""
        return {
            "key": KEY,
            "secret": SECRET,
            "endpoint_url": f"http://127.0.0.1:{self.port}",
            "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 3, "read_timeout": 10},
        }

    def start(self) -> None:
        from werkzeug.serving import make_server

        self._server = make_server("127.0.0.1", self.port, self._answer, threaded=True)
        self._server.daemon_threads = True
        self.alive = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def kill(self) -> None:
        """From now on nobody answers; requests under way are cut off."""
        self.alive = False
        threading.Thread(target=self._server.shutdown, daemon=True).start()
        self._server.socket.close()

    def reset(self) -> None:
        """Healthy again, with nothing remembered; objects stay."""
        self.faults.clear()
        self.requests.clear()
        self.on_request = lambda method, path: None
        if not self.alive:
            self.start()

    def fail(self, times: int, method: str, path: str, status: int) -> None:
        """Let the next requests of this kind fail.

        Args:
            times: how many.
            method: a regular expression.
            path: a regular expression that is looked for in the path with its query.
            status: of the answer; 0 drops the connection.
        """
        self.faults.append((times, method, path, status))

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
        path = environ["PATH_INFO"] + (f"?{query}" if query else "")
        self.requests.append((method, path))
        self.on_request(method, path)
        known = f"Credential={KEY}/" in environ.get("HTTP_AUTHORIZATION", "")
        status = 0 if not self.alive else self._fault(method, path) if known else 401
        if status == 0:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        if status is not None:
            code = {401: "InvalidAccessKeyId", 403: "AccessDenied", 503: "SlowDown"}.get(status, "InternalError")
            status = 403 if status == 401 else status
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made to fail</Message></Error>".encode()
            start_response(f"{status} {code}", [("Content-Type", "application/xml")])
            return [] if method == "HEAD" else [body]
        answer: Iterable[bytes] = self._moto(environ, start_response)
        return answer

    def _fault(self, method: str, path: str) -> int | None:
        for place, (times, of_method, of_path, status) in enumerate(self.faults):
            if times and re.fullmatch(of_method, method) and re.search(of_path, path):
                self.faults[place] = (times - 1, of_method, of_path, status)
                return status
        return None
