"""Wait for a RayCluster that was just declared: until it serves, or until Kubernetes says why it cannot."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable
from typing import Any

from infra import labels
from infra.body import template_hashes
from infra.errors import InfraError
from infra.kube import Kubernetes
from infra.live import clusters_path, end_old_pods, pods_of
from infra.readiness import Expected, Seen, Snapshot, Verdict, judge
from infra.spec import KubeRayClusterSpec, UpgradeStrategy

PAUSES = ((30.0, 0.5), (120.0, 1.0), (float("inf"), 3.0))
"""Seconds waited so far, and between two looks until then."""


class ClusterFailed(InfraError):
    """A cluster cannot start, or did not in time; in Kubernetes' words."""


def expected_of(spec: KubeRayClusterSpec, body: dict[str, Any]) -> Expected:
    """What must run before a cluster serves: its head, and as many workers as its groups have at least."""
    pods = {
        group["groupName"]: group.get("minReplicas", 0) * group.get("numOfHosts", 1) for group in body["spec"]["workerGroupSpecs"]
    }
    return Expected(
        templates=template_hashes(body),
        pods={labels.HEAD_GROUP: 1, **pods},
        keep_old=spec.upgrade_strategy is UpgradeStrategy.NONE,
        suspended=bool(body["spec"].get("suspend")),
        unschedulable_seconds=spec.unschedulable_seconds,
    )


async def wait_ready(
    kube: Kubernetes, spec: KubeRayClusterSpec, body: dict[str, Any], say: Callable[[str], None] = lambda _: None
) -> None:
    """End old pods, then wait until the cluster serves.

    Args:
        body: the resource as it was declared.
        say: called with each new state, in a person's words.

    Raises:
        ClusterFailed: it cannot, with pod and reason; or it did not within ``ready_timeout_seconds``.
    """
    namespace, name = spec.namespace, body["metadata"]["name"]
    expected, seen = expected_of(spec, body), Seen()
    begun, said = time.monotonic(), ""
    ended = await end_old_pods(kube, namespace, name, expected)
    if ended:
        say(f"{name}: ended {', '.join(ended)}, made from what was declared before")
    while True:
        verdict = judge(expected, await snapshot_of(kube, namespace, name), seen)
        if verdict.ready:
            return
        if verdict.failure:
            raise ClusterFailed(f"cluster {name} in namespace {namespace} cannot start: {verdict.failure}")
        if verdict.progress != said:
            said = verdict.progress
            say(f"{name}: waiting for {said}")
        waited = time.monotonic() - begun
        if waited > spec.ready_timeout_seconds:
            raise _too_late(spec, name, verdict)
        await asyncio.sleep(next(pause for until, pause in PAUSES if waited < until))


async def snapshot_of(kube: Kubernetes, namespace: str, name: str) -> Snapshot:
    """One look at a cluster, its pods, its events, and those of the pods that find no node."""
    events = f"/api/v1/namespaces/{namespace}/events"
    cluster, pods, found = await asyncio.gather(
        kube.get(f"{clusters_path(namespace)}/{name}"),
        pods_of(kube, namespace, name),
        kube.list(events, fieldSelector=f"involvedObject.kind=RayCluster,involvedObject.name={name}"),
    )
    homeless = [pod["metadata"]["uid"] for pod in pods if not pod.get("spec", {}).get("nodeName")]
    more = await asyncio.gather(*[kube.list(events, fieldSelector=f"involvedObject.uid={uid}") for uid in homeless])
    uid = cluster["metadata"]["uid"] if cluster else None
    own = [event for event in found if event["involvedObject"].get("uid") == uid]
    return Snapshot(cluster, pods, [*own, *(event for events in more for event in events)], dt.datetime.now(dt.UTC))


def _too_late(spec: KubeRayClusterSpec, name: str, verdict: Verdict) -> ClusterFailed:
    return ClusterFailed(
        f"cluster {name} in namespace {spec.namespace} does not serve after {spec.ready_timeout_seconds} s: still waiting for "
        f"{verdict.progress}; `kubectl describe pods -n {spec.namespace} -l {labels.RAY_CLUSTER}={name}` says more, and "
        "ready_timeout_seconds gives it longer"
    )
