"""Whether a RayCluster serves, still starts, or cannot start: a judgement of what Kubernetes says at one moment. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra import labels

# Reasons of a container that waits which do not pass by themselves, or not soon enough to wait for.
_HOPELESS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
}
# What cluster-autoscaler and Karpenter say of a pod that they make a node for, and that they cannot help.
_NODE_COMES = {"TriggeredScaleUp", "Nominated"}
_NO_NODE_COMES = {"NotTriggerScaleUp"}
_IMAGE = re.compile(r'image "([^"]+)"')  # in the kubelet's events Pulling and Pulled
# KubeRay's events on a RayCluster whose spec it does not take, and on the parts that it makes for one. It tries those again, and
# one that "already exists" is its own of a moment ago; only the API server's refusal lasts.
_REFUSED = re.compile(r"Invalid|AutoscalerServiceAccountNotFound")
_PART_FAILED = re.compile(r"FailedToCreate(Service|ServiceAccount|Role|RoleBinding|PVC)$")
_LASTS = re.compile(r"forbidden|exceeded quota|is invalid")
LOOKS_AGAIN_SECONDS = 10
"""How soon after a change of the spec KubeRay has taken back what it said of the one before."""
# Exit codes of a container that obeyed, and of one that was killed: what a deleted pod's have.
_ENDED_BY_OTHERS = {0, 137, 143}
CRASHES = 2
"""So many pods in a row that ended are a crash loop: KubeRay replaces such pods instead of restarting them."""


@dataclass(frozen=True)
class Expected:
    """What must run.

    Attributes:
        templates: template hash of each group, by KubeRay's name of the group.
        pods: least number of ready pods of each group.
        keep_old: pods of an older template are left alone.
    """

    templates: Mapping[str, str]
    pods: Mapping[str, int]
    keep_old: bool = False
    suspended: bool = False
    unschedulable_seconds: int = 60


@dataclass(frozen=True)
class Snapshot:
    """What Kubernetes says of a cluster: the RayCluster (None: gone), its pods, and the events of both."""

    cluster: Mapping[str, Any] | None
    pods: list[dict[str, Any]]
    events: list[dict[str, Any]]
    now: dt.datetime


@dataclass(frozen=True)
class Ended:
    """A pod that ended by itself: its group, when it ran, and the words for it."""

    group: str
    started: dt.datetime | None
    finished: dt.datetime | None
    text: str


@dataclass
class Seen:
    """What a wait remembers: how each pod that ended did so."""

    ended: dict[str, Ended] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """`failure` says why it cannot start, in Kubernetes' words; `progress` what it waits for.

    Attributes:
        tried_again: KubeRay tries again what failed, after pauses that grow to minutes: it may work by now.
    """

    ready: bool = False
    failure: str | None = None
    progress: str = ""
    tried_again: bool = field(default=False, compare=False)


def judge(expected: Expected, snapshot: Snapshot, seen: Seen) -> Verdict:
    """The state of a cluster that `up` has just declared."""
    if snapshot.cluster is None:
        return Verdict(failure="the RayCluster is gone; something else deleted it")
    refusal = refused(snapshot)
    if refusal:
        return Verdict(failure=refusal, tried_again=not refusal.startswith("KubeRay: Invalid"))
    refusal = _not_created(snapshot.cluster, snapshot.now)
    if refusal:
        return Verdict(failure=refusal, tried_again=True)
    for pod in snapshot.pods:
        failure = None if is_outdated(pod, expected) else _crashed(pod, seen)
        if not _ends(pod):
            failure = failure or _hopeless(pod) or _not_mounted(pod, expected, snapshot) or _unschedulable(pod, expected, snapshot)
        if failure:
            return Verdict(failure=failure)
    if expected.suspended:
        return Verdict(ready=not snapshot.pods, progress=f"{len(snapshot.pods)} pods to end")
    return _counted(expected, snapshot)


def _counted(expected: Expected, snapshot: Snapshot) -> Verdict:
    waits = []
    for group, template in expected.templates.items():
        pods = [pod for pod in snapshot.pods if group_of(pod) == group and not _ends(pod)]
        current = [pod for pod in pods if expected.keep_old or _template(pod) == template]
        ready, needed = sum(map(_is_ready, current)), expected.pods.get(group, 0)
        if ready < needed:
            name = "head" if group == labels.HEAD_GROUP else group
            waits.append(f"{name} {ready}/{needed}{_doing([pod for pod in current if not _is_ready(pod)], snapshot)}")
    # Those that end already are no part of the cluster any more; a worker whose head is gone takes all of its 30 s for it.
    old = [] if expected.keep_old else [pod for pod in snapshot.pods if is_outdated(pod, expected) and not _ends(pod)]
    if old:
        waits.append(f"{len(old)} old pods to end")
    return Verdict(ready=not waits, progress=", ".join(waits))


def _doing(pods: list[dict[str, Any]], snapshot: Snapshot) -> str:
    """What pods that are not ready are at, in brackets, as far as Kubernetes says."""
    found = [words for pod in pods for words in _step(pod, _events_of(pod, snapshot))]
    return f" ({', '.join(dict.fromkeys(found))})" if found else ""


def _step(pod: Mapping[str, Any], events: list[Mapping[str, Any]]) -> Iterator[str]:
    if _unscheduled(pod):
        yield "a node comes for it" if {event.get("reason") for event in events} & _NODE_COMES else "no node has room for it yet"
        return
    pulls, pulled = (
        {image for event in events if event.get("reason") == reason for image in _IMAGE.findall(event.get("message", ""))}
        for reason in ("Pulling", "Pulled")
    )
    for image in sorted(pulls - pulled):
        yield f"pulling {image}"


def _events_of(pod: Mapping[str, Any], snapshot: Snapshot) -> list[Mapping[str, Any]]:
    return [event for event in snapshot.events if event.get("involvedObject", {}).get("uid") == pod["metadata"]["uid"]]


def has_not_begun(pod: Mapping[str, Any]) -> bool:
    """Whether a pod has no node, or none of its containers has run there: only events say why."""
    return all("waiting" in status.get("state", {}) for status in _container_statuses(pod))


def is_outdated(pod: Mapping[str, Any], expected: Expected) -> bool:
    """Whether a pod is of a group that is gone, or was made from an older template."""
    return expected.templates.get(group_of(pod)) != _template(pod)


def refused(snapshot: Snapshot) -> str | None:
    """KubeRay's own refusal of the spec that stands now: an event since the spec last changed."""
    assert snapshot.cluster is not None
    changed = changed_at(snapshot.cluster)
    for event in snapshot.events:
        about = event.get("involvedObject", {})
        reason, message = event.get("reason", ""), event.get("message", "")
        lasts = _REFUSED.match(reason) or (_PART_FAILED.match(reason) and _LASTS.search(message))
        if about.get("kind") == "RayCluster" and lasts and _time(event) >= changed and not _overcome(event, snapshot):
            return f"KubeRay: {reason}: {message}"
    return None


