"""The trace of a job, over OTLP: a span for the job, for each of its phases, and for each task.

It is sent when the job has ended, where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says where to; OpenTelemetry's other variables (headers,
timeout, service name) mean what they mean elsewhere.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from typing import Any

from runner import console
from runner.records import JobRecord
from runner.watch.history import FAILED, OUTCOMES, History, Phase

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
ROUNDED = 0.001  # seconds: tasks' times are in milliseconds
SPANS_A_REQUEST = 512  # as OpenTelemetry's own batches
_TASK_FIGURES = ("number", "fragment", "works", "rows", "failed", "resumed", "bytes_read", "bytes_written", "calls", "memory")


def are_asked_for() -> bool:
    """Whether the environment names an endpoint."""
    return any(os.environ.get(name) for name in ENDPOINTS)


def send(record: JobRecord, history: History) -> None:
    """Send the trace of a job that has ended; where that fails, a line says so and nothing else comes of it."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        console.say(f"{ENDPOINTS[0]} is set, but no trace is sent: pip install 'infill[traces]'", job_id=record.job_id)
        return
    try:
        exporter = OTLPSpanExporter()
        is_sent = all(exporter.export(batch).name == "SUCCESS" for batch in _batches(record, history))
        exporter.shutdown()  # type: ignore[no-untyped-call]
        problem = "" if is_sent else "the endpoint did not take it"
    except Exception as exc:  # a job is not to fail of whatever an exporter makes of its settings
        problem = str(exc)
    if problem:
        console.say(f"the trace of job {record.job_id} was not sent whole: {problem}", job_id=record.job_id)


def _batches(record: JobRecord, history: History) -> Iterator[tuple[Any, ...]]:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    service = os.environ.get("OTEL_SERVICE_NAME", "infill")
    provider, made = TracerProvider(resource=Resource.create({"service.name": service})), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(made))
    for _ in _spans(provider.get_tracer("infill"), record, history):
        if len(made.get_finished_spans()) >= SPANS_A_REQUEST:
            yield made.get_finished_spans()
            made.clear()
    yield made.get_finished_spans()


def _spans(tracer: Any, record: JobRecord, history: History) -> Iterator[None]:
    """Make and end each span in turn, the job's last."""
    from opentelemetry.trace import Status, StatusCode, set_span_in_context

    began = int(dt.datetime.fromisoformat(history.began_at).timestamp() * 1e9)

    def time(seconds: float) -> int:
        return began + int(seconds * 1e9)

    job = tracer.start_span(f"backfill {record.table}.{', '.join(record.columns)}", start_time=began, attributes=_of_job(record))
    in_job = set_span_in_context(job)
    computing = [(0.0, in_job)]
    for phase in history.phases:
        span = tracer.start_span(phase.name, in_job, start_time=time(phase.start))
        span.end(time(_end(phase, history)))
        if phase.name == "compute":
            computing.append((phase.start, set_span_in_context(span)))
        yield
    for number in range(len(history.tasks["worker"])):
        task = {name: int(values[number]) for name, values in history.tasks.items()}
        started = task["start_ms"] / 1000
        since, parent = next(pair for pair in reversed(computing) if pair[0] <= started + ROUNDED)
        start = max(started, since)
        span = tracer.start_span("task", parent, start_time=time(start), attributes=_of_task(task, history))
        if task["outcome"] == FAILED:
            span.set_status(Status(StatusCode.ERROR))
        span.end(time(history.seconds if task["end_ms"] < 0 else max(task["end_ms"] / 1000, start)))
        yield
    if record.status == "FAILED":
        job.set_status(Status(StatusCode.ERROR, record.error))
    job.end(time(history.seconds))
    yield


def _end(phase: Phase, history: History) -> float:
    return history.seconds if phase.end is None else phase.end


def _of_job(record: JobRecord) -> dict[str, Any]:
    names = ("job_id", "table", "columns", "status", "rows_done", "rows_failed", "rows_total", "workers", "executor")
    return {f"infill.{name}": getattr(record, name) for name in names}


def _of_task(task: dict[str, int], history: History) -> dict[str, Any]:
    node, process = history.workers[task["worker"]]
    figures = {f"infill.{name}": task[name] for name in _TASK_FIGURES}
    return {"host.name": node, "process.pid": process, "infill.outcome": OUTCOMES[task["outcome"]], **figures}
