"""Before and after a change of a running cluster, against a small API server: what is said, refused, waited for."""

from __future__ import annotations

import re
from typing import Any

import pytest

import infra.gate
from infra.errors import BadSpec, InfraError, NotAllowed
from infra.gate import JobsRunning, drain, inspect, inspect_removed
from infra.kube import Access, Kubernetes, run
from infra.live import LiveCluster
from infra.spec import KubeRayClusterSpec, parse_spec
from infra.support import Operator
from tests.unit.fake_kubernetes import Body, FakeKubernetes, jobs_path, pod, pods_of, running

PLAIN: Body = {
    "name": "dev",
    "ray_version": "2.60.0",
    "python_version": "3.11",
    "token_authentication": False,
    "worker_groups": [{"name": "cpu", "min_replicas": 1}],
}
STACK = "infill.test"
BIGGER = {"worker_groups": [{"name": "cpu", "cpus": 8, "min_replicas": 1}]}
NEW_CLUSTER = {"upgrade_strategy": "NewCluster"}
BUSY = [{"submission_id": "raysubmit_1", "status": "RUNNING", "entrypoint": "python a.py"}]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.gate, "PAUSE", 0.001)


def spec_of(**fields: Any) -> KubeRayClusterSpec:
    spec = parse_spec({**PLAIN, **fields})
    assert isinstance(spec, KubeRayClusterSpec)
    return spec


def live_of(spec: KubeRayClusterSpec, stack: str | None = STACK, **metadata: Any) -> Body:
    """The RayCluster of a spec as this stack has made it."""
    body = running(spec, **metadata)
    if stack:
        body["metadata"]["labels"] = {**body["metadata"]["labels"], "infill/stack": stack}
    return body


class Inspection:
    """One call of `inspect`, and what it said."""

    def __init__(self, access: Access, spec: KubeRayClusterSpec, **options: Any) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        given = {"operator": None, "stack": STACK, "adopt": False, "may_end_jobs": False, **options}
        operator = given.pop("operator")
        self.live: LiveCluster | None = run(inspect(access, spec, operator, say=self.said.append, warn=self.warned.append, **given))


# Before a change


def test_nothing_is_said_of_a_cluster_that_is_not_there(kube: Kubernetes) -> None:
    found = Inspection(kube.access, spec_of())
    assert (found.live, found.said, found.warned) == (None, [], [])


def test_nothing_is_said_of_a_cluster_that_is_as_declared(fake: FakeKubernetes, kube: Kubernetes) -> None:
    fake.add(live_of(spec_of()))
    found = Inspection(kube.access, spec_of())
    assert found.live is not None
    assert (found.live.name, found.said, found.warned) == ("dev", [], [])
    assert jobs_path("dev") not in fake.requests("GET")


def test_a_change_is_told_field_by_field_with_what_it_does(fake: FakeKubernetes, kube: Kubernetes) -> None:
    fake.add(live_of(spec_of()))
    found = Inspection(kube.access, spec_of(**BIGGER))
    container = "spec.workerGroupSpecs[cpu].template.spec.containers[ray-worker]"
    assert found.said == [
        "cluster dev: pods of cpu are deleted and made anew\n"
        f"  {container}.resources.limits.cpu: 4 -> 8\n"
        f"  {container}.resources.requests.cpu: 4 -> 8"
    ]
    assert found.warned == []
    assert found.live is not None


def test_a_disruptive_change_is_refused_while_jobs_run(fake: FakeKubernetes, kube: Kubernetes) -> None:
    fake.add(live_of(spec_of()))
    fake.answers[f"GET {jobs_path('dev')}"] = [(200, BUSY)]
    with pytest.raises(JobsRunning) as caught:
        Inspection(kube.access, spec_of(**BIGGER))
    assert str(caught.value) == (
        "cluster dev runs 1 jobs, which this change (pods of cpu are deleted and made anew) ends: raysubmit_1 (python a.py). "
        "Wait for them, choose upgrade_strategy: NewCluster, or force it: pulumi config set infill:force true"
    )


