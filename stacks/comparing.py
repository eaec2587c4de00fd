"""What a project declares against what Kubernetes has."""

from __future__ import annotations

from infra import labels
from infra.drift import Declared, Drift, compare
from infra.errors import InfraError
from infra.kube import Access, access_of
from stacks.project import DeclaredStack, Project
from stacks.rendering import cluster_bodies
from stacks.settings import operator_settings


def drift_of(project: Project) -> list[Drift]:
    """Each resource that the stacks of a project declare, their clusters that they declare no more, and KubeRay's version.

    Secrets are not compared. A stack whose Kubernetes cannot be reached does not hide what the others have.
    """
    declared: list[Declared] = []
    operators: dict[Access, str] = {}
    lost: list[Drift] = []
    for stack in project.stacks:
        try:
            accesses = {spec.name: access_of(spec) for spec in stack.specs}
        except InfraError as exc:
            lost.append(Drift("stack", stack.name or str(project.clusters), "", "unknown", note=str(exc)))
            continue
        declared += _declared(stack, accesses)
        if given := operator_settings(stack.settings):
            operators |= dict.fromkeys(accesses.values(), given.version)
    names = {stack.label for stack in project.stacks} | {None}
    return [*compare(declared, names, operators), *lost]


def _declared(stack: DeclaredStack, accesses: dict[str, Access]) -> list[Declared]:
    specs = {(spec.namespace, spec.name): spec for spec in stack.specs}
    by_namespace: dict[str, list[Access]] = {}
    for spec in stack.specs:
        by_namespace.setdefault(spec.namespace, []).append(accesses[spec.name])
    found = []
    for body in cluster_bodies(stack):
        metadata = body["metadata"]
        namespace = metadata.get("namespace", metadata["name"])
        cluster = metadata.get("labels", {}).get(labels.CLUSTER)
        owner = specs.get((namespace, cluster))
        for access in [accesses[owner.name]] if owner else dict.fromkeys(by_namespace[namespace]):
            found.append(Declared(body, access, owner if body["kind"] == "RayCluster" else None))
    return found
