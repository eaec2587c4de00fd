"""What a job runner needs in a namespace, as plain resources of Kubernetes; `infra.access.RunnerAccess` declares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra import kubernetes_names as names
from infra.body import head_service_name
from infra.errors import BadSpec

RBAC = "rbac.authorization.k8s.io"


@dataclass
class RunnerAccessArgs:
    """What a `RunnerAccess` is made from.

    Attributes:
        namespace: where clusters are made.
        create_namespace: make it, with Pod Security "restricted".
        service_account: name of the account.
        clusters: names of the clusters whose token the runner may read.
        eks_role: ARN of the AWS role that the account has; leave it out for EKS Pod Identity.
        gke_service_account: Google service account that the account acts as.
        azure_client_id: client id of the Azure managed identity.
    """

    namespace: str
    create_namespace: bool = True
    service_account: str = "infill-runner"
    clusters: Sequence[str] = field(default_factory=list)
    eks_role: str | None = None
    gke_service_account: str | None = None
    azure_client_id: str | None = None

    def check(self) -> None:
        """Refuse what Kubernetes or a cloud would not take.

        Raises:
            BadSpec: a wrong name, or identities of two clouds.
        """
        try:
            names.dns_1123(self.namespace)
            names.subdomain(self.service_account)
            for cluster in self.clusters:
                names.dns_1035(cluster)
        except ValueError as exc:
            raise BadSpec(f"RunnerAccess: {exc}") from None
        if len(identity(self)) > 1:
            clouds = ", ".join(identity(self))
            raise BadSpec(f"RunnerAccess: identities of several clouds ({clouds}); a service account has one")
        if self.eks_role and not self.eks_role.startswith("arn:"):
            raise BadSpec(f"RunnerAccess: eks_role: {self.eks_role!r} is no ARN; write arn:aws:iam::ACCOUNT:role/NAME")


def access_bodies(args: RunnerAccessArgs, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The namespace, where it is to be made, the service account, its Role and their binding, in the order of their making.

    Args:
        labels: on each of them.
    """
    named: dict[str, Any] = {"name": args.service_account, "namespace": args.namespace, "labels": dict(labels)}
    annotated = {**named, "annotations": identity(args)} if identity(args) else named
    account = {"kind": "ServiceAccount", "name": args.service_account, "namespace": args.namespace}
    found: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": annotated},
        {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": named, "rules": rules(args.clusters)},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": named,
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": args.service_account},
            "subjects": [account],
        },
    ]
    if not args.create_namespace:
        return found
    restricted = {**labels, "pod-security.kubernetes.io/enforce": "restricted"}
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": args.namespace, "labels": restricted}}, *found]


def rules(clusters: Sequence[str] = ()) -> list[Any]:
    """Rules of the runner's Role: each verb for one reason.

    - rayclusters: to make, find, change and remove clusters.
    - services/proxy: Ray's dashboard through the API server; Jobs API: read, submit (POST), upload (PUT), delete.
    - pods/portforward: the same where the proxy is closed; a WebSocket begins with GET, SPDY with POST.
    - pods, pods/log, services and events: to say why a cluster does not start; deletion of pods that a change leaves behind.
    - the Secret of each named cluster: Ray's token.
    """
    found: list[Any] = [
        _rule("ray.io", ["rayclusters"], ["get", "list", "watch", "create", "patch", "delete"]),
        _rule("", ["services/proxy"], ["get", "create", "update", "delete"], [_proxied(name) for name in clusters]),
        _rule("", ["pods/portforward"], ["get", "create"]),
        _rule("", ["pods", "services", "events"], ["get", "list", "watch"]),
        _rule("", ["pods"], ["delete"]),
        _rule("", ["pods/log"], ["get"]),
    ]
    return [*found, _rule("", ["secrets"], ["get"], list(clusters))] if clusters else found


def _rule(group: str, resources: list[str], verbs: list[str], objects: list[str] | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    return {**rule, "resourceNames": objects} if objects else rule


def _proxied(cluster: str) -> str:
    """RBAC's name of a proxied Service has scheme and port in it."""
    return f"http:{head_service_name(cluster)}:8265"


def identity(args: RunnerAccessArgs) -> dict[str, str]:
    """Annotations by which a cloud knows the service account; none where no cloud is asked for."""
    found = {
        "eks.amazonaws.com/role-arn": args.eks_role,
        "iam.gke.io/gcp-service-account": args.gke_service_account,
        "azure.workload.identity/client-id": args.azure_client_id,
    }
    return {key: value for key, value in found.items() if value}
