"""Before and after a change of a running cluster: what it does to pods and jobs, whether it may, and when the old one may go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from infra.body import ray_cluster_body
from infra.changes import plan_upgrade
from infra.errors import InfraError
from infra.kube import Access, Kubernetes
from infra.live import LiveCluster, find_all, running_jobs
from infra.preflight import check_rights, find_operator
from infra.spec import KubeRayClusterSpec
from infra.support import Operator, check_supported

PAUSE = 2.0
DRAIN_SECONDS = 3600.0
"""How long `up` waits for the jobs of a cluster that another has taken over from."""

Say = Callable[[str], None]


class JobsRunning(InfraError):
    """A change would end jobs that run."""


async def inspect(
    access: Access, spec: KubeRayClusterSpec, operator: Operator | None, *, force: bool, say: Say, warn: Say
) -> LiveCluster | None:
    """Say what declaring `spec` does to the cluster that runs, and refuse it where that cannot be, or would end jobs.

    Args:
        operator: the KubeRay that will run. Default: the one that runs is looked at.

    Returns:
        The cluster that runs now, None where there is none.

    Raises:
        JobsRunning: jobs run, and not `force`.
        InfraError: KubeRay is not there or does not have what the spec asks for; rights are missing.
    """
    kube = await Kubernetes.connect(access)
    await _once(kube, spec.namespace)
    if operator is None:
        check_supported(ray_cluster_body(spec), await find_operator(kube))
    found = await find_all(kube, spec)
    if not found:
        return None
    live = found[0]
    upgrade = plan_upgrade(spec, live.body)
    if not upgrade.changes:
        return live
    say(f"cluster {spec.name}: {upgrade.describe()}\n" + "\n".join(f"  {change}" for change in upgrade.changes))
    jobs = await running_jobs(kube, live) if upgrade.disrupts else []
    if jobs and force:
        warn(f"cluster {spec.name}: {len(jobs)} running jobs end by force: {', '.join(jobs)}")
    elif jobs:
        raise JobsRunning(
            f"cluster {spec.name} runs {len(jobs)} jobs, which this change would end: {', '.join(jobs)} ({upgrade.describe()}). "
            "Wait for them, choose upgrade_strategy: NewCluster, or force it: pulumi config set force true"
        )
    return live


_checked: set[tuple[Access, str]] = set()


async def _once(kube: Kubernetes, namespace: str) -> None:
    """The rights, once a namespace: a program may declare a hundred clusters."""
    if (kube.access, namespace) not in _checked:
        await check_rights(kube, namespace)
        _checked.add((kube.access, namespace))


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
