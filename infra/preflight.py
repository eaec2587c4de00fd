"""What must hold before anything is declared: Kubernetes answers, KubeRay is there, and these credentials may do what is needed."""

from __future__ import annotations

import asyncio

from infra.errors import InfraError, NotAllowed
from infra.kube import Kubernetes
from infra.support import Operator, operator_of

RIGHTS = (
    ("get", "ray.io:rayclusters"),
    ("list", "ray.io:rayclusters"),
    ("create", "ray.io:rayclusters"),
    ("patch", "ray.io:rayclusters"),
    ("delete", "ray.io:rayclusters"),
    ("list", "pods"),
    ("delete", "pods"),
    ("list", "events"),
)
"""What `pulumi up` of a RayCluster does in its namespace."""
INSTALL = (
    "install it: helm repo add kuberay https://ray-project.github.io/kuberay-helm/ && "
    "helm install kuberay-operator kuberay/kuberay-operator --version 1.7.0, or set infill:operator in the stack's config"
)


async def check_rights(kube: Kubernetes, namespace: str) -> None:
    """Refuse credentials that may not do all of `RIGHTS`.

    Raises:
        NotAllowed: with each verb and resource.
    """
    allowed = await asyncio.gather(*[kube.may(verb, resource, namespace) for verb, resource in RIGHTS])
    missing = [f"{verb} {resource.rpartition(':')[2]}" for (verb, resource), may in zip(RIGHTS, allowed, strict=True) if not may]
    if missing:
        raise NotAllowed(
            f"these credentials ({kube.access}) may not {', '.join(missing)} in namespace {namespace}; "
            "bind them to a Role that allows it, such as infra.RunnerAccess makes"
        )


async def find_operator(kube: Kubernetes) -> Operator:
    """The KubeRay that runs, as far as these credentials may see it.

    Raises:
        InfraError: its definitions are not installed.
    """
    if await kube.get("/apis/ray.io/v1") is None:
        raise InfraError(f"KubeRay is not installed in Kubernetes ({kube.access}): it has no RayCluster; {INSTALL}")
    try:
        return operator_of(await kube.list("/apis/apps/v1/deployments", labelSelector="app.kubernetes.io/name=kuberay-operator"))
    except NotAllowed:
        return Operator()
