"""The Pulumi provider of a Kubernetes, from the access that a config method names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes
import yaml

from infra import labels
from infra.kube import Access

_LONGEST_LABEL = 63


def kubernetes_provider(
    name: str, access: Access, *, ambient: bool = False, adopt: bool = False, opts: pulumi.ResourceOptions | None = None
) -> kubernetes.Provider:
    """A provider that reaches Kubernetes as `access` says. Its state holds a path at most, never the text of a kubeconfig.

    Args:
        ambient: the kubeconfig is that of KUBECONFIG or ~/.kube/config, which is another file on another machine: it is not
            written into the state.
        adopt: take over objects that exist instead of refusing to make them.
    """
    written = None if ambient else access.kubeconfig
    if written is None:  # the class fills in KUBECONFIG otherwise, several joined paths too, which the provider cannot read
        opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(transformations=[_without_kubeconfig]))
    return kubernetes.Provider(
        name,
        kubeconfig=written,
        context=access.context,
        # What decides whether it is still the same Kubernetes; a kubeconfig that moves is no reason to replace everything.
        cluster_identifier=server_of(access),
        upsert_existing_objects=adopt or None,
        opts=opts,
    )


def _without_kubeconfig(made: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult:
    return pulumi.ResourceTransformationResult({**made.props, "kubeconfig": None}, made.opts)


def stack_label() -> str:
    """Value of `labels.STACK` for the stack that runs; names that are too long for a label end in a hash."""
    text = f"{pulumi.get_project()}.{pulumi.get_stack()}"
    if len(text) <= _LONGEST_LABEL:
        return text.rstrip("-_.")
    return f"{text[: _LONGEST_LABEL - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def owned_here(cluster: str | None = None) -> dict[str, str]:
    """Ownership labels of an object that the stack that runs makes."""
    return {**labels.owned(cluster), labels.STACK: stack_label()}


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
