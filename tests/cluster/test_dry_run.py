"""What is rendered for generated specs, before the judges of it: the API server, and KubeRay's operator."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from infra.body import alias_service_body, network_policy_body, ray_cluster_body
from infra.errors import BadSpec
from infra.spec import KubeRayClusterSpec, parse_spec
from tests.cluster.conftest import RAY, Api, eventually
from tests.unit.broken_specs import ENTRIES, broken, invalid_specs
from tests.unit.cluster_specs import Plain, collected, parsed, plain_specs

NAMESPACE = "spec-tests"
SPECS = 250
CREATED = 48
STRICT = {"dryRun": "All", "fieldValidation": "Strict"}


@cache
def plains() -> list[Plain]:
    return collected(plain_specs(), SPECS)


def generated(namespace: str) -> list[KubeRayClusterSpec]:
    return [parsed({**plain, "namespace": namespace}) for plain in plains()]


def rendered(spec: KubeRayClusterSpec) -> list[tuple[str, dict[str, Any]]]:
    """Each object of a spec, with the path of its collection."""
    body = ray_cluster_body(spec)
    found = [
        (f"{RAY}/namespaces/{spec.namespace}/rayclusters", body),
        (f"/api/v1/namespaces/{spec.namespace}/services", alias_service_body(spec, body["metadata"]["name"])),
    ]
    if spec.network_policy:
        found.append((f"/apis/networking.k8s.io/v1/namespaces/{spec.namespace}/networkpolicies", network_policy_body(spec)))
    return found


def pods_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The template of each group as a pod, without the priority class, which would have to exist."""
    groups = [body["spec"]["headGroupSpec"], *body["spec"]["workerGroupSpecs"]]
    pods = []
    for number, group in enumerate(groups):
        metadata = {**group["template"]["metadata"], "name": f"{body['metadata']['name']}-{number}"}
        spec = {key: value for key, value in group["template"]["spec"].items() if key != "priorityClassName"}
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return pods


def make_accounts(api: Api, namespace: str, pods: list[dict[str, Any]]) -> None:
    """The service accounts that pods name, which must exist."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    for name in {pod["spec"].get("serviceAccountName", "default") for pod in pods}:
        answer = api.request("POST", path, json={"metadata": {"name": name}})
        assert answer.status_code in (201, 409), answer.text


def test_the_api_server_takes_what_is_rendered_without_a_warning(api: Api, namespace: str) -> None:
    objects = [item for spec in generated(namespace) for item in rendered(spec)]
    assert sum(body["kind"] == "RayCluster" for _, body in objects) >= 200
    assert sum(body["kind"] == "NetworkPolicy" for _, body in objects) >= 30

    answers = api.all([api.kube.request("POST", path, json=body, params=STRICT) for path, body in objects])

    assert [problem for item, answer in zip(objects, answers, strict=True) if (problem := problem_of(item[1], answer))] == []


def test_the_api_server_takes_the_pods_without_a_warning(api: Api, namespace: str) -> None:
    """A RayCluster's pods are checked only when KubeRay makes them; so here as pods. Its own additions are not ours to test."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    pods = [pod for spec in generated(namespace) for pod in pods_of(ray_cluster_body(spec))]
    assert len(pods) > SPECS
    make_accounts(api, namespace, pods)

    answers = api.all([api.kube.request("POST", path, json=pod, params=STRICT) for pod in pods])

    assert [problem for pod, answer in zip(pods, answers, strict=True) if (problem := problem_of(pod, answer))] == []


def test_the_pods_of_a_spec_without_options_are_restricted(api: Api, namespace: str) -> None:
    """Pod Security's strictest level takes head and workers as they are."""
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    merge = {"Content-Type": "application/merge-patch+json"}
    api.request("PATCH", f"/api/v1/namespaces/{namespace}", json=labels, headers=merge).raise_for_status()
    path = f"/api/v1/namespaces/{namespace}/pods"
    groups = [{}, {"kind": "gpu", "shared_memory": "1Gi"}]
    pods = pods_of(ray_cluster_body(parsed({"name": "a", "namespace": namespace, "worker_groups": groups})))
    make_accounts(api, namespace, [*pods, {"spec": {"serviceAccountName": "default"}}])

    answers = api.all([api.kube.request("POST", path, json=pod, params=STRICT) for pod in pods])
    assert [problem_of(pod, answer) for pod, answer in zip(pods, answers, strict=True)] == ["", "", ""]

    pods[0]["spec"]["securityContext"]["runAsNonRoot"] = False
    (answer,) = api.all([api.kube.request("POST", path, json=pods[0], params=STRICT)])
    assert "violates PodSecurity" in problem_of(pods[0], answer)


