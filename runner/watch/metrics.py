"""Figures of running jobs for Prometheus, through Ray's own metrics: its nodes export them as ``ray_infill_...``."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runner import console

if TYPE_CHECKING:
    from runner.local_context import LocalContext
    from runner.watch.recorder import Figures, Recorder

TAGS = ("job_id", "table", "column")
COUNTERS = {
    "infill_rows_done": "Values computed; those that a lost worker had computed count again.",
    "infill_rows_failed": "Values whose function failed.",
    "infill_read_bytes": "Input read, in memory.",
    "infill_written_bytes": "Column files finished.",
}
GAUGES = {
    "infill_rows_expected": "Values that the job is to compute in all.",
    "infill_tasks_running": "Tasks on workers.",
    "infill_tasks_queued": "Tasks that wait for a worker.",
    "infill_workers": "Workers with a task.",
}
CALLS = "infill_call_seconds"
CALL_BOUNDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]


class JobMetrics:
    """Of one job. Nothing is told of it outside of `on`.

    Args:
        columns: of a job of several the tag is ``a, b``.
    """

    def __init__(self, job_id: str, table: str, columns: Sequence[str], recorder: Recorder) -> None:
        self._tags = {"job_id": job_id, "table": table, "column": ", ".join(columns)}
        self._recorder = recorder
        self._lock = threading.Lock()
        self._metrics: dict[str, Any] = {}
        self._told = dict.fromkeys(COUNTERS, 0)

    @contextmanager
    def on(self, context: LocalContext) -> Iterator[None]:
        """Within the block, which a job computes in, its figures are told to the context's Ray where that exports any."""
        if context.kind == "inline" or not context.exports_metrics:
            yield
            return
        with self._guarded():
            self._metrics = self._new()
        try:
            yield
        finally:
            self.tell()
            with self._guarded():
                for name in GAUGES.keys() & self._metrics.keys():
                    self._metrics[name].set(0)  # the driver's process may live on
                self._metrics = {}

    def tell(self, rows_expected: int = 0) -> None:
        """What has changed since the last time."""
        with self._guarded():
            if self._metrics:
                self._tell(self._recorder.figures(), rows_expected)

    def _tell(self, figures: Figures, rows_expected: int) -> None:
        totals = dict(zip(COUNTERS, (figures.rows, figures.failed, figures.bytes_read, figures.bytes_written), strict=True))
        for name, total in totals.items():
            if total > self._told[name]:
                self._metrics[name].inc(total - self._told[name])
        self._told = totals
        now = (rows_expected, figures.running, figures.waiting, figures.running)
        for name, value in zip(GAUGES, now, strict=True):
            self._metrics[name].set(value)
        for seconds in figures.call_seconds:
            self._metrics[CALLS].observe(seconds)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """The block has the metrics to itself; one that Ray does not take ends them, and nothing else."""
        with self._lock:
            try:
                yield
            except Exception as exc:  # of whatever kind: a job is not to fail of being watched
                self._metrics = {}
                console.say(f"job {self._tags['job_id']} has no metrics from now on: {exc}", job_id=self._tags["job_id"])

    def _new(self) -> dict[str, Any]:
        from ray.util.metrics import Counter, Gauge, Histogram

        made: dict[str, Any] = {name: Counter(name, text, TAGS) for name, text in COUNTERS.items()}
        made |= {name: Gauge(name, text, TAGS) for name, text in GAUGES.items()}
        made[CALLS] = Histogram(CALLS, "Seconds of a call of the function: means over half a second.", CALL_BOUNDS, TAGS)
        for metric in made.values():
            metric.set_default_tags(self._tags)
        return made
