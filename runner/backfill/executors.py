"""Where tasks run: in this process, or on Ray actors that stay up between jobs. One worker class, the same results."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from runner.backfill.pool import ActorPool
from runner.backfill.process import Place, here
from runner.backfill.work import FragmentWork, Pass, WorkerEvent
from runner.watch import settings

GROWN_WORKERS = 32
"""That a cluster of unknown bounds is taken to grow to: an autoscaler adds nodes only for tasks that wait."""
DEATH_SECONDS = 5.0  # that a killed worker is waited for


@dataclass(eq=False)
class Task:
    """Works that go to one worker together, and those of them it has not finished; told apart by identity.

    Attributes:
        place: where it runs, once it does.
        told, told_failed: values, and failed values, that the worker has told of for the work it is at.
        twin_of: the task of a slow worker that this one does once more.
        number: in logs; no other task of this process has it.
    """

    works: tuple[FragmentWork, ...]
    place: Place | None = None
    told: int = 0
    told_failed: int = 0
    twin_of: Task | None = None
    number: int = field(default_factory=itertools.count(1).__next__)

    def __post_init__(self) -> None:
        self.unfinished = list(self.works)


@dataclass(frozen=True)
class TaskDone:
    """A task ran to its end; its worker is free."""


@dataclass(frozen=True)
class Lost:
    """The worker of a task died; `cause` is in Ray's words."""

    cause: str


Event = WorkerEvent | TaskDone | Lost


class Executor(Protocol):
    """Runs the tasks of one pass."""

    @property
    def parallelism(self) -> int:
        """How many tasks can run at once now."""

    @property
    def growth(self) -> int:
        """How many could run at once once workers have joined; no less than `parallelism`."""

    def submit(self, task: Task, waiting: int) -> bool:
        """Start a task; False where no worker is free. `waiting` tasks are there in all, for a pool that can grow."""

    def events(self, timeout: float) -> Iterator[tuple[Task, Event]]:
        """What has happened; waits `timeout` seconds at most for something to happen."""

    def abandon(self, task: Task) -> None:
        """End a running task, with its worker; nothing more is told of it."""

    def close(self) -> None:
        """Give the workers back; tasks that still run are ended."""


class InlineExecutor:
    """Runs each task in the calling thread: for a debugger, for tests, and where Ray's start costs more than the work."""

    parallelism = growth = 1

    def __init__(self, settings: Pass) -> None:
        from runner.backfill.worker import Worker

        self._settings = settings
        self._worker = Worker(disposable=False)
        self._running: tuple[Task, Iterator[WorkerEvent]] | None = None

    def submit(self, task: Task, waiting: int) -> bool:
        if self._running is not None:
            return False
        task.place = here()
        self._running = task, self._worker.run(self._settings, task.works)
        return True

    def events(self, timeout: float) -> Iterator[tuple[Task, Event]]:
        if self._running is None:
            return
        task, stream = self._running
        event = next(stream, None)
        if event is None:
            self._running = None
        yield task, event or TaskDone()

    def abandon(self, task: Task) -> None:
        self.close()

    def close(self) -> None:
        if self._running is not None:
            self._running[1].close()  # type: ignore[attr-defined]
            self._running = None
        self._worker.close()


class RayExecutor:
    """Runs the tasks of one pass on the actors of a pool.

    Args:
        concurrency: most actors to use, None for as many as there is room and work for.
    """

    def __init__(self, pool: ActorPool, settings: Pass, concurrency: int | None) -> None:
        self._pool = pool
        self._concurrency = self._most_workers(settings, concurrency)
        self._settings = dataclasses.replace(settings, workers=self._concurrency or 1)
        self._running: dict[Any, tuple[Any, Task]] = {}
        self._grown_at = 0.0
        pool.count_user(1)

    def _most_workers(self, settings: Pass, concurrency: int | None) -> int | None:
        """Where calls a second are limited no more workers than there is room for now: each has its share from the start."""
        if all(column.spec.rate_limit is None for column in settings.columns):
            return concurrency
        room = max(self._pool.capacity(), 1)
        return min(room, concurrency) if concurrency else room

    @property
    def parallelism(self) -> int:
        room = max(self._pool.capacity(), 1)
        return min(room, self._concurrency) if self._concurrency else room

    @property
    def growth(self) -> int:
        most = self.parallelism if self._pool.is_fixed else max(self.parallelism, GROWN_WORKERS)
        return min(most, self._concurrency) if self._concurrency else most

    def submit(self, task: Task, waiting: int) -> bool:
        if self._concurrency and len(self._running) >= self._concurrency:
            return False
        actor = self._pool.take()
        if actor is None:
            self._grow(waiting)
            return False
        task.place = self._pool.place(actor)
        stream = actor.run.options(num_returns="streaming").remote(self._settings, task.works, self._labels(task))
        self._running[stream] = actor, task
        return True

    def _labels(self, task: Task) -> dict[str, Any] | None:
        """What the worker's log lines are to tell, where they are to be JSON."""
        if not settings.logs_json():
            return None
        fragments = [work.fragment_id for work in task.works]
        return {"job_id": self._settings.job_id.partition("/")[0], "task": task.number, "fragments": fragments}

    def _grow(self, waiting: int) -> None:
        if time.monotonic() - self._grown_at > 0.5:
            self._grown_at = time.monotonic()
            wanted = len(self._running) + waiting
            self._pool.grow(min(wanted, self._concurrency) if self._concurrency else wanted)

    def events(self, timeout: float) -> Iterator[tuple[Task, Event]]:
        import ray

        waiting: Sequence[Any] = [*self._running, *self._pool.starting()]
        if not waiting:
            time.sleep(min(timeout, 0.05))
            return
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=timeout)
        for ref in ready:
            if ref in self._running:
                yield from self._next(ref)
            else:
                self._pool.started(ref)

    def _next(self, stream: Any) -> Iterator[tuple[Task, Event]]:
        import ray

        actor, task = self._running[stream]
        try:
            for event in ray.get(next(stream)):
                yield task, event
        except StopIteration:
            del self._running[stream]
            self._pool.give_back(actor)
            yield task, TaskDone()
        except ray.exceptions.RayTaskError:
            raise  # a bug of ours: what the function raises comes as an event
        except ray.exceptions.RayError as exc:  # the actor died, or its node with what it had told
            del self._running[stream]
            self._pool.discard(actor)
            yield task, Lost(cause(exc))

    def abandon(self, task: Task) -> None:
        stream = next(stream for stream, (_, running) in self._running.items() if running is task)
        actor, _ = self._running.pop(stream)
        self._pool.discard(actor)
        _wait_until_dead(stream)  # or it would stage what nobody takes up or clears away

    def close(self) -> None:
        for actor, _ in self._running.values():
            self._pool.discard(actor)
        self._running.clear()
        self._pool.count_user(-1)
        self._pool.stop_waiting()


def cause(exc: BaseException) -> str:
    """What Ray says of a dead actor, without its ids and its advice on Ray."""
    lines = [line for line in str(exc).splitlines() if line.strip() and not line.startswith("\t")]
    return " ".join(lines).partition(" Some common causes include:")[0].rstrip(" .")


def _wait_until_dead(stream: Any) -> None:
    """Take what a killed worker still tells, up to its death; not for ever, as its node may be gone."""
    import ray

    end = time.monotonic() + DEATH_SECONDS
    with contextlib.suppress(StopIteration, ray.exceptions.RayError):
        while ray.wait([stream], timeout=max(0.0, end - time.monotonic()))[0]:
            ray.get(next(stream))
