"""The Pulumi provider of a Kubernetes, from the access that a config method names."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes

from infra import labels
from infra.kube import Access, server_of


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
    """Value of `labels.STACK` for the stack that runs."""
    return labels.label_of_stack(pulumi.get_project(), pulumi.get_stack())


def owned_here(cluster: str | None = None) -> dict[str, str]:
    """Ownership labels of an object that the stack that runs makes."""
    return {**labels.owned(cluster), labels.STACK: stack_label()}
