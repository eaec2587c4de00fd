"""One backfill from request to result, and the handle on it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, Self

from runner.backfill.checkpoint import StagedFragment, staging_folder
from runner.backfill.driver import Driver, Meter
from runner.backfill.plan import BackfillPlan, Planner
from runner.backfill.pool import Shape
from runner.backfill.work import Pass
from runner.errors import BackfillFailed, JobCancelled, RowError, RunnerError
from runner.lease import column_leases
from runner.records import JobRecord, JobRecords, new_job_id, now, user
from runner.result import BackfillResult
from runner.shipping import METADATA_KEY, VERSIONS_KEY
from runner.store import refused
from runner.targets import Request, computed_columns, known_versions, resolve

if TYPE_CHECKING:
    from runner.local_context import LocalContext
    from runner.table import Table

HEARTBEAT_SECONDS = 2.0
QUEUE_SECONDS = 1.0
MAX_RESULT_ERRORS = 100


class Handle(Protocol):
    """A backfill that runs, wherever its driver is."""

    @property
    def job_id(self) -> str: ...

    def run_here(self) -> BackfillResult:
        """Start it and wait for its end."""

    def start(self) -> Self:
        """Start it in the background."""

    def result(self, timeout: float | None = None) -> BackfillResult:
        """Wait for the end, `timeout` seconds at most."""

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""

    def progress(self) -> Meter:
        """How far it is."""

    def cancel(self) -> None:
        """Have it stop; finished work is kept."""

    def __await__(self) -> Generator[Any, None, BackfillResult]: ...


class Job:
    """Handle on a backfill. Made by `Table.backfill_async`; ``await job`` gives the result too.

    Attributes:
        job_id: its id, also of its record (`Connection.jobs`).
    """

    def __init__(self, table: Table, request: Request, context: LocalContext | None, *, submitted: JobRecord | None = None) -> None:
        self.job_id = submitted.job_id if submitted else new_job_id()
        self._meter = Meter()
        self._cancelled = threading.Event()
        self._future: concurrent.futures.Future[BackfillResult] = concurrent.futures.Future()
        self._run = _Run(self.job_id, table, request, context, self._meter, self._cancelled, submitted)

    def run_here(self) -> BackfillResult:
        """Run the job in this thread."""
        self._future.set_running_or_notify_cancel()
        try:
            self._future.set_result(self._run.run())
        except BaseException as exc:
            self._future.set_exception(exc)
            if not isinstance(exc, Exception):
                raise
        return self._future.result()

    def start(self) -> Self:
        """Run the job in a thread of its own."""

        def target() -> None:
            with suppress(Exception):  # the future holds it
                self.run_here()

        threading.Thread(target=target, name=f"runner-job-{self.job_id}").start()
        return self

    def result(self, timeout: float | None = None) -> BackfillResult:
        """Wait for the end.

        Args:
            timeout: seconds to wait, None for as long as it takes. The job goes on after it.

        Raises:
            TimeoutError: not ended yet.
            RunnerError: what ended the job.
        """
        return self._future.result(timeout)

    def done(self) -> bool:
        """Whether it has ended, in whatever way. Does not wait."""
        return self._future.done()

    def progress(self) -> Meter:
        """Rows, bytes, workers and phase as they are now."""
        return dataclasses.replace(self._meter)

    def cancel(self) -> None:
        """Stop within a second. Finished work is kept, and the next backfill of the column takes it up."""
        self._cancelled.set()

    def __await__(self) -> Generator[Any, None, BackfillResult]:
        return asyncio.wrap_future(self._future).__await__()

    def __repr__(self) -> str:
        state = "done" if self.done() else self._meter.phase
        return f"Job({self.job_id}, {state}, {self._meter.rows_done:,} of {self._meter.rows_total:,} rows)"


class _Run:
    """Everything a job does, in order."""

    def __init__(
        self,
        job_id: str,
        table: Table,
        request: Request,
        context: LocalContext | None,
        meter: Meter,
        cancelled: threading.Event,
        record: JobRecord | None,
    ) -> None:
        self._job_id = job_id
        self._table = table
        self._store = table.connection.store
        self._request = request
        self._context = context
        self._meter = meter
        self._cancelled = cancelled
        self._record = record
        self._records = JobRecords(self._store)
        self._errors: tuple[RowError, ...] = ()
        self._seconds: dict[str, float] = {}
        self._executor = "none"

    def run(self) -> BackfillResult:
        """All of it. A job that was submitted has a record from the start, another one once it is known to have work."""
        with ExitStack() as recorded:
            if self._record is not None:
                recorded.enter_context(self._recorded(self._record))
            result = self._run(recorded)
            if self._record is not None:
                self._record.result = {k: v for k, v in result.to_dict().items() if k != "errors"}
            return result

    def _run(self, recorded: ExitStack) -> BackfillResult:
        began = time.monotonic()
        with self._timed("plan"):
            self._dataset = self._table.to_lance()
            self._settings = resolve(
                self._request, self._dataset, self._table.name, self._store, self._job_id,
                allow_pickle=self._table.connection.allow_pickle,
            )  # fmt: skip
        self._outlast_the_storage()
        with column_leases(self._store, self._table.name, self._request.columns, self._job_id, self._queue()):
            with self._timed("plan"):
                self._dataset = self._table.to_lance()  # again: who held the lease before may just have committed
                self._settings = dataclasses.replace(self._settings, store=self._store, read_version=self._dataset.version)
                plan = Planner(self._dataset, self._table.name, self._settings).plan()
                self._meter.expect(plan)
            if plan.is_empty:
                self._meter.phase = "done"
                version = self._adopt_function(plan, self._settings.read_version)
                return self._result(plan, [], "DONE", version, began)
            self._describe(plan, recorded)
            return self._execute(plan, began)

    def _outlast_the_storage(self) -> None:
        """From here on a storage that goes away for a minute does not end the job."""
        self._table = self._table.patient()
        self._store = self._table.connection.store
        self._records = JobRecords(self._store)

    def _execute(self, plan: BackfillPlan, began: float) -> BackfillResult:
        staged = self._compute(plan)
        self._errors = tuple(error for fragment in staged for error in fragment.errors)
        with self._timed("commit"), refused("commit to", self._table.uri):
            version = self._publish(plan, staged)
        self._meter.phase = "done"
        return self._result(plan, staged, "DONE", version, began)

    def _queue(self) -> Callable[[], None] | None:
        """What is called again and again while another job fills a column; None where that is an error."""
        if not self._request.queue:
            return None

        def wait() -> None:
            self._meter.phase = "queue"
            if self._cancelled.wait(QUEUE_SECONDS):
                raise JobCancelled("the job was cancelled while it waited for another one of the column")

        return wait

    def _compute(self, plan: BackfillPlan) -> list[StagedFragment]:
        if not plan.works:
            return list(plan.staged)
        with self._executing_context() as context:
            with self._timed("start"):
                self._executor = context.kind
                executor = context.executor(self._settings, self._shape(), self._request.concurrency)
            with self._timed("compute"):
                return Driver(plan, executor, self._meter, self._settings.policy, self._cancelled).run()

    @contextmanager
    def _executing_context(self) -> Iterator[LocalContext]:
        """The caller's context, or a local Ray just for this job."""
        from runner.local_context import LocalContext

        if self._context is not None:
            yield self._context
            return
        with self._timed("start"):
            own = LocalContext("local", announce=True).open()
        try:
            yield own
        finally:
            own.close()

    def _shape(self) -> Shape:
        specs = [column.spec for column in self._settings.columns]
        return Shape(
            num_cpus=max(spec.num_cpus for spec in specs),
            num_gpus=max(spec.num_gpus for spec in specs),
            memory=max(spec.memory or 0 for spec in specs),
        )

    def _publish(self, plan: BackfillPlan, staged: list[StagedFragment]) -> int:
        from runner.backfill.commit import Publisher

        inputs = {column.name: column.spec.inputs for column in self._settings.columns}
        publisher = Publisher(self._store, self._dataset, self._table.path, inputs)
        version = publisher.publish(staged, f"backfill of {self._settings.names} (job {self._job_id})")
        version = self._adopt_function(plan, version)
        groups = {tuple(column.column for column in fragment.columns) for fragment in staged}
        for group in groups:
            self._store.delete_folder(staging_folder(self._table.name, group))
        return version

    def _adopt_function(self, plan: BackfillPlan, version: int) -> int:
        """Make the function that ran the column's own, and keep which versions its rows may be of."""
        schema = self._dataset.schema
        stored = computed_columns(schema)
        updates: dict[str, dict[str, str]] = {}
        for column in self._settings.columns:
            before = known_versions(schema.field(column.name))
            is_whole = self._request.where is None and self._request.mode != "missing"
            after = [column.spec.version] if is_whole else sorted({*before, column.spec.version})
            if plan.is_empty and not self._request.has_function:
                continue
            if stored.get(column.name) != column.spec or before != after:
                updates[column.name] = {METADATA_KEY: column.spec.to_json(), VERSIONS_KEY: json.dumps(after)}
        if not updates:
            return version
        latest = self._table.to_lance()
        latest.update_field_metadata(updates)
        return int(latest.version)

    # -- records

    def _describe(self, plan: BackfillPlan, recorded: ExitStack) -> None:
        """Put the plan on record."""
        submitted = self._record
        self._record = record = self._new_record(plan)
        if submitted is None:
            recorded.enter_context(self._recorded(record))
            return
        for name in ("versions", "functions", "read_version", "rows_total"):
            setattr(submitted, name, getattr(record, name))
        self._record = submitted

    def _new_record(self, plan: BackfillPlan) -> JobRecord:
        specs = [column.spec for column in self._settings.columns]
        return JobRecord(
            job_id=self._job_id,
            table=self._table.name,
            columns=list(self._request.columns),
            versions=list(plan.versions),
            functions=[spec.path or spec.name for spec in specs],
            executor=self._context.kind if self._context else "local",
            options=self._request.options(),
            user=user(),
            host=socket.gethostname(),
            started_at=now(),
            read_version=plan.read_version,
            rows_total=plan.rows,
        )

    @contextmanager
    def _recorded(self, record: JobRecord) -> Iterator[None]:
        """Keep the job's record true while it runs and when it ends."""
        record.status = "RUNNING"
        self._save(record)
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                with suppress(RunnerError):
                    self._save(record)
                    if self._records.is_cancel_asked(self._job_id):
                        self._cancelled.set()

        thread = threading.Thread(target=beat, name="runner-record", daemon=True)
        thread.start()
        try:
            yield
            record.status = "DONE"
        except BaseException as exc:
            cancelled = isinstance(exc, (JobCancelled, KeyboardInterrupt))
            record.status, record.error = "CANCELLED" if cancelled else "FAILED", str(exc) or type(exc).__name__
            record.error_type = type(exc).__name__
            if isinstance(exc, BackfillFailed):
                self._errors = exc.errors
            raise
        finally:
            ended.set()
            thread.join()
            record.ended_at = now()
            with suppress(RunnerError):  # a full disk must not hide what ended the job
                self._records.save_errors(self._job_id, self._errors)
                self._save(record)

    def _save(self, record: JobRecord) -> None:
        """The record with how far the job is."""
        record.updated_at, record.phase, record.workers = now(), self._meter.phase, self._meter.workers
        for name in ("rows_done", "rows_total", "rows_failed", "rows_resumed"):
            setattr(record, name, getattr(self._meter, name))
        if not record.is_ended:
            record.status = "QUEUED" if record.phase == "queue" else "RUNNING"
        self._records.save(record)

    def _result(
        self, plan: BackfillPlan, staged: Sequence[StagedFragment], status: str, version: int, began: float
    ) -> BackfillResult:
        self._seconds["total"] = time.monotonic() - began
        done = sum(fragment.computed * len(fragment.columns) for fragment in staged)
        return BackfillResult(
            job_id=self._job_id,
            table=self._table.name,
            columns=self._request.columns,
            status=status,
            executor=self._executor,
            workers=self._meter.workers,
            rows_done=done,
            rows_resumed=self._meter.rows_resumed,
            rows_skipped=max(plan.rows - done, 0) if staged else 0,
            rows_valid=plan.valid_rows,
            rows_stale=plan.stale_rows,
            bytes_read=self._meter.bytes_read,
            bytes_written=sum(column.size for fragment in staged for column in fragment.columns),
            seconds=dict(self._seconds),
            version_before=self._settings.read_version,
            version_after=version,
            errors=self._errors[:MAX_RESULT_ERRORS],
        )

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        self._meter.phase = phase
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + time.monotonic() - began


def plan_only(table: Table, request: Request) -> BackfillPlan:
    """The plan of a request, without running it."""
    dataset = table.to_lance()
    settings: Pass = resolve(
        request, dataset, table.name, table.connection.store, "plan", allow_pickle=table.connection.allow_pickle
    )
    return Planner(dataset, table.name, settings).plan()
