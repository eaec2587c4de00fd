"""The host that Pulumi runs. Its annotations are read at run time: no `from __future__ import annotations` here."""

import pulumi
from pulumi.provider.experimental import component_provider_host

from infra.package.inputs import RayClusterInputs, spec_data
from infra.raycluster import RayCluster as Component
from infra.raycluster import RayClusterArgs


class RayCluster(pulumi.ComponentResource):
    """A Ray cluster that KubeRay runs. Outputs become known when it serves."""

    cluster_name: pulumi.Output[str]
    """Of the RayCluster."""
    namespace: pulumi.Output[str]
    head_service: pulumi.Output[str]
    ray_address: pulumi.Output[str]
    """ray://...:10001, within Kubernetes."""
    dashboard_url: pulumi.Output[str]
    """http://...:8265, within Kubernetes: dashboard and Jobs API."""
    token_secret: pulumi.Output[str | None]
    """Name of the Secret whose key auth_token holds the token."""
    spec_hash: pulumi.Output[str]

    def __init__(self, name: str, args: RayClusterInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("infill:index:RayCluster", name, {}, opts)
        data = {"name": name, **spec_data(args)}
        cluster = Component(
            name,
            RayClusterArgs(data, wait=args.get("wait", True), force=args.get("force", False)),
            pulumi.ResourceOptions(parent=self),
        )
        self.cluster_name, self.namespace, self.head_service = cluster.cluster_name, cluster.namespace, cluster.head_service
        self.ray_address, self.dashboard_url = cluster.ray_address, cluster.dashboard_url
        self.token_secret, self.spec_hash = cluster.token_secret, cluster.spec_hash
        self.register_outputs({})


if __name__ == "__main__":
    component_provider_host(name="infill", components=[RayCluster])
