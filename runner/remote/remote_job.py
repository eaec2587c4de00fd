"""The handle on a backfill whose driver runs on a cluster. It knows of it by the records in the database alone."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from runner import errors
from runner.backfill.driver import Meter
from runner.errors import BackfillFailed, JobCancelled, JobLost, RowError, RunnerError
from runner.jobs import MAX_RESULT_ERRORS
from runner.records import LOST_SECONDS, JobRecord, JobRecords, now
from runner.result import BackfillResult

if TYPE_CHECKING:
    from runner.store import Store

POLL_SECONDS = 0.5
LOOK_SECONDS = 5.0


class RemoteJob:
    """A job that was submitted, by this process or by another one.

    Args:
        look: called every few seconds; says why the driver has ended without a word, or None while it runs or cannot be asked.
        is_certain: what `look` says is beyond doubt, and goes on record.
    """

    def __init__(
        self, store: Store, job_id: str, look: Callable[[], str | None] = lambda: None, *, is_certain: bool = False
    ) -> None:
        self.job_id = job_id
        self._store = store
        self._records = JobRecords(store.patient())
        self._look = look
        self._is_certain = is_certain
        self._meter = Meter()
        self._ended: JobRecord | None = None
        self._lost: JobLost | None = None
        self._lock = threading.Lock()
        self._looked_at = 0.0
        self._sign: str | None = None
        self._silent = 0.0

    def start(self) -> Self:
        """It runs already."""
        return self

    def run_here(self) -> BackfillResult:
        """Wait for its end."""
        return self.result()

    def result(self, timeout: float | None = None) -> BackfillResult:
        """Wait for the end.

        Args:
            timeout: seconds to wait, None for as long as it takes. The job goes on after it.

        Raises:
            TimeoutError: not ended yet.
            JobLost: its driver is gone, and has not said why.
            RunnerError: what ended the job.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (record := self._poll()) is None:
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"job {self.job_id} has not ended within {timeout:g} s; it goes on")
            time.sleep(POLL_SECONDS)
        return self._outcome(record)

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        with suppress(JobLost):
            return self._poll() is not None
        return True

    def progress(self) -> Meter:
        """Rows, workers and phase as the driver last told, seconds ago at most."""
        with suppress(JobLost):
            self._poll()
        return self._meter

    def cancel(self) -> None:
        """Have it stop within seconds. Finished work is kept, and the next backfill of the column takes it up."""
        self._records.ask_to_cancel(self.job_id)

    def report(self) -> str:
        """What it did up to some seconds ago, as one HTML file; see `Connection.job_report`."""
        from runner.connection import Connection

        return Connection(self._store.uri, storage_options=self._store.storage_options).job_report(self.job_id)

    def __await__(self) -> Generator[Any, None, BackfillResult]:
        return asyncio.to_thread(self.result).__await__()

    def __repr__(self) -> str:
        return f"RemoteJob({self.job_id})"

    def _poll(self) -> JobRecord | None:
        """The record once the job has ended."""
        with self._lock:
            if self._lost is not None:
                raise self._lost
            if self._ended is None:
                record = self._records.read(self.job_id)
                if record is None:
                    raise JobLost(f"job {self.job_id} has no record any more")
                self._show(record)
                if record.is_ended:
                    self._ended = record
                else:
                    self._check_driver(record)
            return self._ended

    def _show(self, record: JobRecord) -> None:
        meter = self._meter
        meter.rows_total, meter.rows_done, meter.rows_failed = record.rows_total, record.rows_done, record.rows_failed
        meter.rows_resumed, meter.workers = record.rows_resumed, record.workers
        meter.phase = {"SUBMITTED": "submit", "QUEUED": "queue"}.get(record.status, record.phase)
        if meter.compute_started is None and record.phase == "compute":
            meter.compute_started = time.monotonic() - record.seconds.get("compute", 0.0)

    def _check_driver(self, record: JobRecord) -> None:
        passed = time.monotonic() - self._looked_at
        if passed < LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        certain = self._look()
        why = certain or self._silence(record, passed)
        if why is None:
            return
        last = self._records.read(self.job_id)  # it may have ended between the two
        if last is not None and last.is_ended:
            self._ended = last
            return
        self._lost = JobLost(
            f"job {self.job_id}: its driver has ended without a word, {why}; finished work is kept, and the next backfill of "
            f"{', '.join(record.columns)} takes it up"
        )
        if last is not None and certain and self._is_certain:
            lost = dataclasses.replace(last, status="FAILED", ended_at=now(), error=str(self._lost), error_type="JobLost")
            with suppress(RunnerError):
                self._records.save(lost)
        raise self._lost

    def _silence(self, record: JobRecord, passed: float) -> str | None:
        """Why a driver that began is taken for lost whatever its cluster says: no sign of life for long, by this process's clock.

        Ray goes on for minutes to call a job running whose head's pod was replaced, where a Redis has kept what the head knew.

        Args:
            passed: seconds since the look before; most of many were spent waiting for the storage, as the driver does too.
        """
        is_new = record.updated_at != self._sign
        self._sign = record.updated_at
        self._silent = 0.0 if is_new else self._silent + min(passed, 2 * LOOK_SECONDS)
        return f"{self._silent:.0f} s ago" if record.updated_at and self._silent > LOST_SECONDS else None

    def _outcome(self, record: JobRecord) -> BackfillResult:
        failed = tuple(self._records.errors(self.job_id)[:MAX_RESULT_ERRORS])
        if record.status == "DONE":
            plain = {**record.result, "columns": tuple(record.columns), "errors": failed}
            return BackfillResult(**plain)
        raise _error_of(record, failed)


def _error_of(record: JobRecord, failed: tuple[RowError, ...]) -> RunnerError:
    """What ended a job, as the class that its driver raised."""
    text = record.error or "it failed"
    if record.status == "CANCELLED":
        return JobCancelled(text)
    kind = getattr(errors, record.error_type or "", None)
    if kind is BackfillFailed or kind is None:
        return BackfillFailed(text if kind else f"{record.error_type}: {text}", failed)
    return kind(text) if isinstance(kind, type) and issubclass(kind, RunnerError) else RunnerError(text)
