"""The end of a job: large works are cut, and what a slow worker is at is done once more beside it, so that no worker idles long."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable

from runner.backfill.executors import Task
from runner.backfill.tasks import SMALLEST_SHARE, span_pieces
from runner.backfill.work import FragmentWork

MIN_SECONDS = 1.0  # of a piece; joining the parts of shorter ones costs more than they save
SLOW = 2.0  # a task that takes so many times as long as others took for as many rows is slow,
SLOW_SECONDS = 3.0  # and this much longer
RECENT = 64  # tasks whose speed counts


class Stragglers:
    """Watches how fast tasks are done.

    Args:
        rows: of the whole job.
        clock: seconds, ascending.
    """

    def __init__(self, rows: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting = rows
        self._began_at = clock()
        self._began: dict[Task, float] = {}
        self._seconds_per_row: deque[float] = deque(maxlen=RECENT)

    def started(self, task: Task) -> None:
        self._began[task] = self._clock()
        self._waiting -= _rows(task)

    def ended(self, task: Task, *, is_done: bool = True) -> None:
        """A task is done, or its worker died on it."""
        seconds = self._clock() - self._began.pop(task)
        if is_done and _rows(task):
            self._seconds_per_row.append(seconds / _rows(task))

    def cut(self, work: FragmentWork, workers: int) -> list[FragmentWork]:
        """A work that waits, in spans where a worker that took it whole would keep the others waiting at the end."""
        if not self._seconds_per_row or workers < 2 or not _is_plain(work):
            return [work]
        per_row = max(statistics.median(self._seconds_per_row), 1e-9)
        waiting = max(self._waiting, work.rows)
        job_seconds = self._clock() - self._began_at + waiting * per_row / workers
        smallest = max(SMALLEST_SHARE * job_seconds, MIN_SECONDS) / per_row
        size = max(waiting / (2 * workers), smallest)
        return span_pieces(work, -(-work.rows // int(size))) if work.rows > 1.5 * size else [work]

    def slowest(self, running: Iterable[Task]) -> Task | None:
        """The task that is latest, where one is slow; None before there is anything to compare with."""
        if not self._seconds_per_row:
            return None
        now, per_row = self._clock(), statistics.median(self._seconds_per_row)

        def lateness(task: Task) -> float:
            return now - self._began[task] - SLOW * per_row * sum(work.rows for work in task.works) - SLOW_SECONDS

        plain = (task for task in running if task.unfinished and all(_is_plain(work) for work in task.unfinished))
        return max((task for task in plain if lateness(task) > 0), key=lateness, default=None)


def _rows(task: Task) -> int:
    """Rows that a task calls the function for."""
    return sum(work.rows for work in task.works if not work.join)


def _is_plain(work: FragmentWork) -> bool:
    """Whether it is to call the function, and no worker is known to have died of it twice."""
    return not work.join and not work.careful and work.cause is None
