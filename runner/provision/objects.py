"""What of an on-demand cluster is not Pulumi's to make: the Job that owns all, and the Secret. And to find and delete all of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from infra import labels
from infra.body import env_secret_data, env_secret_name, env_secret_variables
from infra.errors import InfraError, NotAllowed
from infra.kube import Kubernetes
from infra.live import clusters_path, pods_of
from infra.spec import KubeRayClusterSpec
from runner.provision.deadline import (
    MERGE_PATCH,
    ClusterEnded,
    deadline_body,
    deadline_name,
    deadline_path,
    has_ended,
    renewal,
    seconds_left,
    server_time,
)
from runner.provision.record import OPTIONS_KEY, Record, head_account, options_secret
from runner.remote.remote_driver import SECRET_OPTIONS

RIGHTS = (
    *((verb, "batch:jobs") for verb in ("get", "list", "create", "patch", "delete")),
    *(("create", f"rbac.authorization.k8s.io:{kind}") for kind in ("roles", "rolebindings")),
)
"""What making an on-demand cluster does in its namespace, besides `infra.preflight.RIGHTS`."""
REDIS_FINALIZER = "ray.io/gcs-ft-redis-cleanup-finalizer"
GONE_SECONDS = 330.0
"""KubeRay gives itself five minutes to clean the Redis of a cluster that it deletes."""


async def check_rights(kube: Kubernetes, spec: KubeRayClusterSpec) -> None:
    """Refuse credentials that may not make what goes with a cluster.

    Raises:
        NotAllowed: with each verb and resource.
    """
    wanted = list(RIGHTS)
    wanted += [("create", "secrets")] if env_secret_variables(spec) or SECRET_OPTIONS in spec.head_group.env else []
    wanted += [("create", "serviceaccounts")] if head_account(spec)[1] else []
    allowed = await asyncio.gather(*[kube.may(verb, resource, spec.namespace) for verb, resource in wanted])
    missing = [f"{verb} {resource.rpartition(':')[2]}" for (verb, resource), may in zip(wanted, allowed, strict=True) if not may]
    if missing:
        raise NotAllowed(
            f"these credentials ({kube.access}) may not {', '.join(missing)} in namespace {spec.namespace}, which an "
            "on-demand cluster and its time to live need; bind them to a Role that allows it"
        )


async def make_owner(kube: Kubernetes, record: Record) -> dict[str, Any]:
    """Make the Job that owns all of a cluster, and return the ownerReference to it.

    Raises:
        InfraError: a Job of that name is another's.
    """
    marks = {**labels.owned(record.name), labels.STACK: record.label}
    body = deadline_body(record.name, record.namespace, marks, record.time_to_live)
    response = await kube.request("POST", f"/apis/batch/v1/namespaces/{record.namespace}/jobs", json=body)
    if response.status_code == 409:
        raise InfraError(
            f"a Job {deadline_name(record.name)} exists already in namespace {record.namespace}, and this database did not make "
            "it; give the cluster another name"
        )
    _check(response, f"make the Job {deadline_name(record.name)}")
    uid = response.json()["metadata"]["uid"]
    # It blocks: a Job that is deleted in the foreground is gone when all that it owns is.
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": deadline_name(record.name),
        "uid": uid,
        "blockOwnerDeletion": True,
    }


async def make_secrets(
    kube: Kubernetes, spec: KubeRayClusterSpec, record: Record, owner: dict[str, Any], options: Mapping[str, str]
) -> None:
    """The Secrets that Pulumi never sees: of the variables that pods take from this environment, and of storage options.

    Raises:
        BadSpec: a variable is not set here.
        InfraError: a Secret of that name is another's.
    """
    found = {env_secret_name(spec): env_secret_data(spec)} if env_secret_variables(spec) else {}
    if options:
        found[options_secret(spec.name)] = {OPTIONS_KEY: json.dumps(dict(options))}
    for name, data in found.items():
        metadata = {
            "name": name,
            "namespace": spec.namespace,
            "labels": {**labels.owned(spec.name), labels.STACK: record.label},
            "ownerReferences": [owner],
        }
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}
        response = await kube.request("POST", f"/api/v1/namespaces/{spec.namespace}/secrets", json=body)
        if response.status_code == 409:
            raise InfraError(f"a Secret {name} exists already in namespace {spec.namespace}; give the cluster another name")
        _check(response, f"make the Secret {name}")


async def renew(kube: Kubernetes, namespace: str, cluster: str, time_to_live: float) -> bool:
    """Let a cluster live for so many more seconds; False where it need not be.

    Raises:
        ClusterEnded: its time is over.
    """
    path = deadline_path(namespace, cluster)
    for _ in range(3):
        response = await kube.request("GET", path)
        if response.status_code == 404:
            raise ClusterEnded(f"cluster {cluster}: there is no Job {deadline_name(cluster)} in namespace {namespace} any more")
        patch = renewal(response.json(), server_time(response.headers.get("Date")), time_to_live)
        if patch is None:
            return False
        response = await kube.request("PATCH", path, json=patch, headers={"Content-Type": MERGE_PATCH})
        if response.status_code != 409:
            _check(response, f"renew the Job {deadline_name(cluster)}")
            return True
    return False  # others renew it at this moment


async def live_for_ever(kube: Kubernetes, namespace: str, cluster: str) -> None:
    """Take a cluster's deadline away.

    Raises:
        InfraError: its time is over, and Kubernetes deletes it.
    """
    patch = {"spec": {"activeDeadlineSeconds": None}}
    path = deadline_path(namespace, cluster)
    response = await kube.request("PATCH", path, json=patch, headers={"Content-Type": MERGE_PATCH})
    _check(response, f"take the deadline of cluster {cluster} away")
    if has_ended(response.json()):
        raise InfraError(f"the time to live of cluster {cluster} in namespace {namespace} is over")


async def time_left(kube: Kubernetes, namespace: str, cluster: str) -> float | None:
    """Seconds that a cluster has to live; 0 where it is over, None where it has no end."""
    response = await kube.request("GET", deadline_path(namespace, cluster))
    return 0.0 if response.status_code == 404 else seconds_left(response.json(), server_time(response.headers.get("Date")))


async def owner_of(kube: Kubernetes, record: Record) -> dict[str, Any] | None:
    """The Job of a record; None where Kubernetes has deleted it, or another has its name."""
    job = await kube.get(deadline_path(record.namespace, record.name))
    return job if job and record.owner in ("", job["metadata"]["uid"]) and _mark(job) == record.label else None


async def marked(kube: Kubernetes, namespace: str, prefix: str) -> list[str]:
    """Names of the clusters in a namespace whose objects bear the label of a stack that begins so."""
    selector = {"labelSelector": labels.STACK}
    jobs, clusters = await asyncio.gather(
        kube.list(f"/apis/batch/v1/namespaces/{namespace}/jobs", **selector), kube.list(clusters_path(namespace), **selector)
    )
    items = [item for item in [*jobs, *clusters] if _mark(item).startswith(prefix) and "deletionTimestamp" not in item["metadata"]]
    return sorted({item["metadata"]["labels"].get(labels.CLUSTER, "") for item in items} - {""})


async def delete_marked(kube: Kubernetes, namespace: str, cluster: str, label: str) -> None:
    """Delete a cluster's Job and, by that, all that it owns; and its RayCluster, which may have lost its owner.

    Returns when all of it is gone, pods included.

    Raises:
        InfraError: it is not after five minutes.
    """
    begun = time.monotonic()
    clusters, jobs = clusters_path(namespace), f"/apis/batch/v1/namespaces/{namespace}/jobs"
    selector = {"labelSelector": f"{labels.STACK}={label},{labels.CLUSTER}={cluster}"}
    # KubeRay cleans a Redis by a pod that needs the service account of the RayCluster, which must therefore go after it.
    kept_in_redis = [item for item in await kube.list(clusters, **selector) if REDIS_FINALIZER in _finalizers(item)]
    await _delete(kube, clusters, kept_in_redis, "Background")
    while kept_in_redis and await kube.list(clusters, **selector):
        await _pause(begun, namespace, cluster)
    for path in (clusters, jobs):
        await _delete(kube, path, await kube.list(path, **selector), "Foreground")  # in which an owner goes last
    while any(
        await asyncio.gather(kube.list(clusters, **selector), kube.list(jobs, **selector), pods_of(kube, namespace, cluster))
    ):
        await _pause(begun, namespace, cluster)


async def _delete(kube: Kubernetes, path: str, items: list[dict[str, Any]], policy: str) -> None:
    for item in items:
        await kube.request("DELETE", f"{path}/{item['metadata']['name']}", params={"propagationPolicy": policy})


async def _pause(begun: float, namespace: str, cluster: str) -> None:
    waited = time.monotonic() - begun
    if waited > GONE_SECONDS:
        raise InfraError(f"cluster {cluster} in namespace {namespace} is not gone after {GONE_SECONDS:.0f} s; run it again")
    await asyncio.sleep(0.1 if waited < 2 else 0.3)


def _finalizers(item: dict[str, Any]) -> list[str]:
    return list(item["metadata"].get("finalizers", []))


def _mark(item: dict[str, Any]) -> str:
    return str(item["metadata"].get("labels", {}).get(labels.STACK, ""))


def _check(response: Any, what: str) -> None:
    if response.is_error:
        raise InfraError(f"Kubernetes does not {what}: {response.json().get('message')}")
