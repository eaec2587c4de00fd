"""The clusters that run: to find them, to see whether they work, to end the pods that a change leaves behind."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from infra import labels
from infra.body import head_service_name
from infra.changes import Change
from infra.changes import differences as _differences
from infra.errors import InfraError, NotAllowed
from infra.kube import Kubernetes, access_of, run
from infra.readiness import Expected, is_outdated
from infra.spec import KubeRayClusterSpec

ACTIVE = {"PENDING", "RUNNING"}
HEAD_ENDS_SECONDS = 2
"""Grace of a head that a change ends. The new workers are there at once, and one that finds the old head's address in DNS hangs on
it for half a minute; the head itself ends in a second, the autoscaler beside it never by itself."""


@dataclass(frozen=True)
class LiveCluster:
    """A RayCluster as Kubernetes has it.

    Attributes:
        name: of the RayCluster; the spec's, with a hash under NewCluster.
        state: KubeRay's word: ready, suspended, failed, or "starting".
        body: the whole resource.
    """

    name: str
    namespace: str
    state: str
    body: dict[str, Any]

    @classmethod
    def of(cls, body: dict[str, Any]) -> LiveCluster:
        metadata = body["metadata"]
        return cls(metadata["name"], metadata["namespace"], body.get("status", {}).get("state") or "starting", body)


def find(spec: KubeRayClusterSpec) -> LiveCluster | None:
    """The cluster of a spec that runs now; the newest where there are several.

    Raises:
        InfraError: Kubernetes cannot be asked.
    """

    async def work() -> list[LiveCluster]:
        return await find_all(await Kubernetes.connect(access_of(spec)), spec)

    found = run(work())
    return found[0] if found else None


def differences(spec: KubeRayClusterSpec, live: LiveCluster) -> list[Change]:
    """Fields that `spec` declares and the live cluster has otherwise."""
    return _differences(spec, live.body)


async def find_all(kube: Kubernetes, spec: KubeRayClusterSpec) -> list[LiveCluster]:
    """All RayClusters of a spec, newest first: several while one takes over from another."""
    path = clusters_path(spec.namespace)
    bodies = await kube.list(path, labelSelector=f"{labels.CLUSTER}={spec.name}")
    if spec.name not in {body["metadata"]["name"] for body in bodies}:  # one that is to be adopted has no label of ours
        named = await kube.get(f"{path}/{spec.name}")
        bodies += [named] if named else []
    bodies = [body for body in bodies if "deletionTimestamp" not in body["metadata"]]
    return [LiveCluster.of(body) for body in sorted(bodies, key=lambda body: body["metadata"]["creationTimestamp"], reverse=True)]


def clusters_path(namespace: str) -> str:
    return f"/apis/ray.io/v1/namespaces/{namespace}/rayclusters"


async def running_jobs(kube: Kubernetes, cluster: LiveCluster) -> list[str]:
    """Jobs that the cluster's Ray knows and that have not ended, as ``id (entrypoint)``; none where Ray does not answer."""
    namespace, name = cluster.namespace, cluster.name
    headers = {}
    if cluster.body["spec"].get("authOptions", {}).get("mode") == "token":
        secret = await kube.get(f"/api/v1/namespaces/{namespace}/secrets/{token_secret_name(cluster.body)}")
        token = base64.b64decode((secret or {}).get("data", {}).get("auth_token", "")).decode()
        # Through the proxy, Authorization is the API server's own.
        headers = {"X-Ray-Authorization": f"Bearer {token}"} if token else {}
    path = f"/api/v1/namespaces/{namespace}/services/http:{head_service_name(name)}:8265/proxy/api/jobs/"
    try:
        response = await kube.request("GET", path, headers=headers)
        jobs = response.json() if response.is_success else []
    except NotAllowed:
        raise
    except (InfraError, ValueError):  # no head, or one that does not serve: nothing runs on it
        return []
    return [_job_text(job) for job in jobs if job.get("status") in ACTIVE]


def token_secret_name(body: dict[str, Any]) -> str:
    """The Secret that holds the token of a cluster with token authentication; KubeRay makes it under the cluster's name."""
    return str(body["spec"].get("authOptions", {}).get("secretName") or body["metadata"]["name"])


def _job_text(job: dict[str, Any]) -> str:
    name, entrypoint = job.get("submission_id") or job.get("job_id"), (job.get("entrypoint") or "").strip()
    return f"{name} ({entrypoint[:60]})" if entrypoint else str(name)


async def pods_of(kube: Kubernetes, namespace: str, cluster: str) -> list[dict[str, Any]]:
    return await kube.list(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"{labels.RAY_CLUSTER}={cluster}")


def pod_counts(spec: KubeRayClusterSpec) -> dict[str, int]:
    """Pods of each group that have a node now, by the spec's name of the group; of all RayClusters of the spec together.

    Raises:
        InfraError: Kubernetes cannot be asked.
    """

    async def work() -> list[dict[str, Any]]:
        kube = await Kubernetes.connect(access_of(spec))
        return [pod for one in await find_all(kube, spec) for pod in await pods_of(kube, one.namespace, one.name)]

    counts: dict[str, int] = {}
    for pod in run(work()):
        if pod["spec"].get("nodeName") and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            name = pod["metadata"]["labels"].get(labels.RAY_GROUP, "")
            name = "head" if name == labels.HEAD_GROUP else name
            counts[name] = counts.get(name, 0) + 1
    return counts


async def end_old_pods(
    kube: Kubernetes,
    namespace: str,
    cluster: str,
    expected: Expected,
    before: Callable[[], Awaitable[None]] | None = None,
) -> list[str]:
    """Delete the pods of groups that are gone, and those of an older template; all of them where the head's changed.

    Args:
        before: called before the first is deleted; what it raises spares them.

    KubeRay makes the new ones. Returns the names of the deleted.
    """
    pods = [pod for pod in await pods_of(kube, namespace, cluster) if "deletionTimestamp" not in pod["metadata"]]
    old = [pod for pod in pods if is_outdated(pod, expected)]
    if expected.keep_old:
        old = [pod for pod in old if pod["metadata"]["labels"].get(labels.RAY_GROUP) not in expected.templates]
    elif any(pod["metadata"]["labels"].get(labels.RAY_GROUP) == labels.HEAD_GROUP for pod in old):
        old = pods
    if old and before is not None:
        await before()
    for pod in old:
        path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}"
        head = pod["metadata"]["labels"].get(labels.RAY_GROUP) == labels.HEAD_GROUP
        await kube.request("DELETE", path, params={"gracePeriodSeconds": str(HEAD_ENDS_SECONDS)} if head else {})
    return [pod["metadata"]["name"] for pod in old]
