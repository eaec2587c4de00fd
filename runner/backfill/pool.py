"""Ray actors that stay up between the jobs of a context."""

from __future__ import annotations

import collections
import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from runner import console
from runner.backfill import ray_worker
from runner.errors import BadInput, EnvironmentFailed, WorkerLost

if TYPE_CHECKING:
    from runner.backfill.process import Place
    from runner.environments.worker_setup import WorkerSetup
    from runner.shipping import FunctionSpec

NODE_LABEL = "ray.io/node-id"  # on every node, by Ray
MAX_FAILED_STARTS = 3
MAX_SAID = 2000  # characters of an installer's error
_CROSS = "\N{MULTIPLICATION SIGN} "  # what uv puts before an error


@dataclass(frozen=True)
class Shape:
    """What one worker reserves: Ray's logical resources, memory in bytes."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: int = 0

    @classmethod
    def of(cls, specs: Iterable[FunctionSpec]) -> Shape:
        """What a worker that runs all of some functions reserves."""
        given = list(specs)
        return cls(
            num_cpus=max(spec.num_cpus for spec in given),
            num_gpus=max(spec.num_gpus for spec in given),
            memory=max(spec.memory or 0 for spec in given),
        )

    @property
    def resources(self) -> dict[str, float]:
        asked = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": float(self.memory)}
        return {name: amount for name, amount in asked.items() if amount}

    def __str__(self) -> str:
        return ", ".join(f"{amount:g} {name}" for name, amount in self.resources.items()) or "nothing"


class ActorPool:
    """Ray actors of one shape, shared by the jobs of a context.

    Pools that nobody uses make room for one that grows, also those of another context: their actors would else hold the CPUs.

    Args:
        setup: what its workers run in.
        fixed: the cluster cannot grow. Otherwise actors beyond its size are asked for, as an autoscaler answers only to demand.
    """

    _all: ClassVar[weakref.WeakSet[ActorPool]] = weakref.WeakSet()

    def __init__(self, shape: Shape, setup: WorkerSetup, *, fixed: bool) -> None:
        self.shape = shape
        self._setup = setup
        self._users = 0
        self.is_fixed = fixed
        self._lock = threading.Lock()
        self._idle: collections.deque[Any] = collections.deque()
        self._starting: dict[Any, Any] = {}
        self._busy: set[Any] = set()
        self._places: dict[Any, Place] = {}
        self._failed_starts = 0
        self._is_waiting = False
        ActorPool._all.add(self)

    def capacity(self) -> int:
        """How many such actors fit on the nodes that are up and meant for them, empty."""
        return sum(self._fitting(node["Resources"]) for node in self._nodes())

    def _nodes(self) -> list[dict[str, Any]]:
        """The nodes for such actors: without a GPU to use they leave nodes with one alone, while any other has room for one."""
        import ray

        alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        if self.shape.num_gpus:
            return alive
        plain = [node for node in alive if not node["Resources"].get("GPU")]
        return plain if any(self._fitting(node["Resources"]) for node in plain) else alive

    def _avoided(self) -> list[str]:
        """Ids of nodes that are not for such actors."""
        import ray

        meant = {node["NodeID"] for node in self._nodes()}
        return [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in meant]  # type: ignore[no-untyped-call]

    def _fitting(self, resources: dict[str, float]) -> int:
        asked = self.shape.resources or {"CPU": 1.0}
        return int(min(resources.get(name, 0.0) / amount for name, amount in asked.items()))

    def grow(self, wanted: int) -> None:
        """Ask for actors until there are `wanted`, or as many as fit and a few more that show the demand.

        Raises:
            BadInput: not one fits, on a cluster that cannot grow.
        """
        capacity = self.capacity()
        if not capacity and self.is_fixed:
            raise BadInput(
                f"no worker can be placed: one asks for {self.shape}, and no node here has that; lower num_cpus, num_gpus or memory"
            )
        if not capacity and not self._is_waiting:
            console.say(f"no node that is up has room for a worker, which asks for {self.shape}; waiting for one")
        self._is_waiting = not capacity
        for other in list(ActorPool._all):
            if other is not self:
                other.release_idle()
        with self._lock:
            running = len(self._idle) + len(self._busy)
            limit = capacity if self.is_fixed else max(capacity, running) + max(2, running)
            more = min(wanted, limit) - running - len(self._starting)
            avoided = self._avoided() if more > 0 else []
            for _ in range(more):
                actor = _new_actor(self.shape, self._setup, avoided)
                self._starting[actor.ready.remote()] = actor

    def count_user(self, change: int) -> None:
        """A job begins (1) or ends (-1) to use the pool."""
        with self._lock:
            self._users += change

    def starting(self) -> list[Any]:
        """References that resolve when an actor is up."""
        with self._lock:
            return list(self._starting)

    def started(self, ref: Any) -> None:
        """Take in an actor whose `starting` reference resolved.

        Raises:
            WorkerLost: actors die while starting, one after another.
        """
        import ray

        with self._lock:
            actor = self._starting.pop(ref, None)
        if actor is None:
            return
        try:
            place = ray.get(ref)
        except ray.exceptions.RuntimeEnvSetupError as exc:
            raise EnvironmentFailed(
                f"workers cannot be given their environment: {_installer_says(str(exc))}; mend the manifest, or the "
                "runtime_env of the cluster or of the call"
            ) from None
        except ray.exceptions.RayError as exc:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise WorkerLost(
                    f"{self._failed_starts} workers in a row died while starting, the last with: {_last_line(exc)}"
                ) from exc
            return
        self._failed_starts = 0
        with self._lock:
            self._places[actor] = place
            self._idle.append(actor)

    def wait_until_up(self) -> None:
        """Wait for all actors that are starting.

        Raises:
            WorkerLost, EnvironmentFailed: see `started`.
        """
        import ray

        while waiting := self.starting():
            ready, _ = ray.wait(waiting, num_returns=1)
            for ref in ready:
                self.started(ref)

    def take(self) -> Any | None:
        """An idle actor, or None."""
        with self._lock:
            if not self._idle:
                return None
            actor = self._idle.popleft()
            self._busy.add(actor)
            return actor

    def place(self, actor: Any) -> Place | None:
        """Where an actor that is up runs."""
        return self._places.get(actor)

    def give_back(self, actor: Any) -> None:
        with self._lock:
            self._busy.discard(actor)
            self._idle.append(actor)

    def discard(self, actor: Any) -> None:
        """Kill an actor and forget it."""
        import ray

        with self._lock:
            self._busy.discard(actor)
            self._places.pop(actor, None)
        ray.kill(actor)

    def stop_waiting(self) -> None:
        """Withdraw the demand for actors that are not up yet, unless they fit and are only slow to start."""
        if not self.is_fixed:
            with self._lock:
                starting, self._starting = self._starting, {}
            self._kill(starting.values())

    def close(self) -> None:
        with self._lock:
            actors = [*self._idle, *self._busy, *self._starting.values()]
            self._idle.clear()
            self._busy.clear()
            self._starting.clear()
            self._places.clear()
        self._kill(actors)

    def release_idle(self) -> None:
        """Kill the idle actors where no job uses the pool, so that another one finds room."""
        with self._lock:
            if self._users:
                return
            actors = [*self._idle, *self._starting.values()]
            self._idle.clear()
            self._starting.clear()
            self._places.clear()
        self._kill(actors)

    @staticmethod
    def _kill(actors: Any) -> None:
        import ray

        for actor in actors:
            ray.kill(actor)


def _last_line(exc: BaseException) -> str:
    return [line.strip() for line in str(exc).splitlines() if line.strip()][-1]


def _installer_says(text: str) -> str:
    """What pip, uv or conda said from its first error on, out of all that Ray says with it."""
    _, _, output = text.rpartition("lines of stdout:")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    first = next((index for index, line in enumerate(lines) if line.lower().startswith("error") or _CROSS in line), -1)
    return " ".join(lines[first:])[:MAX_SAID]


def _new_actor(shape: Shape, setup: WorkerSetup, avoided: Sequence[str]) -> Any:
    import ray

    options: dict[str, Any] = {"num_cpus": shape.num_cpus, "num_gpus": shape.num_gpus, "max_restarts": 0}
    if shape.memory:
        options["memory"] = shape.memory
    if avoided:
        options["label_selector"] = {NODE_LABEL: f"!in({','.join(avoided)})"}
    if setup.runtime_env:
        options["runtime_env"] = setup.runtime_env
    if setup.source is not None:
        ray.cloudpickle.register_pickle_by_value(ray_worker)  # type: ignore[no-untyped-call]
    return ray.remote(ray_worker.RayWorker).options(**options).remote(setup.values, setup.source)
