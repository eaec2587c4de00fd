"""Start, join and stop Ray for a context."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from runner.errors import RunnerError
from runner.lean_ray import lean

Origin = Literal["started", "joined", "already initialised"]


def join_or_start() -> Origin:
    """Make Ray usable in this process: the one that is initialised, else the one at RAY_ADDRESS, else a new local one.

    A new one goes without the dashboard and the state API, which cost as much start-up as all the rest; initialise Ray
    yourself to have them.
    """
    import ray

    if ray.is_initialized():
        return "already initialised"
    with _handlers_kept(), _quiet_forks():
        if os.environ.get("RAY_ADDRESS"):
            try:
                ray.init(logging_level=logging.ERROR)
            except ConnectionError as exc:
                raise RunnerError(
                    f"RAY_ADDRESS is {os.environ['RAY_ADDRESS']!r}, and no Ray there lets us in: {exc}. Unset it to run on this "
                    "machine; where that Ray asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
                ) from exc
            return "joined"
        with lean():
            ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR)
        return "started"


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
