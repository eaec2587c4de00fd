"""Start a local Ray without the processes that a backfill has no use for.

``ray.init()`` of ray[default] starts, besides what runs actors, a dashboard head (even with ``include_dashboard=False``), an
autoscaler monitor and an agent with all its modules, and polls once a second for its own node. Measured on 2 cores, from
``import ray`` to two ready actors: 5.5 s by default, 3.5 s without the dashboard, 2.5 s so. Ray has no public option for the
last second, so its internals are replaced while it starts, for the Ray version this was tried with and for no other; every
other version starts as it comes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

TRIED_WITH = "2.60."
NODE_SECONDS = 25.0  # Ray's own limit is 30
POLL_SECONDS = 0.01

_DASHBOARD_MODULES = "ray.dashboard.optional_deps"  # where importing it fails, Ray starts its agent with --minimal


@contextmanager
def lean(*, metrics: bool = False) -> Iterator[None]:
    """Within the block, ``ray.init`` starts what runs actors and shows their output, and nothing else.

    Args:
        metrics: start what exports them too.
    """
    import ray
    import ray._private.parameter as parameter
    import ray._private.services as services

    if not ray.__version__.startswith(TRIED_WITH):
        yield
        return
    undo: list[tuple[Any, str, Any]] = []

    def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, make(getattr(owner, name)))

    hide = not metrics and _DASHBOARD_MODULES not in sys.modules
    try:
        replace(parameter, "RayParams", _without_monitor)
        replace(services, "start_api_server", _without_dashboard)
        replace(services, "get_node", _polling_often)
        if hide:
            sys.modules[_DASHBOARD_MODULES] = None  # type: ignore[assignment]
        yield
    finally:
        if hide:
            sys.modules.pop(_DASHBOARD_MODULES, None)
        for owner, name, original in undo:
            setattr(owner, name, original)


def _without_monitor(original: Any) -> Any:
    def params(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **{"no_monitor": True, **kwargs})

    return params


def _without_dashboard(original: Any) -> Any:
    def start_api_server(*args: Any, **kwargs: Any) -> tuple[None, None]:
        return None, None  # what it returns itself where it starts none

    return start_api_server


def _polling_often(original: Any) -> Any:
    def get_node(gcs_address: str, node_id: str) -> Any:
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        client, end = GcsClient(address=gcs_address), time.monotonic() + NODE_SECONDS
        while time.monotonic() < end and not any(node.hex() == node_id for node in client.get_all_node_info(timeout=5)):
            time.sleep(POLL_SECONDS)
        return original(gcs_address, node_id)

    return get_node
