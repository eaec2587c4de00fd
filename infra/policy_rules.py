"""What a policy forbids of a resource of Kubernetes, whoever wrote that: pure functions over plain bodies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from infra.kubernetes_names import parsed

if TYPE_CHECKING:
    from infra.policy import Policy

DOCKER_HUB = "docker.io"
_PUBLIC_TYPES = ("LoadBalancer", "NodePort")
_PLAIN_LIMITS = ("cpu", "memory", "ephemeral-storage")


@dataclass(frozen=True)
class Violation:
    """A field that a rule forbids.

    Attributes:
        rule: key of the policy.
        field: dotted path, items of lists by name.
        value: what it is; None where it is not set.
        problem: what is wrong with it, and the remedy, in words that follow the value.
    """

    rule: str
    field: str
    value: Any
    problem: str

    def __str__(self) -> str:
        value = "not set" if self.value is None else self.value
        return f"{self.field}: {value} {self.problem} (rule {self.rule})"


def violations(policy: Policy, body: Mapping[str, Any]) -> list[Violation]:
    """All that a policy forbids of one resource, in the order of its fields.

    What is looked at: the namespace, the labels of a resource of KubeRay, and wherever they are in it worker groups, containers,
    images, and what gives a public address.
    """
    found = [*_of_metadata(policy, body), *_of_kind(policy, body)]
    for path, part in _mappings("", {key: value for key, value in body.items() if key not in ("metadata", "status")}):
        found += _of_groups(policy, path, part)
        found += _of_container(policy, path, part)
        found += _of_image(policy, path, part)
        found += _of_address(policy, path, part)
    return found


_FIELDS = (
    (r"^metadata\.", ""),
    (r"^spec\.workerGroupSpecs\[([^]]+)\]", r"worker_groups.\1"),
    (r"^spec\.workerGroupSpecs$", "worker_groups"),
    (r"^spec\.headGroupSpec", "head_group"),
    (r"^spec\.autoscalerOptions", "autoscaler"),
    (r"\.template\.spec\.containers\[ray-(?:head|worker)\]", ""),
    (r"\.resources\.limits\.cpu$", ".cpus"),
    (r"\.resources\.limits\.memory$", ".memory"),
    (r"\.resources\.limits\..*/.*$", ".gpus"),
    (r"\.maxReplicas$", ".max_replicas"),
)


def spec_field(violation: Violation) -> Violation:
    """The same by the field of a cluster's file, where it has one; what only `overrides` set keeps its path."""
    field = violation.field
    for pattern, name in _FIELDS:
        field = re.sub(pattern, name, field)
    known = not re.search(r"^spec\.|\.template\.|[a-z][A-Z]", field)
    return replace(violation, field=field if known else f"overrides: {violation.field}")


