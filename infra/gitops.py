"""`GitOps`: the Pulumi component of a stack that the Pulumi Kubernetes Operator brings up from git."""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from infra.gitops_bodies import GitOpsStack, gitops_resources
from infra.provider import owned_here

TYPE = "infill:kubernetes:GitOps"


class GitOps(pulumi.ComponentResource):
    """A Stack of the Pulumi Kubernetes Operator (version 2, which has to run), the service account of its pod, and its rights.

    Outputs become known when Kubernetes has taken the Stack; what it brings up, it brings up later.
    """

    stack: pulumi.Output[str]
    """Name of the Stack."""

    def __init__(self, name: str, given: GitOpsStack, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, {}, opts)
        before: list[pulumi.Resource] = []
        for body in gitops_resources(given):
            before.append(self._declare(name, body, before))
        self.stack = before[-1].urn.apply(lambda _: given.name)
        self.register_outputs({"stack": self.stack})

    def _declare(self, name: str, body: dict[str, Any], before: list[pulumi.Resource]) -> pulumi.Resource:
        metadata: Any = {**body["metadata"], "labels": owned_here()}
        options = pulumi.ResourceOptions(parent=self, depends_on=list(before))
        kind = body["kind"]
        name = f"{name}-delegator" if metadata["name"].endswith("-auth-delegator") else name
        if kind == "ServiceAccount":
            return kubernetes.core.v1.ServiceAccount(name, metadata=metadata, opts=options)
        if kind == "ClusterRole":
            return kubernetes.rbac.v1.ClusterRole(name, metadata=metadata, rules=body["rules"], opts=options)
        if kind == "ClusterRoleBinding":
            return kubernetes.rbac.v1.ClusterRoleBinding(
                name, metadata=metadata, role_ref=body["roleRef"], subjects=body["subjects"], opts=options
            )
        return kubernetes.apiextensions.CustomResource(
            name, api_version=body["apiVersion"], kind=kind, metadata=metadata, spec=body["spec"], opts=options
        )
