"""Ray clusters on Kubernetes, as data and as Pulumi components.

>>> import infra
>>> spec = infra.Cluster.create_kuberay("dev").namespace("ray").build()
>>> infra.ray_cluster_body(spec)["kind"]
'RayCluster'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infra.backfill_resources import backfill_resources
    from infra.backfill_spec import BackfillSpec
    from infra.body import ray_cluster_body
    from infra.builder import (
        Cluster,
        ExternalRayClusterBuilder,
        GenevaCluster,
        KubeRayClusterBuilder,
        LocalRayClusterBuilder,
    )
    from infra.costs import ClusterCost, cluster_cost
    from infra.errors import BadSpec, InfraError, NotAllowed
    from infra.groups import HeadGroup, WorkerGroup
    from infra.job import BackfillArgs, BackfillJob, BackfillSchedule
    from infra.parts import K8sConfigMethod, UpgradeStrategy
    from infra.prices import PriceTable, find_prices, read_prices
    from infra.rayimage import RayImage, RayImageArgs
    from infra.spec import ClusterSpec, ExternalClusterSpec, KubeRayClusterSpec, LocalClusterSpec, parse_spec

_HOMES = {
    "BackfillArgs": "infra.job",
    "BackfillJob": "infra.job",
    "BackfillSchedule": "infra.job",
    "BackfillSpec": "infra.backfill_spec",
    "BadSpec": "infra.errors",
    "Cluster": "infra.builder",
    "ClusterCost": "infra.costs",
    "ClusterSpec": "infra.spec",
    "ExternalClusterSpec": "infra.spec",
    "ExternalRayClusterBuilder": "infra.builder",
    "GenevaCluster": "infra.builder",
    "HeadGroup": "infra.groups",
    "InfraError": "infra.errors",
    "K8sConfigMethod": "infra.parts",
    "KubeRayClusterBuilder": "infra.builder",
    "KubeRayClusterSpec": "infra.spec",
    "LocalClusterSpec": "infra.spec",
    "LocalRayClusterBuilder": "infra.builder",
    "NotAllowed": "infra.errors",
    "PriceTable": "infra.prices",
    "RayImage": "infra.rayimage",
    "RayImageArgs": "infra.rayimage",
    "UpgradeStrategy": "infra.parts",
    "WorkerGroup": "infra.groups",
    "backfill_resources": "infra.backfill_resources",
    "cluster_cost": "infra.costs",
    "find_prices": "infra.prices",
    "parse_spec": "infra.spec",
    "ray_cluster_body": "infra.body",
    "read_prices": "infra.prices",
}

__all__ = [
    "BackfillArgs",
    "BackfillJob",
    "BackfillSchedule",
    "BackfillSpec",
    "BadSpec",
    "Cluster",
    "ClusterCost",
    "ClusterSpec",
    "ExternalClusterSpec",
    "ExternalRayClusterBuilder",
    "GenevaCluster",
    "HeadGroup",
    "InfraError",
    "K8sConfigMethod",
    "KubeRayClusterBuilder",
    "KubeRayClusterSpec",
    "LocalClusterSpec",
    "LocalRayClusterBuilder",
    "NotAllowed",
    "PriceTable",
    "RayImage",
    "RayImageArgs",
    "UpgradeStrategy",
    "WorkerGroup",
    "backfill_resources",
    "cluster_cost",
    "find_prices",
    "parse_spec",
    "ray_cluster_body",
    "read_prices",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: pydantic takes a tenth of a second, Pulumi a whole one."""
    if name not in _HOMES:
        raise AttributeError(f"module 'infra' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
