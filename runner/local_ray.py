"""Start, join and stop Ray for a context."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from runner import console
from runner.errors import BadInput, RunnerError
from runner.lean_ray import lean
from runner.watch import settings

if TYPE_CHECKING:
    from runner.backfill.pool import Shape

Origin = Literal["started", "joined", "already initialised"]


def join_or_start(ray_init_kwargs: Mapping[str, Any]) -> Origin:
    """Make Ray usable in this process: the one that is initialised, else the one at RAY_ADDRESS, else a new local one.

    A new one goes without the dashboard and the state API, which cost as much start-up as all the rest; ask for them with
    ``include_dashboard``, or initialise Ray yourself.

    Args:
        ray_init_kwargs: for a new one.

    Raises:
        BadInput: Ray does not take them; INFILL_METRICS is neither 0 nor 1.
        RunnerError: no Ray at RAY_ADDRESS, or not one for this client.
    """
    import ray

    wanted = {name: value for name, value in ray_init_kwargs.items() if name != "runtime_env"}
    if wanted and (ray.is_initialized() or os.environ.get("RAY_ADDRESS")):
        console.say(f"ray_init_kwargs: {', '.join(wanted)} have no effect: Ray runs already, and it is joined")
    if ray.is_initialized():
        return "already initialised"
    with _handlers_kept(), _quiet_forks():
        if os.environ.get("RAY_ADDRESS"):
            try:
                ray.init(logging_level=logging.ERROR, log_to_driver=not settings.logs_json())
            except (ConnectionError, RuntimeError) as exc:  # the latter of another Ray or Python version there
                raise RunnerError(
                    f"RAY_ADDRESS is {os.environ['RAY_ADDRESS']!r}, and no Ray there lets us in: {exc}. Unset it to run on this "
                    "machine; where that Ray asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
                ) from exc
            return "joined"
        quiet = {"logging_level": logging.ERROR, "log_to_driver": not settings.logs_json()}  # Ray puts words before workers' lines
        options = {"include_dashboard": False, **quiet, **wanted}
        try:
            with nullcontext() if options["include_dashboard"] else lean(metrics=settings.metrics() is True):
                ray.init(address="local", **options)
        except (TypeError, RuntimeError, ValueError) as exc:
            if not wanted:
                raise
            raise BadInput(f"ray_init_kwargs: Ray does not take {wanted}: {exc}") from exc
        return "started"


def is_this_machine_alone() -> bool:
    """Whether all of the Ray that this process is connected to is the node it is on, so that workers find what it finds.

    A head that runs no work of its own waits for other nodes.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    own = ray.get_runtime_context().get_node_id()
    return len(alive) == 1 and alive[0]["NodeID"] == own and bool(alive[0]["Resources"].get("CPU"))


def look_at_worker(shape: Shape, distributions: Sequence[str]) -> dict[str, Any]:
    """What a worker of a shape finds; see `runner.backfill.ray_worker.look`. Waits for a node that has room for it."""
    import ray

    from runner.backfill import ray_worker

    ray.cloudpickle.register_pickle_by_value(ray_worker)  # type: ignore[no-untyped-call]
    options: dict[str, Any] = {"num_cpus": shape.num_cpus, "num_gpus": shape.num_gpus}
    if shape.memory:
        options["memory"] = shape.memory
    found: dict[str, Any] = ray.get(ray.remote(ray_worker.look).options(**options).remote(list(distributions)))
    return found


def leave(origin: Origin) -> None:
    """Stop a Ray that was started here, disconnect from one that was joined, leave one that was already initialised."""
    import ray

    if origin == "already initialised":
        return
    with _handlers_kept():
        ray.shutdown()


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray replaces the process's SIGTERM handler and does not put it back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextmanager
def _quiet_forks() -> Iterator[None]:
    """Lance warns at each fork of a process that imported it; Ray's forks exec at once, which is safe."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="lance is not fork-safe")
        yield
