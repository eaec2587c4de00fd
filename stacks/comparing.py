"""What a project declares against what Kubernetes has."""

from __future__ import annotations

from infra import labels
from infra.drift import Declared, Drift, compare
from infra.errors import InfraError
from infra.kube import Access, access_of
from infra.spec import KubeRayClusterSpec
from stacks.preparing import Prepared, prepare_backfill
from stacks.project import DeclaredStack, Project
from stacks.rendering import stack_bodies
from stacks.settings import operator_settings

ANY = "any"
"""Name of a cluster that says only how Kubernetes is reached."""


def drift_of(project: Project) -> list[Drift]:
    """Each resource that the stacks of a project declare, what they made and declare no more, and KubeRay's version.

    Secrets are not compared. A stack whose Kubernetes cannot be reached does not hide what the others have.
    """
    declared: list[Declared] = []
    operators: dict[Access, str] = {}
    others: list[Access] = []
    lost: list[Drift] = []
    for stack in project.stacks:
        try:
            if stack.name and not stack.places:  # what it made is there until the next `up`
                others.append(access_of(KubeRayClusterSpec(name=ANY, **stack.settings.of_clusters())))
            accesses = {spec.name: access_of(spec) for spec in stack.places}
            backfills = [prepare_backfill(backfill, send=False) for backfill in stack.backfills]
        except InfraError as exc:
            lost.append(Drift("stack", stack.name or str(project.clusters), "", "unknown", note=str(exc)))
            continue
        declared += _declared(stack, backfills, accesses)
        if given := operator_settings(stack.settings):
            operators |= dict.fromkeys(accesses.values(), given.version)
    names = {stack.label for stack in project.stacks} | {None}
    return [*compare(declared, names, operators, others), *lost]


def _declared(stack: DeclaredStack, backfills: list[Prepared], accesses: dict[str, Access]) -> list[Declared]:
    clusters = {(spec.namespace, spec.name): spec for spec in stack.specs}
    runs = {(backfill.cluster.namespace, backfill.spec.name): backfill.cluster for backfill in backfills}
    by_namespace: dict[str, list[Access]] = {}
    for spec in stack.places:
        by_namespace.setdefault(spec.namespace, []).append(accesses[spec.name])
    found = []
    for body in stack_bodies(stack, backfills):
        metadata = body["metadata"]
        namespace, given = metadata.get("namespace", metadata["name"]), metadata.get("labels", {})
        owner = clusters.get((namespace, given.get(labels.CLUSTER))) or runs.get((namespace, given.get(labels.BACKFILL)))
        for access in [accesses[owner.name]] if owner else dict.fromkeys(by_namespace[namespace]):
            found.append(Declared(body, access, owner if body["kind"] == "RayCluster" else None))
    return found
