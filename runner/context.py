"""Where backfills run: an execution context, and which one is current."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from runner import console
from runner.backfill.executors import Executor, InlineExecutor, RayExecutor
from runner.backfill.pool import ActorPool, Shape
from runner.environment import Environment
from runner.errors import BadInput, RunnerError

if TYPE_CHECKING:
    from runner.backfill.work import Pass
    from runner.jobs import Job
    from runner.local_ray import Origin
    from runner.store import Store
    from runner.worker_setup import WorkerSetup

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
        environment: what workers run in; default: what this process has.
        ray_init_kwargs: for a Ray that is started here.
        store: of the database, where the environment names uploads of it.
        announce: say on stderr that a local Ray starts.

    Raises:
        BadInput: any other cluster; an environment for this process.
    """

    def __init__(
        self,
        cluster: str = "local",
        *,
        environment: Environment | None = None,
        ray_init_kwargs: Mapping[str, Any] | None = None,
        store: Store | None = None,
        announce: bool = False,
    ) -> None:
        if cluster not in ("inline", "local"):
            raise BadInput(f"cluster={cluster!r} is not one of 'inline' (this process) or 'local' (Ray on this machine)")
        if cluster == "inline" and environment is not None:
            raise BadInput(
                "cluster='inline' is this process, which has its environment already; leave manifest and runtime_env out"
            )
        self.kind: Kind = "inline" if cluster == "inline" else "local"
        self.is_open = False
        self._environment = environment or Environment()
        self._ray_init_kwargs = dict(ray_init_kwargs or {})
        self._store = store
        self._announce = announce
        self._origin: Origin | None = None
        self._lock = threading.Lock()
        self._setup: WorkerSetup | None = None
        self._pools: dict[Shape, ActorPool] = {}
        self._jobs: list[Job] = []
        self._token: contextvars.Token[Context | None] | None = None

    def open(self) -> Context:
        """Start or join Ray and begin to start workers, without making this the current context."""
        if self.kind == "local":
            from runner import local_ray

            if self._announce:
                console.say("no context is open: using Ray on this machine for this backfill")
            self._origin = local_ray.join_or_start(self._ray_init_kwargs)
            if self._origin == "started":
                self._start_workers()
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
        self._setup = None
        self._leave()

    def _leave(self) -> None:
        if self._origin is not None:
            from runner import local_ray

            local_ray.leave(self._origin)
            self._origin = None

    def executor(self, settings: Pass, shape: Shape, concurrency: int | None) -> Executor:
        """What runs the tasks of one pass here."""
        if self.kind == "inline":
            return InlineExecutor(settings)
        with self._lock:
            pool = self._pool(shape, settings.store)
        pool.grow(concurrency or pool.capacity() or 1)
        return RayExecutor(pool, settings, concurrency)

    def track(self, job: Job) -> None:
        """Wait for this job before the context closes."""
        self._jobs = [*[known for known in self._jobs if not known.done()], job]

    def _start_workers(self) -> None:
        """As many as fit, before a job asks for them."""
        try:
            pool = self._pool(Shape(), self._store)
            pool.grow(pool.capacity())
        except BaseException:
            self._leave()
            raise

    def _pool(self, shape: Shape, store: Store | None) -> ActorPool:
        if self._setup is None:
            self._setup = self._workers_setup(shape, store)
        if shape not in self._pools:
            self._pools[shape] = ActorPool(shape, self._setup, fixed=self._origin == "started")
        return self._pools[shape]

    def _workers_setup(self, shape: Shape, store: Store | None) -> WorkerSetup:
        from runner import local_ray, worker_setup

        if store is None or self._origin == "started" or local_ray.is_this_machine_alone():
            return worker_setup.for_this_machine(self._environment, store)
        return worker_setup.for_cluster(self._environment, store, local_ray.look_at_worker(shape, worker_setup.REQUIREMENTS))

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