def test_by_force_and_in_a_preview_jobs_are_a_warning(fake: FakeKubernetes, kube: Kubernetes) -> None:
    fake.add(live_of(spec_of()))
    fake.answers[f"GET {jobs_path('dev')}"] = [(200, BUSY)]
    found = Inspection(kube.access, spec_of(**BIGGER), may_end_jobs=True)
    assert found.warned == [
        "cluster dev runs 1 jobs, which this change (pods of cpu are deleted and made anew) ends: raysubmit_1 (python a.py)"
    ]
    assert len(found.said) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"worker_groups": [{"name": "cpu", "min_replicas": 0, "max_replicas": 20}]},
        {"worker_groups": [*PLAIN["worker_groups"], {"name": "more"}]},
        {**BIGGER, "upgrade_strategy": "None"},
    ],
)
def test_jobs_do_not_hinder_a_change_that_ends_no_pods(fake: FakeKubernetes, kube: Kubernetes, changed: Body) -> None:
    fake.add(live_of(spec_of()))
    fake.answers[f"GET {jobs_path('dev')}"] = [(200, BUSY)]
    assert Inspection(kube.access, spec_of(**changed)).said != []


def test_new_cluster_is_not_hindered_and_the_way_back_is(fake: FakeKubernetes, kube: Kubernetes) -> None:
    before = live_of(spec_of(**NEW_CLUSTER))
    fake.add(before)
    name = before["metadata"]["name"]
    fake.answers[f"GET {jobs_path(name)}"] = [(200, BUSY)]
    found = Inspection(kube.access, spec_of(**NEW_CLUSTER, **BIGGER))
    assert re.match(
        r"cluster dev: a new cluster dev-\w{6} is made beside it; the old one goes when its jobs are done\n", found.said[0]
    )
    with pytest.raises(JobsRunning, match=rf"^cluster {name} runs 1 jobs, .*the old one deleted at once"):
        Inspection(kube.access, spec_of())


def test_a_new_cluster_for_the_strategy_alone_is_told_too(fake: FakeKubernetes, kube: Kubernetes) -> None:
    fake.add(live_of(spec_of()))
    (said,) = Inspection(kube.access, spec_of(**NEW_CLUSTER)).said
    assert re.match(r"cluster dev: a new cluster dev-\w{6} is made beside it; ", said)


