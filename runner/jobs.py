"""One backfill from request to result, and the handle on it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, Self

from runner.backfill.checkpoint import StagedFragment
from runner.backfill.driver import Driver, Meter
from runner.backfill.plan import FIGURES, BackfillPlan
from runner.backfill.pool import Shape
from runner.backfill.work import Pass
from runner.errors import BackfillFailed, CommitConflict, JobCancelled, RowError, RunnerError
from runner.indexes import cover, uncovered
from runner.layer import JobParts, Layer, Outcome, dead_formers
from runner.layering import changed_before, resolve_layers
from runner.lease import column_leases
from runner.phases import Phases
from runner.read_tags import ReadTags
from runner.records import JobRecord, JobRecords, new_job_id, now, user
from runner.result import BackfillResult
from runner.targets import Request
from runner.watch.job_watch import JobWatch

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

    def report(self) -> str:
        """What it did up to some seconds ago, as one HTML file."""

    def __await__(self) -> Generator[Any, None, BackfillResult]: ...


class Job:
    """Handle on a backfill. Made by `Table.backfill_async`; ``await job`` gives the result too.

    Attributes:
        job_id: its id, also of its record (`Connection.jobs`).
    """

    def __init__(self, table: Table, request: Request, context: LocalContext | None, *, submitted: JobRecord | None = None) -> None:
        self.job_id = submitted.job_id if submitted else new_job_id()
        self._table = table
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

    def report(self) -> str:
        """What it did up to some seconds ago, as one HTML file; see `Connection.job_report`."""
        return self._table.connection.job_report(self.job_id)

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
        self._watch = JobWatch(job_id, table.name, request.columns)
        self._phases = Phases(meter, self._watch.recorder)
        self._executor = "none"
        self._outcome = Outcome()
        self._index_notes: list[str] = []

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
        with self._phases.timed("plan"):
            dataset = self._table.to_lance()
            layers, self._request, feeds = resolve_layers(self._request, dataset, self._table.name, self._table.connection)
        self._outlast_the_storage()
        with column_leases(self._store, self._table.name, self._request.columns, self._job_id, self._queue()):
            dataset = self._table.to_lance()  # again: who held the lease before may just have committed
            tags = ReadTags(self._store, dataset, self._table.name, self._job_id)
            is_kept = False
            try:
                self._fill(layers, feeds, dataset, tags, recorded)
            except CommitConflict:
                is_kept = True
                raise
            finally:
                tags.release(keep_last=is_kept)
                self._errors = self._errors or tuple(error for part in self._outcome.published for error in part.errors)
            self._index_notes = self._see_to_indexes()
            self._meter.phase = "done"
            return self._result(began)

    def _fill(
        self, layers: Sequence[Sequence[str]], feeds: frozenset[str], dataset: Any, tags: ReadTags, recorded: ExitStack
    ) -> None:
        """One layer after the other, each from what the one before published."""
        job = JobParts(
            self._job_id, self._table, self._request, self._meter, tags, self._check_cancelled, self._compute, self._phases.timed,
            lambda plan, settings: self._describe(plan, settings, recorded),
        )  # fmt: skip
        with self._phases.timed("plan"):
            dead = tags.dead()
            formers = dead_formers(self._table, self._request, layers, dead)
            changed = changed_before(self._table, self._request, dataset, layers[1:])
        for index, (columns, former) in enumerate(zip(layers, formers, strict=True)):
            Layer(job, columns, index, self._outcome, changed, feeds).run(former)
        tags.collect(dead)

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise JobCancelled("the job was cancelled; finished work is kept and the next backfill takes it up")

    def _see_to_indexes(self) -> list[str]:
        """What indexes on the columns leave out, after they were optimized where that is asked for."""
        left_out = uncovered(self._table.to_lance(), self._request.columns) if self._outcome.published else {}
        if left_out and self._request.optimize_indices:
            with self._phases.timed("index"):
                self._outcome.versions.append(cover(self._table, list(left_out)))
            left_out = uncovered(self._table.to_lance(), self._request.columns)
        return list(left_out.values())

    def _outlast_the_storage(self) -> None:
        """From here on a storage that goes away for a minute does not end the job."""
        self._table = self._table.patient()
        self._store = self._table.connection.store
        self._records = JobRecords(self._store)

    def _queue(self) -> Callable[[], None] | None:
        """What is called again and again while another job fills a column; None where that is an error."""
        if not self._request.queue:
            return None

        def wait() -> None:
            self._meter.phase = "queue"
            if self._cancelled.wait(QUEUE_SECONDS):
                raise JobCancelled("the job was cancelled while it waited for another one of the column")

        return wait

    def _compute(self, settings: Pass, plan: BackfillPlan, finished: Callable[[StagedFragment], None]) -> list[StagedFragment]:
        if not plan.works:
            return list(plan.staged)
        with self._executing_context() as context:
            with self._phases.timed("start"):
                self._executor = context.kind
                shape = Shape.of(column.spec for column in settings.columns)
                executor = context.executor(settings, shape, self._request.concurrency)
            with self._phases.timed("compute"), self._watch.metrics.on(context):
                return Driver(plan, executor, self._meter, settings.policy, self._cancelled, finished, self._watch.recorder).run()

    @contextmanager
    def _executing_context(self) -> Iterator[LocalContext]:
        """The caller's context, or a local Ray just for this job."""
        from runner.local_context import LocalContext

        if self._context is not None:
            yield self._context
            return
        with self._phases.timed("start"):
            own = LocalContext("local", announce=True).open()
        try:
            yield own
        finally:
            own.close()

    # -- records

    def _describe(self, plan: BackfillPlan, settings: Pass, recorded: ExitStack) -> None:
        """Put a plan on record: the first one of a job, and what later ones add."""
        specs = [column.spec for column in settings.columns]
        if self._record is None:
            self._record = self._new_record(plan)
            recorded.enter_context(self._recorded(self._record))
        if len(self._outcome.plans) == 1:
            self._record.versions, self._record.functions = [], []
            self._record.read_version = plan.read_version
        if not self._outcome.replans or self._record.read_version == plan.read_version:
            self._record.versions += plan.versions
            self._record.functions += [spec.path or spec.name for spec in specs]
        self._record.plan = {name: sum(getattr(first, name) for first in self._outcome.plans) for name in FIGURES}
        self._record.rows_total = self._meter.rows_total

    def _new_record(self, plan: BackfillPlan) -> JobRecord:
        return JobRecord(
            job_id=self._job_id,
            table=self._table.name,
            columns=list(self._request.columns),
            versions=[],
            functions=[],
            executor=self._context.kind if self._context else "local",
            options=self._request.options(),
            user=user(),
            host=socket.gethostname(),
            started_at=now(),
            read_version=plan.read_version,
            udf=self._request.brought(),
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
                    self._watch.beat(self._records, self._meter)
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
                self._watch.keep(self._records)
            with suppress(RunnerError):
                self._save(record)
            self._watch.tell_end(record)

    def _save(self, record: JobRecord) -> None:
        """The record with how far the job is."""
        record.updated_at, record.phase, record.workers = now(), self._meter.phase, self._meter.workers
        record.seconds = {phase: round(seconds, 3) for phase, seconds in self._phases.seconds().items()}
        for name in ("rows_done", "rows_total", "rows_failed", "rows_resumed"):
            setattr(record, name, getattr(self._meter, name))
        if not record.is_ended:
            record.status = "QUEUED" if record.phase == "queue" else "RUNNING"
        self._records.save(record)

    def _result(self, began: float) -> BackfillResult:
        outcome, plans = self._outcome, self._outcome.plans
        return BackfillResult(
            job_id=self._job_id,
            table=self._table.name,
            columns=self._request.columns,
            status="DONE",
            executor=self._executor,
            workers=self._meter.workers,
            rows_done=outcome.rows,
            rows_resumed=outcome.resumed,
            rows_skipped=outcome.skipped,
            rows_left=sum(plan.left_rows for plan in plans),
            rows_valid=sum(plan.valid_rows for plan in plans),
            rows_stale=sum(plan.stale_rows for plan in plans),
            rows_changed=sum(plan.changed_rows for plan in plans),
            rows_unknown=sum(plan.unknown_rows for plan in plans) if self._request.stale else 0,
            replans=list(outcome.replans),
            unindexed=self._index_notes,
            bytes_read=self._meter.bytes_read,
            bytes_written=sum(column.size for fragment in outcome.published for column in fragment.columns),
            seconds={**self._phases.seconds(), "total": time.monotonic() - began},
            version_before=plans[0].read_version,
            version_after=max(outcome.versions, default=plans[0].read_version),
            errors=self._errors[:MAX_RESULT_ERRORS],
        )
