"""A client that kills itself at one point of a cluster's life: ``killed_client.py DATABASE SPEC.json POINT TTL``.

It prints what it says, and dies by SIGKILL.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from infra.kube import Kubernetes, access_of, run
from infra.live import clusters_path
from infra.spec import KubeRayClusterSpec, parse_spec
from runner.provision import life, removal, stack
from runner.provision.record import Records
from runner.store import Store

POINTS = (
    "leased",
    "locked",
    "recorded",
    "owner made",
    "stack made",
    "program begun",
    "raycluster seen",
    "declared",
    "waiting",
    "serving",
    "removal begun",
    "objects gone",
    "state gone",
)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> None:
    """Die instead of calling it."""
    setattr(owner, name, lambda *args, **kwargs: die())


def after(owner: Any, name: str, when: Callable[..., bool] = lambda *args: True) -> None:
    """Die once it has returned."""
    inner = getattr(owner, name)

    def called(*args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        if when(*args):
            die()
        return result

    setattr(owner, name, called)


def die_when_seen(spec: KubeRayClusterSpec) -> None:
    def watch() -> None:
        kube = run(Kubernetes.connect(access_of(spec)))
        while run(kube.get(f"{clusters_path(spec.namespace)}/{spec.name}")) is None:
            time.sleep(0.01)
        die()

    threading.Thread(target=watch, daemon=True).start()


def arm(point: str, spec: KubeRayClusterSpec) -> None:
    import pulumi.automation

    arming: dict[str, Callable[[], None]] = {
        "leased": lambda: before(life, "cluster_lock"),
        "locked": lambda: before(life, "_usable"),
        "recorded": lambda: after(Records, "put"),
        "owner made": lambda: before(life, "ClusterStack"),
        "stack made": lambda: before(pulumi.automation.Stack, "up"),
        "program begun": lambda: before(stack, "_declare"),
        "raycluster seen": lambda: die_when_seen(spec),
        "declared": lambda: after(stack.ClusterStack, "make"),
        "waiting": lambda: None,
        "serving": lambda: None,
        "removal begun": lambda: after(Records, "put", lambda _, record: record.state == "removing"),
        "objects gone": lambda: before(removal, "_forget"),
        "state gone": lambda: before(Records, "delete"),
    }
    arming[point]()


def main(database: str, plain: str, point: str, time_to_live: str) -> None:
    spec = parse_spec(json.loads(plain))
    assert isinstance(spec, KubeRayClusterSpec)
    arm(point, spec)

    def say(text: str) -> None:
        print(text, flush=True)
        if point == "waiting" and "waiting for" in text:
            die()

    made = life.up(Store(database), spec, time_to_live=float(time_to_live), say=say)
    if point == "serving":
        die()
    life.release(made, say=say)


if __name__ == "__main__":
    main(*sys.argv[1:])