def _overcome(event: Mapping[str, Any], snapshot: Snapshot) -> bool:
    """Whether KubeRay has come further since than to what an event says: it has made a pod."""
    made = [_parse(pod["metadata"].get("creationTimestamp")) for pod in snapshot.pods]
    return not event["reason"].startswith("Invalid") and any(time >= _time(event) for time in made if time)


def _not_created(cluster: Mapping[str, Any], now: dt.datetime) -> str | None:
    """Pods that the API server does not take: quota, forbidden, no service account, Pod Security."""
    changed = changed_at(cluster)
    just_changed = (now - changed).total_seconds() < LOOKS_AGAIN_SECONDS
    for condition in cluster.get("status", {}).get("conditions", []):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            since = _parse(condition.get("lastTransitionTime")) or changed
            if since < changed and just_changed:  # of the spec before; its observedGeneration is not kept up
                continue
            return f"KubeRay: {condition.get('reason')}: {' '.join(str(condition.get('message')).split())}"
    return None


def _hopeless(pod: Mapping[str, Any]) -> str | None:
    for status in _container_statuses(pod):
        waiting = status.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _HOPELESS:
            last = (status.get("lastState", {}).get("terminated") or {}) if waiting["reason"] == "CrashLoopBackOff" else {}
            ended = f" ({_ending(last)})" if last else ""
            return f"pod {_name(pod)}, container {status.get('name')}: {waiting['reason']}: {waiting.get('message', '')}{ended}"
    return None


def _not_mounted(pod: Mapping[str, Any], expected: Expected, snapshot: Snapshot) -> str | None:
    """A volume of something that is not there: Kubernetes goes on trying, and says so in events only."""
    for event in _events_of(pod, snapshot):
        if event.get("reason") == "FailedMount" and "not found" in event.get("message", ""):
            made = _parse(pod["metadata"].get("creationTimestamp")) or snapshot.now
            if not _is_ready(pod) and (snapshot.now - made).total_seconds() >= expected.unschedulable_seconds:
                return f"pod {_name(pod)}: FailedMount: {event['message']}"
    return None


