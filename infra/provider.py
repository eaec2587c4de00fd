"""The Pulumi provider of a Kubernetes, from the access that a config method names."""

from __future__ import annotations

from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes
import yaml

from infra.kube import Access


def kubernetes_provider(
    name: str, access: Access, *, ambient: bool = False, adopt: bool = False, opts: pulumi.ResourceOptions | None = None
) -> kubernetes.Provider:
    """A provider that reaches Kubernetes as `access` says. Its state holds a path at most, never the text of a kubeconfig.

    Args:
        ambient: the kubeconfig is that of KUBECONFIG or ~/.kube/config, which is another file on another machine: it is not
            written into the state.
        adopt: take over objects that exist instead of refusing to make them.
    """
    return kubernetes.Provider(
        name,
        kubeconfig=None if ambient or access.kubeconfig is None else access.kubeconfig,
        context=access.context,
        # What decides whether it is still the same Kubernetes; a kubeconfig that moves is no reason to replace everything.
        cluster_identifier=server_of(access),
        upsert_existing_objects=adopt or None,
        opts=opts,
    )


def server_of(access: Access) -> str | None:
    """Address of the API server that a kubeconfig's context leads to; None within a cluster."""
    if access.kubeconfig is None:
        return None
    configs = [yaml.safe_load(Path(path).read_text()) for path in access.kubeconfig.split(":")]
    current = access.context or next((config.get("current-context") for config in configs if config.get("current-context")), None)
    for config in configs:
        for context in config.get("contexts") or []:
            if context.get("name") == current:
                wanted = context.get("context", {}).get("cluster")
                servers = [
                    item["cluster"].get("server") for one in configs for item in one.get("clusters") or [] if item["name"] == wanted
                ]
                return servers[0] if servers else None
    return None
