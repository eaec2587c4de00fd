"""An HTTP proxy between the runner and an S3 server, that can be told to do harm."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Harm = Literal["500", "503", "slow", "cut", "answer lost"]
SLOW_SECONDS = 0.4
_CODES = {"500": "InternalError", "503": "SlowDown"}


class Proxy(ThreadingHTTPServer):
    """Passes everything on, except for a share of the requests while it is told to do harm.

    Attributes:
        harmed: requests that it has harmed so far.
    """

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        parts = urlsplit(upstream)
        self.upstream = (str(parts.hostname), int(parts.port or 80))
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.harmed = 0
        self._lock = threading.Lock()
        self._harm: Harm | None = None
        self._share, self._random = 0.0, random.Random()
        self.stopped = threading.Event()

    def harm(self, kind: Harm | None, share: float = 0.0, seed: str = "") -> None:
        """Do so to a share of the requests from now on; None: to none."""
        with self._lock:
            self._harm, self._share, self._random = kind, share, random.Random(seed)

    def draw(self) -> Harm | None:
        """What to do to the next request."""
        with self._lock:
            if self._harm is None or self._random.random() >= self._share:
                return None
            self.harmed += 1
            return self._harm

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that ends early is what this is for."""


@contextlib.contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    made = Proxy(upstream)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.stopped.set()
        made.shutdown()
        made.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy
    _connection: http.client.HTTPConnection | None = None

    def _pass(self) -> None:
        kind = self.server.draw()
        length = int(self.headers.get("Content-Length") or 0)
        if kind == "cut" and length:  # in the middle of the request's body
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if kind in _CODES:
            self._refuse(int(kind), _CODES[kind])
            return
        if kind == "slow":
            self.server.stopped.wait(SLOW_SECONDS)
        try:
            status, headers, data = self._ask(body)
        except (OSError, http.client.HTTPException):  # the server is gone
            self.close_connection = True
            return
        if kind == "answer lost":
            self.close_connection = True
            return
        self._answer(status, headers, data, half=kind == "cut" and len(data) > 1)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The server's answer, by a connection of this one's own; the Host header stays, for it is signed."""
        fresh = self._connection is None
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self.server.upstream, timeout=60)
        connection = self._connection
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        except (OSError, http.client.HTTPException):
            self._connection = None
            connection.close()
            if fresh or self.command not in ("GET", "HEAD"):
                raise
            return self._ask(body)  # the server had closed a connection that nobody used

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, half: bool) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(data)))
        if status not in (204, 304):
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if half else data)
        self.close_connection = self.close_connection or half

    def _refuse(self, status: int, code: str) -> None:
        data = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told to</Message></Error>".encode()
        headers = [("Content-Type", "application/xml")]
        self._answer(status, headers, b"" if self.command == "HEAD" else data, half=False)

    def finish(self) -> None:
        if self._connection is not None:
            self._connection.close()
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
