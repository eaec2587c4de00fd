"""Tasks of slow workers that are done once more: the first result is taken."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from runner.backfill.checkpoint import StagedFragment
from runner.backfill.executors import Event, Executor, Task, TaskDone
from runner.backfill.watcher import Watcher
from runner.backfill.work import Failed, FragmentWork, Progress, SpanDone


@dataclass
class _Twin:
    """What a twin has told, by work; nothing of it counts before all of its works are done."""

    task: Task
    told: list[Event] = field(default_factory=list)


class Twins:
    """Keeps apart what twins tell until one is done before the task that it repeats."""

    def __init__(self, executor: Executor, watcher: Watcher) -> None:
        self._executor = executor
        self._watcher = watcher
        self._of: dict[Task, _Twin] = {}
        self._had: set[Task] = set()

    def __len__(self) -> int:
        return len(self._of)

    def has_had(self, task: Task) -> bool:
        """Whether a task was given a twin; it gets one at most."""
        return task in self._had

    def start(self, task: Task) -> None:
        """Begin a task's unfinished works once more, from what is saved of them, where a worker is free."""
        works = tuple(dataclasses.replace(work, has_parts=True) for work in task.unfinished)
        twin = Task(works, twin_of=task)
        if self._executor.submit(twin, 0):
            self._of[task] = _Twin(twin)
            self._had.add(task)
            self._watcher.began(twin, 0)

    def end(self, task: Task) -> None:
        """End the twin of a task that is done, or whose worker died."""
        twin = self._of.pop(task, None)
        if twin is not None:
            self._abandon(twin.task)

    def hear(self, twin: Task, event: Event) -> list[Event] | None:
        """Take what a twin tells. Where it is done, and so before its task, the events of works that the task has not finished."""
        task = twin.twin_of
        assert task is not None
        if isinstance(event, TaskDone):
            told = self._of.pop(task).told
            self._abandon(task)
            return _of_unfinished(told, task)
        if isinstance(event, (StagedFragment, SpanDone, Progress)):
            self._of[task].told.append(event)
        elif isinstance(event, Failed):
            self.end(task)  # the task itself will tell, if it was not the worker's fault
        else:
            del self._of[task]
        return None

    def _abandon(self, task: Task) -> None:
        self._executor.abandon(task)
        self._watcher.abandoned(task)


def _of_unfinished(told: list[Event], task: Task) -> list[Event]:
    kept: list[Event] = []
    of_work: list[Event] = []
    for event in told:
        of_work.append(event)
        if isinstance(event, (StagedFragment, SpanDone)):
            kept += of_work if any(finishes(event, work) for work in task.unfinished) else []
            of_work = []
    return kept


def finishes(event: Event, work: FragmentWork) -> bool:
    """Whether an event tells of the end of a work."""
    if isinstance(event, SpanDone):
        return work.span == event.work.span and work.folder == event.work.folder
    if isinstance(event, StagedFragment):
        return work.fragment_id == event.fragment_id and work.columns[0] == event.columns[0].column
    return False
