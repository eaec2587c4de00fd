"""A schedule without KubeRay's RayCronJob: a CronJob of Kubernetes whose pod makes the RayJob of each tick. Pure functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infra import labels, tick
from infra.backfill_body import Driver, metadata, ray_job_spec
from infra.backfill_spec import BackfillSpec
from infra.body import API_VERSION, CONTAINER_SECURITY, POD_SECURITY
from infra.groups import ARCH_LABEL
from infra.spec import KubeRayClusterSpec

LATEST_SECONDS = 300
"""How late a tick may be: a schedule that is resumed does not make up for what it missed."""
TICK_SECONDS = 300
_RESOURCES = {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "50m", "memory": "64Mi"}}


def cron_job_bodies(spec: BackfillSpec, cluster: KubeRayClusterSpec, driver: Driver) -> list[dict[str, Any]]:
    """ServiceAccount, Role, RoleBinding, ConfigMap and CronJob of a schedule, in the order in which they need each other."""
    named = metadata(spec, cluster, f"{spec.name}-schedule")
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": named, "rules": _rules(spec)}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": named,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": named["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": named["name"], "namespace": named["namespace"]}],
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named},
        role,
        binding,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": _files(spec, cluster, driver)},
        _cron_job(spec, cluster, named["name"]),
    ]


def _rules(spec: BackfillSpec) -> list[dict[str, Any]]:
    """Each verb for one reason: runs are made, looked at, and removed once they are history; the CronJob is to own them."""
    return [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "list", "delete"]},
        {"apiGroups": ["batch"], "resources": ["cronjobs"], "resourceNames": [spec.name], "verbs": ["get"]},
    ]


def _files(spec: BackfillSpec, cluster: KubeRayClusterSpec, driver: Driver) -> dict[str, str]:
    given = metadata(spec, cluster, spec.name)
    body = {
        "apiVersion": API_VERSION,
        "kind": "RayJob",
        "metadata": {"namespace": given["namespace"], "labels": given["labels"]},
        "spec": ray_job_spec(spec, cluster, driver),
    }
    return {"rayjob.json": json.dumps(body, indent=1, sort_keys=True), "tick.py": Path(tick.__file__).read_text()}


def _cron_job(spec: BackfillSpec, cluster: KubeRayClusterSpec, account: str) -> dict[str, Any]:
    head = cluster.head_group
    variables: list[dict[str, Any]] = [
        {"name": "BACKFILL", "value": spec.name},
        {"name": "POLICY", "value": spec.concurrency_policy},
        {"name": "HISTORY_SECONDS", "value": str(spec.history_seconds)},
        {"name": "RUN", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}}},
    ]
    container = {
        "name": "tick",
        "image": cluster.image_of(head),
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", f"{tick.FILES}/tick.py"],
        "env": variables,
        "resources": _RESOURCES,
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "files", "mountPath": str(tick.FILES), "readOnly": True}],
    }
    pod: dict[str, Any] = {
        "containers": [container],
        "nodeSelector": {ARCH_LABEL: head.arch},
        "restartPolicy": "Never",
        "securityContext": POD_SECURITY,
        "serviceAccountName": account,
        "volumes": [{"name": "files", "configMap": {"name": account}}],
    }
    if head.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in head.image_pull_secrets]
    own = {"labels": {**labels.owned(), labels.BACKFILL: spec.name}}
    job = {"backoffLimit": 2, "activeDeadlineSeconds": TICK_SECONDS, "template": {"metadata": own, "spec": pod}}
    made: dict[str, Any] = {
        "schedule": spec.schedule,
        "timeZone": spec.time_zone,
        "concurrencyPolicy": "Forbid",  # of ticks; runs are the tick's to see to
        "startingDeadlineSeconds": LATEST_SECONDS,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 1,
        "jobTemplate": {"metadata": own, "spec": job},
    }
    if spec.suspend:
        made["suspend"] = True
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata(spec, cluster, spec.name), "spec": made}
