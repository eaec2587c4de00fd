"""Wait for a RayCluster that was just declared: until it serves, or until Kubernetes says why it cannot."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from infra import labels
from infra.body import template_hashes
from infra.errors import InfraError
from infra.kube import Kubernetes
from infra.live import clusters_path, end_old_pods, pods_of
from infra.parts import UpgradeStrategy
from infra.readiness import Expected, Seen, Snapshot, Verdict, changed_at, has_not_begun, judge, refused
from infra.spec import KubeRayClusterSpec

PAUSES = ((30.0, 0.5), (120.0, 1.0), (float("inf"), 3.0))
"""Seconds waited so far, and between two looks until then."""
REFUSAL_SECONDS = 1.0
"""How long KubeRay has to refuse a change before pods are ended for it; it takes a tenth."""
ANSWER_SECONDS = 5.0
"""How long KubeRay has to take back what it said before."""


class ClusterFailed(InfraError):
    """A cluster cannot start, or did not in time; in Kubernetes' words."""


def expected_of(spec: KubeRayClusterSpec, body: dict[str, Any], *, workers: bool = True) -> Expected:
    """What must run before a cluster serves: its head and, with `workers`, as many of them as its groups have at least."""
    pods = {
        group["groupName"]: group.get("minReplicas", 0) * group.get("numOfHosts", 1) * workers
        for group in body["spec"]["workerGroupSpecs"]
    }
    return Expected(
        templates=template_hashes(body),
        pods={labels.HEAD_GROUP: 1, **pods},
        keep_old=spec.upgrade_strategy is UpgradeStrategy.NONE,
        suspended=bool(body["spec"].get("suspend")),
        unschedulable_seconds=spec.unschedulable_seconds,
    )


async def wait_ready(
    kube: Kubernetes,
    spec: KubeRayClusterSpec,
    body: dict[str, Any],
    say: Callable[[str], None] = lambda _: None,
    *,
    workers: bool = True,
) -> None:
    """End old pods, then wait until the cluster serves.

    Args:
        body: the resource as it was declared.
        say: called with each new state, in a person's words.
        workers: wait for the workers that there are at least, too.

    Raises:
        ClusterFailed: it cannot, with pod and reason; or it did not within ``ready_timeout_seconds``.
    """
    namespace, name = spec.namespace, body["metadata"]["name"]
    expected, seen = expected_of(spec, body, workers=workers), Seen()
    begun, said = time.monotonic(), ""
    believed_from: float | None = None
    ended = await end_old_pods(kube, namespace, name, expected, before=partial(_check_not_refused, kube, namespace, name))
    if ended:
        say(f"{name}: ended {', '.join(ended)}, made from what was declared before")
    while True:
        snapshot = await snapshot_of(kube, namespace, name)
        verdict, waited = judge(expected, snapshot, seen), time.monotonic() - begun
        if verdict.ready:
            return
        if believed_from is None:  # at the first look
            asked = verdict.tried_again and await _ask_again(kube, snapshot)
            believed_from = waited + ANSWER_SECONDS if asked else 0.0
        if verdict.failure and (waited >= believed_from or not verdict.tried_again):
            raise _failed(namespace, name, verdict.failure)
        progress = verdict.progress or "KubeRay to try again"
        if progress != said:
            said = progress
            say(f"{name}: waiting for {said}")
        if waited > spec.ready_timeout_seconds:
            raise _too_late(spec, name, verdict)
        await asyncio.sleep(next(pause for until, pause in PAUSES if waited < until))


async def problem_of(kube: Kubernetes, spec: KubeRayClusterSpec, body: dict[str, Any], seen: Seen) -> str | None:
    """Why a pod of a cluster cannot start, in Kubernetes' words; None where none is stuck.

    Args:
        seen: the same at each look.
    """
    snapshot = await snapshot_of(kube, spec.namespace, body["metadata"]["name"])
    return judge(expected_of(spec, body), snapshot, seen).failure


def _failed(namespace: str, name: str, why: str) -> ClusterFailed:
    return ClusterFailed(f"cluster {name} in namespace {namespace} cannot start: {why}")


async def _check_not_refused(kube: Kubernetes, namespace: str, name: str) -> None:
    """Leave KubeRay the time to refuse what was just declared: pods that are ended for it would not be made anew."""
    deadline = time.monotonic() + REFUSAL_SECONDS
    while time.monotonic() < deadline:
        snapshot = await snapshot_of(kube, namespace, name)
        refusal = refused(snapshot) if snapshot.cluster else None
        if refusal:
            raise _failed(namespace, name, refusal)
        await asyncio.sleep(REFUSAL_SECONDS / 4)


async def _ask_again(kube: Kubernetes, snapshot: Snapshot) -> bool:
    """Have KubeRay look now at a cluster of which it said before this `up` that it cannot be: quota or account may be there by now.

    Any annotation makes it look. Returns whether it was asked.
    """
    cluster = snapshot.cluster
    if cluster is None or (snapshot.now - changed_at(cluster)).total_seconds() < ANSWER_SECONDS:
        return False
    metadata = cluster["metadata"]
    await kube.request(
        "PATCH",
        f"{clusters_path(metadata['namespace'])}/{metadata['name']}",
        json={"metadata": {"annotations": {labels.LOOK_AGAIN: snapshot.now.isoformat(timespec="seconds")}}},
        headers={"Content-Type": "application/merge-patch+json"},
    )
    return True


async def snapshot_of(kube: Kubernetes, namespace: str, name: str) -> Snapshot:
    """One look at a cluster, its pods, its events, and those of the pods that have not begun."""
    events = f"/api/v1/namespaces/{namespace}/events"
    cluster, pods, found = await asyncio.gather(
        kube.get(f"{clusters_path(namespace)}/{name}"),
        pods_of(kube, namespace, name),
        kube.list(events, fieldSelector=f"involvedObject.kind=RayCluster,involvedObject.name={name}"),
    )
    waiting = [pod["metadata"]["uid"] for pod in pods if has_not_begun(pod)]
    more = await asyncio.gather(*[kube.list(events, fieldSelector=f"involvedObject.uid={uid}") for uid in waiting])
    uid = cluster["metadata"]["uid"] if cluster else None
    own = [event for event in found if event["involvedObject"].get("uid") == uid]
    return Snapshot(cluster, pods, [*own, *(event for events in more for event in events)], dt.datetime.now(dt.UTC))


def _too_late(spec: KubeRayClusterSpec, name: str, verdict: Verdict) -> ClusterFailed:
    return ClusterFailed(
        f"cluster {name} in namespace {spec.namespace} does not serve after {spec.ready_timeout_seconds} s: still waiting for "
        f"{verdict.progress}; `kubectl describe pods -n {spec.namespace} -l {labels.RAY_CLUSTER}={name}` says more, and "
        "ready_timeout_seconds gives it longer"
    )
