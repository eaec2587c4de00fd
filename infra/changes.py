"""What a changed spec does to the cluster that runs: field by field, and to its pods. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from infra import labels
from infra.body import ray_cluster_body, template_hashes
from infra.kubernetes_names import parsed
from infra.parts import UpgradeStrategy
from infra.readiness import Expected, group_of, is_outdated
from infra.spec import KubeRayClusterSpec

AUTOSCALED = "replicas"
"""Field of a worker group that the autoscaler moves."""


@dataclass(frozen=True)
class Change:
    """One field that differs.

    Attributes:
        path: dotted, items of lists by name: ``spec.workerGroupSpecs[cpu].maxReplicas``.
        before: what runs; None where there is nothing.
        after: what is declared; None where it is to go.
    """

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.path}: {_short(self.before)} -> {_short(self.after)}"


@dataclass(frozen=True)
class Upgrade:
    """What `up` does to a running cluster.

    Attributes:
        changes: fields that differ.
        restarted: groups whose pods are deleted and made anew; all of them where the head is among them.
        removed: groups whose pods are deleted.
        kept: groups whose pods stay as they were, under strategy None.
        new_cluster: name of the RayCluster that takes over, under strategy NewCluster and on the way back from it.
    """

    changes: tuple[Change, ...] = ()
    restarted: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    new_cluster: str | None = None

    @property
    def disrupts(self) -> bool:
        """Whether it ends pods that may be at work."""
        return bool(self.restarted or self.removed)

    def describe(self) -> str:
        """One sentence on what happens to the pods."""
        if self.new_cluster and self.disrupts:
            return f"a new cluster {self.new_cluster} is made and the old one deleted at once, jobs that run end"
        if self.new_cluster:
            return f"a new cluster {self.new_cluster} is made beside it; the old one goes when its jobs are done"
        parts = []
        if self.restarted == ("all",):
            parts.append("the head changes: all pods are deleted and made anew, jobs that run end")
        elif self.restarted:
            parts.append(f"pods of {', '.join(self.restarted)} are deleted and made anew")
        if self.removed:
            parts.append(f"group {', '.join(self.removed)} goes, with its pods")
        if self.kept:
            parts.append(f"pods of {', '.join(self.kept)} stay as they were made until something else ends them")
        return "; ".join(parts) or "in place: no pod is touched"


def plan_upgrade(spec: KubeRayClusterSpec, live: Mapping[str, Any]) -> Upgrade:
    """What declaring `spec` does to the RayCluster `live`."""
    body, changes = ray_cluster_body(spec), tuple(differences(spec, live))
    if body["metadata"]["name"] != live["metadata"]["name"]:  # by its hash, or because the strategy was or is NewCluster
        beside = spec.upgrade_strategy is UpgradeStrategy.NEW_CLUSTER
        return Upgrade(changes, restarted=() if beside else ("all",), new_cluster=body["metadata"]["name"])
    before, after = template_hashes(dict(live)), template_hashes(body)
    removed = tuple(name for name in before if name not in after)
    changed = tuple(name for name in after if name in before and after[name] != before[name])
    if spec.upgrade_strategy is UpgradeStrategy.NONE:
        return Upgrade(changes, removed=removed, kept=tuple(map(_readable, changed)))
    restarted = ("all",) if labels.HEAD_GROUP in changed else changed
    return Upgrade(changes, restarted=restarted, removed=removed)


def with_old_pods(upgrade: Upgrade, expected: Expected, pods: Iterable[dict[str, Any]]) -> Upgrade:
    """`upgrade`, with the pods that a change before it left behind: under strategy None, or because that `up` was interrupted."""
    old = {group_of(pod) for pod in pods if is_outdated(pod, expected) and "deletionTimestamp" not in pod["metadata"]}
    removed = tuple(sorted({*upgrade.removed, *(old - set(expected.templates))}))
    if expected.keep_old:
        return replace(upgrade, removed=removed)
    changed = {*upgrade.restarted, *(old & set(expected.templates))}
    restarted = ("all",) if changed & {"all", labels.HEAD_GROUP} else tuple(sorted(changed))
    return replace(upgrade, restarted=restarted, removed=removed)


def differences(spec: KubeRayClusterSpec, live: Mapping[str, Any]) -> list[Change]:
    """Fields in which the RayCluster `live` is other than `spec` declares.

    What Kubernetes, KubeRay and the autoscaler add or move (status, defaults, replicas) is no difference, nor are labels and
    annotations that others add.
    """
    body = ray_cluster_body(spec)
    found: list[Change] = []
    for key in ("labels", "annotations"):
        declared, running = body["metadata"].get(key, {}), live["metadata"].get(key, {})
        found += _compared(f"metadata.{key}", declared, {name: running.get(name) for name in declared})
    found += _compared("spec", body["spec"], live["spec"])
    return [change for change in found if not change.path.endswith(labels.TEMPLATE_HASH)]


def missing_from(body: Mapping[str, Any], live: Mapping[str, Any]) -> list[Change]:
    """Fields that a resource declares and the live one has otherwise; what only the live one has is no difference.

    For all but RayClusters, whose own fields `differences` knows: Kubernetes fills in defaults of its own. Items that a list has
    more than declared are differences.
    """
    named = {key: value for key, value in body["metadata"].items() if key in ("labels", "annotations")}
    rest = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata")}
    return [*_declared("metadata", named, live["metadata"]), *_declared("", rest, live)]


def declared_replicas(body: dict[str, Any], live: Mapping[str, Any]) -> None:
    """Put the number of workers that the autoscaler has set into `body`, within the bounds declared now.

    The groups are one atomic list to Kubernetes: to write it without `replicas` is to set them to zero, and to end busy workers.
    """
    running = {group["groupName"]: group.get(AUTOSCALED, 0) for group in live["spec"].get("workerGroupSpecs", [])}
    for group in body["spec"]["workerGroupSpecs"]:
        if AUTOSCALED not in group and group["groupName"] in running:
            least, most = group.get("minReplicas", 0), group.get("maxReplicas", running[group["groupName"]])
            group[AUTOSCALED] = max(least, min(most, running[group["groupName"]]))


def _compared(path: str, declared: Any, live: Any) -> Iterator[Change]:
    if isinstance(declared, Mapping) and isinstance(live, Mapping):
        for key in [*declared, *(key for key in live if key not in declared and not _is_default(key, live[key]))]:
            yield from _compared(f"{path}.{key}", declared.get(key), live.get(key))
    elif isinstance(declared, list) and isinstance(live, list) and (key := _named_by(declared, live)):
        yield from _compared_by(key, path, declared, live)
    elif not _same(declared, live):
        yield Change(path, live, declared)


def _declared(path: str, declared: Any, live: Any) -> Iterator[Change]:
    if isinstance(declared, Mapping) and isinstance(live, Mapping):
        for key, value in declared.items():
            yield from _declared(f"{path}.{key}".lstrip("."), value, live.get(key))
    elif isinstance(declared, list) and isinstance(live, list) and (key := _named_by(declared, live)):
        running = {item[key]: item for item in live}
        for item in declared:
            yield from _declared(f"{path}[{item[key]}]", item, running.pop(item[key], None))
        yield from (Change(f"{path}[{name}]", item, None) for name, item in running.items())
    elif not _same(declared, live):
        yield Change(path, live, declared)


def _compared_by(key: str, path: str, declared: list[Any], live: list[Any]) -> Iterator[Change]:
    running = {item[key]: item for item in live}
    for item in declared:
        yield from _compared(f"{path}[{item[key]}]", item, running.pop(item[key], None))
    for name, item in running.items():
        yield Change(f"{path}[{name}]", item, None)


def _named_by(declared: list[Any], live: list[Any]) -> str | None:
    items = [*declared, *live]
    named = (key for key in ("groupName", "mountPath", "name") if all(isinstance(item, Mapping) and key in item for item in items))
    return next(named, None)


def _same(declared: Any, live: Any) -> bool:
    """Equal, or nothing either way, or the same quantity written otherwise."""
    if declared == live or (not declared and not live and declared != 0):  # False is 0
        return True
    if isinstance(declared, str) and isinstance(live, str | int):
        try:
            return parsed(declared) == parsed(str(live))
        except ValueError:
            return False
    return False


# What the definition of RayCluster fills in, and what the autoscaler moves.
_DEFAULTS: dict[str, Any] = {"numOfHosts": 1, "priority": 0, "protocol": "TCP"}
_MOVED = {AUTOSCALED, "scaleStrategy", "creationTimestamp"}


def _is_default(key: str, value: Any) -> bool:
    return key in _MOVED or (key in _DEFAULTS and value == _DEFAULTS[key])


def _readable(group: str) -> str:
    return "the head" if group == labels.HEAD_GROUP else group


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