def test_pods_that_an_earlier_change_left_behind_are_told_and_spared_while_jobs_run(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = live_of(spec_of())
    left = [pod(live, "cpu", 7), pod(live, "gone", 8)]
    fake.add(live, *pods_of(live, cpu=1), *left)
    gone = "group gone goes, with its pods, which an earlier change left as they were\n"
    assert Inspection(kube.access, spec_of()).said == [f"cluster dev: pods of cpu are deleted and made anew; {gone}"]
    assert Inspection(kube.access, spec_of(upgrade_strategy="None")).said == [f"cluster dev: {gone}"]
    fake.answers[f"GET {jobs_path('dev')}"] = [(200, BUSY)]
    with pytest.raises(JobsRunning):
        Inspection(kube.access, spec_of())
    for one in left:
        one["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert Inspection(kube.access, spec_of()).said == []


@pytest.mark.parametrize(
    ("stack", "whose"), [("infill.prod", "the stack infill.prod made it"), (None, "no stack of Infill made it")]
)
def test_a_cluster_of_another_s_is_taken_over_only_when_asked(
    fake: FakeKubernetes, kube: Kubernetes, stack: str | None, whose: str
) -> None:
    fake.add(live_of(spec_of(), stack))
    with pytest.raises(InfraError) as caught:
        Inspection(kube.access, spec_of(**BIGGER))
    assert str(caught.value) == (
        f"cluster dev exists already in namespace default, and {whose}. Give this one another name, or take "
        "that one over: infill:adopt: [dev]"
    )
    adopted = Inspection(kube.access, spec_of(**BIGGER), adopt=True)
    assert adopted.live is not None
    assert len(adopted.said) == 1


def test_missing_rights_and_a_missing_kuberay_are_told_before(fake: FakeKubernetes, kube: Kubernetes) -> None:
    fake.denied = {"patch ray.io/rayclusters"}
    with pytest.raises(NotAllowed, match="may not patch rayclusters in namespace default"):
        Inspection(kube.access, spec_of())
    fake.denied = set()
    del fake.objects["/apis/ray.io/v1"]
    with pytest.raises(InfraError, match=r"^KubeRay is not installed in Kubernetes"):
        Inspection(kube.access, spec_of())
    assert Inspection(kube.access, spec_of(), operator=Operator("1.7.0")).live is None  # the program makes it


def test_what_the_operator_that_runs_does_not_have_is_refused(fake: FakeKubernetes, kube: Kubernetes) -> None:
    container = {"image": "kuberay/operator:v1.3.2", "args": []}
    metadata = {"name": "op", "labels": {"app.kubernetes.io/name": "kuberay-operator"}}
    fake.objects["/apis/apps/v1/deployments/op"] = {
        "metadata": metadata,
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    with pytest.raises(BadSpec, match=r"spec\.autoscalerOptions\.version needs KubeRay 1\.4\.0, and 1\.3\.2 runs"):
        Inspection(kube.access, spec_of())


def test_rights_and_operator_are_asked_for_once(fake: FakeKubernetes, kube: Kubernetes) -> None:
    for _ in range(3):
        Inspection(kube.access, spec_of())
    reviews, found = len(fake.reviews), fake.requests("GET").count("/apis/ray.io/v1")
    assert (reviews, found) == (8, 1)
    Inspection(kube.access, spec_of(namespace="other"))
    assert len(fake.reviews) == 16


# Removal


def removed(access: Access, declared: set[str], *, may_end_jobs: bool = False) -> list[str]:
    warned: list[str] = []
    run(inspect_removed(access, "default", STACK, declared, may_end_jobs=may_end_jobs, warn=warned.append))
    return warned


def test_a_cluster_that_is_declared_no_more_stays_while_jobs_run(fake: FakeKubernetes, kube: Kubernetes) -> None:
    fake.add(live_of(spec_of()), live_of(spec_of(name="old")), live_of(spec_of(name="theirs"), "infill.prod"))
    for name in ("dev", "old", "theirs"):
        fake.answers[f"GET {jobs_path(name)}"] = [(200, BUSY)]
    with pytest.raises(JobsRunning, match=r"^cluster old runs 1 jobs, which its removal ends: raysubmit_1 \(python a.py\)\. Wait"):
        removed(kube.access, {"dev"})
    assert removed(kube.access, {"dev"}, may_end_jobs=True) == [
        "cluster old runs 1 jobs, which its removal ends: raysubmit_1 (python a.py)"
    ]
    assert removed(kube.access, {"dev", "old"}) == []
    fake.answers[f"GET {jobs_path('old')}"] = [(200, [])]
    assert removed(kube.access, {"dev"}) == []


# Afterwards: the jobs of a cluster that another took over from


def drained(kube: Kubernetes, spec: KubeRayClusterSpec, cluster: str) -> list[str]:
    said: list[str] = []
    run(drain(kube.access, spec, cluster, say=said.append))
    return said


def test_the_old_cluster_is_waited_for_until_its_jobs_are_done(fake: FakeKubernetes, kube: Kubernetes) -> None:
    spec = spec_of(**NEW_CLUSTER)
    fake.add(live_of(spec, name="dev-old"), live_of(spec, name="dev-new"))
    second = [{**BUSY[0], "submission_id": "raysubmit_2"}]
    fake.answers[f"GET {jobs_path('dev-old')}"] = [(200, BUSY + second), (200, BUSY + second), (200, second), (200, [])]
    fake.answers[f"GET {jobs_path('dev-new')}"] = [(200, BUSY)]
    assert drained(kube, spec, "dev-new") == [
        "dev-new has taken over; waiting for the jobs of dev-old: raysubmit_1 (python a.py), raysubmit_2 (python a.py)",
        "dev-new has taken over; waiting for the jobs of dev-old: raysubmit_2 (python a.py)",
    ]
    assert fake.requests("GET").count(jobs_path("dev-old")) == 4
    assert jobs_path("dev-new") not in fake.requests("GET")


def test_without_an_old_cluster_there_is_nothing_to_wait_for(fake: FakeKubernetes, kube: Kubernetes) -> None:
    spec = spec_of(**NEW_CLUSTER)
    fake.add(live_of(spec, name="dev-new"))
    assert drained(kube, spec, "dev-new") == []


def test_jobs_that_outlast_the_wait(fake: FakeKubernetes, kube: Kubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.gate, "DRAIN_SECONDS", 0.01)
    spec = spec_of(**NEW_CLUSTER)
    fake.add(live_of(spec, name="dev-old"))
    fake.answers[f"GET {jobs_path('dev-old')}"] = [(200, BUSY)]
    with pytest.raises(
        JobsRunning, match=r"^jobs still run on dev-old: raysubmit_1 \(python a.py\) after 0 minutes; the old cluster"
    ):
        drained(kube, spec, "dev-new")