def test_a_warning_of_the_api_server_is_aproblem_of(api: Api, namespace: str) -> None:
    """So that the tests before can fail."""
    policy = network_policy_body(parsed({"name": "a", "namespace": namespace, "network_policy": {"from_blocks": ["10.0.0.0/8"]}}))
    policy["spec"]["ingress"][1]["from"][1]["ipBlock"]["cidr"] = "10.0.0.1/8"
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    (answer,) = api.all([api.kube.request("POST", path, json=policy, params=STRICT)])
    assert answer.status_code == 201
    assert "10.0.0.1/8" in problem_of(policy, answer)


def test_the_api_server_names_an_unknown_field(api: Api, namespace: str) -> None:
    spec = parsed({"name": "a", "namespace": namespace, "overrides": {"spec": {"headGroupSpec": {"templat": {}}}}})
    path, body = rendered(spec)[0]
    (answer,) = api.all([api.kube.request("POST", path, json=body, params=STRICT)])
    assert 'unknown field "spec.headGroupSpec.templat"' in problem_of(body, answer)


@pytest.mark.usefixtures("operator")
def test_the_operator_finds_nothing_invalid_in_what_is_rendered(api: Api, namespace: str) -> None:
    bodies = []
    for number, plain in enumerate(plains()):
        if plain.get("gcs_fault_tolerance", {}).get("backend") != "rocksdb":  # behind a gate
            longest = 43 if plain.get("upgrade_strategy") == "NewCluster" else 50
            name = f"s{number}".ljust(longest if number % 2 else 0, "x")
            bodies.append(ray_cluster_body(parsed({**plain, "namespace": namespace, "suspend": True, "name": name})))
    bodies = bodies[:CREATED]
    assert len(bodies) == CREATED
    make_accounts(api, namespace, [pod for body in bodies for pod in pods_of(body)])
    path = f"{RAY}/namespaces/{namespace}/rayclusters"
    answers = api.all([api.kube.request("POST", path, json=body) for body in bodies])
    assert [problem for body, answer in zip(bodies, answers, strict=True) if (problem := problem_of(body, answer))] == []

    unseen: list[str] = []

    def all_seen() -> bool:
        unseen[:] = sorted(
            {cluster["metadata"]["name"] for cluster in api.list(path) if not _observed(cluster)} - set(_invalid(api, namespace))
        )
        return not unseen

    assert eventually(all_seen, 120), f"the operator did not look at {unseen}"
    assert _invalid(api, namespace) == {}


@pytest.mark.usefixtures("operator")
def test_the_operator_s_word_on_an_invalid_cluster_is_seen(api: Api, namespace: str) -> None:
    """So that the test before can fail: a body that the API server takes and KubeRay does not."""
    overrides = {"spec": {"workerGroupSpecs": [{"groupName": "cpu", "minReplicas": 5, "maxReplicas": 1}]}}
    body = ray_cluster_body(parsed({"name": "a", "namespace": namespace, "suspend": True, "overrides": overrides}))
    api.request("POST", f"{RAY}/namespaces/{namespace}/rayclusters", json=body).raise_for_status()
    assert eventually(lambda: "a" in _invalid(api, namespace), 10)
    assert "minReplicas 5 greater than maxReplicas 1" in _invalid(api, namespace)["a"]


def test_what_is_broken_does_not_get_as_far_as_the_api_server() -> None:
    wrong = [broken(plain, number) for number, plain in zip(ENTRIES, plains(), strict=False)] + collected(invalid_specs(), 100)
    assert len(wrong) == len(ENTRIES) + 100
    assert [item.field for item in wrong if not _refused(item.plain)] == []


def _refused(plain: Plain) -> bool:
    try:
        parse_spec(plain)
    except BadSpec:
        return True
    return False


def problem_of(body: dict[str, Any], answer: Any) -> str:
    """What is wrong with an answer of the API server; empty where nothing is."""
    if isinstance(answer, BaseException):
        return f"{body['kind']} {body['metadata']['name']}: {answer}"
    if answer.status_code != 201 or "warning" in answer.headers:
        return f"{body['kind']} {body['metadata']['name']}: {answer.headers.get('warning')} {answer.text[:2000]}"
    return ""


def _observed(cluster: dict[str, Any]) -> bool:
    status = cluster.get("status", {})
    return status.get("state") == "suspended" and status.get("observedGeneration") == cluster["metadata"]["generation"]


def _invalid(api: Api, namespace: str) -> dict[str, str]:
    """KubeRay's words on clusters that it does not take, by name."""
    events = api.list(f"/api/v1/namespaces/{namespace}/events", fieldSelector="involvedObject.kind=RayCluster")
    return {event["involvedObject"]["name"]: event["message"] for event in events if event["reason"].startswith("Invalid")}
