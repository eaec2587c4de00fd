"""Everything that is declared against everything that is there: one look at each Kubernetes, one list a namespace and kind."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from infra import labels
from infra.changes import Change, differences, missing_from
from infra.errors import InfraError
from infra.kube import Access, Kubernetes, run
from infra.preflight import find_operator
from infra.spec import KubeRayClusterSpec

# What a stack may have made and declare no more, and how it is found: in all namespaces, by its label.
_MADE = {
    "RayCluster": ("/apis/ray.io/v1/rayclusters", f"{labels.MANAGED_BY}={labels.MANAGER},!{labels.BACKFILL}"),
    "RayJob": ("/apis/ray.io/v1/rayjobs", labels.BACKFILL),
    "RayCronJob": ("/apis/ray.io/v1/raycronjobs", labels.BACKFILL),
    "CronJob": ("/apis/batch/v1/cronjobs", labels.BACKFILL),
}
# Of a run, these are written once: what was uploaded last is no part of what is declared. Its name tells declarations apart.
_WRITTEN_ONCE = ("spec.entrypoint", "spec.runtimeEnvYAML", "spec.rayClusterSpec")
State = Literal["same", "differs", "missing", "undeclared", "other", "unknown"]


@dataclass(frozen=True)
class Declared:
    """A resource that is to be there.

    Attributes:
        spec: of a RayCluster, which is then known by its label as well as by its name.
        optional: its absence is no difference: a cluster that is provisioned when it is needed.
    """

    body: Mapping[str, Any]
    access: Access
    spec: KubeRayClusterSpec | None = None
    optional: bool = False


@dataclass(frozen=True)
class Drift:
    """How a resource that is declared, or that is there, compares.

    Attributes:
        state: ``undeclared``: a cluster or backfill of ours that nothing declares; ``other``: one that is not ours to declare;
            ``unknown``: Kubernetes does not say.
        changes: fields that differ, from what is there to what is declared.
        note: what else there is to say.
    """

    kind: str
    name: str
    namespace: str
    state: State
    changes: tuple[Change, ...] = ()
    note: str = ""

    @property
    def differs(self) -> bool:
        return self.state in ("differs", "missing", "undeclared")


def compare(
    declared: Sequence[Declared],
    stacks: Collection[str | None] = (None,),
    operators: Mapping[Access, str] | None = None,
    others: Sequence[Access] = (),
) -> list[Drift]:
    """Each resource that is declared, and each cluster and backfill that is there, as far as these credentials may see it.

    Args:
        stacks: values of the label `infra.labels.STACK` whose clusters and backfills have to be declared; None for those without
            it, in the namespaces of what is declared. Empty: nothing has to be.
        operators: version of KubeRay's operator that is declared.
        others: each Kubernetes to look at besides, where nothing is declared any more.
    """
    accesses = list(dict.fromkeys([*(item.access for item in declared), *(operators or {}), *others]))

    async def work() -> list[Drift]:
        looks = [
            _look(access, [item for item in declared if item.access == access], stacks, (operators or {}).get(access))
            for access in accesses
        ]
        return [drift for found in await asyncio.gather(*looks) for drift in found]

    return run(work())


async def _look(access: Access, declared: list[Declared], stacks: Collection[str | None], operator: str | None) -> list[Drift]:
    paths = list(dict.fromkeys(collection_of(item.body) for item in declared))
    try:
        kube = await Kubernetes.connect(access)
        lists = await asyncio.gather(*[_listed(kube, path) for path in paths])
    except InfraError as exc:
        return [_drift(item.body, "unknown", note=_first_line(exc)) for item in declared]
    there = dict(zip(paths, lists, strict=True))
    found = [_compared(item, there[collection_of(item.body)]) for item in declared]
    found += _undeclared(declared, await _made(kube, there), stacks) if stacks else []
    return [*found, await _operator(kube, operator)] if operator else found


async def _listed(kube: Kubernetes, path: str) -> list[dict[str, Any]] | InfraError:
    try:
        if path.startswith("/api/v1/namespaces/") and path.count("/") == 4:  # a Namespace itself: few may list all
            one = await kube.get(path)
            return [one] if one else []
        return await kube.list(path)
    except InfraError as exc:
        return exc


def _compared(item: Declared, there: list[dict[str, Any]] | InfraError) -> Drift:
    if isinstance(there, InfraError):
        return _drift(item.body, "unknown", note=_first_line(there))
    live = _live(item, there)
    if live is None:
        return _drift(item.body, "same", note="not provisioned") if item.optional else _drift(item.body, "missing")
    changes = differences(item.spec, live) if item.spec else missing_from(item.body, live)
    if item.body["kind"] == "RayJob":
        changes = [change for change in changes if not change.path.startswith(_WRITTEN_ONCE)]
    if live["metadata"]["name"] != item.body["metadata"]["name"]:
        changes.insert(0, Change("metadata.name", live["metadata"]["name"], item.body["metadata"]["name"]))
    return _drift(item.body, "differs" if changes else "same", tuple(changes))


def _live(item: Declared, there: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The resource as it is; of a cluster the newest, where one takes over from another."""
    name = item.body["metadata"]["name"]
    standing = [body for body in there if "deletionTimestamp" not in body["metadata"]]
    if item.spec is None:
        return next((body for body in standing if body["metadata"]["name"] == name), None)
    ours = [body for body in standing if _known_as(body) == item.spec.name or body["metadata"]["name"] == name]
    return max(ours, key=lambda body: str(body["metadata"].get("creationTimestamp", "")), default=None)


