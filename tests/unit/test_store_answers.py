"""Answers of an S3 server that end in the middle, come late, or say something else than what is there."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner.errors import StorageError
from runner.packages.errors import PackageChanged, PackageMissing
from runner.packages.format import layer_path, package_path
from runner.packages.package import build
from runner.packages.unpack import ensure
from runner.packages.upload import upload
from runner.store import ROOT, Store


class Bad(ThreadingHTTPServer):
    """Serves the objects of a folder as S3 does, with faults.

    Attributes:
        cuts: how many answers to GET end after half of what they promise.
        lie: bytes by which HEAD's length is off.
        hang: set where GET waits for it before it answers.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.folder, self.cuts, self.lie = folder, 0, 0
        self.hang: threading.Event | None = None


class _Answers(BaseHTTPRequestHandler):
    server: Bad

    def do_HEAD(self) -> None:
        if (data := self._data()) is not None:
            self._begin(200, len(data) + self.server.lie)

    def do_GET(self) -> None:
        if self.server.hang is not None:
            self.server.hang.wait()
        data = self._data()
        if data is None:
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(wanted[1]), min(int(wanted[2]), len(data) - 1)) if wanted else (0, len(data) - 1)
        part = data[first : last + 1]
        self._begin(206 if wanted else 200, len(part), f"bytes {first}-{last}/{len(data)}" if wanted else None)
        cut = self.server.cuts > 0
        self.server.cuts -= cut
        self.wfile.write(part[: len(part) // 2] if cut else part)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _data(self) -> bytes | None:
        file = self.server.folder / self.path.partition("?")[0].removeprefix("/bucket/")
        if file.is_file():
            return file.read_bytes()
        self.send_error(404)
        return None

    def _begin(self, status: int, length: int, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        self.send_header("ETag", '"a"')
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Bad]:
    with Bad(tmp_path / "served") as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture
def store(server: Bad) -> Store:
    options = {"endpoint": f"http://127.0.0.1:{server.server_port}", "allow_http": "true", "region": "eu", "aws_access_key_id": "a"}
    return Store("s3://bucket/db", {**options, "aws_secret_access_key": "b", "client_max_retries": "3", "timeout": "1s"})


@pytest.fixture
def package(tmp_path: Path, server: Bad, monkeypatch: pytest.MonkeyPatch) -> str:
    """In the folder that is served."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a.bin").write_bytes(os.urandom(300_000))
    made = build(tmp_path / "root")
    return upload(made, Store(str(server.folder / "db")))


def layer_of(server: Bad) -> Path:
    (layer,) = (server.folder / "db" / ROOT / "packages/layers").iterdir()
    return layer


def test_an_answer_that_ends_in_the_middle_is_asked_for_again(tmp_path: Path, server: Bad, store: Store, package: str) -> None:
    server.cuts = 2
    assert build(ensure(store, package, tmp_path / "node")).id == package
    assert server.cuts == 0


def test_answers_that_always_end_in_the_middle_are_told(tmp_path: Path, server: Bad, store: Store, package: str) -> None:
    server.cuts = 1000
    with pytest.raises(StorageError, match=rf"cannot read {store.uri}/_runner/{package_path(package)}: "):
        ensure(store, package, tmp_path / "node")
    assert sorted(os.listdir(tmp_path / "node")) == [f"{package}.lock"]


def test_a_server_that_does_not_answer_in_time_is_told(tmp_path: Path, server: Bad, package: str, store: Store) -> None:
    server.hang = threading.Event()
    impatient = Store(store.uri, {**store.storage_options, "client_max_retries": "0"})
    with pytest.raises(StorageError, match=rf"cannot read {store.uri}/_runner/{package_path(package)}: "):
        ensure(impatient, package, tmp_path / "node")
    server.hang.set()
    assert build(ensure(impatient, package, tmp_path / "node")).id == package


@pytest.mark.parametrize("lie", [-10, 10])
def test_a_server_that_says_another_length_than_it_has(tmp_path: Path, server: Bad, store: Store, package: str, lie: int) -> None:
    server.lie = lie
    with pytest.raises(PackageChanged, match=rf"package {package} changed under its name: .*{layer_of(server).name} has \d+ bytes"):
        ensure(store, package, tmp_path / "node")


def test_a_layer_that_the_list_has_and_the_server_does_not(tmp_path: Path, server: Bad, store: Store, package: str) -> None:
    layer = layer_of(server)
    layer.unlink()
    with pytest.raises(PackageMissing, match=rf"{layer_path(layer.stem)} of package {package} is gone; upload the package again"):
        ensure(store, package, tmp_path / "node")
