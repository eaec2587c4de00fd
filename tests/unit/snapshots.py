"""Literal snapshots of a cluster that starts, for the tests of how they are judged."""

from __future__ import annotations

import datetime as dt
from typing import Any

from infra.readiness import Expected, Seen, Snapshot, Verdict, judge

Body = dict[str, Any]

NOW = dt.datetime(2026, 1, 1, 12, 0, 0, tzinfo=dt.UTC)
TEMPLATES = {"headgroup": "h1", "cpu": "c1"}
ONE_WORKER = Expected(TEMPLATES, {"headgroup": 1, "cpu": 1})
UNSCHEDULABLE = "0/1 nodes are available: 1 Insufficient cpu."


def at(seconds: float) -> str:
    """So many seconds from now, as Kubernetes writes times."""
    return (NOW + dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def ray_cluster(*, conditions: list[Body] | None = None, managed: list[Body] | None = None, created: float = -100) -> Body:
    metadata: Body = {"name": "dev", "uid": "uid-dev", "creationTimestamp": at(created)}
    if managed is not None:
        metadata["managedFields"] = managed
    return {"metadata": metadata, "status": {"conditions": conditions or []}}


def written(seconds: float, *, what: str = "f:spec", **more: Any) -> Body:
    return {"manager": "m", "time": at(seconds), "fieldsV1": {what: {}}, **more}


def pod(name: str = "dev-head", group: str = "headgroup", template: str = "h1", *, ready: bool = False, **status: Any) -> Body:
    conditions = [*status.pop("conditions", []), {"type": "Ready", "status": str(ready)}]
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "labels": {"ray.io/group": group},
            "annotations": {"infill/template-hash": template},
        },
        "spec": {"initContainers": [{"name": "init"}], "containers": [{"name": "ray-head"}]},
        "status": {"conditions": conditions, **status},
    }


def head(**status: Any) -> Body:
    return pod(ready=True, **status)


def worker(number: int = 0, template: str = "c1", *, ready: bool = True, **status: Any) -> Body:
    return pod(f"dev-cpu-{number}", "cpu", template, ready=ready, **status)


def waiting(reason: str, message: str = "the words", *, name: str = "ray-head", **last: Any) -> Body:
    return {"name": name, "state": {"waiting": {"reason": reason, "message": message}}, **last}


def ended(code: int, *, name: str = "ray-head", **state: Any) -> Body:
    return {"name": name, "state": {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", **state}}}


def unschedulable(seconds: float) -> Body:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": UNSCHEDULABLE}
    return pod(conditions=[{**condition, "lastTransitionTime": at(-seconds)}])


def event(reason: str, about: Body | None = None, seconds: float = 0, **more: Any) -> Body:
    of_pod = about is not None
    metadata = about["metadata"] if about is not None else {"uid": "uid-dev", "name": "dev"}
    return {
        "metadata": {"creationTimestamp": at(seconds)},
        "involvedObject": {"kind": "Pod" if of_pod else "RayCluster", "uid": metadata["uid"], "name": metadata["name"]},
        "reason": reason,
        "message": "the message",
        "lastTimestamp": at(seconds),
        **more,
    }


def judged(
    *pods: Body,
    expected: Expected = ONE_WORKER,
    events: list[Body] | None = None,
    cluster: Body | None = None,
    seen: Seen | None = None,
) -> Verdict:
    return judge(expected, Snapshot(cluster or ray_cluster(), list(pods), events or [], NOW), seen or Seen())