async def _made(kube: Kubernetes, there: Mapping[str, list[dict[str, Any]] | InfraError]) -> list[dict[str, Any]]:
    """What stacks have made, of each kind in all namespaces where these credentials may list that, otherwise in those looked at."""

    async def one(kind: str, path: str, selector: str) -> list[dict[str, Any]]:
        try:
            found = await kube.list(path, labelSelector=selector)
        except InfraError:
            seen = [bodies for place, bodies in there.items() if place.endswith(f"/{kind.lower()}s")]
            found = [body for bodies in seen if not isinstance(bodies, InfraError) for body in bodies]
        return [{**body, "kind": kind} for body in found if _is_made(kind, body["metadata"])]

    return [body for found in await asyncio.gather(*[one(kind, *where) for kind, where in _MADE.items()]) for body in found]


def _is_made(kind: str, metadata: Mapping[str, Any]) -> bool:
    """Whether a stack, or a tool that applies a tree, made it: runs of a schedule and clusters of runs are KubeRay's to make."""
    given = metadata.get("labels", {})
    if "deletionTimestamp" in metadata:
        return False
    if kind == "RayCluster":
        return given.get(labels.MANAGED_BY) == labels.MANAGER and labels.BACKFILL not in given
    return labels.BACKFILL in given and not metadata.get("ownerReferences")


def _undeclared(declared: Sequence[Declared], made: Sequence[Mapping[str, Any]], stacks: Collection[str | None]) -> list[Drift]:
    known = {(item.body["kind"], item.body["metadata"].get("namespace"), _known_as(item.body)) for item in declared}
    namespaces = {item.body["metadata"].get("namespace") for item in declared}
    found = []
    for body in made:
        metadata = body["metadata"]
        if (body["kind"], metadata["namespace"], _known_as(body)) in known:
            continue
        by = metadata["labels"].get(labels.STACK) or metadata.get("annotations", {}).get(labels.DECLARED_BY)
        # One of no stack may be of another repository, unless it is where this one has its own.
        ours = by in stacks and (by is not None or metadata["namespace"] in namespaces)
        found.append(_drift(body, "undeclared" if ours else "other", note=f"of stack {by}" if by else "of no stack"))
    return found


async def _operator(kube: Kubernetes, version: str) -> Drift:
    try:
        running = (await find_operator(kube)).version
    except InfraError as exc:
        return Drift("KubeRay", "operator", "", "missing", note=_first_line(exc))
    if running is None:
        return Drift("KubeRay", "operator", "", "unknown", note="its Deployment cannot be seen")
    changes = () if running == version else (Change("version", running, version),)
    return Drift("KubeRay", "operator", "", "differs" if changes else "same", changes)


def _drift(body: Mapping[str, Any], state: State, changes: tuple[Change, ...] = (), note: str = "") -> Drift:
    metadata = body["metadata"]
    return Drift(str(body["kind"]), metadata["name"], metadata.get("namespace", ""), state, changes, note)


def collection_of(body: Mapping[str, Any]) -> str:
    """Path of the collection that a resource is in; of a Namespace that of itself."""
    metadata, kind = body["metadata"], str(body["kind"]).lower()
    root = "/api/v1" if body["apiVersion"] == "v1" else f"/apis/{body['apiVersion']}"
    if kind == "namespace":
        return f"{root}/namespaces/{metadata['name']}"
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    return f"{root}/namespaces/{metadata['namespace']}/{plural}"


def _known_as(body: Mapping[str, Any]) -> str:
    """The name by which a declaration is known: of a RayCluster that of its spec."""
    metadata = body["metadata"]
    cluster = metadata.get("labels", {}).get(labels.CLUSTER) if body.get("kind", "RayCluster") == "RayCluster" else None
    return str(cluster or metadata["name"])


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]
