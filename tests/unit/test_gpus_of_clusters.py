"""A function that asks for more GPUs than any worker of a cluster has is refused before anything is sent there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import runner
from infra.spec import KubeRayClusterSpec
from runner.environments.environment import Environment
from runner.errors import BadInput
from runner.remote.cluster_context import ClusterContext
from runner.remote.places import Standing
from runner.table import Table
from runner.targets import Request

GROUPS: list[Any] = [{"name": "cpu"}, {"name": "gpu", "gpus": 2}]


def embed(x: int) -> int:
    return x


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return runner.connect(tmp_path / "db").create_table("t", pa.table({"x": [1]}))


def context_on(table: Table, groups: list[Any]) -> ClusterContext:
    spec = KubeRayClusterSpec(name="images", worker_groups=groups)
    return ClusterContext(table.connection.store, Standing(spec.name, spec), Environment())


def test_more_gpus_than_any_worker_has(table: Table) -> None:
    table.add_columns({"y": runner.udf(num_gpus=2.5)(embed)})
    message = r"num_gpus=2.5 of embed for column 'y': no worker of cluster 'images' has more than 2; .* group with gpus: 3"
    with pytest.raises(BadInput, match=message):
        context_on(table, GROUPS).job(table, Request(("y",)))
    with pytest.raises(BadInput, match="has more than 0"):
        context_on(table, GROUPS[:1]).job(table, Request(("y",)))
    assert table.connection.jobs() == []


def test_as_many_as_the_largest_group_has(table: Table) -> None:
    table.add_columns({"y": runner.udf(num_gpus=2)(embed)})
    assert context_on(table, GROUPS).job(table, Request(("y",))).job_id


def test_what_an_address_has_is_not_known(table: Table) -> None:
    table.add_columns({"y": runner.udf(num_gpus=8)(embed)})
    context = ClusterContext(table.connection.store, Standing("images", "http://127.0.0.1:8265"), Environment())
    assert context.job(table, Request(("y",))).job_id
