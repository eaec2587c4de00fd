"""The Job that Kubernetes ends, and with it a cluster: its body, how long it has, and what renews it."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner.provision.deadline import ClusterEnded, deadline_body, renew_from_pod, renewal, seconds_left

STARTED = dt.datetime(2026, 5, 4, 10, 0, tzinfo=dt.UTC)
Body = dict[str, Any]


def job(deadline: int | None = 100, *, conditions: list[Body] | None = None, **metadata: Any) -> Body:
    body = deadline_body("gpu", "ray", {"a": "b"}, deadline)
    body["metadata"] |= {"creationTimestamp": "2026-05-04T09:59:58Z", "resourceVersion": "7", **metadata}
    body["status"] = {"startTime": "2026-05-04T10:00:00Z", "conditions": conditions or []}
    return body


def after(seconds: float) -> dt.datetime:
    return STARTED + dt.timedelta(seconds=seconds)


def test_the_job_makes_no_pod_and_leaves_nothing() -> None:
    body = deadline_body("gpu", "ray", {"a": "b"}, 12.2)
    assert body["metadata"] == {"name": "gpu-deadline", "namespace": "ray", "labels": {"a": "b"}}
    spec = body["spec"]
    assert (spec["parallelism"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (0, 13, 0)


def test_a_cluster_without_a_time_to_live_has_no_deadline() -> None:
    assert "activeDeadlineSeconds" not in deadline_body("gpu", "ray", {}, None)["spec"]
    assert seconds_left(job(None), after(10_000)) is None
    assert renewal(job(None), after(10_000), 60) is None


@pytest.mark.parametrize(("age", "left"), [(0, 100), (40, 60), (100, 0), (500, 0)])
def test_time_counts_from_the_job_s_start(age: float, left: float) -> None:
    assert seconds_left(job(100), after(age)) == left


def test_a_job_that_has_not_begun_counts_from_its_creation() -> None:
    body = job(100)
    del body["status"]
    assert seconds_left(body, after(0)) == 98


def test_a_renewal_gives_so_many_seconds_from_now() -> None:
    patch = renewal(job(100), after(70.5), 60)
    assert patch == {"metadata": {"resourceVersion": "7"}, "spec": {"activeDeadlineSeconds": 131}}


def test_a_renewal_never_shortens() -> None:
    assert renewal(job(1000), after(10), 60) is None


@pytest.mark.parametrize("kind", ["Failed", "FailureTarget"])
def test_what_has_ended_is_not_renewed(kind: str) -> None:
    ended = job(100, conditions=[{"type": kind, "status": "True"}])
    assert seconds_left(ended, after(10)) == 0
    with pytest.raises(ClusterEnded, match="gpu-deadline in namespace ray is over"):
        renewal(ended, after(10), 60)


def test_what_is_being_deleted_is_not_renewed() -> None:
    with pytest.raises(ClusterEnded):
        renewal(job(100, deletionTimestamp="2026-05-04T10:00:05Z"), after(10), 60)


class Server(ThreadingHTTPServer):
    """An API server with one Job, whose clock is ``2026-05-04 10:01:00``.

    Attributes:
        conflicts: so many patches fail because another one was first.
    """

    def __init__(self, body: Body | None, conflicts: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.job, self.conflicts = body, conflicts
        self.asked: list[tuple[str, str, str]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self, status: int, body: Body) -> None:
        self.send_response_only(status)
        self.send_header("Date", "Mon, 04 May 2026 10:01:00 GMT")
        data = json.dumps(body).encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.server.asked.append(("GET", self.path, self.headers["Authorization"]))
        self._answer(200, self.server.job) if self.server.job else self._answer(404, {})

    def do_PATCH(self) -> None:
        patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.server.job is not None
        if self.server.conflicts:
            self.server.conflicts -= 1
            self.server.job["metadata"]["resourceVersion"] = "8"
            return self._answer(409, {})
        assert patch["metadata"]["resourceVersion"] == self.server.job["metadata"]["resourceVersion"]
        self.server.job["spec"] |= patch["spec"]
        return self._answer(200, self.server.job)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("pod-token\n")
    (tmp_path / "namespace").write_text("ray")
    return tmp_path


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(job(100))
    threading.Thread(target=made.serve_forever, args=[0.01], daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def renewed(server: Server, account: Path, seconds: float) -> bool:
    return renew_from_pod("gpu", seconds, folder=account, server=f"http://127.0.0.1:{server.server_port}")


def test_a_pod_renews_by_the_server_s_clock_with_its_own_account(server: Server, account: Path) -> None:
    assert renewed(server, account, 300)
    assert server.asked == [("GET", "/apis/batch/v1/namespaces/ray/jobs/gpu-deadline", "Bearer pod-token")]
    assert server.job is not None
    assert server.job["spec"]["activeDeadlineSeconds"] == 360
    assert not renewed(server, account, 30)
    assert server.job["spec"]["activeDeadlineSeconds"] == 360


def test_of_two_who_renew_at_once_the_second_looks_again(server: Server, account: Path) -> None:
    server.conflicts = 1
    assert renewed(server, account, 300)
    assert len(server.asked) == 2


def test_a_pod_is_told_that_the_time_is_over(server: Server, account: Path) -> None:
    server.job = None
    with pytest.raises(ClusterEnded, match="no Job gpu-deadline"):
        renewed(server, account, 300)
