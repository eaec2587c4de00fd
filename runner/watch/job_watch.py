"""What of a job is kept and told for those who watch it, while it runs and at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from runner import console
from runner.watch import settings, traces
from runner.watch.history import OUTCOMES
from runner.watch.metrics import JobMetrics
from runner.watch.recorder import Recorder

if TYPE_CHECKING:
    from runner.backfill.driver import Meter
    from runner.backfill.process import Place
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
        self.recorder = Recorder(ended=self._say_ended if settings.logs_json() else None)
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

    def keep(self, records: JobRecords) -> None:
        """Keep all that was recorded, once nothing more happens.

        Raises:
            StorageError: it cannot be kept.
        """
        self._save(records, is_ended=True)

    def tell_end(self, record: JobRecord) -> None:
        """Tell of the end to those who collect, when it is on record."""
        if traces.are_asked_for():
            traces.send(record, self.recorder.snapshot(is_ended=True))
        if settings.logs_json():
            names = ("status", "error_type", "error", "rows_done", "rows_failed", "rows_total", "seconds")
            fields = {name: getattr(record, name) for name in names}
            console.say(f"job {record.status}", job_id=self._job_id, table=record.table, columns=record.columns, **fields)

    def _say_ended(self, task: Mapping[str, int], place: Place) -> None:
        took = (task["end_ms"] - task["start_ms"]) / 1000
        figures = {name: task[name] for name in ("rows", "failed", "resumed", "bytes_read", "bytes_written", "calls", "memory")}
        console.say(
            f"task {OUTCOMES[task['outcome']]}", job_id=self._job_id, task=task["number"], outcome=OUTCOMES[task["outcome"]],
            seconds=took, fragment=task["fragment"], node=place.node, process=place.process, **figures,
        )  # fmt: skip

    def _save(self, records: JobRecords, *, is_ended: bool) -> None:
        began = time.monotonic()
        records.save_history(self._job_id, self.recorder.snapshot(is_ended=is_ended).to_bytes())
        ended = time.monotonic()
        self._next_save = ended + max(SAVE_SECONDS, (ended - began) / SAVE_SHARE)
