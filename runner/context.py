"""Where backfills run: an execution context, and which one is current."""

from __future__ import annotations

import contextvars
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from runner import console
from runner.backfill.executors import Executor, InlineExecutor, RayExecutor
from runner.backfill.pool import ActorPool, Shape
from runner.errors import BadInput, RunnerError

if TYPE_CHECKING:
    from runner.backfill.work import Pass
    from runner.jobs import Job
    from runner.local_ray import Origin

Kind = Literal["inline", "local"]

_current: contextvars.ContextVar[Context | None] = contextvars.ContextVar("runner_context", default=None)
_open: list[Context] = []


def current_context() -> Context | None:
    """The context entered here; in a new thread or notebook cell, which know none of their own, the last one that is open."""
    own = _current.get()
    if own is not None and own.is_open:
        return own
    return _open[-1] if _open else None


class Context:
    """An execution context: backfills inside the ``with`` block run in it, and share its workers.

    Args:
        cluster: ``"inline"`` is this process; ``"local"`` is Ray on this machine. A Ray that is already initialised in this
            process, or that RAY_ADDRESS names, is joined instead of starting one, and is never stopped.
        announce: say on stderr that a local Ray starts.

    Raises:
        BadInput: any other cluster.
    """

    def __init__(self, cluster: str = "local", *, announce: bool = False) -> None:
        if cluster not in ("inline", "local"):
            raise BadInput(f"cluster={cluster!r} is not one of 'inline' (this process) or 'local' (Ray on this machine)")
        self.kind: Kind = "inline" if cluster == "inline" else "local"
        self.is_open = False
        self._announce = announce
        self._origin: Origin | None = None
        self._lock = threading.Lock()
        self._pools: dict[Shape, ActorPool] = {}
        self._jobs: list[Job] = []
        self._token: contextvars.Token[Context | None] | None = None

    def open(self) -> Context:
        """Start or join Ray and begin to start workers, without making this the current context."""
        if self.kind == "local":
            from runner import local_ray

            if self._announce:
                console.say("no context is open: using Ray on this machine for this backfill")
            self._origin = local_ray.join_or_start()
            if self._origin == "started":
                pool = self._pool(Shape())
                pool.grow(pool.capacity())
        self.is_open = True
        return self

    def close(self) -> None:
        """Wait for the jobs started inside, stop the workers, and stop Ray where this context started it."""
        for job in self._jobs:
            try:
                job.result()
            except (RunnerError, Exception) as exc:
                console.say(f"job {job.job_id} failed: {exc}")
        self.is_open = False
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        if self._origin is not None:
            from runner import local_ray

            local_ray.leave(self._origin)
            self._origin = None

    def executor(self, settings: Pass, shape: Shape, concurrency: int | None) -> Executor:
        """What runs the tasks of one pass here."""
        if self.kind == "inline":
            return InlineExecutor(settings)
        with self._lock:
            pool = self._pool(shape)
        pool.grow(concurrency or pool.capacity() or 1)
        return RayExecutor(pool, settings, concurrency)

    def track(self, job: Job) -> None:
        """Wait for this job before the context closes."""
        self._jobs = [*[known for known in self._jobs if not known.done()], job]

    def _pool(self, shape: Shape) -> ActorPool:
        if shape not in self._pools:
            self._pools[shape] = ActorPool(shape, fixed=self._origin == "started")
        return self._pools[shape]

    def __enter__(self) -> Context:
        if self.is_open:
            raise BadInput("this context is open already; make another for a block inside it")
        self.open()
        self._token = _current.set(self)
        _open.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None = None, exc: BaseException | None = None, trace: TracebackType | None = None
    ) -> None:
        _open.remove(self)
        if self._token is not None:
            try:
                _current.reset(self._token)
            except ValueError:  # entered in another notebook cell or thread
                _current.set(None)
            self._token = None
        self.close()

    def __repr__(self) -> str:
        return f"Context({self.kind!r}, {'open' if self.is_open else 'closed'})"
