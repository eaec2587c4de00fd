"""The component of a cluster, against Pulumi's mocks: what it declares, with which options, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pytest

from infra.body import ray_cluster_body
from infra.operator import KubeRayOperator, KubeRayOperatorArgs
from infra.raycluster import RayCluster, RayClusterArgs
from infra.spec import KubeRayClusterSpec, parse_spec
from tests.unit.pulumi_mocks import UNKNOWN, Ran, Registered, run_program
from tests.unit.test_operator import definitions_in

Body = dict[str, Any]

PLAIN: Body = {"name": "dev", "namespace": "ray", "ray_version": "2.60.0", "python_version": "3.11"}
OWNED = {"app.kubernetes.io/managed-by": "infill", "infill/cluster": "dev", "infill/stack": "infill.test"}
SECRET = "s3cr3t-value-of-the-environment"


def spec_of(**fields: Any) -> KubeRayClusterSpec:
    spec = parse_spec({**PLAIN, **fields})
    assert isinstance(spec, KubeRayClusterSpec)
    return spec


def declared(
    options: pulumi.ResourceOptions | None = None, *, args: Body | None = None, preview: bool = False, **fields: Any
) -> Ran:
    """One cluster named ``c`` to Pulumi, its outputs exported."""

    def program() -> None:
        cluster = RayCluster("c", RayClusterArgs({**PLAIN, **fields}, wait=False, **(args or {})), options)
        pulumi.export("c", cluster.outputs)

    return run_program(program, preview=preview)


def resource_of(ran: Ran) -> Registered:
    return ran.ok()["RayCluster c"]


def kinds(ran: Ran) -> list[tuple[str, str, str]]:
    return sorted((item.type, item.name, item.parent) for item in ran.ok().resources.values())


COMPONENT = ("infill:kubernetes:RayCluster", "c", "Stack infill-test")
RAY_CLUSTER = ("kubernetes:ray.io/v1:RayCluster", "c", "infill:RayCluster c")


# What is declared


def test_a_plain_cluster_is_one_resource_within_the_component() -> None:
    assert kinds(declared()) == [COMPONENT, RAY_CLUSTER]


def test_a_cluster_with_everything() -> None:
    ran = declared(head_group={"env": {"A": "${env:HOME}"}}, network_policy={}, upgrade_strategy="NewCluster")
    assert kinds(ran) == [
        COMPONENT,
        ("kubernetes:core/v1:Secret", "c-env", "infill:RayCluster c"),
        ("kubernetes:core/v1:Service", "c-head", "infill:RayCluster c"),
        ("kubernetes:networking.k8s.io/v1:NetworkPolicy", "c", "infill:RayCluster c"),
        RAY_CLUSTER,
    ]
    assert resource_of(ran).depends_on == {"Secret c-env", "NetworkPolicy c"}


def test_the_resource_is_the_rendered_body_with_pulumi_s_annotations() -> None:
    body = ray_cluster_body(spec_of(labels={"team": "data"}, annotations={"note": "x"}))
    resource = resource_of(declared(labels={"team": "data"}, annotations={"note": "x"}))
    assert resource.inputs["apiVersion"] == "ray.io/v1"
    assert resource.inputs["kind"] == "RayCluster"
    assert resource.inputs["spec"] == body["spec"]
    assert resource.metadata == {
        "name": "dev",
        "namespace": "ray",
        "labels": {**OWNED, "team": "data"},
        "annotations": {"note": "x", "pulumi.com/skipAwait": "true", "pulumi.com/patchForce": "true"},
    }


def test_replicas_are_not_declared_with_the_autoscaler_and_are_without() -> None:
    assert "replicas" not in resource_of(declared()).inputs["spec"]["workerGroupSpecs"][0]
    off = declared(autoscaler={"enabled": False}, worker_groups=[{"name": "cpu", "replicas": 3}])
    assert resource_of(off).inputs["spec"]["workerGroupSpecs"][0]["replicas"] == 3


def test_a_spec_and_a_mapping_make_the_same() -> None:
    def program() -> None:
        RayCluster("c", RayClusterArgs(spec_of(), wait=False))

    assert resource_of(run_program(program)).inputs == resource_of(declared()).inputs


def test_every_object_says_whose_it_is() -> None:
    ran = declared(head_group={"env": {"A": "${env:HOME}"}}, network_policy={}, upgrade_strategy="NewCluster").ok()
    objects = [item for item in ran.resources.values() if item.type.startswith("kubernetes:")]
    assert len(objects) == 4
    assert {item.key: item.metadata["labels"] for item in objects} == {item.key: OWNED for item in objects}
    assert {item.metadata["namespace"] for item in objects} == {"ray"}


def test_the_label_of_a_stack_with_a_long_name_is_one_that_kubernetes_takes() -> None:
    def program() -> None:
        RayCluster("c", RayClusterArgs(PLAIN, wait=False))

    labels = [resource_of(run_program(program, stack="s" * 80 + end)).metadata["labels"]["infill/stack"] for end in "ab"]
    assert [len(label) <= 63 for label in labels] == [True, True]
    assert labels[0] != labels[1]


# Options


def test_options_of_the_resource_by_default() -> None:
    request = resource_of(declared()).request
    assert (request.protect, request.importId, list(request.ignoreChanges)) == (False, "", [])
    assert request.customTimeouts.delete == "10m"


def test_adopting_is_the_provider_s_to_do_and_changes_nothing_here() -> None:
    adopted, made = resource_of(declared(args={"adopt": True})), resource_of(declared())
    assert (adopted.inputs, adopted.request.importId) == (made.inputs, "")


def test_protect_is_the_resource_s() -> None:
    assert resource_of(declared(protect=True)).request.protect is True


def test_options_given_to_the_component_reach_its_children() -> None:
    def program() -> None:
        here = kubernetes.Provider("here", context="a")
        other = kubernetes.core.v1.Namespace("space")
        options = pulumi.ResourceOptions(providers=[here], depends_on=[other])
        plain = {**PLAIN, "network_policy": {}, "upgrade_strategy": "NewCluster", "head_group": {"env": {"A": "${env:HOME}"}}}
        RayCluster("c", RayClusterArgs(plain, wait=False), options)

    ran = run_program(program).ok()
    children = {item.key: item.provider for item in ran.resources.values() if item.parent == "infill:RayCluster c"}
    assert children == dict.fromkeys(["RayCluster c", "Secret c-env", "NetworkPolicy c", "Service c-head"], "kubernetes here")
    assert ran["infill:RayCluster c"].depends_on == {"Namespace space"}


def test_with_an_operator_of_the_program_the_cluster_is_made_after_it_and_goes_before_it(tmp_path: Path) -> None:
    def program() -> None:
        operator = KubeRayOperator("op", KubeRayOperatorArgs(namespace="kr", definitions=definitions_in(tmp_path)))
        RayCluster("c", RayClusterArgs({**PLAIN, "network_policy": {}}, wait=False, operator=operator))

    ran = run_program(program).ok()
    assert "Release op" in resource_of(ran).depends_on
    policy = ran["NetworkPolicy c"].inputs["spec"]["ingress"][1]["from"][0]
    assert policy == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kr"}},
    }


# Environment, network, alias


def test_values_of_the_environment_are_a_secret_and_nowhere_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", SECRET)
    ran = declared(
        head_group={"env": {"TOKEN": "${env:MY_TOKEN}", "MODE": "fast"}},
        worker_groups=[{"name": "cpu", "env": {"URL": "s3://${env:MY_TOKEN}/x"}}],
    ).ok()
    secret = ran["Secret c-env"]
    assert secret.metadata["name"] == "dev-env"
    assert secret.secrets == {"stringData": {"head.TOKEN": SECRET, "cpu.URL": f"s3://{SECRET}/x"}}
    assert SECRET not in ran.everything_in_clear()
    assert SECRET not in str(ran.said)
    env = resource_of(ran).inputs["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "dev-env", "key": "head.TOKEN"}}} in env
    assert {"name": "MODE", "value": "fast"} in env


def test_a_variable_that_is_not_set_here_is_named_and_nothing_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    ran = declared(head_group={"env": {"A": "${env:NOT_THERE}"}}, network_policy={})
    assert "NOT_THERE: not set in this environment" in ran.failed(pulumi.RunError)
    assert [item for item in ran.resources.values() if item.type.startswith("kubernetes:")] == []


def test_network_policy() -> None:
    ran = declared(network_policy={"from_namespaces": ["jobs"], "from_blocks": ["10.0.0.0/8"]}).ok()
    policy = ran["NetworkPolicy c"]
    own = {"podSelector": {"matchLabels": {"infill/cluster": "dev"}}}
    operator = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}, "namespaceSelector": {}}
    peers = [
        operator,
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "jobs"}}},
        {"ipBlock": {"cidr": "10.0.0.0/8"}},
    ]
    ports = [{"protocol": "TCP", "port": port} for port in (6379, 8265, 10001, 8080)]
    assert policy.metadata["name"] == "dev"
    assert policy.inputs["spec"] == {
        "podSelector": own["podSelector"],
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [own]}, {"from": peers, "ports": ports}],
    }


def test_alias_service_of_new_cluster() -> None:
    ran = declared(upgrade_strategy="NewCluster").ok()
    name = ray_cluster_body(spec_of(upgrade_strategy="NewCluster"))["metadata"]["name"]
    assert name.startswith("dev-")
    assert resource_of(ran).metadata["name"] == name
    service = ran["Service c-head"]
    assert service.metadata["name"] == "dev-head-svc"
    assert service.metadata["annotations"] == {"pulumi.com/skipAwait": "true"}
    assert service.inputs["spec"] == {
        "selector": {"ray.io/cluster": name, "ray.io/node-type": "head"},
        "ports": [
            {"name": "gcs-server", "port": 6379, "targetPort": 6379},
            {"name": "dashboard", "port": 8265, "targetPort": 8265},
            {"name": "client", "port": 10001, "targetPort": 10001},
        ],
    }
    assert service.depends_on == {"RayCluster c"}


# Outputs


def outputs(name: str, token: str | None, spec: KubeRayClusterSpec) -> Body:
    return {
        "cluster_name": name,
        "namespace": "ray",
        "head_service": "dev-head-svc",
        "ray_address": "ray://dev-head-svc.ray.svc:10001",
        "dashboard_url": "http://dev-head-svc.ray.svc:8265",
        "spec_hash": spec.spec_hash(),
        "token_secret": token,
    }


@pytest.mark.parametrize("strategy", ["Recreate", "None", "NewCluster"])
@pytest.mark.parametrize("token", [True, False])
def test_outputs(strategy: str, token: bool) -> None:
    fields: Body = {"upgrade_strategy": strategy, "token_authentication": token}
    spec = spec_of(**fields)
    name = ray_cluster_body(spec)["metadata"]["name"]
    assert (name == "dev") is (strategy != "NewCluster")
    ran = declared(**fields).ok()
    assert ran.exports["c"] == outputs(name, name if token else None, spec)
    assert {"token_secret": None, **ran.outputs["infill:RayCluster c"]} == ran.exports["c"]


def test_a_token_secret_of_one_s_own_is_an_output() -> None:
    ran = declared(overrides={"spec": {"authOptions": {"secretName": "mine"}}}).ok()
    assert ran.exports["c"]["token_secret"] == "mine"


def test_a_preview_of_a_cluster_that_is_not_there_promises_no_outputs() -> None:
    ran = declared(preview=True).ok()
    assert set(ran.exports["c"].values()) == {UNKNOWN}


# Refusals


def refused(program: Callable[[], object]) -> str:
    ran = run_program(program)
    assert [key for key, item in ran.resources.items() if item.type.startswith("kubernetes:")] == []
    return ran.failed(pulumi.RunError)


def test_all_problems_of_a_spec_are_told_at_once() -> None:
    bad = {
        "name": "Dev",
        "nmaespace": "x",
        "head_group": {"memory": "8GB"},
        "worker_groups": [{"min_replicas": 5, "max_replicas": 1}],
    }
    text = refused(lambda: RayCluster("c", RayClusterArgs(bad, wait=False)))
    assert "unknown key 'nmaespace'; did you mean 'namespace'?" in text
    text = refused(lambda: RayCluster("c", RayClusterArgs({**bad, "nmaespace": None} | {"name": "Dev"}, wait=False)))
    del bad["nmaespace"]
    text = refused(lambda: RayCluster("c", RayClusterArgs(bad, wait=False)))
    assert "name: 'Dev' is not lowercase letters" in text
    assert "head_group.memory: '8GB' is no quantity" in text
    assert "worker_groups[0]: min_replicas: 5 is more than max_replicas: 1" in text


def test_what_kubernetes_will_not_take_is_refused_before_it_is_asked() -> None:
    plain = {**PLAIN, "head_group": {"service_account": "my_account", "image": "rayproject/ray:2.50.0-py310"}}
    text = refused(lambda: RayCluster("c", RayClusterArgs(plain, wait=False)))
    assert text.splitlines() == [
        "cluster 'dev': head_group.service_account: 'my_account' is not lowercase letters, digits, '-' and '.', with a letter or "
        "digit at both ends; Kubernetes will refuse it",
        "cluster 'dev': head_group.image: 'rayproject/ray:2.50.0-py310' has Ray 2.50.0, and ray_version is 2.60.0",
        "cluster 'dev': head_group.image: 'rayproject/ray:2.50.0-py310' has Python 3.10, not 3.11",
    ]


@pytest.mark.parametrize(
    "plain", [{"kind": "local", "name": "laptop"}, {"kind": "external", "name": "x", "address": "http://h:8265"}]
)
def test_clusters_of_other_kinds_are_not_made_in_kubernetes(plain: Body) -> None:
    text = refused(lambda: RayCluster("c", RayClusterArgs(plain, wait=False)))
    assert text == f"cluster {plain['name']!r} is of kind {plain['kind']}: only kuberay clusters are made in Kubernetes"


def test_what_the_operator_of_the_program_does_not_have_is_refused(tmp_path: Path) -> None:
    def program() -> None:
        args = KubeRayOperatorArgs(version="1.5.0", definitions=definitions_in(tmp_path))
        RayCluster("c", RayClusterArgs(PLAIN, wait=False, operator=KubeRayOperator("op", args)))

    ran = run_program(program)
    assert ran.failed(pulumi.RunError).startswith("cluster 'dev': spec.authOptions needs KubeRay 1.5.1, and 1.5.0 runs")
    assert "RayCluster c" not in ran.resources
