"""Records what a job does while it does it: some ten microseconds a task, and a few numbers an event."""

from __future__ import annotations

import collections
import datetime as dt
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from runner.backfill.checkpoint import StagedFragment
from runner.backfill.executors import Event, Lost, Task, TaskDone
from runner.backfill.process import Place
from runner.backfill.work import Failed, Progress, SpanDone
from runner.errors import RowError
from runner.watch.history import COLUMNS, CUT_OFF, DONE, DUPLICATE, FAILED, RETRIED, RUNNING, SERIES, ErrorKind, History, Phase

MAX_STEPS = 1200
MAX_KINDS = 100  # of errors; those of a kind beyond are counted as OTHER
OTHER = "others"
MAX_CALL_SECONDS = 10_000
_NOWHERE = Place("unknown", 0)


@dataclass(frozen=True)
class Figures:
    """Sums over a job's tasks by now, and what of them runs and waits.

    Attributes:
        call_seconds: of a call, means over those that a worker told of together, since this was last asked for.
    """

    rows: int
    failed: int
    bytes_read: int
    bytes_written: int
    running: int
    waiting: int
    call_seconds: tuple[float, ...]


class Recorder:
    """What is recorded of one job. Its driver adds to it, another thread may take snapshots.

    Args:
        clock: seconds that never go back.
        ended: called with each task that ended, as `history.COLUMNS` has it, and where it ran.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, ended: Callable[[Mapping[str, int], Place], None] | None = None
    ) -> None:
        self._clock = clock
        self._ended = ended
        self._began = clock()
        self._began_at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        self._lock = threading.Lock()
        self._tasks = {name: array("q") for name in COLUMNS}
        self._numbers: dict[Task, int] = {}
        self._workers: dict[Place, int] = {}
        self._columns: dict[str, int] = {}
        self._kinds: dict[int, collections.Counter[str]] = {}  # of tasks that run
        self._counts: collections.Counter[str] = collections.Counter()  # of those that ended
        self._first: dict[str, RowError | None] = {}
        self._phases: list[Phase] = []
        self._open_phases: dict[object, Phase] = {}
        self._series = _Series()
        self._sums: collections.Counter[str] = collections.Counter()
        self._waiting = 0
        self._call_seconds: collections.deque[float] = collections.deque(maxlen=MAX_CALL_SECONDS)

    # -- what the driver tells

    def began(self, task: Task, waiting: int) -> None:
        """A task went to its worker."""
        work = task.works[0]
        with self._lock:
            self._waiting = waiting
            self._numbers[task] = len(self._tasks["worker"])
            values = {
                "worker": self._workers.setdefault(task.place or _NOWHERE, len(self._workers)),
                "start_ms": self._ms(),
                "end_ms": -1,
                "outcome": RUNNING,
                "columns": self._columns.setdefault(", ".join(work.columns), len(self._columns)),
                "width": len(work.columns),
                "fragment": work.fragment_id,
                "works": len(task.works),
                "error": -1,
                "number": task.number,
            }
            for name, column in self._tasks.items():
                column.append(values.get(name, 0))

    def saw(self, task: Task, event: Event) -> None:
        """Something happened to a task."""
        with self._lock:
            number = self._numbers.get(task)
            if number is None:
                return
            if isinstance(event, Progress):
                self._count(number, event)
            elif isinstance(event, StagedFragment):
                size = sum(column.size for column in event.columns)
                self._tasks["bytes_written"][number] += size
                self._sums["bytes_written"] += size
                self._keep_kinds(task, number)
            elif isinstance(event, SpanDone):
                self._keep_kinds(task, number)
            elif isinstance(event, Failed) and task.twin_of is not None:
                self._end(task, DUPLICATE)  # the task itself will tell
            elif isinstance(event, Failed):
                self._count_kinds(number, collections.Counter(error.error for error in event.errors), event.errors)
                self._end(task, FAILED)
            elif isinstance(event, TaskDone):
                self._end(task, DONE)
            elif isinstance(event, Lost):
                self._end(task, RETRIED)

    def abandoned(self, task: Task) -> None:
        """Another worker was first with the same work."""
        with self._lock:
            if task in self._numbers:
                self._end(task, DUPLICATE)

    def closed(self) -> None:
        """No task runs any more."""
        with self._lock:
            for task in list(self._numbers):
                self._end(task, CUT_OFF)
            self._waiting = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The block is a phase of the job; phases may lie in others."""
        key = object()
        with self._lock:
            self._open_phases[key] = Phase(name, self._seconds(), None)
        try:
            yield
        finally:
            with self._lock:
                begun = self._open_phases.pop(key)
                self._phases.append(replace(begun, end=self._seconds()))

    # -- what others ask

    def figures(self) -> Figures:
        """Sums by now."""
        with self._lock:
            seconds = tuple(self._call_seconds)
            self._call_seconds.clear()
            sums = {name: self._sums[name] for name in ("rows", "failed", "bytes_read", "bytes_written")}
            return Figures(**sums, running=len(self._numbers), waiting=self._waiting, call_seconds=seconds)

    def snapshot(self, *, is_ended: bool = False) -> History:
        """All that is recorded by now."""
        with self._lock:
            tasks = {name: np.array(column, np.int64) for name, column in self._tasks.items()}
            return History(
                began_at=self._began_at,
                seconds=self._seconds(),
                is_ended=is_ended,
                tasks=tasks,
                workers=tuple((place.node, place.process) for place in self._workers),
                columns=tuple(self._columns),
                phases=tuple(sorted([*self._phases, *self._open_phases.values()], key=lambda phase: phase.start)),
                errors=self._errors(),
                step=self._series.step,
                series={name: list(values) for name, values in self._series.values.items()},
            )

    # -- with the lock held

    def _seconds(self) -> float:
        return self._clock() - self._began

    def _ms(self) -> int:
        return round(self._seconds() * 1000)

    def _count(self, number: int, event: Progress) -> None:
        tasks = self._tasks
        tasks["rows"][number] += event.computed
        tasks["failed"][number] += event.failed
        tasks["resumed"][number] += event.resumed
        tasks["bytes_read"][number] += event.bytes_read
        tasks["calls"][number] += event.calls
        tasks["call_us"][number] += round(event.call_seconds * 1e6)
        tasks["memory"][number] = max(tasks["memory"][number], event.memory)
        amounts = {"rows": event.computed, "failed": event.failed, "bytes_read": event.bytes_read}
        self._series.add(self._seconds(), **amounts)
        self._sums.update(amounts)
        if event.calls:
            self._call_seconds.append(event.call_seconds / event.calls)
        if event.kinds:
            self._count_kinds(number, dict(event.kinds), event.errors)

    def _count_kinds(self, number: int, counts: Mapping[str, int], errors: Iterable[RowError]) -> None:
        of_task = self._kinds.setdefault(number, collections.Counter())
        examples = {error.error: error for error in reversed(tuple(errors))}
        for kind, count in counts.items():
            name = kind if kind in self._first or len(self._first) < MAX_KINDS else OTHER
            if self._first.get(name) is None:
                self._first[name] = examples.get(kind)
            of_task[name] += count
        if of_task:
            self._tasks["error"][number] = list(self._first).index(of_task.most_common(1)[0][0])

    def _end(self, task: Task, outcome: int) -> None:
        number = self._numbers.pop(task)
        self._tasks["end_ms"][number] = self._ms()
        self._tasks["outcome"][number] = outcome
        if self._ended is not None:
            self._ended({name: column[number] for name, column in self._tasks.items()}, task.place or _NOWHERE)
        kinds = self._kinds.pop(number, None)
        if kinds and outcome not in (RETRIED, DUPLICATE):  # who takes the work over, or was first, tells of them too
            self._counts += kinds

    def _keep_kinds(self, task: Task, number: int) -> None:
        """A work is done, so its errors count whatever becomes of the task; of a twin nothing counts before its end."""
        kinds = self._kinds.pop(number, None) if task.twin_of is None else None
        if kinds:
            self._counts += kinds

    def _errors(self) -> dict[str, ErrorKind]:
        counts = sum(self._kinds.values(), self._counts.copy())
        found = {}
        for kind, first in self._first.items():
            found[kind] = ErrorKind(counts[kind], first.message, first.row_address) if first else ErrorKind(counts[kind])
        return found


class _Series:
    """Sums over steps of time, whose length doubles whenever there are more than `MAX_STEPS`."""

    def __init__(self) -> None:
        self.step = 1.0
        self.values: dict[str, list[int]] = {name: [] for name in SERIES}

    def add(self, seconds: float, **amounts: int) -> None:
        while seconds / self.step >= MAX_STEPS:
            self._fold()
        index = int(seconds / self.step)
        if index >= len(self.values["rows"]):
            for values in self.values.values():
                values.extend([0] * (index + 1 - len(values)))
        for name, amount in amounts.items():
            self.values[name][index] += amount

    def _fold(self) -> None:
        self.step *= 2
        for name, values in self.values.items():
            self.values[name] = [sum(values[at : at + 2]) for at in range(0, len(values), 2)]
