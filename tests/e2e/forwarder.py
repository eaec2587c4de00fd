"""A TCP port in front of another one, which can lose connections."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from types import TracebackType


class Forwarder:
    """Passes connections on, from a port of its own, which stays the same when it is closed and opened again.

    Attributes:
        lose: the answer to a request that begins so is lost, once; the request itself gets through.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target, self._tls = (host, port), tls
        self.lose = b""
        self.port = 0
        self._connections: list[socket.socket] = []

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Listen no more and end the connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            _end(connection)
        self._connections.clear()

    def __enter__(self) -> Forwarder:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls:
                client = self._tls.wrap_socket(client, server_side=True)
            server = socket.create_connection(self._target)
            self._connections += [client, server]
            lost = threading.Event()
            threading.Thread(target=self._pump, args=(server, client, lost), daemon=True).start()
            while data := client.recv(1 << 16):
                if self.lose and data.startswith(self.lose):
                    self.lose = b""
                    lost.set()
                server.sendall(data)
            _end(server)

    @staticmethod
    def _pump(server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while (data := server.recv(1 << 16)) and not lost.is_set():
                client.sendall(data)
        _end(client)
        _end(server)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