def _unschedulable(pod: Mapping[str, Any], expected: Expected, snapshot: Snapshot) -> str | None:
    condition = _unscheduled(pod)
    if condition is None:
        return None
    said = {event.get("reason") for event in _events_of(pod, snapshot)}
    if said & _NODE_COMES:
        return None
    since = _parse(condition.get("lastTransitionTime")) or snapshot.now
    waited = (snapshot.now - since).total_seconds()
    if waited < expected.unschedulable_seconds and not said & _NO_NODE_COMES:
        return None
    return f"pod {_name(pod)}: Unschedulable for {waited:.0f} s: {condition.get('message', '')}"


def _unscheduled(pod: Mapping[str, Any]) -> dict[str, Any] | None:
    """The condition of a pod that fits on no node; None of another one."""
    conditions: list[dict[str, Any]] = pod.get("status", {}).get("conditions", [])
    condition = next((item for item in conditions if item.get("type") == "PodScheduled"), {})
    return condition if (condition.get("reason"), condition.get("status")) == ("Unschedulable", "False") else None


def _crashed(pod: Mapping[str, Any], seen: Seen) -> str | None:
    """A pod that ended by itself as the one before it did; one may be a node's fault, and several at once the head's."""
    for status in _container_statuses(pod):
        terminated = status.get("state", {}).get("terminated")
        if terminated and _by_itself(pod, terminated) and not _is_init(pod, status):
            times = _parse(terminated.get("startedAt")), _parse(terminated.get("finishedAt"))
            text = f"pod {_name(pod)}, container {status.get('name')}: {_ending(terminated)}"
            seen.ended.setdefault(pod["metadata"]["uid"], Ended(group_of(pod), *times, text))
    ended = [one for one in seen.ended.values() if one.group == group_of(pod)]
    loop = len(ended) >= CRASHES and any(_follows(later, ended[0]) for later in ended[1:])
    return f"{ended[-1].text}; {len(ended)} pods of the group ended so: a crash loop" if loop else None


def _follows(later: Ended, earlier: Ended) -> bool:
    return later.started is None or earlier.finished is None or later.started >= earlier.finished


def _by_itself(pod: Mapping[str, Any], terminated: Mapping[str, Any]) -> bool:
    """Whether a container ended before someone deleted its pod, as KubeRay does with a pod that crashed."""
    deleted, ended = _parse(pod["metadata"].get("deletionTimestamp")), _parse(terminated.get("finishedAt"))
    if deleted is None or ended is None:
        return deleted is None
    asked = deleted - dt.timedelta(seconds=pod["metadata"].get("deletionGracePeriodSeconds") or 0)
    return ended < asked or (ended == asked and terminated.get("exitCode") not in _ENDED_BY_OTHERS)


def _is_init(pod: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """An init container that ended well."""
    inits = {item.get("name") for item in pod.get("spec", {}).get("initContainers", [])}
    return status.get("name") in inits and not (status["state"]["terminated"].get("exitCode"))


def _ending(terminated: Mapping[str, Any]) -> str:
    message = (terminated.get("message") or "").strip()
    return f"{terminated.get('reason', 'ended')}, exit code {terminated.get('exitCode')}{': ' + message[-300:] if message else ''}"


def _container_statuses(pod: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses", [])
    yield from status.get("containerStatuses", [])


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)


def _ends(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _name(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["name"])


def group_of(pod: Mapping[str, Any]) -> str:
    """KubeRay's name of the pod's group."""
    return str(pod["metadata"].get("labels", {}).get(labels.RAY_GROUP, ""))


def _template(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"].get("annotations", {}).get(labels.TEMPLATE_HASH, ""))


def changed_at(cluster: Mapping[str, Any]) -> dt.datetime:
    """When the spec was last written, from the fields' managers: to the second, as events' times are."""
    metadata = cluster["metadata"]
    times = [
        _parse(entry.get("time"))
        for entry in metadata.get("managedFields", [])
        if entry.get("subresource") != "status" and "f:spec" in entry.get("fieldsV1", {})
    ]
    return max((time for time in [*times, _parse(metadata.get("creationTimestamp"))] if time), default=_EPOCH)


def _time(event: Mapping[str, Any]) -> dt.datetime:
    series = event.get("series") or {}
    for value in (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime")):
        if value:
            return _parse(value) or _EPOCH
    return _parse(event["metadata"].get("creationTimestamp")) or _EPOCH


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _parse(text: str | None) -> dt.datetime | None:
    return dt.datetime.fromisoformat(text).replace(microsecond=0) if text else None
