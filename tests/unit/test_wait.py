"""The wait for a cluster that was just declared, against a small API server: until it serves, or Kubernetes says why not."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest

import infra.wait
from infra.kube import Kubernetes, run
from infra.spec import KubeRayClusterSpec, parse_spec
from infra.wait import ClusterFailed, wait_ready
from tests.unit.fake_kubernetes import Asked, Body, FakeKubernetes, pod, pods_of, running

PLAIN: Body = {
    "name": "dev",
    "ray_version": "2.60.0",
    "python_version": "3.11",
    "token_authentication": False,
    "worker_groups": [{"name": "cpu", "min_replicas": 1}],
}
CLUSTER = "/apis/ray.io/v1/namespaces/default/rayclusters/dev"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.wait, "PAUSES", ((float("inf"), 0.001),))
    monkeypatch.setattr(infra.wait, "REFUSAL_SECONDS", 0.1)


def spec_of(**fields: Any) -> KubeRayClusterSpec:
    spec = parse_spec({**PLAIN, **fields})
    assert isinstance(spec, KubeRayClusterSpec)
    return spec


def event(number: int, about: Body, reason: str) -> Body:
    involved = {"kind": about["kind"], "name": about["metadata"]["name"], "uid": about["metadata"]["uid"]}
    metadata = {"name": f"e{number}", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:01Z"}
    return {
        "apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": involved, "reason": reason, "message": "m",
    }  # fmt: skip


def waited(kube: Kubernetes, spec: KubeRayClusterSpec) -> list[str]:
    said: list[str] = []
    run(wait_ready(kube, spec, running(spec), said.append))
    return said


def test_ready_after_some_looks(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = running(spec_of())
    fake.add(live)
    head, worker = pods_of(live, cpu=1)
    arrivals = {4: head, 7: worker}

    def arrive(request: Asked) -> None:
        looks = fake.requests("GET").count(request.path)
        if request.path.endswith("/pods") and looks in arrivals:
            fake.add(arrivals[looks])

    fake.on_request = arrive
    assert waited(kube, spec_of()) == ["dev: waiting for head 0/1, cpu 0/1", "dev: waiting for cpu 0/1"]
    assert fake.requests("GET").count("/api/v1/namespaces/default/pods") == 7
    assert fake.requests("DELETE") == []


def test_old_pods_are_ended_first(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = running(spec_of())
    fake.add(live, *pods_of(live, cpu=1), pod(live, "cpu", 8), pod(live, "cpu", 9))
    assert waited(kube, spec_of()) == ["dev: ended dev-cpu-8, dev-cpu-9, made from what was declared before"]
    assert fake.requests("DELETE") == [f"/api/v1/namespaces/default/pods/dev-cpu-{number}" for number in (8, 9)]


def test_what_makes_it_impossible_ends_the_wait_in_kubernetes_words(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = running(spec_of())
    head = pods_of(live)[0]
    state = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    head["status"] = {"containerStatuses": [{"name": "ray-head", "state": state}]}
    fake.add(live, head)
    with pytest.raises(ClusterFailed) as caught:
        waited(kube, spec_of())
    assert str(caught.value) == (
        "cluster dev in namespace default cannot start: pod dev-headgroup-0, container ray-head: ErrImagePull: not found"
    )


def test_events_of_the_cluster_and_of_its_homeless_pods_are_read(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = running(spec_of())
    head = pods_of(live)[0]
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
    head["status"] = {"conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    fake.add(live, head)

    with pytest.raises(ClusterFailed, match=r"pod dev-headgroup-0: Unschedulable for [0-9]+ s: no node$"):
        waited(kube, spec_of())
    fake.add(event(1, head, "TriggeredScaleUp"), event(2, running(spec_of(name="other")), "InvalidRayClusterSpec"))
    before = {**live, "metadata": {**live["metadata"], "uid": "of-one-before"}}
    fake.add(event(3, before, "InvalidRayClusterSpec"))
    with pytest.raises(ClusterFailed, match=r"after 0 s: still waiting for head 0/1 \(a node comes for it\), cpu 0/1; "):
        waited(kube, spec_of().model_copy(update={"ready_timeout_seconds": 0}))
    fake.add(event(4, live, "InvalidRayClusterSpec"))
    with pytest.raises(ClusterFailed, match=r"cannot start: KubeRay: InvalidRayClusterSpec: m$"):
        waited(kube, spec_of())


def test_a_wait_that_takes_too_long_says_what_for_and_what_to_do(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = running(spec_of())
    fake.add(live, *pods_of(live))
    with pytest.raises(ClusterFailed) as caught:
        waited(kube, spec_of().model_copy(update={"ready_timeout_seconds": 0}))
    assert str(caught.value) == (
        "cluster dev in namespace default does not serve after 0 s: still waiting for cpu 0/1; "
        "`kubectl describe pods -n default -l ray.io/cluster=dev` says more, and ready_timeout_seconds gives it longer"
    )


# What KubeRay said before


QUOTA = 'pods "dev-head" is forbidden: exceeded quota: small'


def refused_before(fake: FakeKubernetes, *, seconds_ago: float = 60) -> Body:
    """A cluster whose pods were refused when it was last declared."""
    written = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds_ago)).isoformat(timespec="seconds")
    live = running(spec_of(), created=written)
    live["metadata"]["managedFields"] = [{"time": written, "fieldsV1": {"f:spec": {}}}]
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateHeadPod", "message": QUOTA}
    live["status"]["conditions"] = [{**condition, "lastTransitionTime": written}]
    fake.add(live)
    fake.answers[f"PATCH {CLUSTER}"] = [(200, live)]
    return live


def test_kuberay_is_asked_to_look_again_at_what_it_said_before(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = refused_before(fake)

    def mended(request: Asked) -> None:
        if request.method == "PATCH":
            assert request.headers["content-type"] == "application/merge-patch+json"
            assert list(request.body["metadata"]["annotations"]) == ["infill/look-again"]
        elif fake.requests("PATCH"):
            live["status"]["conditions"] = []
            fake.add(*pods_of(live, cpu=1))

    fake.on_request = mended
    assert waited(kube, spec_of()) == ["dev: waiting for KubeRay to try again"]
    assert fake.requests("PATCH") == [CLUSTER]


def test_what_it_goes_on_saying_is_believed_in_the_end(
    fake: FakeKubernetes, kube: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_before(fake)
    monkeypatch.setattr(infra.wait, "ANSWER_SECONDS", 0.05)
    begun = time.monotonic()
    with pytest.raises(ClusterFailed, match=r"cannot start: KubeRay: FailedCreateHeadPod: pods .* exceeded quota: small$"):
        waited(kube, spec_of())
    assert time.monotonic() - begun >= 0.05
    assert fake.requests("PATCH") == [CLUSTER]


def test_what_it_says_of_what_was_just_declared_is_believed_at_once(fake: FakeKubernetes, kube: Kubernetes) -> None:
    refused_before(fake, seconds_ago=0)
    said: list[str] = []
    with pytest.raises(ClusterFailed, match=r"exceeded quota: small$"):
        run(wait_ready(kube, spec_of(), running(spec_of()), said.append))
    assert (said, fake.requests("PATCH")) == ([], [])


def test_old_pods_are_spared_where_kuberay_refuses_the_change(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = running(spec_of())
    fake.add(live, *pods_of(live, cpu=1), pod(live, "cpu", 9))

    def refuse(request: Asked) -> None:
        if fake.requests("GET").count("/api/v1/namespaces/default/events") == 2:
            fake.add(event(1, live, "InvalidRayClusterSpec"))

    fake.on_request = refuse
    with pytest.raises(ClusterFailed, match=r"cannot start: KubeRay: InvalidRayClusterSpec: m$"):
        waited(kube, spec_of())
    assert fake.requests("DELETE") == []


def test_a_cluster_that_vanishes_meanwhile(kube: Kubernetes) -> None:
    with pytest.raises(ClusterFailed, match=r"the RayCluster is gone; something else deleted it$"):
        waited(kube, spec_of())


def test_a_suspended_cluster_is_ready_without_pods(fake: FakeKubernetes, kube: Kubernetes) -> None:
    spec = spec_of(suspend=True)
    fake.add(running(spec))
    assert waited(kube, spec) == []


def test_workers_of_several_hosts_count_each(fake: FakeKubernetes, kube: Kubernetes) -> None:
    groups = [{"name": "tpu", "min_replicas": 2, "overrides": {"numOfHosts": 4}}]
    expected = infra.wait.expected_of(spec_of(worker_groups=groups), running(spec_of(worker_groups=groups)))
    assert expected.pods == {"headgroup": 1, "tpu": 8}
