"""Policies: each rule refuses what it forbids, names itself, the field and the value, and lets the rest pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

import runner
from infra.errors import BadSpec
from infra.policy import Policy, PolicyRefused, broken_rules, check_policy, json_schema, policy_beside, read_policy
from infra.policy_rules import registry_of, violations
from infra.spec import KubeRayClusterSpec, parse_spec
from runner.policies import check_on_demand
from runner.store import Store
from tests.unit.cluster_specs import collected, plain_specs

PLAIN: dict[str, Any] = {"name": "a", "namespace": "ray", "ray_version": "2.60.0", "python_version": "3.11"}


def said(policy: dict[str, Any], **fields: Any) -> list[str]:
    return [str(found) for found in broken_rules(Policy.parse(policy), parse_spec({**PLAIN, **fields}))]


@pytest.mark.parametrize(
    ("policy", "fields", "problems"),
    [
        ({"namespaces": ["ray", "ray-*"]}, {"namespace": "ray-dev"}, []),
        (
            {"namespaces": ["ray", "ray-*"]},
            {"namespace": "prod"},
            ["namespace: 'prod' is none of ray, ray-* (rule namespaces)"],
        ),
        ({"max_cpus": "16"}, {"worker_groups": [{"cpus": "16000m"}]}, []),
        (
            {"max_cpus": 16},
            {"head_group": {"cpus": 17}, "worker_groups": [{"cpus": 64}]},
            ["head_group.cpus: 17 is more than 16 (rule max_cpus)", "worker_groups.cpu.cpus: 64 is more than 16 (rule max_cpus)"],
        ),
        (
            {"max_memory": "64Gi"},
            {"worker_groups": [{"memory": "65Gi"}]},
            ["worker_groups.cpu.memory: 65Gi is more than 64Gi (rule max_memory)"],
        ),
        ({"max_gpus": 1}, {"worker_groups": [{"gpus": 1}]}, []),
        (
            {"max_gpus": 0},
            {"worker_groups": [{"gpus": 2, "gpu_resource": "amd.com/gpu"}]},
            ["worker_groups.gpu.gpus: 2 of amd.com/gpu is more than 0 (rule max_gpus)"],
        ),
        (
            {"max_replicas": 9},
            {"worker_groups": [{}, {"name": "b", "max_replicas": 9}]},
            ["worker_groups.cpu.max_replicas: 10 is more than 9 (rule max_replicas)"],
        ),
        (
            {"max_replicas": 2},
            {"autoscaler": {"enabled": False}, "worker_groups": [{"replicas": 3}]},
            ["worker_groups.cpu.replicas: 3 is more than 2 (rule max_replicas)"],
        ),
        ({"max_groups": 1}, {"worker_groups": [{}, {}]}, ["worker_groups: 2 groups are more than 1 (rule max_groups)"]),
        ({"images": ["rayproject/ray:2.60.*"]}, {}, []),
        (
            {"images": ["rayproject/ray:2.60.*"]},
            {"autoscaler": {"image": "quay.io/a/b:1"}},
            ["autoscaler.image: 'quay.io/a/b:1' is none of rayproject/ray:2.60.* (rule images)"],
        ),
        (
            {"registries": ["*.dkr.ecr.*.amazonaws.com"]},
            {"worker_groups": [{"image": "1.dkr.ecr.us-east-1.amazonaws.com/ray:1"}]},
            ["head_group.image: 'rayproject/ray:2.60.0-py311' is of registry docker.io, which is none of *.dkr.ecr.*.amazonaws.com "
             "(rule registries)"],
        ),
        ({"required_labels": {"team": "a*"}}, {"labels": {"team": "abc"}}, []),
        (
            {"required_labels": {"team": "a*", "cost": "*"}},
            {"labels": {"team": "b"}},
            ["labels.team: 'b' does not match a* (rule required_labels)",
             "labels.cost: not set and required; give cost: * (rule required_labels)"],
        ),
        (
            {"public_address": False},
            {"overrides": {"spec": {"headGroupSpec": {"serviceType": "LoadBalancer", "enableIngress": True}}}},
            ["overrides: spec.headGroupSpec.serviceType: LoadBalancer gives a public address; use ClusterIP (rule public_address)",
             "overrides: spec.headGroupSpec.enableIngress: True gives a public address; drop it (rule public_address)"],
        ),
        (
            {"public_address": False},
            {"worker_groups": [{"overrides": {"template": {"spec": {"hostNetwork": True}}}}]},
            ["overrides: spec.workerGroupSpecs[cpu].template.spec.hostNetwork: True gives a public address; drop it "
             "(rule public_address)"],
        ),
    ],
)  # fmt: skip
def test_a_rule_names_itself_the_field_and_the_value(policy: Any, fields: Any, problems: list[str]) -> None:
    assert said(policy, **fields) == problems


def test_what_overrides_change_is_held_too() -> None:
    """A group that they enlarge, a container that they add, and a limit that they remove."""
    sidecar = {"name": "sidecar", "image": "evil.example.com/x:1", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}
    worker = {"name": "ray-worker", "resources": {"limits": {"cpu": None, "memory": "999Gi"}}}
    group = {"overrides": {"maxReplicas": 1000, "template": {"spec": {"containers": [worker, sidecar]}}}}
    policy = {"max_cpus": 8, "max_memory": "64Gi", "max_replicas": 100, "registries": ["docker.io"]}
    assert said(policy, worker_groups=[group]) == [
        "worker_groups.cpu.max_replicas: 1000 is more than 100 (rule max_replicas)",
        "worker_groups.cpu.cpus: not set and without bound; give 8 at most (rule max_cpus)",
        "worker_groups.cpu.memory: 999Gi is more than 64Gi (rule max_memory)",
        "overrides: spec.workerGroupSpecs[cpu].template.spec.containers[sidecar].image: 'evil.example.com/x:1' is of registry "
        "evil.example.com, which is none of docker.io (rule registries)",
    ]


def test_a_policy_without_rules_forbids_nothing() -> None:
    for plain in collected(plain_specs(), 40):
        assert broken_rules(Policy(), parse_spec(plain)) == []


def test_clusters_that_are_not_made_in_kubernetes_are_no_matter_of_it() -> None:
    assert broken_rules(Policy(namespaces=[]), parse_spec({"kind": "local", "name": "a"})) == []


def test_any_resource_is_looked_at() -> None:
    policy = Policy(public_address=False, namespaces=["ray"], max_cpus="2")
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "x"}, "spec": {"type": "NodePort"}}
    assert [(found.rule, found.field) for found in violations(policy, service)] == [
        ("namespaces", "metadata.namespace"),
        ("public_address", "spec.type"),
    ]
    ingress = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"namespace": "ray"}, "spec": {}}
    assert [found.rule for found in violations(policy, ingress)] == ["public_address"]
    template = {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "3", "memory": "1Gi"}}}]}}
    job = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {}, "spec": {"jobTemplate": {"spec": {"template": template}}}}
    assert [found.field for found in violations(policy, job)] == [
        "spec.jobTemplate.spec.template.spec.containers[c].resources.limits.cpu"
    ]


def test_a_run_on_a_standing_cluster_needs_no_labels_of_its_own() -> None:
    policy = Policy(required_labels={"team": "*"})
    run = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {}, "spec": {"clusterSelector": {"ray.io/cluster": "a"}}}
    assert violations(policy, run) == []
    cron = {**run, "kind": "RayCronJob", "spec": {"jobTemplate": run["spec"]}}
    assert violations(policy, cron) == []
    assert [found.rule for found in violations(policy, {**run, "spec": {"rayClusterSpec": {}}})] == ["required_labels"]


def test_a_cluster_of_others_without_bounds() -> None:
    spec = {"enableInTreeAutoscaling": True, "workerGroupSpecs": [{"groupName": "cpu"}]}
    body = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {}, "spec": spec}
    assert [str(found) for found in violations(Policy(max_replicas=5), body)] == [
        "spec.workerGroupSpecs[cpu].maxReplicas: not set and without bound; give 5 at most (rule max_replicas)"
    ]


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("ray:1", "docker.io"),
        ("rayproject/ray:1", "docker.io"),
        ("localhost/ray", "localhost"),
        ("host:5000/ray", "host:5000"),
        ("quay.io/a/b@sha256:0", "quay.io"),
    ],
)
def test_the_registry_of_an_image(image: str, registry: str) -> None:
    assert registry_of(image) == registry


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_cpu: 3", "{file}: unknown key 'max_cpu'; did you mean 'max_cpus'?"),
        ("namespace: [a]", "{file}: unknown key 'namespace'; did you mean 'namespaces'?"),
        ("max_memory: 64", "{file}: max_memory: '64' is 64 bytes; write 8Gi"),
        ("max_replicas: many", "{file}: max_replicas: Input should be a valid integer"),
        ("required_labels: {'a b': '*'}", "{file}: required_labels.a b.[key]: 'a b' is no label key"),
        ("max_time_to_live: 0", "{file}: max_time_to_live: Input should be greater than 0"),
        ("- a", "{file}: Input should be a valid dictionary"),
        ("a: [", "{file} is not YAML"),
    ],
)
def test_a_wrong_policy_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(BadSpec) as caught:
        read_policy(file)
    assert str(caught.value).startswith(problem.format(file=file))


def test_the_policy_of_a_folder_is_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clusters").mkdir()
    assert policy_beside(tmp_path / "clusters") is None
    (tmp_path / "policy.yaml").write_text("max_groups: 2")
    assert policy_beside(tmp_path / "clusters") == Policy(max_groups=2)
    monkeypatch.chdir(tmp_path)
    assert policy_beside("clusters") == Policy(max_groups=2)
    (tmp_path / "policy.yaml").write_text("")
    assert policy_beside("clusters") == Policy()


def test_the_schema_takes_what_is_taken() -> None:
    schema = Draft202012Validator(json_schema())
    Draft202012Validator.check_schema(json_schema())
    for file in Path(__file__).parents[2].glob("**/policy.yaml"):
        assert list(schema.iter_errors(yaml.safe_load(file.read_text()))) == []
    assert schema.is_valid({"max_cpus": 2, "max_memory": "8Gi", "public_address": False})
    assert not schema.is_valid({"max_cpu": 2})


# Of a database


def test_a_database_s_policy_holds_when_clusters_are_defined(store: Store) -> None:
    db = runner.connect(store.uri)
    spec, other = parse_spec(PLAIN), parse_spec({**PLAIN, "name": "b", "namespace": "prod"})
    db.define_cluster("b", other)
    assert db.policy() is None
    assert db.set_policy(Policy(namespaces=["ray"])).revision == 1
    assert db.set_policy(Policy(namespaces=["ray"])).is_new is False
    db.define_cluster("a", spec)
    with pytest.raises(PolicyRefused) as caught:
        db.define_cluster("b", other)
    assert str(caught.value) == "cluster 'b': namespace: 'prod' is none of ray (rule namespaces)"
    assert [definition.revision for definition in db.cluster_history("b")] == [1]
    db.set_policy(None)
    assert db.policy() is None
    assert db.define_cluster("b", other.model_copy(update={"labels": {"x": "y"}})).revision == 2


def test_a_database_s_policy_holds_for_on_demand_clusters(store: Store) -> None:
    spec = parse_spec({**PLAIN, "namespace": "prod"})
    check_on_demand(store, spec, None)
    runner.connect(store.uri).set_policy(Policy(max_time_to_live=3600))
    check_on_demand(store, spec, 3600.0)
    for seconds, lives in ((3601.0, "3601 seconds"), (None, "without end")):
        with pytest.raises(PolicyRefused) as caught:
            check_on_demand(store, spec, seconds)
        assert str(caught.value) == f"cluster 'a': time_to_live: {lives} is more than 3600 (rule max_time_to_live)"
    runner.connect(store.uri).set_policy(Policy(namespaces=["ray"]))
    with pytest.raises(PolicyRefused, match="rule namespaces"):
        check_on_demand(store, spec, 60.0)


def test_nothing_is_provisioned_against_the_policy(store: Store) -> None:
    """Not by a context, which calls the same, and not even previewed; Kubernetes and Pulumi are not asked."""
    from runner.provision import life

    runner.connect(store.uri).set_policy(Policy(namespaces=["ray"], max_time_to_live=60))
    refused = parse_spec({**PLAIN, "namespace": "prod"})
    allowed = parse_spec(PLAIN)
    assert isinstance(refused, KubeRayClusterSpec)
    assert isinstance(allowed, KubeRayClusterSpec)
    for call in (life.up, life.preview):
        with pytest.raises(PolicyRefused, match="namespace: 'prod' is none of ray"):
            call(store, refused, time_to_live=60)
        with pytest.raises(PolicyRefused, match="time_to_live: without end is more than 60"):
            call(store, allowed, time_to_live=None)
    assert list(store.objects("provisioned")) == []


def test_every_problem_of_every_cluster_is_named() -> None:
    policy = Policy(namespaces=["x"], max_groups=0)
    with pytest.raises(PolicyRefused) as caught:
        check_policy(policy, parse_spec(PLAIN), parse_spec({**PLAIN, "name": "b", "namespace": "x"}))
    assert str(caught.value).splitlines() == [
        "cluster 'a': namespace: 'ray' is none of x (rule namespaces)",
        "cluster 'a': worker_groups: 1 groups are more than 0 (rule max_groups)",
        "cluster 'b': worker_groups: 1 groups are more than 0 (rule max_groups)",
    ]
