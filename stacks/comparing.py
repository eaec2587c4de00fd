"""What a project declares against what Kubernetes has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infra import labels
from infra.drift import Declared, Drift, compare
from infra.errors import InfraError
from infra.kube import Access, Kubernetes, access_of, run
from infra.preflight import find_operator
from infra.spec import KubeRayClusterSpec
from infra.support import Operator
from stacks.preparing import prepare_backfill
from stacks.project import DeclaredStack, Project
from stacks.rendering import declared_gates, stack_bodies
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
            gates = _gates(stack, accesses)
        except InfraError as exc:
            lost.append(Drift("stack", stack.name or str(project.clusters), "", "unknown", note=str(exc)))
            continue
        declared += _declared(stack_bodies(stack, backfills, gates), stack, accesses)
        if given := operator_settings(stack.settings):
            operators |= dict.fromkeys(accesses.values(), given.version)
    names = {stack.label for stack in project.stacks} | {None}
    return [*compare(declared, names, operators, others), *lost]


def _gates(stack: DeclaredStack, accesses: dict[str, Access]) -> frozenset[str] | None:
    """KubeRay's feature gates by which `pulumi up` chooses what makes the runs of a schedule."""
    scheduled = [backfill for backfill in stack.backfills if backfill.spec.schedule]
    if not scheduled or operator_settings(stack.settings):
        return declared_gates(stack.settings)

    async def asked() -> Operator:
        return await find_operator(await Kubernetes.connect(accesses[scheduled[0].cluster.name]))

    return run(asked()).gates


def _declared(bodies: Sequence[dict[str, Any]], stack: DeclaredStack, accesses: dict[str, Access]) -> list[Declared]:
    clusters = {(spec.namespace, spec.name): spec for spec in stack.specs}
    runs = {(backfill.cluster.namespace, backfill.spec.name): backfill.cluster for backfill in stack.backfills}
    by_namespace: dict[str, list[Access]] = {}
    for spec in stack.places:
        by_namespace.setdefault(spec.namespace, []).append(accesses[spec.name])
    found = []
    for body in bodies:
        metadata = body["metadata"]
        namespace, given = metadata.get("namespace", metadata["name"]), metadata.get("labels", {})
        owner = clusters.get((namespace, given.get(labels.CLUSTER))) or runs.get((namespace, given.get(labels.BACKFILL)))
        for access in [accesses[owner.name]] if owner else dict.fromkeys(by_namespace[namespace]):
            found.append(Declared(body, access, owner if body["kind"] == "RayCluster" else None))
    return found
