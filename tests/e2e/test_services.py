"""Coroutine functions against a real HTTP service on this machine, that throttles and fails."""

from __future__ import annotations

import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner import UDF, Connection, Context, udf
from tests.e2e.helpers import by_x, make_table

httpx = pytest.importorskip("httpx")


class Service(http.server.ThreadingHTTPServer):
    """Answers ``/x`` with 2 * x; the first call of each row in `throttles` with 429, every one of a row in `fails` with 500."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.counts: Counter[int] = Counter()
        self.times: list[float] = []
        self.throttles: set[int] = set()
        self.fails: set[int] = set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def do_GET(self) -> None:
        row = int(self.path[1:])
        with self.server.lock:
            self.server.counts[row] += 1
            self.server.times.append(time.monotonic())
            is_first = self.server.counts[row] == 1
        if row in self.server.throttles and is_first:
            self._answer(429, b"", {"Retry-After": "0"})
        else:
            self._answer(500 if row in self.server.fails else 200, b"%d" % (2 * row), {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def asking(url: str, **options: Any) -> UDF:
    @udf(**options)
    class Ask:
        async def setup(self) -> None:
            self.client = httpx.AsyncClient(base_url=url, trust_env=False)

        async def __call__(self, x: int) -> int:
            answer = await self.client.get(f"/{x}")
            answer.raise_for_status()
            return int(answer.text)

    return Ask


def test_every_row_is_asked_for_once(db: Connection, ray_session: Context, service: Service) -> None:
    table = make_table(db, 300, rows_per_fragment=60)
    table.add_columns({"y": asking(service.url, concurrency=8)})
    assert table.backfill("y", progress=False).rows_done == 300
    assert by_x(table, "y") == {x: 2 * x for x in range(300)}
    assert service.counts == Counter(range(300))


def test_what_is_throttled_or_fails_is_asked_again_and_nothing_else_is(
    db: Connection, ray_session: Context, service: Service
) -> None:
    service.throttles, service.fails = set(range(0, 100, 9)), {5, 77}
    url = service.url

    @udf(on_error="retry:2,skip", retry_on="httpx:HTTPStatusError")
    async def ask(x: int) -> int:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"{url}/{x}")
        answer.raise_for_status()
        if x == 30:
            raise ValueError("an answer that cannot be")
        return int(answer.text)

    table = make_table(db, 100)
    table.add_columns({"y": ask})
    result = table.backfill("y", progress=False)
    assert (result.rows_done, result.rows_skipped) == (97, 3)
    assert by_x(table, "y") == {x: None if x in (5, 30, 77) else 2 * x for x in range(100)}
    assert service.counts == Counter({x: 2 if x in service.throttles else 3 if x in service.fails else 1 for x in range(100)})
    assert [(error.row_address, error.error) for error in table.errors("y")] == [
        (5, "HTTPStatusError"),
        (30, "ValueError"),
        (77, "HTTPStatusError"),
    ]


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_rate_limit_holds_over_all_workers(
    request: pytest.FixtureRequest, db: Connection, service: Service, cluster: str
) -> None:
    request.getfixturevalue("inline" if cluster == "inline" else "ray_session")
    rate, rows = 100, 150
    table = make_table(db, rows, rows_per_fragment=10)
    table.add_columns({"y": asking(service.url, rate_limit=rate, concurrency=20)})
    assert table.backfill("y", progress=False).rows_done == rows
    assert by_x(table, "y") == {x: 2 * x for x in range(rows)}
    assert service.counts == Counter(range(rows))
    times = sorted(service.times)
    assert times[-1] - times[0] >= 0.7 * (rows - 2) / rate  # undivided over two workers it were half of it


def test_nothing_is_left_of_it_inline(inline: Connection, service: Service, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    table = make_table(inline, 50)
    table.add_columns({"y": asking(service.url)})
    table.backfill("y", progress=False)
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("runner-")]
    assert left == []
