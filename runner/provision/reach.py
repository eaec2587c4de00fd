"""From a record to the Kubernetes that it is in, with the credentials of whoever asks; and whether it is that one."""

from __future__ import annotations

import os

from infra.errors import BadSpec, InfraError
from infra.kube import IN_CLUSTER_FOLDER, Access, Kubernetes, access_of, local_access, server_of
from infra.parts import K8sConfigMethod
from infra.spec import KubeRayClusterSpec
from runner.provision.objects import owner_of
from runner.provision.record import Record


def access_here(spec: KubeRayClusterSpec, kubeconfig: str | None = None, context: str | None = None) -> Access:
    """The access from here to the Kubernetes of a cluster that was made elsewhere.

    Args:
        kubeconfig, context: where they are given, they are taken. Default: what the spec says, as far as this machine has it;
            then KUBECONFIG, ~/.kube/config, or the pod's own service account.

    Raises:
        BadSpec: there is no kubeconfig here, or not with that context.
        InfraError: AWS refuses.
    """
    if kubeconfig or context:
        return local_access(kubeconfig, context)
    if spec.config_method is K8sConfigMethod.EKS_AUTH:
        return access_of(spec)
    in_pod = os.path.isdir(IN_CLUSTER_FOLDER)
    if spec.config_method is K8sConfigMethod.IN_CLUSTER and in_pod:
        return Access(None)
    try:
        return access_of(spec) if spec.config_method is K8sConfigMethod.LOCAL else local_access()
    except BadSpec:
        if in_pod:
            return Access(None)
        return local_access()


async def check_same(kube: Kubernetes, record: Record) -> None:
    """Refuse a Kubernetes that is not the record's: what is not there is not gone.

    Raises:
        InfraError: it is another one, or cannot be told to be the same.
    """
    here = server_of(kube.access) or ""
    if here == record.kubernetes or await owner_of(kube, record) is not None:
        return
    made_in = f"the Kubernetes at {record.kubernetes}" if record.kubernetes else "the Kubernetes of a pod"
    raise InfraError(
        f"cluster {record.name} was made in {made_in}, and {kube.access} leads to {here or 'that of this pod'}, where it is not; "
        "name the right one by --kubeconfig or --context. If that Kubernetes is gone for good, "
        f"`clusters down {record.name} --forget` drops what the database knows of it"
    )
