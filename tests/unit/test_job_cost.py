"""What a job cost, from its history, its cluster's definition and a price table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infra.prices import PriceTable
from infra.spec import KubeRayClusterSpec
from runner.watch.history import COLUMNS, History
from runner.watch.job_cost import job_cost

PRICES: dict[str, Any] = {"source": "a test", "per_cpu": 0.1, "per_gib": 0.0, "per_gpu": {"nvidia.com/gpu": 2}, "currency": "EUR"}
CPU = {"name": "cpu", "cpus": 4, "memory": "8Gi"}
GPU = {"name": "gpu", "kind": "gpu", "cpus": 2, "memory": "8Gi", "gpus": 1}


def history(*tasks: tuple[str, float], seconds: float = 7200) -> History:
    """Tasks by pod and hour of their begin, each on a worker of its own."""
    count = len(tasks)
    columns = {name: np.zeros(count, np.int64) for name in COLUMNS}
    columns |= {"worker": np.arange(count), "start_ms": np.array([round(hour * 3.6e6) for _, hour in tasks])}
    workers = tuple((pod, number) for number, (pod, _) in enumerate(tasks))
    return History("2026-01-31T00:00:00+00:00", seconds, True, columns, workers)


def spec(*groups: dict[str, Any]) -> KubeRayClusterSpec:
    head = {"cpus": 1, "memory": "4Gi"}
    fixed = {"autoscaler": {"enabled": False}}
    return KubeRayClusterSpec.parse({"name": "images", "head_group": head, "worker_groups": list(groups), **fixed})


def test_a_pod_costs_from_its_first_task_to_the_end() -> None:
    found = job_cost(
        history(("images-head-x", 0.5), ("images-cpu-worker-a", 0.5), ("images-cpu-worker-a", 1), ("images-gpu-worker-b", 1)),
        spec(CPU, GPU),
        PriceTable.parse(PRICES),
    )
    assert found.pod_hours == {"head": 2, "cpu": 1.5, "gpu": 1}
    assert found.amount == pytest.approx(2 * 0.1 + 1.5 * 0.4 + 1 * (0.2 + 2))
    assert (found.currency, found.source, found.problem) == ("EUR", "a test", "")


def test_the_only_group_has_pods_of_shortened_names() -> None:
    assert job_cost(history(("es-cpu-wor-a", 1)), spec(CPU), PriceTable.parse(PRICES)).pod_hours == {"head": 2, "cpu": 1}


def test_what_has_no_price_is_unknown_and_says_why() -> None:
    unknown = job_cost(history(("elsewhere", 0)), spec(CPU, GPU), PriceTable.parse(PRICES))
    assert unknown.amount is None
    assert "of pod 'elsewhere' it is not known which group of cluster 'images' it is of; the groups are cpu, gpu" in unknown.problem
    without = PriceTable.parse({**PRICES, "per_gpu": {}})
    assert "per_gpu: 'nvidia.com/gpu' is not in it" in job_cost(history(), spec(GPU), without).problem
