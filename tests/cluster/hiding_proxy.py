"""The real API server seen through a proxy that hides a part of it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from infra.kube import Kubernetes, local_access, run


class HidingProxy:
    """Answers 404 below a path, and for all else as the API server does, with the rights of whoever runs the tests."""

    def __init__(self, hidden: str) -> None:
        kube = run(Kubernetes.connect(local_access()))

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, content = 404, b'{"kind": "Status", "message": "the server could not find the requested resource"}'
                if not self.path.startswith(hidden):
                    headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
                    answer = run(kube.request(self.command, f"/.{self.path}", content=body, headers=headers))
                    status, content = answer.status_code, answer.content
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        """Its address."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
