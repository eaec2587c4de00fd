"""The time to live of an on-demand cluster: a Job without pods that Kubernetes ends, and with it all that it owns. Only the
standard library: `renew_from_pod` runs wherever Ray does.

``parallelism: 0`` makes no pod. After ``activeDeadlineSeconds`` Kubernetes fails the Job, after ``ttlSecondsAfterFinished: 0``
deletes it, and its garbage collector then deletes whatever names it as its owner. No code of ours takes part.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import math
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API_SERVER = "https://kubernetes.default.svc"
TIMEOUT_SECONDS = 10.0
MERGE_PATCH = "application/merge-patch+json"


class ClusterEnded(Exception):
    """The time to live is over: there is nothing left to renew."""


def deadline_name(cluster: str) -> str:
    """Name of the Job of an on-demand cluster, and of the Role that lets its head renew it."""
    return f"{cluster}-deadline"


def deadline_path(namespace: str, cluster: str) -> str:
    """Of the Job at the API server."""
    return f"/apis/batch/v1/namespaces/{namespace}/jobs/{deadline_name(cluster)}"


def deadline_body(cluster: str, namespace: str, labels: Mapping[str, str], time_to_live: float | None) -> dict[str, Any]:
    """The Job that owns all of a cluster.

    Args:
        time_to_live: seconds; None for ever.
    """
    none = {"name": "none", "image": "none"}  # the API asks for a container; no pod is ever made
    spec: dict[str, Any] = {
        "parallelism": 0,
        "ttlSecondsAfterFinished": 0,
        "template": {"spec": {"restartPolicy": "Never", "containers": [none]}},
    }
    if time_to_live is not None:
        spec["activeDeadlineSeconds"] = max(1, math.ceil(time_to_live))
    metadata = {"name": deadline_name(cluster), "namespace": namespace, "labels": dict(labels)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def seconds_left(job: Mapping[str, Any], now: dt.datetime) -> float | None:
    """Until Kubernetes ends it; 0 where it has, None where it never does."""
    if has_ended(job):
        return 0.0
    deadline = job["spec"].get("activeDeadlineSeconds")
    return None if deadline is None else max(0.0, deadline - _age(job, now))


def renewal(job: Mapping[str, Any], now: dt.datetime, time_to_live: float) -> dict[str, Any] | None:
    """The patch after which a Job has `time_to_live` seconds left; None where it has as many already.

    Args:
        now: the API server's time: its clock is the one that counts.

    Raises:
        ClusterEnded: it has ended.
    """
    if has_ended(job) or "deletionTimestamp" in job["metadata"]:
        raise ClusterEnded(f"the time to live of {job['metadata']['name']} in namespace {job['metadata']['namespace']} is over")
    left = seconds_left(job, now)
    if left is None or left >= time_to_live:
        return None
    # The version makes one of two who renew at once look again, so that the longer one stays.
    version = job["metadata"]["resourceVersion"]
    deadline = math.ceil(_age(job, now) + time_to_live)
    return {"metadata": {"resourceVersion": version}, "spec": {"activeDeadlineSeconds": deadline}}


def has_ended(job: Mapping[str, Any]) -> bool:
    """Whether Kubernetes has failed it for its deadline."""
    conditions = job.get("status", {}).get("conditions", [])
    return any(item.get("type") in ("Failed", "FailureTarget") and item.get("status") == "True" for item in conditions)


def server_time(date: str | None) -> dt.datetime:
    """The time that an answer's Date header says; this machine's without one."""
    return email.utils.parsedate_to_datetime(date) if date else dt.datetime.now(dt.UTC)


def renew_from_pod(cluster: str, time_to_live: float, *, folder: Path = SERVICE_ACCOUNT, server: str = API_SERVER) -> bool:
    """Let a cluster live for so many more seconds, from its head, with the head's service account.

    Args:
        cluster: its name.
        time_to_live: seconds from now; a deadline that is later already, or none, stays.
        folder: of the service account's token, certificate and namespace.

    Returns:
        Whether it was renewed; False where it need not be.

    Raises:
        ClusterEnded: its time is over, or it has no deadline's Job.
        OSError: Kubernetes cannot be reached, or refuses; try again later.
    """
    url = server + deadline_path((folder / "namespace").read_text().strip(), cluster)
    for _ in range(3):
        try:
            job, date = _ask(folder, "GET", url)
            patch = renewal(job, server_time(date), time_to_live)
            if patch is not None:
                _ask(folder, "PATCH", url, patch)
            return patch is not None
        except urllib.error.HTTPError as exc:
            if exc.code == 404:
                raise ClusterEnded(f"cluster {cluster}: there is no Job {deadline_name(cluster)} any more") from None
            if exc.code != 409:
                raise
    return False  # others renew it at this moment


def _ask(folder: Path, method: str, url: str, patch: dict[str, Any] | None = None) -> tuple[dict[str, Any], str | None]:
    headers = {"Authorization": f"Bearer {(folder / 'token').read_text().strip()}", "Content-Type": MERGE_PATCH}
    data = json.dumps(patch).encode() if patch is not None else None
    request = urllib.request.Request(url, data, headers, method=method)
    context = ssl.create_default_context(cafile=str(folder / "ca.crt")) if url.startswith("https") else None
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context) as response:
        return dict(json.load(response)), response.headers.get("Date")


def _age(job: Mapping[str, Any], now: dt.datetime) -> float:
    started = job.get("status", {}).get("startTime") or job["metadata"]["creationTimestamp"]
    return (now - dt.datetime.fromisoformat(started)).total_seconds()
