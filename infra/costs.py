"""What a cluster costs: the pods of its groups, by a price table. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from infra.errors import BadSpec
from infra.groups import Group, Requests, WorkerGroup
from infra.kubernetes_names import parsed
from infra.prices import NodePrice, PriceTable
from infra.spec import KubeRayClusterSpec

GIB = Decimal(2**30)


@dataclass(frozen=True)
class GroupCost:
    """One group of a cluster.

    Attributes:
        name: ``head``, or a worker group's.
        priced_by: the node type, or ``cpu, memory``, with ``gpu`` where it has any.
        per_pod: of one pod an hour.
        pods_min, pods_max: how many there are at least and at most.
        pods_now: how many there are; None where that is not known.
    """

    name: str
    priced_by: str
    per_pod: float
    pods_min: int
    pods_max: int
    pods_now: int | None = None

    @property
    def per_hour_min(self) -> float:
        return self.pods_min * self.per_pod

    @property
    def per_hour_max(self) -> float:
        return self.pods_max * self.per_pod

    @property
    def per_hour_now(self) -> float | None:
        return None if self.pods_now is None else self.pods_now * self.per_pod


@dataclass(frozen=True)
class ClusterCost:
    """What a cluster costs an hour, by group; the head first."""

    groups: tuple[GroupCost, ...]
    currency: str

    @property
    def per_hour_min(self) -> float:
        return sum(group.per_hour_min for group in self.groups)

    @property
    def per_hour_max(self) -> float:
        return sum(group.per_hour_max for group in self.groups)

    @property
    def per_hour_now(self) -> float | None:
        """None where it is not known of a group."""
        known = [group.per_hour_now for group in self.groups]
        return None if None in known else sum(cost or 0.0 for cost in known)

    def of_hours(self, pod_hours: Mapping[str, float]) -> float:
        """What so many pod hours of each group cost.

        Args:
            pod_hours: by group; ``{"head": 2.0, "gpu": 8.0}`` is two hours with four workers.

        Raises:
            BadSpec: a group that the cluster does not have.
        """
        prices = {group.name: group.per_pod for group in self.groups}
        unknown = next((name for name in pod_hours if name not in prices), None)
        if unknown is not None:
            raise BadSpec(f"the cluster has no group {unknown!r}; it has {', '.join(prices)}")
        return sum(hours * prices[name] for name, hours in pod_hours.items())


def cluster_cost(spec: KubeRayClusterSpec, prices: PriceTable, pods_now: Mapping[str, int] | None = None) -> ClusterCost:
    """What a cluster costs an hour.

    A pod costs what it reserves: its requests, as Kubernetes' cost models (OpenCost's, say) count a pod that uses no more. What
    a node has left over costs extra and is in no price here, nor are storage, traffic, and what `overrides` change of a pod.

    Args:
        pods_now: how many pods each group has, where that is known.

    Raises:
        BadSpec: the table has no price for a group; with the field to add.
    """
    groups = []
    for name, group in spec.groups().items():
        least, most = pod_bounds(spec, group)
        priced_by, per_pod = _per_pod(spec, name, group, prices)
        now = None if pods_now is None else pods_now.get(name, 0)
        groups.append(GroupCost(name, priced_by, per_pod, least, most, now))
    return ClusterCost(tuple(groups), prices.currency)


def pod_bounds(spec: KubeRayClusterSpec, group: Group) -> tuple[int, int]:
    """How many pods a group of a cluster has at least and at most."""
    if spec.suspend:
        return 0, 0
    if not isinstance(group, WorkerGroup):
        return 1, 1
    if not spec.autoscaler.enabled:
        count = 1 if group.replicas is None else group.replicas
        return count, count
    return group.min_replicas, group.max_replicas


def _per_pod(spec: KubeRayClusterSpec, name: str, group: Group, prices: PriceTable) -> tuple[str, float]:
    """What a pod of a group is priced by, and its price an hour."""
    where = "head_group" if name == "head" else f"worker_groups.{name}"
    cpus, memory = _reserved(group.requests, group.cpus, group.memory)
    if name == "head" and spec.autoscaler.enabled:
        options = spec.autoscaler
        beside = _reserved(options.requests, options.cpus, options.memory)
        cpus, memory = cpus + beside[0], memory + beside[1]
    node_type = prices.node_type_of(group, where)
    if node_type is not None:
        return node_type, _share_of_node(prices.node_types[node_type], node_type, group, where, cpus, memory)
    for field, price in (("per_cpu", prices.per_cpu), ("per_gib", prices.per_gib)):
        if price is None:
            raise BadSpec(
                f"prices: {field}: it is not given, and no node type fits {where}; give it, or give the group a node_selector "
                "with the labels of a node type"
            )
    gpus = group.gpus * prices.gpu_price(group, where) if group.gpus else 0.0
    total = float(cpus) * (prices.per_cpu or 0.0) + float(memory / GIB) * (prices.per_gib or 0.0) + gpus
    return "cpu, memory, gpu" if group.gpus else "cpu, memory", total


def _share_of_node(node: NodePrice, node_type: str, group: Group, where: str, cpus: Decimal, memory: Decimal) -> float:
    if node.cpus is None or node.memory is None:
        return node.per_hour
    if group.gpus and not node.gpus:
        raise BadSpec(f"prices: node_types.{node_type}.gpus: it is 0, and {where} asks for {group.gpus}; give what a node has")
    shares = {"cpus": cpus / parsed(node.cpus), "memory": memory / parsed(node.memory)}
    if group.gpus:
        shares["gpus"] = Decimal(group.gpus) / node.gpus
    field, share = max(shares.items(), key=lambda item: item[1])
    if share > 1:
        raise BadSpec(
            f"prices: node_types.{node_type}.{field}: a node has less than a pod of {where} asks for; "
            "correct it, or give the group a node_selector of a larger type"
        )
    return node.per_hour * float(share)


def _reserved(requests: Requests | None, cpus: str, memory: str) -> tuple[Decimal, Decimal]:
    """CPUs and bytes that the scheduler sets aside: the requests, otherwise the limits."""
    asked_cpus, asked_memory = (requests.cpus, requests.memory) if requests else (None, None)
    return parsed(asked_cpus or cpus), parsed(asked_memory or memory)
