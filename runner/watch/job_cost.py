"""What the pods of a job cost while it ran, by a price table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from infra.costs import cluster_cost
from infra.errors import BadSpec

if TYPE_CHECKING:
    from infra.prices import PriceTable
    from infra.spec import KubeRayClusterSpec
    from runner.watch.history import History

HEAD = "head"


@dataclass(frozen=True)
class JobCost:
    """What a job cost at least: what its pods cost before and after it, and pods that it had no task on, are not in it.

    Attributes:
        amount: None where it is not known; `problem` says why.
        pod_hours: by group of the cluster.
        source: where the prices are from.
    """

    source: str
    currency: str
    amount: float | None = None
    pod_hours: dict[str, float] | None = None
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def job_cost(history: History, spec: KubeRayClusterSpec, prices: PriceTable) -> JobCost:
    """The cost of a job on a cluster."""
    try:
        hours = pod_hours(history, spec)
        amount = cluster_cost(spec, prices).of_hours(hours)
    except BadSpec as exc:
        return JobCost(prices.source, prices.currency, problem=str(exc))
    return JobCost(prices.source, prices.currency, amount, hours)


def pod_hours(history: History, spec: KubeRayClusterSpec) -> dict[str, float]:
    """Hours of the head, for the whole job, and of each pod that had tasks, from its first one to the job's end; by group.

    Raises:
        BadSpec: of a pod the cluster's definition does not tell the group.
    """
    first: dict[str, float] = {}
    for worker, start in zip(history.tasks["worker"], history.tasks["start_ms"], strict=True):
        first.setdefault(history.workers[worker][0], start / 1000)
    hours = {HEAD: history.seconds / 3600}
    for pod, began in first.items():
        group = _group(pod, spec)
        if group != HEAD:
            hours[group] = hours.get(group, 0.0) + (history.seconds - began) / 3600
    return hours


def _group(pod: str, spec: KubeRayClusterSpec) -> str:
    """The group of a pod by its name, which is ``<cluster>-<group>-worker-<end>`` where KubeRay has not shortened it."""
    if f"-{HEAD}-" in pod:
        return HEAD
    names = sorted((name for name in spec.groups() if name != HEAD), key=len, reverse=True)
    if len(names) == 1:
        return names[0]
    found = next((name for name in names if f"-{name}-worker-" in pod), None)
    if found is None:
        raise BadSpec(
            f"of pod {pod!r} it is not known which group of cluster {spec.name!r} it is of; the groups are {', '.join(names)}"
        )
    return found
