"""Hand the tasks of a plan to workers, and gather what they finish."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from runner.backfill.checkpoint import StagedFragment
from runner.backfill.executors import Event, Executor, Lost, Task, TaskDone
from runner.backfill.losses import Losses
from runner.backfill.plan import BackfillPlan
from runner.backfill.policy import ErrorPolicy
from runner.backfill.skip_limit import SkipLimit
from runner.backfill.stragglers import Stragglers
from runner.backfill.tasks import tasks
from runner.backfill.twins import Twins, finishes
from runner.backfill.watcher import Watcher
from runner.backfill.work import Failed, FragmentWork, Progress, SpanDone
from runner.errors import BackfillFailed, JobCancelled, RowError

WAIT_SECONDS = 0.5


@dataclass
class Meter:
    """Counts of a running job; read by other threads while the driver adds to it.

    Attributes:
        rows_total: values the job will compute; `rows_done` and `rows_failed` count up to it.
        rows_resumed: those of `rows_done` that an earlier run computed.
        phase: ``plan``, ``start``, ``compute``, ``commit`` or ``done``.
    """

    rows_total: int = 0
    rows_done: int = 0
    rows_resumed: int = 0
    rows_failed: int = 0
    bytes_read: int = 0
    fragments_total: int = 0
    fragments_done: int = 0
    workers: int = 0
    phase: str = "plan"
    started: float = field(default_factory=time.monotonic)
    compute_started: float | None = None

    def expect(self, plan: BackfillPlan, published: int = 0, resumed: int = 0) -> None:
        """Set the totals, and count what earlier runs finished.

        Args:
            published: values that the job has published by earlier plans; `resumed` of them were taken over.
        """
        self.rows_total, self.fragments_total = plan.rows + published, plan.fragments
        self.rows_done, self.rows_resumed = plan.resumed_rows + published, plan.resumed_rows + resumed
        self.fragments_done = len(plan.staged)


@dataclass
class _Split:
    """A fragment whose spans are computed apart."""

    left: int
    errors: list[RowError]


class Driver:
    """Runs one plan on one executor.

    Args:
        policy: says how many rows may be skipped.
        cancelled: set from another thread to stop the job within a second.
        finished: called with each fragment as soon as it is in its final form.
    """

    def __init__(
        self,
        plan: BackfillPlan,
        executor: Executor,
        meter: Meter,
        policy: ErrorPolicy,
        cancelled: threading.Event,
        finished: Callable[[StagedFragment], None],
        watcher: Watcher,
    ) -> None:
        self._executor = executor
        self._meter = meter
        self._cancelled = cancelled
        self._finished = finished
        self._watcher = watcher
        self._staged = list(plan.staged)
        self._queue = collections.deque(Task(works) for works in tasks(plan.works, executor.parallelism, executor.growth))
        self._running: set[Task] = set()
        self._losses = Losses()
        self._stragglers = Stragglers(sum(work.rows for work in plan.works))
        self._twins = Twins(executor, watcher)
        self._skipped = SkipLimit(policy, plan)
        self._splits = self._find_splits(work for task in self._queue for work in task.works)

    def run(self) -> list[StagedFragment]:
        """All fragments of the plan, in their final form.

        Raises:
            BackfillFailed: the function failed under the policy ``fail``, on more rows than it may, or is not usable.
            WorkerLost: workers died again and again on one work, and no row of it is to blame.
            JobCancelled: `cancelled` was set.
        """
        self._meter.compute_started = time.monotonic()
        try:
            self._skipped.check()
            while self._queue or self._running:
                if self._cancelled.is_set():
                    raise JobCancelled("the job was cancelled; finished work is kept and the next backfill takes it up")
                self._dispatch()
                for task, event in self._executor.events(WAIT_SECONDS):
                    self._watcher.saw(task, event)
                    if task.twin_of is None:
                        self._handle(task, event)
                    else:
                        self._hear(task, task.twin_of, event)
            return self._staged
        finally:
            self._executor.close()
            self._watcher.closed()

    def _dispatch(self) -> None:
        while self._queue:
            self._cut_first()
            if not self._executor.submit(self._queue[0], len(self._queue)):
                break
            task = self._queue.popleft()
            self._running.add(task)
            self._stragglers.started(task)
            self._watcher.began(task, len(self._queue))
        if not self._queue:
            slow = self._stragglers.slowest(task for task in self._running if not self._twins.has_had(task))
            if slow is not None:
                self._twins.start(slow)
        self._meter.workers = max(self._meter.workers, len(self._running) + len(self._twins))

    def _cut_first(self) -> None:
        """Cut the next work of the queue where it is too large for the end of the job."""
        (work, *others) = self._queue[0].works
        pieces = [work] if others else self._stragglers.cut(work, self._meter.workers)
        if len(pieces) > 1:
            self._queue.popleft()
            self._note_split(work, len(pieces))
            self._queue.extendleft(Task((piece,)) for piece in reversed(pieces))

    def _hear(self, twin: Task, task: Task, event: Event) -> None:
        """Of a twin nothing counts before it is done; then it counts as if the task itself had told it."""
        events = self._twins.hear(twin, event)
        if events is not None:
            self._forget_told(task)
            for told in [*events, TaskDone()]:
                self._handle(task, told)

    def _handle(self, task: Task, event: Event) -> None:
        if isinstance(event, Progress):
            self._count(task, event)
        elif isinstance(event, StagedFragment):
            self._staged.append(event)
            self._finished(event)
            self._meter.fragments_done += 1
            task.told = task.told_failed = 0
            task.unfinished = [work for work in task.unfinished if not finishes(event, work)]
        elif isinstance(event, SpanDone):
            task.told = task.told_failed = 0
            task.unfinished = [work for work in task.unfinished if not finishes(event, work)]
            self._join_if_last(event)
        elif isinstance(event, Failed):
            raise BackfillFailed(event.message, event.errors)
        else:
            self._running.remove(task)
            self._stragglers.ended(task, is_done=isinstance(event, TaskDone))
            self._twins.end(task)
            if isinstance(event, Lost):
                self._forget_told(task)
                self._go_on(task.unfinished, event)

    def _forget_told(self, task: Task) -> None:
        """Take back what a worker told of the work it was at: another one will tell of it again."""
        self._meter.rows_done -= task.told
        self._meter.rows_failed -= task.told_failed
        if task.unfinished:
            self._skipped.count(-task.told_failed // len(task.unfinished[0].columns))
        task.told = task.told_failed = 0

    def _count(self, task: Task, event: Progress) -> None:
        work = task.unfinished[0]
        rows = event.computed + event.resumed
        task.told += rows
        task.told_failed += event.failed
        self._meter.rows_done += rows
        self._meter.rows_failed += event.failed
        self._meter.bytes_read += event.bytes_read
        if not self._losses.has(work):
            self._meter.rows_resumed += event.resumed
        self._skipped.count(event.failed // len(work.columns), event.errors)
        self._skipped.check()

    def _join_if_last(self, event: SpanDone) -> None:
        split = self._splits[event.work.folder]
        split.left -= 1
        split.errors += event.errors
        if not split.left:
            join = dataclasses.replace(event.work, span=None, join=True, errors=tuple(split.errors))
            self._queue.appendleft(Task((join,)))

    def _go_on(self, works: list[FragmentWork], lost: Lost) -> None:
        """Queue the works of a dead worker again, each alone; those after the one it was at are not to blame."""
        for number, work in enumerate(works):
            after = [dataclasses.replace(work, has_parts=True)] if number else self._losses.successors(work, lost.cause)
            if after[0].span is not None:
                self._note_split(work, len(after))
            self._queue.extendleft(Task((successor,)) for successor in reversed(after))

    def _note_split(self, work: FragmentWork, pieces: int) -> None:
        split = self._splits.setdefault(work.folder, _Split(1, list(work.errors)))
        split.left += pieces - 1

    @staticmethod
    def _find_splits(works: Iterable[FragmentWork]) -> dict[str, _Split]:
        splits: dict[str, _Split] = {}
        for work in works:
            if work.span is not None:
                splits.setdefault(work.folder, _Split(0, [])).left += 1
        return splits
