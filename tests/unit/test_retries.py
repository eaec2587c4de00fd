from __future__ import annotations

import email.utils
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from runner.backfill.retries import Retries, retry_after
from runner.errors import BadInput, RunnerError
from runner.exception_names import exception_names, load_exceptions


class Throttled(Exception):
    def __init__(self, said: Any) -> None:
        self.retry_after = said


@pytest.mark.parametrize(
    ("said", "seconds"), [(3, 3.0), (0.5, 0.5), ("7", 7.0), (0, 0.0), (-4, 0.0), ("soon", None), (None, None), ([], None)]
)
def test_an_exception_says_how_long_to_wait(said: Any, seconds: float | None) -> None:
    assert retry_after(Throttled(said)) == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(60, 60), (-60, 0)])
def test_a_date_is_that_long_from_now(monkeypatch: pytest.MonkeyPatch, ahead: float, seconds: float) -> None:
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    assert retry_after(Throttled(email.utils.formatdate(1_700_000_000 + ahead, usegmt=True))) == seconds


def test_an_exception_that_says_nothing() -> None:
    assert retry_after(ValueError("no")) is None


@pytest.fixture(scope="module")
def throttling() -> Iterator[str]:
    """A service that answers 429 and 12 seconds, always."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(429)
            self.send_header("Retry-After", "12")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def with_httpx(url: str) -> None:
    httpx = pytest.importorskip("httpx")
    httpx.get(url, trust_env=False).raise_for_status()


def with_requests(url: str) -> None:
    requests = pytest.importorskip("requests")
    requests.get(url, proxies={"http": ""}).raise_for_status()


def with_aiohttp(url: str) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    import asyncio

    async def get() -> None:
        async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url):
            pass

    asyncio.run(get())


@pytest.mark.parametrize("get", [with_httpx, with_requests, with_aiohttp])
def test_the_header_of_a_real_response(throttling: str, get: Any) -> None:
    with pytest.raises(Exception, match="429") as caught:
        get(throttling)
    assert retry_after(caught.value) == 12.0


def test_waits_double_up_to_five_seconds_and_at_most_a_half_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[float, float]] = []

    def drawn(least: float, most: float) -> float:
        spans.append((least, most))
        return most

    monkeypatch.setattr("random.uniform", drawn)
    retries = Retries(8)
    assert [retries.wait(n, ValueError()) for n in range(9)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, None])
    assert [least / most for least, most in spans] == pytest.approx([0.5] * 8)


def test_a_service_is_not_waited_for_longer_than_ten_minutes() -> None:
    assert Retries(1).wait(0, Throttled(30)) == 30.0
    assert Retries(1).wait(0, Throttled(86_400)) == 600.0
    assert Retries(1).wait(1, Throttled(30)) is None


def test_only_named_exceptions_and_those_derived_from_them_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    retries = Retries(2, ("OSError", "json:JSONDecodeError"))
    assert retries.wait(0, ConnectionResetError()) is not None
    assert retries.wait(0, json.JSONDecodeError("no", "", 0)) is not None
    assert retries.wait(0, ValueError()) is None
    calls: list[int] = []

    def call(x: int) -> int:
        calls.append(x)
        raise ValueError("then this") if len(calls) == 1 else OSError("never")

    with pytest.raises(ValueError, match="then this"):
        retries.again(call, [7], OSError("first"))
    assert calls == [7]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (TimeoutError, ("TimeoutError",)),
        ((TimeoutError, OSError), ("TimeoutError", "OSError")),
        ("ConnectionError", ("ConnectionError",)),
        (json.JSONDecodeError, ("json.decoder:JSONDecodeError",)),
        (["json.JSONDecodeError", "json:JSONDecodeError"], ("json:JSONDecodeError",)),
        ("not_installed.here:Throttled", ("not_installed.here:Throttled",)),
        (Throttled, (f"{__name__}:Throttled",)),
    ],
)
def test_exceptions_have_names(given: Any, names: tuple[str, ...]) -> None:
    assert exception_names(given) == names


@pytest.mark.parametrize(
    "given", ["TimeoutEror", "int", int, 3, None, ValueError(), "json:loads", "json:Nothing", "a b:C", ":X", ""]
)
def test_what_is_no_exception_is_refused_by_name(given: Any) -> None:
    with pytest.raises(BadInput, match="is not an exception; give the class, or its name such as 'httpx:TimeoutException'"):
        exception_names(given)


def test_an_exception_that_a_worker_cannot_import_is_refused() -> None:
    class Local(Exception):
        pass

    with pytest.raises(BadInput, match="Local cannot be imported on a worker; define it in a module of its own"):
        exception_names(Local)


def test_names_are_loaded_on_the_worker() -> None:
    assert load_exceptions(("OSError", "json:JSONDecodeError", f"{__name__}:Throttled")) == (
        OSError,
        json.JSONDecodeError,
        Throttled,
    )
    with pytest.raises(RunnerError, match=r"retry_on names not_installed.here:X, which cannot be imported on a worker"):
        load_exceptions(("not_installed.here:X",))
    with pytest.raises(RunnerError, match="retry_on names json:loads, which is not an exception"):
        load_exceptions(("json:loads",))
