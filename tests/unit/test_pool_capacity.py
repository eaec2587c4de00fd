"""Which nodes count for workers of a shape."""

from __future__ import annotations

from typing import Any

import pytest

from runner.backfill.pool import ActorPool, Shape
from runner.environments.environment import Environment
from runner.environments.worker_setup import for_this_machine

CPU = {"NodeID": "a", "Alive": True, "Resources": {"CPU": 2.0, "memory": 1e9}}
GPU = {"NodeID": "b", "Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0, "memory": 1e9}}
DEAD = {"NodeID": "c", "Alive": False, "Resources": {"CPU": 64.0}}


@pytest.mark.parametrize(
    ("nodes", "shape", "capacity"),
    [
        ([CPU, GPU, DEAD], Shape(), 2),
        ([CPU, GPU], Shape(num_cpus=4), 1),
        ([GPU], Shape(), 4),
        ([CPU, GPU], Shape(num_gpus=0.25), 4),
        ([CPU, GPU], Shape(num_cpus=0.5, num_gpus=0.5), 4),
        ([CPU, GPU], Shape(num_gpus=4), 0),
    ],
    ids=["plain-nodes", "only-room", "workstation", "shared-gpu", "half-gpus", "too-many-gpus"],
)
def test_capacity(monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, Any]], shape: Shape, capacity: int) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert ActorPool(shape, for_this_machine(Environment(), None), fixed=True).capacity() == capacity
