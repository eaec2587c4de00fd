"""Before and after a backfill is declared: what KubeRay has, whose it is, and what KubeRay says of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from infra import labels
from infra.backfill_spec import BackfillSpec
from infra.errors import BadSpec, InfraError, NotAllowed
from infra.kube import Access, Kubernetes
from infra.preflight import find_operator
from infra.support import Operator, check_jobs_supported, schedule_kind

TAKEN_SECONDS = 60.0
PAUSE = 0.5
_PLURALS = {"RayJob": "ray.io:rayjobs", "RayCronJob": "ray.io:raycronjobs", "CronJob": "batch:cronjobs"}
_PATHS = {"RayJob": "/apis/ray.io/v1", "RayCronJob": "/apis/ray.io/v1", "CronJob": "/apis/batch/v1"}


async def look(access: Access, spec: BackfillSpec, namespace: str, operator: Operator | None, *, stack: str) -> Operator:
    """The KubeRay that is to run a backfill.

    Args:
        operator: the KubeRay that the same program declares. Default: the one that runs is looked at.
        stack: the stack that declares it, as `labels.DECLARED_BY` has it.

    Raises:
        BadSpec: another stack declares it, or KubeRay is too old for it.
        InfraError: KubeRay is not there, or rights are missing.
    """
    kube = await Kubernetes.connect(access)
    if operator is None:
        operator = await find_operator(kube)
    check_jobs_supported(spec.name, operator)
    await _check_rights(kube, schedule_kind(operator) if spec.schedule else "RayJob", namespace)
    for kind in _PLURALS:
        for body in await kube.list(_path(kind, namespace), labelSelector=f"{labels.BACKFILL}={spec.name}"):
            _check_owner(spec, body, stack)
    return operator


async def is_suspended_now(access: Access, name: str, namespace: str) -> bool:
    """Whether a RayCronJob of that name is there and suspended. KubeRay would make up for all that it missed."""
    kube = await Kubernetes.connect(access)
    body = await kube.get(f"{_path('RayCronJob', namespace)}/{name}")
    return bool(body and body["spec"].get("suspend"))


async def wait_taken(access: Access, name: str, namespace: str) -> str:
    """Wait until KubeRay has looked at a RayJob; what it made of it, empty where it did not look.

    Raises:
        InfraError: KubeRay refuses it, in its words.
    """
    kube = await Kubernetes.connect(access)
    end = time.monotonic() + TAKEN_SECONDS
    while time.monotonic() < end:
        status = (await kube.get(f"{_path('RayJob', namespace)}/{name}") or {}).get("status", {})
        state = str(status.get("jobDeploymentStatus") or "")
        if state == "ValidationFailed":
            raise InfraError(f"run {name}: KubeRay does not take it: {status.get('message')}")
        if state:
            return state
        await asyncio.sleep(PAUSE)
    return ""


async def _check_rights(kube: Kubernetes, kind: str, namespace: str) -> None:
    verbs = ("get", "list", "create", "patch", "delete")
    allowed = await asyncio.gather(*[kube.may(verb, _PLURALS[kind], namespace) for verb in verbs])
    missing = [verb for verb, may in zip(verbs, allowed, strict=True) if not may]
    if missing:
        what = _PLURALS[kind].partition(":")[2]
        raise NotAllowed(f"these credentials ({kube.access}) may not {', '.join(missing)} {what} in namespace {namespace}")


def _check_owner(spec: BackfillSpec, body: dict[str, Any], stack: str) -> None:
    metadata = body["metadata"]
    owner = metadata.get("annotations", {}).get(labels.DECLARED_BY)
    if owner not in (None, stack) and not metadata.get("ownerReferences"):
        raise BadSpec(
            f"backfill {spec.name!r}: the stack {owner} declares it already, in namespace {metadata['namespace']}; "
            "name it in the infill:backfills of one stack only, or give each its own namespace"
        )


def _path(kind: str, namespace: str) -> str:
    return f"{_PATHS[kind]}/namespaces/{namespace}/{_PLURALS[kind].partition(':')[2]}"