def registry_of(image: str) -> str:
    """Host of an image's registry, as container runtimes read it: Docker Hub where the first part is no host."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else DOCKER_HUB


def _of_metadata(policy: Policy, body: Mapping[str, Any]) -> Iterator[Violation]:
    metadata = body.get("metadata") or {}
    namespace = metadata.get("namespace")
    if policy.namespaces is not None and namespace is not None and not _matches(namespace, policy.namespaces):
        yield Violation("namespaces", "metadata.namespace", repr(namespace), f"is none of {', '.join(policy.namespaces)}")
    spec = body.get("spec") or {}
    on_standing = "clusterSelector" in {**spec, **(spec.get("jobTemplate") or {})}  # a run; the cluster has the labels
    if on_standing or not str(body.get("apiVersion", "")).startswith("ray.io/"):
        return
    given = metadata.get("labels") or {}
    for key, pattern in policy.required_labels.items():
        if key not in given:
            yield Violation("required_labels", f"metadata.labels.{key}", None, f"and required; give {key}: {pattern}")
        elif not fnmatchcase(given[key], pattern):
            yield Violation("required_labels", f"metadata.labels.{key}", repr(given[key]), f"does not match {pattern}")


def _of_kind(policy: Policy, body: Mapping[str, Any]) -> Iterator[Violation]:
    if not policy.public_address and body.get("kind") == "Ingress":
        yield Violation("public_address", "kind", "Ingress", "gives a public address; drop it")


def _of_groups(policy: Policy, path: str, part: Mapping[str, Any]) -> Iterator[Violation]:
    groups = part.get("workerGroupSpecs")
    if not isinstance(groups, list):
        return
    place = f"{path}.workerGroupSpecs"
    if policy.max_groups is not None and len(groups) > policy.max_groups:
        yield Violation("max_groups", place, f"{len(groups)} groups", f"are more than {policy.max_groups}")
    field = "maxReplicas" if part.get("enableInTreeAutoscaling") else "replicas"
    for group in groups:
        count = group.get(field, None if field == "maxReplicas" else 1)
        if policy.max_replicas is not None and (count is None or count > policy.max_replicas):
            where = f"{place}[{group.get('groupName')}].{field}"
            yield Violation("max_replicas", where, count, _too_many(count, policy.max_replicas))


def _of_container(policy: Policy, path: str, part: Mapping[str, Any]) -> Iterator[Violation]:
    if not re.search(r"\.(containers|initContainers)\[[^]]*\]$", path):
        return
    limits = (part.get("resources") or {}).get("limits") or {}
    starts_only = path.rpartition(".")[2].startswith("initContainers")
    for rule, resource, most in (("max_cpus", "cpu", policy.max_cpus), ("max_memory", "memory", policy.max_memory)):
        value = limits.get(resource)
        if most is None or (value is None and starts_only):
            continue
        if value is None or _amount(value) > _amount(most):
            yield Violation(rule, f"{path}.resources.limits.{resource}", value, _too_many(value, most))
    if policy.max_gpus is not None:
        for resource, value in limits.items():
            # Extended resources have a vendor; hugepages-2Mi has none.
            if resource not in _PLAIN_LIMITS and "/" in resource and _amount(value) > policy.max_gpus:
                where = f"{path}.resources.limits.{resource}"
                yield Violation("max_gpus", where, f"{value} of {resource}", f"is more than {policy.max_gpus}")


def _of_image(policy: Policy, path: str, part: Mapping[str, Any]) -> Iterator[Violation]:
    image = part.get("image")
    if not isinstance(image, str):
        return
    if policy.images is not None and not _matches(image, policy.images):
        yield Violation("images", f"{path}.image", repr(image), f"is none of {', '.join(policy.images)}")
    if policy.registries is not None and not _matches(registry_of(image), policy.registries):
        problem = f"is of registry {registry_of(image)}, which is none of {', '.join(policy.registries)}"
        yield Violation("registries", f"{path}.image", repr(image), problem)


def _of_address(policy: Policy, path: str, part: Mapping[str, Any]) -> Iterator[Violation]:
    if policy.public_address:
        return
    for key in ("type", "serviceType"):
        if part.get(key) in _PUBLIC_TYPES:
            yield Violation("public_address", f"{path}.{key}", part[key], "gives a public address; use ClusterIP")
    for key in ("enableIngress", "ingressOptions", "hostNetwork", "hostPort", "externalIPs"):
        if part.get(key):
            value = part[key] if isinstance(part[key], bool | int) else "set"
            yield Violation("public_address", f"{path}.{key}", value, "gives a public address; drop it")


def _mappings(path: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping within a value, with its path."""
    if isinstance(value, Mapping):
        yield path, value
        for key, item in value.items():
            yield from _mappings(f"{path}.{key}" if path else str(key), item)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            name = item.get("groupName") or item.get("name") if isinstance(item, Mapping) else None
            yield from _mappings(f"{path}[{name or number}]", item)


def _too_many(value: Any, most: Any) -> str:
    return f"and without bound; give {most} at most" if value is None else f"is more than {most}"


def _amount(quantity: Any) -> Decimal:
    """Nothing for what is no quantity above zero: the API server refuses it, or it is none."""
    try:
        return parsed(str(quantity))
    except ValueError:
        return Decimal(0)


def _matches(text: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)
