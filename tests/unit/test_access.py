"""Namespace, service account and rights of job runners: verb by verb, and as each cloud knows the account."""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pytest

from infra.access import RunnerAccess, RunnerAccessArgs
from tests.unit.pulumi_mocks import Ran, run_program

OWNED = {"app.kubernetes.io/managed-by": "infill", "infill/stack": "infill.test"}
ROLE = "arn:aws:iam::123456789012:role/infill-runner"

Right = tuple[str, str, str, str]


def granted(**args: Any) -> Ran:
    def program() -> None:
        access = RunnerAccess("a", RunnerAccessArgs(**{"namespace": "ray", **args}))
        pulumi.export("namespace", access.namespace)
        pulumi.export("service_account", access.service_account)

    return run_program(program)


def rights(ran: Ran) -> set[Right]:
    """Each right apart: verb, group, resource, and the one object it is for, or all."""
    return {
        (verb, group, resource, name)
        for rule in ran.ok()["Role a"].inputs["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
    }


EVERYWHERE: set[Right] = {
    # clusters: find, make, change, remove
    ("get", "ray.io", "rayclusters", "*"),
    ("list", "ray.io", "rayclusters", "*"),
    ("watch", "ray.io", "rayclusters", "*"),
    ("create", "ray.io", "rayclusters", "*"),
    ("patch", "ray.io", "rayclusters", "*"),
    ("delete", "ray.io", "rayclusters", "*"),
    # the dashboard where the proxy is closed
    ("get", "", "pods/portforward", "*"),
    ("create", "", "pods/portforward", "*"),
    # why a cluster does not start
    ("get", "", "pods", "*"),
    ("list", "", "pods", "*"),
    ("watch", "", "pods", "*"),
    ("delete", "", "pods", "*"),
    ("get", "", "services", "*"),
    ("list", "", "services", "*"),
    ("watch", "", "services", "*"),
    ("get", "", "events", "*"),
    ("list", "", "events", "*"),
    ("watch", "", "events", "*"),
    ("get", "", "pods/log", "*"),
}


def of_cluster(name: str) -> set[Right]:
    proxied = {(verb, "", "services/proxy", f"http:{name}-head-svc:8265") for verb in ("get", "create", "update", "delete")}
    return {*proxied, ("get", "", "secrets", name)}


def test_rights_for_named_clusters_verb_by_verb() -> None:
    assert rights(granted(clusters=["dev", "gpu"])) == EVERYWHERE | of_cluster("dev") | of_cluster("gpu")


def test_without_clusters_no_secret_may_be_read() -> None:
    proxied = {(verb, "", "services/proxy", "*") for verb in ("get", "create", "update", "delete")}
    assert rights(granted()) == EVERYWHERE | proxied


def test_nothing_is_granted_by_a_wildcard() -> None:
    for rule in granted(clusters=["dev"]).ok()["Role a"].inputs["rules"]:
        assert "*" not in [*rule["verbs"], *rule["apiGroups"], *rule["resources"], *rule.get("resourceNames", [])]


def test_what_is_made() -> None:
    ran = granted().ok()
    named = {"name": "infill-runner", "namespace": "ray", "labels": OWNED}
    found = {item.key: item.metadata for item in ran.resources.values() if item.type.startswith("kubernetes:")}
    assert found == {
        "Namespace a": {"name": "ray", "labels": {**OWNED, "pod-security.kubernetes.io/enforce": "restricted"}},
        "ServiceAccount a": named,
        "Role a": named,
        "RoleBinding a": named,
    }
    assert {item.parent for key, item in ran.resources.items() if key in found} == {"infill:RunnerAccess a"}
    assert ran["infill:RunnerAccess a"].type == "infill:kubernetes:RunnerAccess"


def test_the_binding() -> None:
    inputs = granted(service_account="jobs").ok()["RoleBinding a"].inputs
    assert inputs["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "jobs"}
    assert inputs["subjects"] == [{"kind": "ServiceAccount", "name": "jobs", "namespace": "ray"}]


def test_the_namespace_comes_first() -> None:
    ran = granted().ok()
    assert ran["ServiceAccount a"].depends_on == {"Namespace a"}
    assert ran["Role a"].depends_on == {"Namespace a"}
    assert ran["RoleBinding a"].depends_on == {"ServiceAccount a", "Role a"}


def test_a_namespace_that_exists_is_left_alone() -> None:
    ran = granted(create_namespace=False).ok()
    assert "Namespace a" not in ran.resources
    assert ran["Role a"].depends_on == set()
    assert ran["Role a"].metadata["namespace"] == "ray"


def test_outputs() -> None:
    ran = granted(service_account="jobs").ok()
    assert ran.exports == {"namespace": "ray", "service_account": "jobs"}
    assert ran.outputs["infill:RunnerAccess a"] == ran.exports


def test_a_provider_reaches_all() -> None:
    def program() -> None:
        options = pulumi.ResourceOptions(providers=[kubernetes.Provider("here", context="a")])
        RunnerAccess("a", RunnerAccessArgs("ray"), options)

    ran = run_program(program).ok()
    assert {item.provider for item in ran.resources.values() if item.parent == "infill:RunnerAccess a"} == {"kubernetes here"}


@pytest.mark.parametrize(
    ("args", "annotations"),
    [
        ({}, {}),
        ({"eks_role": ROLE}, {"eks.amazonaws.com/role-arn": ROLE}),
        ({"eks_role": "arn:aws-cn:iam::1:role/x"}, {"eks.amazonaws.com/role-arn": "arn:aws-cn:iam::1:role/x"}),
        ({"gke_service_account": "a@b.iam.gserviceaccount.com"}, {"iam.gke.io/gcp-service-account": "a@b.iam.gserviceaccount.com"}),
        ({"azure_client_id": "0000-1111"}, {"azure.workload.identity/client-id": "0000-1111"}),
    ],
)
def test_the_account_s_identity_in_a_cloud(args: dict[str, str], annotations: dict[str, str]) -> None:
    assert granted(**args).ok()["ServiceAccount a"].metadata.get("annotations", {}) == annotations


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ({"eks_role": ROLE, "azure_client_id": "0"}, "identities of several clouds (eks.amazonaws.com/role-arn, azure.workload"),
        ({"gke_service_account": "a@b", "azure_client_id": "0"}, "identities of several clouds (iam.gke.io/gcp-service-account, "),
        ({"eks_role": "infill-runner"}, "eks_role: 'infill-runner' is no ARN; write arn:aws:iam::ACCOUNT:role/NAME"),
        ({"namespace": "My_Space"}, "'My_Space' is not lowercase letters, digits and '-'"),
        ({"namespace": "a.b"}, "'a.b' is not lowercase letters, digits and '-'"),
        ({"service_account": "my_account"}, "'my_account' is not lowercase letters, digits, '-' and '.'"),
        ({"clusters": ["Dev"]}, "'Dev' is not lowercase letters, digits and '-'"),
    ],
)
def test_what_is_refused_before_anything_is_declared(args: dict[str, Any], problem: str) -> None:
    ran = granted(**args)
    assert ran.failed(pulumi.RunError).startswith(f"RunnerAccess: {problem}")
    assert ran.resources == {}
