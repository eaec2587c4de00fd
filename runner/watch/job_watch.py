"""What of a job is kept and told for those who watch it, while it runs and at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.watch import settings
from runner.watch.metrics import JobMetrics
from runner.watch.recorder import Recorder

if TYPE_CHECKING:
    from runner.backfill.driver import Meter
    from runner.records import JobRecord, JobRecords

SAVE_SECONDS = 10.0
SAVE_SHARE = 0.003  # of a driver's time at most goes into saving


class JobWatch:
    """Of one job.

    Raises:
        BadInput: an environment variable of `settings` has a value that it cannot have.

    Attributes:
        recorder: what its driver tells of everything.
        metrics: its figures for Prometheus.
    """

    def __init__(self, job_id: str, table: str, columns: Sequence[str]) -> None:
        settings.check()
        self.recorder = Recorder()
        self.metrics = JobMetrics(job_id, table, columns, self.recorder)
        self._job_id = job_id
        self._next_save = 0.0

    def beat(self, records: JobRecords, meter: Meter) -> None:
        """Every two seconds while the job runs, in a thread of its own.

        Raises:
            StorageError: what was recorded cannot be kept now; it is tried again.
        """
        self.metrics.tell(meter.rows_total)
        if time.monotonic() >= self._next_save:
            self._save(records, is_ended=False)

    def end(self, records: JobRecords, record: JobRecord) -> None:
        """Once, when all else is done.

        Raises:
            StorageError: what was recorded cannot be kept.
        """
        self._save(records, is_ended=True)

    def _save(self, records: JobRecords, *, is_ended: bool) -> None:
        began = time.monotonic()
        records.save_history(self._job_id, self.recorder.snapshot(is_ended=is_ended).to_bytes())
        ended = time.monotonic()
        self._next_save = ended + max(SAVE_SECONDS, (ended - began) / SAVE_SHARE)
