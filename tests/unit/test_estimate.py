"""From a sample to a time, workers and pods: the arithmetic."""

from __future__ import annotations

from typing import Any

import pytest

from infra.spec import KubeRayClusterSpec
from runner.backfill.pool import Shape
from runner.backfill.sample import Sample
from runner.backfill.selection import ColumnState
from runner.backfill.work import FragmentWork
from runner.cli.plans import sample_size
from runner.errors import BadInput
from runner.estimate import TASK_SECONDS, Workers, compute_seconds
from runner.estimating import SampleSize, workers_of_cluster


def works(*rows: int) -> list[FragmentWork]:
    return [FragmentWork(number, ("y",), ColumnState(None, None), count, f"f{number}") for number, count in enumerate(rows)]


def sampled(row: float, *, cpu: float = 0.0, work: float = 0.0) -> Sample:
    return Sample(100, 0, 0.0, row, cpu, work, 8.0, 1.0)


def seconds(rows: list[int], samples: list[Sample], workers: int, **options: Any) -> float:
    given = {"cpus": None, "rate_limit": None, **options}
    return compute_seconds(works(*rows), samples, Workers(workers, "here", workers), **given)


def test_the_busiest_worker_counts() -> None:
    assert seconds([100, 100, 100], [sampled(0.1)], 1) == pytest.approx(30 + 3 * TASK_SECONDS)
    assert seconds([100, 100, 100, 100], [sampled(0.1)], 2) == pytest.approx(20 + 2 * TASK_SECONDS)
    assert seconds([100, 100], [sampled(0.1), sampled(0.3)], 2) == pytest.approx(
        20 + TASK_SECONDS
    )  # the mean of what both measured
    assert seconds([10, 10], [sampled(0.1, work=2.0)], 1) == pytest.approx(6 + 2 * TASK_SECONDS)


def test_threads_do_not_help_a_worker_with_fewer_cpus() -> None:
    alone = [sampled(0.1, cpu=0.4)]
    assert seconds([100], alone, 1) == pytest.approx(10 + TASK_SECONDS)
    assert seconds([100], alone, 1, cpus=2.0) == pytest.approx(20 + TASK_SECONDS)
    assert seconds([100], alone, 1, cpus=8.0) == pytest.approx(10 + TASK_SECONDS)


def test_a_rate_limit_holds_over_all_workers() -> None:
    assert seconds([100] * 8, [sampled(0.01)], 8, rate_limit=20.0) == pytest.approx(40)
    assert seconds([100] * 8, [sampled(0.5)], 8, rate_limit=20.0) == pytest.approx(50 + TASK_SECONDS)


CLUSTER: dict[str, Any] = {
    "name": "c",
    "worker_groups": [
        {"name": "gpu", "gpus": 4, "cpus": 8, "memory": "64Gi", "max_replicas": 2},
        {"name": "cpu", "cpus": 4, "memory": "10Gi", "max_replicas": 3, "min_replicas": 1},
    ],
}


def workers(shape: Shape, *, rows: int = 1000, concurrency: int | None = None, **spec: Any) -> Workers:
    return workers_of_cluster(KubeRayClusterSpec.parse({**CLUSTER, **spec}), shape, works(*[rows] * 64), concurrency)


def test_pods_with_gpus_are_for_those_who_need_them() -> None:
    few = workers(Shape(), concurrency=6)
    assert (few.count, few.at_start, few.pods, few.gpus) == (6, 4, {"head": 1, "gpu": 0, "cpu": 2}, 0)
    many = workers(Shape(), concurrency=20)
    assert (many.count, many.pods, many.gpus) == (20, {"head": 1, "gpu": 1, "cpu": 3}, 4)
    halves = workers(Shape(num_gpus=0.5), concurrency=5)
    assert (halves.count, halves.pods, halves.gpus) == (5, {"head": 1, "gpu": 1, "cpu": 1}, 4)


def test_a_cluster_that_starts_with_no_worker_is_used_to_its_bounds() -> None:
    """64 fragments and room for 16: the driver leaves tasks for those that join later."""
    assert workers(Shape(num_gpus=0.5)).count == 16
    kept = [{**CLUSTER["worker_groups"][0], "min_replicas": 1}]
    assert workers(Shape(num_gpus=0.5), worker_groups=kept).count == 16


def test_what_ray_lends_of_a_pods_memory_bounds_its_workers() -> None:
    assert workers(Shape(memory=7 << 30), concurrency=3).pods == {"head": 1, "gpu": 0, "cpu": 3}  # 7 of 10 GiB, so one each


def test_no_more_workers_than_tasks() -> None:
    made = workers_of_cluster(KubeRayClusterSpec.parse(CLUSTER), Shape(), works(1, 1), None)
    assert (made.count, made.pods) == (2, {"head": 1, "gpu": 0, "cpu": 1})


def test_a_worker_that_fits_nowhere() -> None:
    with pytest.raises(BadInput, match=r"no worker can be placed on cluster 'c': one asks for 64 CPU, and no group has that"):
        workers(Shape(num_cpus=64))


def test_how_much_to_sample() -> None:
    assert sample_size("1000").rows == 1000
    assert sample_size("2.5s") == SampleSize(None, 2.5)
    for text in ("0", "0s", "2m", "-1", ""):
        with pytest.raises(BadInput, match="sample"):
            sample_size(text)
