"""What a backfill will take: time from a sample, workers, GPU hours, cost. Pure functions of a plan and what was measured."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.backfill.plan import BackfillPlan
from runner.backfill.tasks import tasks
from runner.backfill.work import FragmentWork

if TYPE_CHECKING:
    from runner.backfill.sample import Sample

TASK_SECONDS = 0.015
"""Driver and Ray for each task. On 2 cores 8 tasks took 2 workers longer than their rows by 10 ms each where they had 1,000 trivial
rows, by 25 ms where they had 125,000."""
COMMIT_SECONDS, COMMIT_PLANS = 0.01, 5.0
"""A commit takes so long, and so many times what planning took: both grow with fragments and with the way to the store. On a disk
that fits 8, 100 and 400 fragments (20, 30 and 110 ms)."""


@dataclass(frozen=True)
class Workers:
    """What runs the tasks.

    Attributes:
        count: how many at most.
        where: what they are, in words.
        at_start: how many are up when the job begins, which is what the driver splits large fragments for.
        pods: of a cluster, by group; all that the workers need, and the head.
        gpus: that are reserved meanwhile.
        start_seconds: until they serve, and until they are gone again.
        task_seconds: what each task costs beside its rows.
        is_start_assumed: whether that was not measured.
    """

    count: int
    where: str
    at_start: int
    pods: Mapping[str, int] = field(default_factory=dict)
    gpus: float = 0.0
    start_seconds: float = 0.0
    is_start_assumed: bool = False
    task_seconds: float = TASK_SECONDS


@dataclass(frozen=True)
class Estimate:
    """What a backfill will take.

    Attributes:
        stored_bytes: of the input columns of the rows to compute, as Lance stores them (compressed); None where Lance does not
            say. By the rows' share of each column.
        tasks: how many tasks the works make for `workers`.
        samples: what was measured, one for each worker; empty where nothing was.
        plan_seconds, setup_seconds, compute_seconds, commit_seconds: of the phases beside the workers' start.
        cost: None without a price table, or where nothing is paid by the hour.
    """

    plan: BackfillPlan
    workers: Workers
    tasks: int
    stored_bytes: int | None = None
    samples: tuple[Sample, ...] = ()
    plan_seconds: float = 0.0
    setup_seconds: float = 0.0
    compute_seconds: float = 0.0
    commit_seconds: float = 0.0
    cost: float | None = None
    currency: str = ""

    @property
    def seconds(self) -> float | None:
        """From the call to its result; None without a sample."""
        if not self.samples:
            return None
        phases = self.plan_seconds + self.setup_seconds + self.compute_seconds + self.commit_seconds
        return phases + self.workers.start_seconds

    @property
    def gpu_hours(self) -> float | None:
        """GPUs that are reserved, for as long as the job takes; None without a sample."""
        return None if self.seconds is None else self.workers.gpus * self.seconds / 3600

    @property
    def failed(self) -> int:
        """Rows of the sample that the function failed on."""
        return sum(sample.failed for sample in self.samples)

    @property
    def sampled(self) -> int:
        """Rows of the sample."""
        return sum(sample.rows for sample in self.samples)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; the plan's own figures apart."""
        return {
            "stored_bytes": self.stored_bytes,
            "tasks": self.tasks,
            "workers": self.workers.count,
            "workers_are": self.workers.where,
            "start_is_assumed": self.workers.is_start_assumed,
            "sample": {
                "rows": self.sampled,
                "failed": self.failed,
                "errors": [failure.error + ": " + failure.message for sample in self.samples for failure in sample.failures],
                "row_seconds": statistics.fmean(sample.row_seconds for sample in self.samples) if self.samples else None,
                "row_bytes": statistics.fmean(sample.row_bytes for sample in self.samples) if self.samples else None,
            },
            "seconds": self.seconds,
            "phases": {
                "plan": self.plan_seconds,
                "start": self.workers.start_seconds,
                "setup": self.setup_seconds,
                "compute": self.compute_seconds,
                "commit": self.commit_seconds,
            },
            "gpu_hours": self.gpu_hours,
            "cost": self.cost,
            "currency": self.currency,
        }


def compute_seconds(
    works: Sequence[FragmentWork], samples: Sequence[Sample], workers: Workers, *, cpus: float | None, rate_limit: float | None
) -> float:
    """How long the works take, as the driver hands them out: the largest task first, to whoever is free.

    Args:
        samples: of all workers at once, or of one.
        cpus: that each worker has, where the sample had this machine to itself; None where it had what the job will have.
        rate_limit: calls a second over all workers, of a function that has a limit.
    """
    row = statistics.fmean(max(sample.row_seconds, sample.row_cpu_seconds / cpus if cpus else 0.0) for sample in samples)
    fragment = statistics.fmean(sample.work_seconds for sample in samples)
    busy = [0.0] * workers.count
    for task in tasks(works, workers.at_start, workers.count):
        seconds = workers.task_seconds + sum(work.rows * row + fragment for work in task)
        heapq.heappushpop(busy, busy[0] + seconds)
    limited = sum(work.rows for work in works) / rate_limit if rate_limit else 0.0
    return max(*busy, limited)
