"""A real S3 server, seaweedfs, for as long as the test session."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from faults_processes import free_ports, spawned, wait_until

KEY, SECRET = "AKIDFAULTS", "faults-secret"
PORTS = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]


def weed() -> Path:
    return Path(sys.executable).with_name("weed")


@contextlib.contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """The storage options that reach it. Buckets come into being with the first object."""
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    identity = {"name": "faults", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}
    with tempfile.TemporaryDirectory(prefix="s3-") as name:
        folder = Path(name)
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        command = [
            str(weed()), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
            f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-iam=false",
            "-master.telemetry=false", "-volume.max=20",
            "-master.volumeSizeLimitMB=64", *(f"-{flag}={port}" for flag, port in ports.items()),
        ]  # fmt: skip
        options = {
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
            "endpoint": f"http://127.0.0.1:{ports['s3.port']}",
            "region": "us-east-1",
            "allow_http": "true",
        }
        with spawned(command, folder) as child:
            wait_until(lambda: _answers(options), "the S3 server takes an object", child=child)
            yield options


def _answers(options: dict[str, str]) -> bool:
    from runner.errors import StorageError
    from runner.store import Store

    try:
        Store("s3://faults/probe", {**options, "client_max_retries": "0"}).put("probe", b"")
    except StorageError:
        return False
    return True
