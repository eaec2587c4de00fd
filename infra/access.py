"""`RunnerAccess`: a namespace, a service account and the rights that a job runner needs, and no more."""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from infra.access_bodies import RunnerAccessArgs, access_bodies
from infra.errors import BadSpec
from infra.provider import owned_here

__all__ = ["RunnerAccess", "RunnerAccessArgs"]

TYPE = "infill:kubernetes:RunnerAccess"


class RunnerAccess(pulumi.ComponentResource):
    """What a job runner needs in a namespace. The autoscaler's own Role is KubeRay's to make.

    Raises:
        pulumi.RunError: a wrong name, or identities of two clouds.
    """

    namespace: pulumi.Output[str]
    service_account: pulumi.Output[str]

    def __init__(self, name: str, args: RunnerAccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        try:
            args.check()
        except BadSpec as exc:  # which Pulumi prints without a traceback
            raise pulumi.RunError(str(exc)) from None
        super().__init__(TYPE, name, {}, opts)
        bodies: dict[str, Any] = {body["kind"]: body for body in access_bodies(args, owned_here())}
        child = pulumi.ResourceOptions(parent=self)
        self.resources: list[pulumi.Resource] = []
        if "Namespace" in bodies:
            self.resources.append(kubernetes.core.v1.Namespace(name, metadata=bodies["Namespace"]["metadata"], opts=child))
        inside = pulumi.ResourceOptions(parent=self, depends_on=list(self.resources))
        account = kubernetes.core.v1.ServiceAccount(name, metadata=bodies["ServiceAccount"]["metadata"], opts=inside)
        role = kubernetes.rbac.v1.Role(name, metadata=bodies["Role"]["metadata"], rules=bodies["Role"]["rules"], opts=inside)
        bound = bodies["RoleBinding"]
        binding = kubernetes.rbac.v1.RoleBinding(
            name,
            metadata=bound["metadata"],
            role_ref=bound["roleRef"],
            subjects=bound["subjects"],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[account, role]),
        )
        self.resources += [account, role, binding]
        self.namespace = account.metadata.apply(lambda _: args.namespace)
        self.service_account = account.metadata.apply(lambda _: args.service_account)
        self.register_outputs({"namespace": self.namespace, "service_account": self.service_account})
