"""A real S3 server, seaweedfs."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from faults_processes import free_ports, spawned, wait_until

KEY, SECRET = "AKIDFAULTS", "faults-secret"
READER = {"aws_access_key_id": "AKIDREADER", "aws_secret_access_key": "reader-secret"}
"""Of one who may read, and not write."""
PORTS = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]


def weed() -> Path:
    return Path(sys.executable).with_name("weed")


class Server:
    """An S3 server that can be killed, and comes back with what it has on disk."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self._folder, self._host = folder, host
        self._ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self._running = ExitStack()
        folder.mkdir()
        identities = [
            {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
            for name, (key, secret), actions in (
                ("faults", (KEY, SECRET), ["Admin", "Read", "Write", "List"]),
                ("reader", READER.values(), ["Read", "List"]),
            )
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))
        self.options = {
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
            "endpoint": f"http://{host}:{self._ports['s3.port']}",
            "region": "us-east-1",
            "allow_http": "true",
        }

    def start(self) -> None:
        command = [
            str(weed()), "server", f"-dir={self._folder}", f"-ip={self._host}", f"-ip.bind={self._host}", "-s3",
            f"-s3.config={self._folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-iam=false",
            "-master.telemetry=false", "-volume.max=20", "-master.volumeSizeLimitMB=64", "-master.electionTimeout=1s",
            *(f"-{flag}={port}" for flag, port in self._ports.items()),
        ]  # fmt: skip
        self.child = self._running.enter_context(spawned(command, self._folder))
        wait_until(lambda: _answers(self.options), "the S3 server takes an object", child=self.child)

    def kill(self) -> None:
        self.child.kill_tree()

    def stop(self) -> None:
        self._running.close()


@contextlib.contextmanager
def s3_server(host: str = "127.0.0.1") -> Iterator[Server]:
    """A server in a folder of its own, at an address of this machine. Buckets come into being with the first object."""
    with tempfile.TemporaryDirectory(prefix="s3-") as name:
        server = Server(Path(name) / "data", host)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _answers(options: dict[str, str]) -> bool:
    from runner.errors import StorageError
    from runner.store import Store

    try:
        Store("s3://faults/probe", {**options, "client_max_retries": "0"}).put("probe", b"")
    except StorageError:
        return False
    return True
