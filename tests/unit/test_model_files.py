from __future__ import annotations

import hashlib
import http.server
import multiprocessing
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.errors import BadInput, DownloadFailed

WEIGHTS = bytes(range(256)) * 1000


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.counts[self.path] += 1  # type: ignore[attr-defined]
        found = self.path == "/v1/weights.bin"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(WEIGHTS) if found else 0))
        self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(WEIGHTS if found else b"")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[http.server.ThreadingHTTPServer]:
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    made.counts = Counter()  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that nothing was downloaded to."""
    (tmp_path / "node").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "node"))
    monkeypatch.setattr(tempfile, "tempdir", None)


def address_of(site: http.server.ThreadingHTTPServer, path: str = "v1/weights.bin") -> str:
    return f"http://127.0.0.1:{site.server_port}/{path}"


def _load(address: str) -> bytes:
    return runner.model_files(address).read_bytes()


def test_the_workers_of_a_node_download_it_once(site: http.server.ThreadingHTTPServer) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as workers:
        assert workers.map(_load, [address_of(site)] * 6, chunksize=1) == [WEIGHTS] * 6
    assert runner.model_files(address_of(site)).name == "weights.bin"
    assert site.counts["/v1/weights.bin"] == 1  # type: ignore[attr-defined]


def test_a_download_that_fails_is_said_and_tried_again(site: http.server.ThreadingHTTPServer) -> None:
    address = address_of(site, "v2/weights.bin")
    for _ in range(2):
        with pytest.raises(DownloadFailed, match=f"cannot download {address} to .*models"):
            runner.model_files(address)
    assert site.counts["/v2/weights.bin"] == 2  # type: ignore[attr-defined]


def test_the_hash_is_checked(site: http.server.ThreadingHTTPServer) -> None:
    right = hashlib.sha256(WEIGHTS).hexdigest()
    with pytest.raises(DownloadFailed, match=f"weights.bin has the SHA-256 {right}, not {'0' * 64}"):
        runner.model_files(address_of(site), sha256="0" * 64)
    assert runner.model_files(address_of(site), sha256=right).read_bytes() == WEIGHTS


def test_a_folder_comes_with_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "clip" / "vocabulary").mkdir(parents=True)
    (tmp_path / "clip" / "config.json").write_text("{}")
    (tmp_path / "clip" / "vocabulary" / "words.txt").write_text("cat")
    found = runner.model_files(f"file://{tmp_path}/clip/")
    assert {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()} == {"config.json", "vocabulary/words.txt"}
    assert (found / "vocabulary" / "words.txt").read_text() == "cat"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DownloadFailed, match="has no files"):
        runner.model_files(f"file://{tmp_path}/empty/")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"address": "weights.bin"}, "address='weights.bin' must begin with one of https://, http://, s3://"),
        ({"address": "ftp://example.com/weights.bin"}, "must begin with one of"),
        ({"address": "s3://models/clip/", "sha256": "0" * 64}, "64 hexadecimal digits, of one file"),
        ({"address": "s3://models/clip.pt", "sha256": "abc"}, "sha256='abc' must be 64 hexadecimal digits"),
    ],
)
def test_bad_input(given: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        runner.model_files(**given)
