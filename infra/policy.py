"""`Policy`: the rules that a platform team sets once for every cluster. A YAML file beside the clusters' folder holds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from infra import kubernetes_names as names
from infra.body import resources
from infra.errors import BadSpec
from infra.files import read_yaml
from infra.model import Bytes, Count, Model, Quantity
from infra.policy_rules import Violation, spec_field, violations
from infra.spec import ClusterSpec, KubeRayClusterSpec

FILE = "policy.yaml"
"""Beside the folder of clusters: ``stacks/policy.yaml`` for ``stacks/clusters/*.yaml``."""

Pattern = Annotated[str, Field(min_length=1)]
"""As a shell has them: ``*`` is any text, ``?`` a character, ``[ab]`` one of these."""


class PolicyRefused(BadSpec):
    """A rule of the policy forbids it. Nothing was changed."""


class Policy(Model):
    """What clusters may be. A rule that is left out forbids nothing."""

    namespaces: list[Pattern] | None = None
    """Namespaces that may have clusters: patterns such as `ray-*`."""
    images: list[Pattern] | None = None
    """Images that pods may run, as they are written: `rayproject/ray:*`."""
    registries: list[Pattern] | None = None
    """Registries of those images: `docker.io` for a name without one, `*.dkr.ecr.us-east-1.amazonaws.com`."""
    required_labels: dict[Annotated[str, AfterValidator(names.label_key)], Pattern] = Field(default_factory=dict)
    """Labels that every cluster has, with the pattern of their value: `{team: "*"}`."""
    max_cpus: Quantity | None = None
    """Largest CPU limit of a container, the head's too."""
    max_memory: Bytes | None = None
    """Largest memory limit of a container."""
    max_gpus: Count | None = None
    """Most accelerators of a container, of each kind."""
    max_replicas: Count | None = None
    """Most workers of a group: its `max_replicas`, or its `replicas` without autoscaler."""
    max_groups: Count | None = None
    """Most groups of workers of a cluster."""
    max_time_to_live: Annotated[float, Field(gt=0)] | None = None
    """Most seconds that an on-demand cluster may live without renewal; one without end is refused then."""
    public_address: bool = True
    """false: no Service of type LoadBalancer or NodePort, no Ingress, no port of the node."""


def read_policy(path: str | Path) -> Policy:
    """The policy that a YAML file holds.

    Raises:
        BadSpec: no such file, no YAML, or an unknown or wrong rule, with the nearest right one.
    """
    data = read_yaml(path)
    return Policy.parse({} if data is None else data, str(path))


def policy_beside(folder: str | Path) -> Policy | None:
    """The policy of a folder of clusters: the file `FILE` beside it; None where there is none.

    Raises:
        BadSpec: see `read_policy`.
    """
    file = Path(folder).absolute().parent / FILE
    return read_policy(file) if file.exists() else None


def broken_rules(policy: Policy, spec: ClusterSpec) -> list[Violation]:
    """What a policy forbids of a cluster, by the fields of its file; nothing of one that is not made in Kubernetes.

    The resources that the cluster becomes are looked at, so that nothing gets past it by `overrides`.
    """
    if not isinstance(spec, KubeRayClusterSpec):
        return []
    return [spec_field(found) for body in resources(spec) for found in violations(policy, body)]


def check_policy(policy: Policy | None, *specs: ClusterSpec) -> None:
    """Refuse clusters that a policy forbids.

    Raises:
        PolicyRefused: with every rule, field and value.
    """
    if policy is None:
        return
    problems = [f"cluster {spec.name!r}: {found}" for spec in specs for found in broken_rules(policy, spec)]
    if problems:
        raise PolicyRefused("\n".join(dict.fromkeys(problems)))


def check_time_to_live(policy: Policy | None, cluster: str, seconds: float | None) -> None:
    """Refuse an on-demand cluster that lives longer than a policy allows.

    Args:
        seconds: None for a cluster without end.

    Raises:
        PolicyRefused: with rule and value.
    """
    longest = policy.max_time_to_live if policy else None
    if longest is not None and (seconds is None or seconds > longest):
        lives = "without end" if seconds is None else f"{seconds:g} seconds"
        raise PolicyRefused(f"cluster {cluster!r}: time_to_live: {lives} is more than {longest:g} (rule max_time_to_live)")


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors and CI."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Policy.model_json_schema()}
    return dict(json.loads(json.dumps(schema)))
