"""Before and after a change of a running cluster: what it does to pods and jobs, whether it may, and when the old one may go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from infra import labels
from infra.body import ray_cluster_body
from infra.changes import plan_upgrade, with_old_pods
from infra.errors import InfraError
from infra.kube import Access, Kubernetes
from infra.live import LiveCluster, clusters_path, find_all, pods_of, running_jobs
from infra.preflight import check_rights, find_operator
from infra.spec import KubeRayClusterSpec
from infra.support import Operator, check_supported
from infra.wait import expected_of

PAUSE = 2.0
DRAIN_SECONDS = 3600.0
"""How long `up` waits for the jobs of a cluster that another has taken over from."""

Say = Callable[[str], None]


class JobsRunning(InfraError):
    """A change would end jobs that run."""


async def inspect(
    access: Access,
    spec: KubeRayClusterSpec,
    operator: Operator | None,
    *,
    stack: str,
    adopt: bool,
    may_end_jobs: bool,
    say: Say,
    warn: Say,
) -> LiveCluster | None:
    """Say what declaring `spec` does to the cluster that runs, and refuse it where that cannot be, or would end jobs.

    Args:
        operator: the KubeRay that will run. Default: the one that runs is looked at.
        stack: value of the label `labels.STACK` of what the stack that runs has made.
        adopt: take over a cluster that the stack has not made.
        may_end_jobs: only warn of jobs that the change would end: it is forced, or this is a preview.

    Returns:
        The cluster that runs now, None where there is none.

    Raises:
        JobsRunning: jobs run, and not `may_end_jobs`.
        InfraError: KubeRay is not there or does not have what the spec asks for; rights are missing; the cluster is another's.
    """
    kube = await Kubernetes.connect(access)
    await _check_once(kube, spec.namespace)
    if operator is None:
        check_supported(ray_cluster_body(spec), await _operator_once(kube))
    found = await find_all(kube, spec)
    if not found:
        return None
    live = found[0]
    if not adopt:
        _check_owner(live, stack)
    upgrade = plan_upgrade(spec, live.body)
    if not upgrade.new_cluster:
        expected = expected_of(spec, ray_cluster_body(spec))
        upgrade = with_old_pods(upgrade, expected, await pods_of(kube, live.namespace, live.name))
    if not upgrade.changes and not upgrade.new_cluster and not upgrade.disrupts:
        return live
    why = "" if upgrade.changes else ", which an earlier change left as they were"
    say(f"cluster {spec.name}: {upgrade.describe()}{why}\n" + "\n".join(f"  {change}" for change in upgrade.changes))
    if upgrade.disrupts:
        await _spare_jobs(kube, live, f"this change ({upgrade.describe()})", may_end_jobs, warn)
    return live


def _check_owner(live: LiveCluster, stack: str) -> None:
    owner = live.body["metadata"].get("labels", {}).get(labels.STACK)
    if owner != stack:
        whose = f"the stack {owner} made it" if owner else "no stack of Infill made it"
        raise InfraError(
            f"cluster {live.name} exists already in namespace {live.namespace}, and {whose}. Give this one another name, or take "
            f"that one over: infill:adopt: [{live.name}]"
        )


async def inspect_removed(access: Access, namespace: str, stack: str, declared: set[str], *, may_end_jobs: bool, warn: Say) -> None:
    """Refuse to remove a cluster that a stack made in a namespace and declares no more, while jobs run on it.

    Args:
        stack: value of the label `labels.STACK`.
        declared: names of the specs that the stack still declares.

    Raises:
        JobsRunning: jobs run, and not `may_end_jobs`.
    """
    kube = await Kubernetes.connect(access)
    await _check_once(kube, namespace)
    bodies = await kube.list(clusters_path(namespace), labelSelector=f"{labels.STACK}={stack}")
    for live in map(LiveCluster.of, bodies):
        if live.body["metadata"]["labels"].get(labels.CLUSTER) not in declared:
            await _spare_jobs(kube, live, "its removal", may_end_jobs, warn)


async def _spare_jobs(kube: Kubernetes, live: LiveCluster, what: str, may_end_jobs: bool, warn: Say) -> None:
    jobs = await running_jobs(kube, live)
    if not jobs:
        return
    problem = f"cluster {live.name} runs {len(jobs)} jobs, which {what} ends: {', '.join(jobs)}"
    if not may_end_jobs:
        raise JobsRunning(
            f"{problem}. Wait for them, choose upgrade_strategy: NewCluster, or force it: pulumi config set infill:force true"
        )
    warn(problem)


_may_declare: set[tuple[Access, str]] = set()
_operators: dict[Access, Operator] = {}


async def _check_once(kube: Kubernetes, namespace: str) -> None:
    """The rights, once a namespace: a program may declare a hundred clusters."""
    if (kube.access, namespace) not in _may_declare:
        await check_rights(kube, namespace)
        _may_declare.add((kube.access, namespace))


async def _operator_once(kube: Kubernetes) -> Operator:
    if kube.access not in _operators:
        _operators[kube.access] = await find_operator(kube)
    return _operators[kube.access]


async def drain(access: Access, spec: KubeRayClusterSpec, cluster: str, *, say: Say) -> None:
    """Wait for the jobs of the clusters of `spec` other than `cluster`, which has taken over.

    Raises:
        JobsRunning: they still run after an hour; the old cluster stays, and the next `up` waits again.
    """
    kube = await Kubernetes.connect(access)
    deadline, said = time.monotonic() + DRAIN_SECONDS, ""
    while True:
        old = [live for live in await find_all(kube, spec) if live.name != cluster]
        jobs = {live.name: await running_jobs(kube, live) for live in old}
        busy = ", ".join(f"{name}: {', '.join(ids)}" for name, ids in jobs.items() if ids)
        if not busy:
            return
        if busy != said:
            said = busy
            say(f"{cluster} has taken over; waiting for the jobs of {busy}")
        if time.monotonic() > deadline:
            raise JobsRunning(
                f"jobs still run on {busy} after {DRAIN_SECONDS / 60:.0f} minutes; the old cluster stays until the next up"
            )
        await asyncio.sleep(PAUSE)
