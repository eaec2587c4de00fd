"""The labels and annotations by which Infill knows its own objects."""

from __future__ import annotations

import hashlib

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "infill"
CLUSTER = "infill/cluster"
"""Name of the spec; differs from the RayCluster's own name under the upgrade strategy NewCluster."""
STACK = "infill/stack"
"""The Pulumi stack that declares it, as project.stack."""
BACKFILL = "infill/backfill"
"""Name of the declared backfill, on its RayJobs and what makes them."""
DECLARED_BY = "infill/declared-by"
"""An annotation of the same: the Pulumi stack that declares it. Not `STACK`: KubeRay hands a RayJob's labels on to its RayCluster,
which is none of the stack's own."""
TEMPLATE_HASH = "infill/template-hash"
"""On pods: what they were made from. A pod with another one than its group's is out of date."""

LOOK_AGAIN = "infill/look-again"
"""An annotation of a RayCluster: when KubeRay was last asked to try again what had failed."""

# KubeRay's, https://github.com/ray-project/kuberay (ray-operator/controllers/ray/utils/constant.go)
RAY_CLUSTER = "ray.io/cluster"
RAY_GROUP = "ray.io/group"
RAY_NODE_TYPE = "ray.io/node-type"
HEAD_GROUP = "headgroup"
"""KubeRay's value of RAY_GROUP for the head."""

_LONGEST = 63  # a label's value


def owned(cluster: str | None = None) -> dict[str, str]:
    """Ownership labels of an object, of a cluster where it belongs to one."""
    return {MANAGED_BY: MANAGER, **({CLUSTER: cluster} if cluster else {})}


def label_of_stack(project: str, stack: str) -> str:
    """Value of `STACK` for a stack; names that are too long for a label end in a hash."""
    text = f"{project}.{stack}"
    if len(text) <= _LONGEST:
        return text.rstrip("-_.")
    return f"{text[: _LONGEST - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
