"""One tick of a schedule against an API server of the test: what it makes, spares and removes."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra import tick

JOBS = "/apis/ray.io/v1/namespaces/ray/rayjobs"
CRON = "/apis/batch/v1/namespaces/ray/cronjobs/captions"
OWNER = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "captions", "uid": "u1"}


class Server:
    """An API server that has RayJobs and one CronJob."""

    def __init__(self, folder: Path) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.refusal: tuple[int, str] | None = None
        self.said: set[str | None] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.said.add(self.headers["Authorization"])
                if self.path == CRON:
                    self._answer(200, {"metadata": {"uid": "u1"}})
                else:
                    assert self.path == f"{JOBS}?labelSelector=infill/backfill%3Dcaptions"
                    self._answer(200, {"items": list(outer.jobs.values())})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if outer.refusal:
                    self._answer(outer.refusal[0], {"message": outer.refusal[1]})
                    return
                taken = body["metadata"]["name"] in outer.jobs
                if not taken:
                    outer.jobs[body["metadata"]["name"]] = body
                self._answer(409 if taken else 201, {})

            def do_DELETE(self) -> None:
                found = outer.jobs.pop(self.path.rpartition("/")[2], None)
                self._answer(200 if found else 404, {})

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.account, self.files = folder / "account", folder / "files"
        for place, files in ((self.account, {"token": "t0ken\n", "namespace": "ray"}), (self.files, {"rayjob.json": _template()})):
            place.mkdir()
            for name, text in files.items():
                (place / name).write_text(text)

    def job(self, name: str, state: str, ended: float | None = None) -> None:
        """A run in a state; `ended` so many seconds ago."""
        made = {"jobDeploymentStatus": state}
        if ended is not None:
            made["endTime"] = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ended)).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.jobs[name] = {"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": made}

    def tick(self, policy: str = "Forbid", run: str = "captions-3") -> int:
        environ = {"BACKFILL": "captions", "POLICY": policy, "HISTORY_SECONDS": "60", "RUN": run}
        server = f"http://127.0.0.1:{self.http.server_address[1]}"
        return tick.main(environ, account=self.account, server=server, files=self.files)


def _template() -> str:
    return json.dumps({"kind": "RayJob", "metadata": {"labels": {"infill/backfill": "captions"}}, "spec": {"entrypoint": "x"}})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    thread = threading.Thread(target=made.http.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


def test_a_tick_makes_its_run_once_owned_by_the_schedule(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert (server.tick(), server.tick()) == (0, 0)
    assert server.jobs == {
        "captions-3": {
            "kind": "RayJob",
            "metadata": {"labels": {"infill/backfill": "captions"}, "name": "captions-3", "ownerReferences": [OWNER]},
            "spec": {"entrypoint": "x"},
        }
    }
    assert server.said == {"Bearer t0ken"}
    assert capsys.readouterr().out.splitlines() == ["captions-3 is made", "captions-3 was made already"]


@pytest.mark.parametrize(
    ("policy", "left"),
    [("Forbid", ["captions-1"]), ("Replace", ["captions-3"]), ("Allow", ["captions-1", "captions-3"])],
)
def test_a_run_that_still_goes_on(server: Server, policy: str, left: list[str]) -> None:
    server.job("captions-1", "Running")
    assert server.tick(policy) == 0
    assert sorted(server.jobs) == left


@pytest.mark.parametrize("state", ["Retrying", "Suspended", ""])
def test_a_run_between_two_attempts_goes_on_too(server: Server, state: str) -> None:
    server.job("captions-1", state)
    server.tick()
    assert sorted(server.jobs) == ["captions-1"]


def test_history_goes_whatever_ended_it(server: Server) -> None:
    """Also what no deletion rule of KubeRay's matches: a job that was stopped, and one on a standing cluster."""
    server.job("stopped", "Complete", ended=90)
    server.job("failed", "Failed", ended=90)
    server.job("refused", "ValidationFailed")
    server.job("fresh", "Complete", ended=10)
    server.tick()
    assert sorted(server.jobs) == ["captions-3", "fresh"]


def test_what_kubernetes_does_not_take_is_told_in_its_words(server: Server) -> None:
    server.refusal = (422, "entrypoint is no command")
    with pytest.raises(OSError, match=r"Kubernetes does not take the RayJob: .*entrypoint is no command"):
        server.tick()
