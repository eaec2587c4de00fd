"""The trace of a job, as a receiver of OTLP gets it."""

from __future__ import annotations

import http.server
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from runner import Connection, Table, udf
from runner.errors import BackfillFailed
from runner.watch import traces
from tests.e2e.helpers import make_table


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.requests = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests += 1
        for of_resource in request.resource_spans:
            self.server.services |= {a.value.string_value for a in of_resource.resource.attributes if a.key == "service.name"}
            self.server.spans += [span for scope in of_resource.scope_spans for span in scope.spans]
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with Receiver() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        yield made
        made.shutdown()


@pytest.fixture
def table(inline: Connection) -> Table:
    @udf
    def checked(x: int) -> int:
        return 60 // (x - 35)

    made = make_table(inline, 60, rows_per_fragment=10)
    made.add_columns({"y": checked})
    return made


def attributes(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def test_tasks_are_in_phases_and_phases_in_the_job(receiver: Receiver, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "SPANS_A_REQUEST", 4)
    result = table.backfill("y", where="x < 30")
    (job,) = (span for span in receiver.spans if not span.parent_span_id)
    assert (job.name, receiver.services) == ("backfill t.y", {"infill"})
    assert attributes(job)["infill.job_id"] == result.job_id
    assert attributes(job)["infill.rows_done"] == 30
    phases = {span.span_id: span for span in receiver.spans if span.parent_span_id == job.span_id}
    assert {"plan", "start", "compute", "commit"} == {span.name for span in phases.values()}
    tasks = [span for span in receiver.spans if span.name == "task"]
    assert {phases[span.parent_span_id].name for span in tasks} == {"compute"}
    assert sum(attributes(span)["infill.rows"] for span in tasks) == 30
    assert {attributes(span)["infill.outcome"] for span in tasks} == {"done"}
    assert {span.trace_id for span in receiver.spans} == {job.trace_id}
    assert all(job.start_time_unix_nano <= s.start_time_unix_nano <= s.end_time_unix_nano for s in receiver.spans)
    assert max(s.end_time_unix_nano for s in receiver.spans) <= job.end_time_unix_nano
    assert receiver.requests == -(-len(receiver.spans) // 4)


def test_what_fails_is_marked(receiver: Receiver, table: Table) -> None:
    with pytest.raises(BackfillFailed, match="ZeroDivisionError"):
        table.backfill("y")
    marked = {span.name: span.status.message for span in receiver.spans if span.status.code == 2}
    assert marked.keys() == {"backfill t.y", "task"}
    assert "ZeroDivisionError at row 5 of fragment 3" in marked["backfill t.y"]


def test_a_receiver_that_refuses_costs_the_job_nothing(
    receiver: Receiver, table: Table, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{receiver.url}/elsewhere")
    result = table.backfill("y", where="x < 30")
    assert result.rows_done == 30
    assert f"the trace of job {result.job_id} was not sent whole: the endpoint did not take it" in capsys.readouterr().err


def test_where_the_exporter_is_not_installed_a_line_says_so(
    receiver: Receiver, table: Table, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert table.backfill("y", where="x < 30").rows_done == 30
    assert "no trace is sent: pip install 'infill[traces]'" in capsys.readouterr().err
    assert receiver.requests == 0
