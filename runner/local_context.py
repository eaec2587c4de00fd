"""Backfills that this process drives: in itself, or on a Ray that it starts or joins."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from runner import console
from runner.backfill.executors import Executor, InlineExecutor, RayExecutor, cause
from runner.backfill.pool import ActorPool, Shape
from runner.context import Context
from runner.environments.environment import Environment
from runner.errors import BadInput, RunnerError, WorkerLost
from runner.jobs import Job
from runner.watch import settings

if TYPE_CHECKING:
    from runner.backfill.sample import Sample
    from runner.backfill.work import FragmentWork, Pass
    from runner.environments.worker_setup import WorkerSetup
    from runner.local_ray import Origin
    from runner.store import Store
    from runner.table import Table
    from runner.targets import Request

Kind = Literal["inline", "local"]


class LocalContext(Context):
    """A context whose driver is this process.

    Args:
        cluster: ``"inline"`` is this process; ``"local"`` is Ray on this machine. A Ray that is already initialised in this
            process, or that RAY_ADDRESS names, is joined instead of starting one, and is never stopped.
        environment: what workers run in; default: what this process has.
        uploads: what `runner.environments.worker_setup.uploads` gave before; the workers are then on other machines.
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
        uploads: Mapping[str, Any] | None = None,
        ray_init_kwargs: Mapping[str, Any] | None = None,
        store: Store | None = None,
        announce: bool = False,
    ) -> None:
        super().__init__()
        if cluster not in ("inline", "local"):
            raise BadInput(f"cluster={cluster!r} is not one of 'inline' (this process) or 'local' (Ray on this machine)")
        if cluster == "inline" and environment is not None:
            raise BadInput(
                "cluster='inline' is this process, which has its environment already; leave manifest and runtime_env out"
            )
        self.kind: Kind = "inline" if cluster == "inline" else "local"
        self._environment = environment or Environment()
        self._uploads = uploads
        self._ray_init_kwargs = dict(ray_init_kwargs or {})
        self._store = store
        self._announce = announce
        self._origin: Origin | None = None
        self._lock = threading.Lock()
        self._setup: WorkerSetup | None = None
        self._pools: dict[Shape, ActorPool] = {}

    def open(self) -> LocalContext:
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

    @property
    def exports_metrics(self) -> bool:
        """Whether the Ray here exports metrics: one that was there before, unless it is said otherwise."""
        asked = settings.metrics()
        return self._origin != "started" if asked is None else asked

    def close(self, failure: BaseException | None = None) -> None:
        """Wait for the jobs started inside, stop the workers, and stop Ray where this context started it."""
        self.wait_for_jobs()
        self.is_open = False
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        self._setup = None
        self._leave()

    def job(self, table: Table, request: Request) -> Job:
        """A backfill that runs here; not started yet."""
        return Job(table, request, self)

    def executor(self, settings: Pass, shape: Shape, concurrency: int | None) -> Executor:
        """What runs the tasks of one pass here."""
        if self.kind == "inline":
            return InlineExecutor(settings)
        with self._lock:
            pool = self._pool(shape, settings.store)
        pool.grow(concurrency or pool.capacity() or 1)
        return RayExecutor(pool, settings, concurrency)

    def sample(
        self, settings: Pass, works: Sequence[FragmentWork], concurrency: int | None, rows: int | None, seconds: float
    ) -> list[Sample]:
        """What rows take on each worker that a pass would have, all of them at once; see `runner.backfill.sample.sample`.

        Args:
            rows: of all workers together.

        Raises:
            WorkerLost: the function killed one.
        """
        from runner.backfill.sample import sample

        if self.kind == "inline":
            return [sample(settings, works, rows, seconds)]
        with self._lock:
            pool = self._pool(Shape.of(column.spec for column in settings.columns), settings.store)
        pool.count_user(1)
        try:
            return _sampled(pool, settings, works, concurrency, rows, seconds)
        finally:
            pool.count_user(-1)

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
        from runner import local_ray
        from runner.environments import worker_setup
        from runner.environments.own_requirements import REQUIREMENTS

        if store is None or self._origin == "started" or (self._uploads is None and local_ray.is_this_machine_alone()):
            return worker_setup.for_this_machine(self._environment, store)
        found = local_ray.look_at_worker(shape, REQUIREMENTS)
        if self._uploads is not None:
            return worker_setup.on_workers(self._environment, store, self._uploads, found)
        return worker_setup.for_cluster(self._environment, store, found)

    def _leave(self) -> None:
        if self._origin is not None:
            from runner import local_ray

            local_ray.leave(self._origin)
            self._origin = None


def _sampled(
    pool: ActorPool, settings: Pass, works: Sequence[FragmentWork], concurrency: int | None, rows: int | None, seconds: float
) -> list[Sample]:
    room = pool.capacity() or 1
    most = min(concurrency or room, room)
    pool.grow(most)
    pool.wait_until_up()
    actors = [actor for _ in range(most) if (actor := pool.take()) is not None]
    if not actors:
        raise BadInput("all workers of this context are busy; sample when its jobs are done, or without the context")
    shared = dataclasses.replace(settings, workers=len(actors))
    share = None if rows is None else -(-rows // len(actors))
    parts = [works[number :: len(actors)] or works[:1] for number in range(len(actors))]
    refs = [actor.sample.remote(shared, part, share, seconds) for actor, part in zip(actors, parts, strict=True)]
    answers = [_answer(pool, actor, ref) for actor, ref in zip(actors, refs, strict=True)]
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return [answer for answer in answers if not isinstance(answer, Exception)]


def _answer(pool: ActorPool, actor: Any, ref: Any) -> Sample | Exception:
    """What a worker measured, or what became of it; it goes back to the pool where it lives."""
    import ray

    try:
        found: Sample = ray.get(ref)
    except ray.exceptions.RayTaskError as exc:
        pool.give_back(actor)
        return exc.cause if isinstance(exc.cause, RunnerError) else exc
    except ray.exceptions.RayError as exc:
        pool.discard(actor)
        return WorkerLost(f"a worker died in the sample: {cause(exc)}")
    pool.give_back(actor)
    return found
