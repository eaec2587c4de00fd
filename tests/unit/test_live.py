"""Rights, the operator, and clusters that run, against a small API server."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra import labels
from infra.changes import Upgrade, with_old_pods
from infra.errors import InfraError, NotAllowed
from infra.kube import Kubernetes, run
from infra.live import LiveCluster, end_old_pods, find, find_all, pod_counts, running_jobs
from infra.preflight import RIGHTS, check_rights, find_operator
from infra.readiness import Expected
from infra.spec import KubeRayClusterSpec, parse_spec
from infra.support import Operator
from infra.wait import expected_of
from tests.unit.fake_kubernetes import CREATED, Body, FakeKubernetes, jobs_path, pod, pods_of, running

PLAIN: Body = {"name": "dev", "ray_version": "2.60.0", "python_version": "3.11", "worker_groups": [{"name": "cpu"}, {"name": "io"}]}


def spec_of(**fields: Any) -> KubeRayClusterSpec:
    spec = parse_spec({**PLAIN, **fields})
    assert isinstance(spec, KubeRayClusterSpec)
    return spec


# Rights


def test_each_right_is_asked_for_in_its_namespace(fake: FakeKubernetes, kube: Kubernetes) -> None:
    run(check_rights(kube, "ray"))
    asked = [review["spec"]["resourceAttributes"] for review in fake.reviews]
    clusters = {(verb, "ray.io", "rayclusters", "ray") for verb in ("get", "list", "create", "patch", "delete")}
    assert {(item["verb"], item.get("group", ""), item["resource"], item["namespace"]) for item in asked} == {
        *clusters,
        ("list", "", "pods", "ray"),
        ("delete", "", "pods", "ray"),
        ("list", "", "events", "ray"),
    }
    assert len(asked) == len(RIGHTS)


def test_all_missing_rights_are_named(fake: FakeKubernetes, kube: Kubernetes) -> None:
    fake.denied = {"create ray.io/rayclusters", "list events", "get pods"}
    with pytest.raises(NotAllowed) as caught:
        run(check_rights(kube, "ray"))
    assert str(caught.value) == (
        f"these credentials ({kube.access}) may not create rayclusters, list events in namespace ray; "
        "bind them to a Role that allows it, such as infra.RunnerAccess makes"
    )


def test_a_right_on_a_part_of_one_object(fake: FakeKubernetes, kube: Kubernetes) -> None:
    assert run(kube.may("create", "pods/portforward", "ray", name="dev-head"))
    assert (fake.reviews[0]["apiVersion"], fake.reviews[0]["kind"]) == ("authorization.k8s.io/v1", "SelfSubjectAccessReview")
    assert fake.reviews[0]["spec"]["resourceAttributes"] == {
        "verb": "create",
        "resource": "pods",
        "subresource": "portforward",
        "namespace": "ray",
        "name": "dev-head",
    }
    fake.denied = {"get ray.io/rayclusters"}
    assert not run(kube.may("get", "ray.io:rayclusters", None))
    assert "namespace" not in fake.reviews[1]["spec"]["resourceAttributes"]


# KubeRay


def deployment(image: str, **labels_of: str) -> Body:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "op", "namespace": "kr", "labels": {"app.kubernetes.io/name": "kuberay-operator", **labels_of}},
        "spec": {"template": {"spec": {"containers": [{"image": image, "args": ["--feature-gates=A=true,B=false"]}]}}},
    }


def test_kuberay_is_not_installed(fake: FakeKubernetes, kube: Kubernetes) -> None:
    del fake.objects["/apis/ray.io/v1"]
    with pytest.raises(InfraError) as caught:
        run(find_operator(kube))
    assert str(caught.value).startswith(
        f"KubeRay is not installed in Kubernetes ({kube.access}): it has no RayCluster; install it: helm "
    )
    assert str(caught.value).endswith("or set infill:operator in the stack's config")


def test_the_operator_s_deployment_is_read(fake: FakeKubernetes, kube: Kubernetes) -> None:
    assert run(find_operator(kube)) == Operator()
    other = {**deployment("nginx:1"), "metadata": {"name": "web", "labels": {"app.kubernetes.io/name": "web"}}}
    fake.objects["/apis/apps/v1/deployments/web"] = other
    fake.objects["/apis/apps/v1/deployments/op"] = deployment("quay.io/kuberay/operator:v1.6.1")
    assert run(find_operator(kube)) == Operator("1.6.1", frozenset({"A"}))


def test_an_operator_that_may_not_be_seen_is_unknown(fake: FakeKubernetes, kube: Kubernetes) -> None:
    fake.answers["GET /apis/apps/v1/deployments"] = [(403, {"message": "forbidden"})]
    assert run(find_operator(kube)) == Operator()


# Clusters


def test_clusters_of_a_spec_newest_first(fake: FakeKubernetes, kube: Kubernetes) -> None:
    spec = spec_of(upgrade_strategy="NewCluster")
    old, new = (running(spec, created=f"2026-01-0{day}T00:00:00Z", name=f"dev-{day}") for day in (1, 2))
    going = running(spec, name="dev-3", created="2026-01-03T00:00:00Z", deletionTimestamp="2026-01-04T00:00:00Z")
    fake.add(old, new, going, running(spec_of(name="other")))
    found = run(find_all(kube, spec))
    assert [(cluster.name, cluster.namespace, cluster.state) for cluster in found] == [
        ("dev-2", "default", "ready"),
        ("dev-1", "default", "ready"),
    ]
    assert found[0].body == new


def test_a_cluster_of_that_name_without_our_labels_is_found_too(fake: FakeKubernetes, kube: Kubernetes) -> None:
    fake.add(running(spec_of(), labels={"by": "hand"}))
    assert [cluster.name for cluster in run(find_all(kube, spec_of()))] == ["dev"]
    assert run(find_all(kube, spec_of(name="none"))) == []
    assert run(find_all(kube, spec_of(namespace="elsewhere"))) == []


def test_find_takes_the_newest_or_none(fake: FakeKubernetes, tmp_path: Path) -> None:
    spec = spec_of(kubeconfig=fake.kubeconfig(tmp_path))
    assert find(spec) is None
    fake.add(running(spec, name="dev-1"), running(spec, name="dev-2", created="2026-02-01T00:00:00Z"))
    found = find(spec)
    assert found is not None
    assert found.name == "dev-2"


@pytest.mark.parametrize(
    ("status", "state"), [({}, "starting"), ({"state": ""}, "starting"), ({"state": "suspended"}, "suspended")]
)
def test_the_state_of_a_cluster(status: Body, state: str) -> None:
    assert LiveCluster.of({**running(spec_of()), "status": status}).state == state


# Jobs


JOBS = [
    {"submission_id": "raysubmit_1", "status": "RUNNING", "entrypoint": "python a.py"},
    {"submission_id": "raysubmit_2", "status": "SUCCEEDED", "entrypoint": "python b.py"},
    {"submission_id": None, "job_id": "02000000", "status": "RUNNING", "entrypoint": " " + "x" * 70},
    {"submission_id": "raysubmit_3", "status": "PENDING", "entrypoint": ""},
    {"submission_id": "raysubmit_4", "status": "FAILED"},
    {"submission_id": "raysubmit_5", "status": "STOPPED"},
    {"submission_id": None, "job_id": "03000000", "status": "RUNNING", "entrypoint": ""},
]
BUSY = ["raysubmit_1 (python a.py)", f"02000000 ({'x' * 60})", "raysubmit_3", "03000000"]


def test_running_jobs_with_the_token_in_ray_s_own_header(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = LiveCluster.of(running(spec_of()))
    fake.objects["/api/v1/namespaces/default/secrets/dev"] = {"data": {"auth_token": base64.b64encode(b"t0k3n").decode()}}
    fake.answers[f"GET {jobs_path('dev')}"] = [(200, JOBS)]
    assert run(running_jobs(kube, live)) == BUSY
    headers = fake.asked[-1].headers
    assert headers["x-ray-authorization"] == "Bearer t0k3n"
    assert headers["authorization"] == "Bearer text-of-a-token"


def test_the_token_secret_is_the_one_that_the_cluster_names(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = LiveCluster.of(running(spec_of(overrides={"spec": {"authOptions": {"secretName": "mine"}}})))
    run(running_jobs(kube, live))
    assert "/api/v1/namespaces/default/secrets/mine" in fake.requests("GET")


def test_a_token_that_is_not_there_is_not_sent(fake: FakeKubernetes, kube: Kubernetes) -> None:
    fake.answers[f"GET {jobs_path('dev')}"] = [(200, JOBS[:2])]
    assert run(running_jobs(kube, LiveCluster.of(running(spec_of())))) == BUSY[:1]
    assert "x-ray-authorization" not in fake.asked[-1].headers


def test_running_jobs_without_a_token(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = LiveCluster.of(running(spec_of(token_authentication=False)))
    fake.answers[f"GET {jobs_path('dev')}"] = [(200, JOBS[:2])]
    assert run(running_jobs(kube, live)) == BUSY[:1]
    assert "x-ray-authorization" not in fake.asked[-1].headers
    assert fake.requests("GET") == ["/version", jobs_path("dev")]


@pytest.mark.parametrize(
    "answer", [(404, {"message": "no service"}), (503, {"message": "no endpoints available"}), (200, "no JSON")]
)
def test_a_head_that_does_not_answer_runs_nothing(fake: FakeKubernetes, kube: Kubernetes, answer: tuple[int, Any]) -> None:
    fake.answers[f"GET {jobs_path('dev')}"] = [answer]
    assert run(running_jobs(kube, LiveCluster.of(running(spec_of())))) == []


@pytest.mark.parametrize("path", [jobs_path("dev"), "/api/v1/namespaces/default/secrets/dev"])
def test_jobs_that_may_not_be_seen_are_an_error(fake: FakeKubernetes, kube: Kubernetes, path: str) -> None:
    fake.answers[f"GET {path}"] = [(403, {"message": "you may not"})]
    with pytest.raises(NotAllowed, match="you may not"):
        run(running_jobs(kube, LiveCluster.of(running(spec_of()))))


# Pods that a change leaves behind


def names(pods: list[Body]) -> list[str]:
    return sorted(item["metadata"]["name"] for item in pods)


def ended(fake: FakeKubernetes, kube: Kubernetes, spec: KubeRayClusterSpec, live: Body, *pods: Body) -> list[str]:
    """Names of the pods that are deleted for `spec`; the server says the same as the function."""
    stranger = pod(running(spec_of(name="stranger")), "cpu")
    fake.add(live, stranger, *pods)
    found = sorted(run(end_old_pods(kube, "default", live["metadata"]["name"], expected_of(spec, running(spec)))))
    assert sorted(path.rpartition("/")[2] for path in fake.requests("DELETE")) == found
    return found


def test_up_to_date_pods_stay(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = running(spec_of())
    assert ended(fake, kube, spec_of(), live, *pods_of(live, cpu=2, io=1)) == []


def test_pods_of_a_changed_group_end_and_others_stay(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = running(spec_of())
    changed = spec_of(worker_groups=[{"name": "cpu", "cpus": 2}, {"name": "io"}])
    assert ended(fake, kube, changed, live, *pods_of(live, cpu=2, io=1)) == ["dev-cpu-0", "dev-cpu-1"]


def test_pods_of_a_removed_group_end(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = running(spec_of())
    assert ended(fake, kube, spec_of(worker_groups=[{"name": "cpu"}]), live, *pods_of(live, cpu=1, io=2)) == [
        "dev-io-0",
        "dev-io-1",
    ]


def test_all_pods_end_where_the_head_changed(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = running(spec_of())
    pods = pods_of(live, cpu=1, io=1)
    assert ended(fake, kube, spec_of(head_group={"cpus": 2}), live, *pods) == names(pods)


def test_under_none_only_pods_of_removed_groups_end(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = running(spec_of())
    changed = spec_of(upgrade_strategy="None", head_group={"cpus": 2}, worker_groups=[{"name": "cpu", "cpus": 2}])
    assert ended(fake, kube, changed, live, *pods_of(live, cpu=1, io=1)) == ["dev-io-0"]


def test_a_pod_that_ends_already_is_left_to_it(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = running(spec_of())
    going = pod(live, "cpu", template="older")
    going["metadata"]["deletionTimestamp"] = CREATED
    head = pod(live, labels.HEAD_GROUP, 1, template="older")
    head["metadata"]["deletionTimestamp"] = CREATED
    assert ended(fake, kube, spec_of(), live, *pods_of(live, io=1), going, head) == []


def test_a_pod_without_our_stamp_is_old(fake: FakeKubernetes, kube: Kubernetes) -> None:
    live = running(spec_of())
    unstamped = pod(live, "io")
    del unstamped["metadata"]["annotations"]
    assert ended(fake, kube, spec_of(), live, *pods_of(live), unstamped) == ["dev-io-0"]


def left(group: str, template: str, **metadata: Any) -> Body:
    return {"metadata": {"labels": {"ray.io/group": group}, "annotations": {"infill/template-hash": template}, **metadata}}


EXPECTED = Expected({"headgroup": "h1", "cpu": "c1", "io": "i1"}, {})
CURRENT = [left("headgroup", "h1"), left("cpu", "c1")]


@pytest.mark.parametrize(
    ("pods", "upgrade", "kept"),
    [
        ([], Upgrade(), Upgrade()),
        ([left("io", "i0")], Upgrade(restarted=("io",)), Upgrade()),
        ([left("io", "i0"), left("cpu", "c0")], Upgrade(restarted=("cpu", "io")), Upgrade()),
        ([left("headgroup", "h0"), left("io", "i0")], Upgrade(restarted=("all",)), Upgrade()),
        ([left("gone", "g")], Upgrade(removed=("gone",)), Upgrade(removed=("gone",))),
        ([left("io", "i0", deletionTimestamp="2026-01-01T00:00:00Z")], Upgrade(), Upgrade()),
    ],
)
def test_pods_that_an_earlier_change_left_are_part_of_this_one(pods: list[Body], upgrade: Upgrade, kept: Upgrade) -> None:
    assert with_old_pods(Upgrade(), EXPECTED, [*CURRENT, *pods]) == upgrade
    assert with_old_pods(Upgrade(), replace(EXPECTED, keep_old=True), [*CURRENT, *pods]) == kept


def test_pods_left_are_added_to_what_the_change_itself_ends() -> None:
    pods = [left("io", "i0"), left("gone", "g")]
    ends = Upgrade(restarted=("cpu",), removed=("a",))
    assert with_old_pods(ends, EXPECTED, pods) == Upgrade(restarted=("cpu", "io"), removed=("a", "gone"))
    assert with_old_pods(Upgrade(restarted=("all",)), EXPECTED, pods).restarted == ("all",)


def test_pods_that_have_a_node_are_counted_by_group(fake: FakeKubernetes, tmp_path: Path) -> None:
    spec = spec_of(kubeconfig=fake.kubeconfig(tmp_path))
    cluster = running(spec)
    pods = pods_of(cluster, cpu=3, io=1)
    for one in pods:
        one["spec"] = {"nodeName": "node-1"}
    pods[1]["spec"] = {}  # waits for a node
    pods[2]["status"]["phase"] = "Failed"
    fake.add(cluster, *pods)
    assert pod_counts(spec) == {"head": 1, "cpu": 1, "io": 1}
