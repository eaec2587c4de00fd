"""`ray_cluster_body`: each field of a spec at its place in the RayCluster."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from infra.body import alias_service_body, network_policy_body, ray_cluster_body, template_hashes
from infra.groups import HeadGroup, WorkerGroup
from infra.parts import AutoscalerOptions, GcsFaultTolerance, GcsStorage, NetworkPolicy, Scheduler
from infra.spec import KubeRayClusterSpec
from tests.unit.cluster_specs import parsed

ABSENT = "(absent)"
POD = "template.spec"
RAY = f"{POD}.containers[0]"
RESOURCES = f"{RAY}.resources"
IMAGE = "rayproject/ray:2.60.0-py311"

# Field, value, what else the value needs, and what is where in headGroupSpec or the item of workerGroupSpecs.
GROUP_FIELDS: list[tuple[str, Any, dict[str, Any], dict[str, Any]]] = [
    ("image", "mine:1", {}, {f"{RAY}.image": "mine:1"}),
    ("arch", "arm64", {}, {f"{POD}.nodeSelector": {"kubernetes.io/arch": "arm64"}, f"{RAY}.image": f"{IMAGE}-aarch64"}),
    ("cpus", 2, {}, {f"{RESOURCES}.limits.cpu": "2", f"{RESOURCES}.requests.cpu": "2"}),
    ("memory", "3Gi", {}, {f"{RESOURCES}.limits.memory": "3Gi", f"{RESOURCES}.requests.memory": "3Gi"}),
    ("ephemeral_storage", "9Gi", {}, {f"{RESOURCES}.limits": {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "9Gi"},
                                      f"{RESOURCES}.requests": {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "9Gi"}}),
    ("gpus", 2, {}, {f"{RESOURCES}.limits": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "2"},
                     f"{RESOURCES}.requests": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "2"},
                     f"{RAY}.image": f"{IMAGE}-gpu"}),
    ("gpu_resource", "amd.com/gpu", {"gpus": 1}, {f"{RESOURCES}.limits": {"cpu": "4", "memory": "8Gi", "amd.com/gpu": "1"}}),
    ("gpu_resource", "amd.com/gpu", {}, {f"{RESOURCES}.limits": {"cpu": "4", "memory": "8Gi"}}),
    ("requests", {"cpus": "500m"}, {}, {f"{RESOURCES}.limits": {"cpu": "4", "memory": "8Gi"},
                                        f"{RESOURCES}.requests": {"cpu": "500m", "memory": "8Gi"}}),
    ("requests", {"memory": "1Gi", "ephemeral_storage": "1G"}, {"gpus": 1},
     {f"{RESOURCES}.requests": {"cpu": "4", "memory": "1Gi", "ephemeral-storage": "1G", "nvidia.com/gpu": "1"}}),
    ("shared_memory", "2Gi", {}, {f"{POD}.volumes[-1].emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"},
                                  f"{POD}.volumes[-1].name": "shared-memory",
                                  f"{RAY}.volumeMounts[-1]": {"name": "shared-memory", "mountPath": "/dev/shm"}}),
    ("service_account", "sa", {}, {f"{POD}.serviceAccountName": "sa"}),
    ("node_selector", {"pool": "a"}, {}, {f"{POD}.nodeSelector": {"kubernetes.io/arch": "amd64", "pool": "a"}}),
    ("tolerations", [{"key": "a", "operator": "Exists"}], {}, {f"{POD}.tolerations": [{"key": "a", "operator": "Exists"}]}),
    ("labels", {"team": "x"}, {}, {"template.metadata.labels.team": "x", "template.metadata.labels.infill/cluster": "a"}),
    ("annotations", {"note": "x y"}, {}, {"template.metadata.annotations.note": "x y"}),
    ("env", {"A": 1, "HOME": "/tmp"}, {}, {f"{RAY}.env": [{"name": "A", "value": "1"}, {"name": "HOME", "value": "/tmp"}]}),
    ("env", {"A": {"secret": "s", "key": "k"}}, {}, {f"{RAY}.env[-1]": {
        "name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}}),
    ("env_from_secrets", ["s"], {}, {f"{RAY}.envFrom": [{"secretRef": {"name": "s"}}]}),
    ("priority_class", "high", {}, {f"{POD}.priorityClassName": "high"}),
    ("volumes", [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}], {},
     {f"{POD}.volumes": [{"name": "home", "emptyDir": {}}, {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
    ("mounts", [{"name": "v", "path": "/v", "read_only": True, "sub_path": "s"}], {"volumes": [{"name": "v", "emptyDir": {}}]},
     {f"{RAY}.volumeMounts[-1]": {"name": "v", "mountPath": "/v", "readOnly": True, "subPath": "s"}}),
    ("mounts", [{"name": "v", "path": "/v"}], {"volumes": [{"name": "v", "emptyDir": {}}]},
     {f"{RAY}.volumeMounts[-1]": {"name": "v", "mountPath": "/v"}}),
    ("image_pull_secrets", ["s"], {}, {f"{POD}.imagePullSecrets": [{"name": "s"}]}),
    ("security_context", {"capabilities": {"add": ["SYS_PTRACE"]}}, {}, {f"{RAY}.securityContext": {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}}}),
    ("pod_security_context", {"runAsUser": 5, "fsGroup": None}, {}, {f"{POD}.securityContext": {
        "runAsNonRoot": True, "runAsUser": 5, "runAsGroup": 100, "seccompProfile": {"type": "RuntimeDefault"}}}),
    ("affinity", {"nodeAffinity": {}}, {}, {f"{POD}.affinity": {"nodeAffinity": {}}}),
    ("topology_spread", [{"maxSkew": 1}], {}, {f"{POD}.topologySpreadConstraints": [{"maxSkew": 1}]}),
    ("overrides", {"template": {"spec": {"hostNetwork": True}}}, {}, {f"{POD}.hostNetwork": True}),
]  # fmt: skip

WORKER_FIELDS: list[tuple[str, Any, dict[str, Any], dict[str, Any]]] = [
    ("name", "big", {}, {"groupName": "big"}),
    ("kind", "gpu", {}, {"groupName": "gpu", f"{RESOURCES}.limits": {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "1"}}),
    ("min_replicas", 3, {}, {"minReplicas": 3, "maxReplicas": 10, "replicas": ABSENT}),
    ("max_replicas", 3, {}, {"minReplicas": 0, "maxReplicas": 3, "replicas": ABSENT}),
    ("idle_timeout_seconds", 0, {}, {"idleTimeoutSeconds": 0}),
    ("replicas", 3, {"autoscaler": {"enabled": False}}, {"replicas": 3, "minReplicas": 3, "maxReplicas": 3}),
    ("replicas", 0, {"autoscaler": {"enabled": False}}, {"replicas": 0, "minReplicas": 0, "maxReplicas": 0}),
]

REDIS = {"redis_address": "r:1"}
TOP = "spec.autoscalerOptions"
FT = "spec.gcsFaultToleranceOptions"
CLUSTER_FIELDS: list[tuple[str, Any, dict[str, Any]]] = [
    ("name", "b", {"metadata.name": "b", "metadata.labels.infill/cluster": "b"}),
    ("namespace", "ns", {"metadata.namespace": "ns"}),
    ("ray_version", "2.53.0", {"spec.rayVersion": "2.53.0", f"spec.headGroupSpec.{RAY}.image": "rayproject/ray:2.53.0-py311"}),
    ("python_version", "3.12", {f"spec.headGroupSpec.{RAY}.image": "rayproject/ray:2.60.0-py312"}),
    ("head_group", {"cpus": 1}, {f"spec.headGroupSpec.{RESOURCES}.limits.cpu": "1"}),
    ("worker_groups", [], {"spec.workerGroupSpecs": []}),
    ("autoscaler.enabled", False, {"spec.enableInTreeAutoscaling": False, TOP: ABSENT, "spec.workerGroupSpecs[0].replicas": 1}),
    ("autoscaler.version", "v1", {f"{TOP}.version": "v1", "spec.enableInTreeAutoscaling": True}),
    ("autoscaler.idle_timeout_seconds", 5, {f"{TOP}.idleTimeoutSeconds": 5}),
    ("autoscaler.upscaling_mode", "Aggressive", {f"{TOP}.upscalingMode": "Aggressive"}),
    ("autoscaler.cpus", 1, {f"{TOP}.resources.limits.cpu": "1", f"{TOP}.resources.requests.cpu": "1"}),
    ("autoscaler.memory", "1Gi", {f"{TOP}.resources.limits.memory": "1Gi", f"{TOP}.resources.requests.memory": "1Gi"}),
    ("autoscaler.requests", {"cpus": "10m"}, {f"{TOP}.resources": {"limits": {"cpu": "500m", "memory": "512Mi"},
                                                                   "requests": {"cpu": "10m", "memory": "512Mi"}}}),
    ("autoscaler.image", "mine:1", {f"{TOP}.image": "mine:1"}),
    ("gcs_fault_tolerance", None, {FT: ABSENT}),
    ("gcs_fault_tolerance", REDIS, {FT: {"redisAddress": "r:1"}}),
    ("gcs_fault_tolerance", {**REDIS, "redis_username": "u"}, {f"{FT}.redisUsername": {"value": "u"}}),
    ("gcs_fault_tolerance", {**REDIS, "redis_password": {"secret": "s", "key": "k"}, "external_storage_namespace": "n"},
     {f"{FT}.redisPassword": {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}, f"{FT}.externalStorageNamespace": "n"}),
    ("gcs_fault_tolerance", {"backend": "rocksdb"}, {FT: {"backend": "rocksdb", "storage": {}}}),
    ("gcs_fault_tolerance", {"backend": "rocksdb", "storage": {"size": "1Gi", "storage_class": "fast"}},
     {f"{FT}.storage": {"size": "1Gi", "storageClassName": "fast"}}),
    ("gcs_fault_tolerance", {"backend": "rocksdb", "storage": {"claim_name": "c"}}, {f"{FT}.storage": {"claimName": "c"}}),
    ("token_authentication", True, {"spec.authOptions": {"mode": "token"}}),
    ("token_authentication", False, {"spec.authOptions": ABSENT}),
    ("ray_version", "2.51.2", {"spec.authOptions": ABSENT}),
    ("ray_version", "2.52.0", {"spec.authOptions": {"mode": "token"}}),
    ("upgrade_strategy", "None", {"metadata.name": "a", "spec.upgradeStrategy": ABSENT}),
    ("scheduler", {"name": "kueue", "queue": "q"}, {"metadata.labels": {"kueue.x-k8s.io/queue-name": "q"}}),
    ("scheduler", {"name": "kueue", "queue": "q", "priority_class": "p"},
     {"metadata.labels": {"kueue.x-k8s.io/queue-name": "q", "kueue.x-k8s.io/priority-class": "p"}}),
    ("scheduler", {"name": "volcano", "queue": "q", "priority_class": "p"}, {"metadata.labels": {
        "ray.io/scheduler-name": "volcano", "volcano.sh/queue-name": "q", "ray.io/priority-class-name": "p"}}),
    ("scheduler", {"name": "yunikorn", "queue": "q"}, {"metadata.labels": {
        "ray.io/scheduler-name": "yunikorn", "yunikorn.apache.org/queue": "q"}}),
    ("suspend", True, {"spec.suspend": True}),
    ("labels", {"team": "x"}, {"metadata.labels": {"team": "x"}}),
    ("annotations", {"note": "x"}, {"metadata.annotations": {"note": "x"}}),
    ("overrides", {"spec": {"headServiceAnnotations": {"a": "b"}, "autoscalerOptions": None}},
     {"spec.headServiceAnnotations": {"a": "b"}, TOP: ABSENT}),
]  # fmt: skip
OWNED = {"app.kubernetes.io/managed-by": "infill", "infill/cluster": "a"}
# Not of the RayCluster: how it is reached, and what Pulumi and clients do with it.
ELSEWHERE = {"kind", "config_method", "aws_config", "kubeconfig", "context", "ready_timeout_seconds", "unschedulable_seconds",
             "protect", "ray_init_kwargs", "network_policy"}  # fmt: skip


def body_of(**fields: Any) -> dict[str, Any]:
    return ray_cluster_body(parsed({"name": "a", "ray_version": "2.60.0", "python_version": "3.11", **fields}))


def at(tree: Any, path: str) -> Any:
    """``a.b[0].c`` of a tree; a part may hold a slash, and a dot after it."""
    for part in re.findall(r"\[-?\d+\]|[^.\[]+/[^\[]+|[^.\[]+", path):
        if part.startswith("["):
            tree = tree[int(part[1:-1])]
        elif part not in tree:
            return ABSENT
        else:
            tree = tree[part]
    return tree


@pytest.mark.parametrize(("field", "value", "more", "expected"), GROUP_FIELDS, ids=[row[0] for row in GROUP_FIELDS])
def test_each_field_of_the_head(field: str, value: Any, more: dict[str, Any], expected: dict[str, Any]) -> None:
    head = body_of(head_group={field: value, **more})["spec"]["headGroupSpec"]
    assert {path: at(head, path) for path in expected} == expected


@pytest.mark.parametrize(("field", "value", "more", "expected"), GROUP_FIELDS, ids=[row[0] for row in GROUP_FIELDS])
def test_each_field_of_workers(field: str, value: Any, more: dict[str, Any], expected: dict[str, Any]) -> None:
    sizes = {"cpus": "4", "memory": "8Gi"} if {field, *more} & {"gpus"} else {}
    other, group = body_of(worker_groups=[{}, {**sizes, field: value, **more}])["spec"]["workerGroupSpecs"]
    assert {path: at(group, path) for path in expected} == expected
    assert other == body_of()["spec"]["workerGroupSpecs"][0]


@pytest.mark.parametrize(("field", "value", "more", "expected"), WORKER_FIELDS)
def test_each_field_of_workers_alone(field: str, value: Any, more: dict[str, Any], expected: dict[str, Any]) -> None:
    group = body_of(worker_groups=[{field: value}], **more)["spec"]["workerGroupSpecs"][0]
    assert {path: at(group, path) for path in expected} == expected


@pytest.mark.parametrize(("field", "value", "expected"), CLUSTER_FIELDS)
def test_each_field_of_a_cluster(field: str, value: Any, expected: dict[str, Any]) -> None:
    name, _, part = field.partition(".")
    body = body_of(**{name: {part: value} if part else value})
    found = {path: at(body, path) for path in expected}
    if isinstance(expected.get("metadata.labels"), dict):
        expected = {"metadata.labels": {**OWNED, **expected["metadata.labels"]}}
    assert found == expected


def test_the_tables_have_every_field() -> None:
    assert {row[0] for row in GROUP_FIELDS} == set(HeadGroup.model_fields)
    assert {row[0] for row in (*GROUP_FIELDS, *WORKER_FIELDS)} == set(WorkerGroup.model_fields)
    cluster = {row[0].partition(".")[0] for row in CLUSTER_FIELDS}
    assert cluster.isdisjoint(ELSEWHERE)
    assert cluster | ELSEWHERE == set(KubeRayClusterSpec.model_fields)
    assert {row[0].removeprefix("autoscaler.") for row in CLUSTER_FIELDS if "." in row[0]} == set(AutoscalerOptions.model_fields)
    text = json.dumps([row[1] for row in CLUSTER_FIELDS if row[0] in ("gcs_fault_tolerance", "scheduler")])
    assert [
        field for model in (GcsFaultTolerance, GcsStorage, Scheduler) for field in model.model_fields if f'"{field}"' not in text
    ] == []
    assert set(NetworkPolicy.model_fields) == {"from_namespaces", "from_blocks"}  # below


@pytest.mark.parametrize("field", sorted(ELSEWHERE - {"kind", "config_method", "network_policy"}))
def test_what_is_elsewhere_changes_nothing_here(field: str) -> None:
    values = {"aws_config": {"region": "r"}, "ready_timeout_seconds": 1, "unschedulable_seconds": 1, "protect": True,
              "ray_init_kwargs": {"runtime_env": {"env_vars": {"A": "b"}}}}  # fmt: skip
    assert body_of(**{field: values.get(field, "x")}) == body_of()


def test_a_spec_without_options_whole() -> None:
    body = body_of()
    hashes = template_hashes(body)
    assert set(hashes) == {"headgroup", "cpu"}
    container = {
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "HOME", "value": "/home/infill"}],
        "resources": {"limits": {"cpu": "4", "memory": "8Gi"}, "requests": {"cpu": "4", "memory": "8Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "home", "mountPath": "/home/infill"}],
    }
    pod = {
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 100, "fsGroup": 100,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": "home", "emptyDir": {}}],
    }  # fmt: skip
    ports = [("gcs-server", 6379), ("dashboard", 8265), ("client", 10001)]
    head = {**container, "name": "ray-head", "ports": [{"name": name, "containerPort": port} for name, port in ports]}
    assert body == {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "a", "namespace": "default", "labels": OWNED},
        "spec": {
            "rayVersion": "2.60.0",
            "enableInTreeAutoscaling": True,
            "autoscalerOptions": {
                "version": "v2",
                "idleTimeoutSeconds": 60,
                "upscalingMode": "Default",
                "resources": {"limits": {"cpu": "500m", "memory": "512Mi"}, "requests": {"cpu": "500m", "memory": "512Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            },
            "authOptions": {"mode": "token"},
            "headGroupSpec": {
                "rayStartParams": {"num-cpus": "0"},  # no tasks on the head
                "template": {
                    "metadata": {"labels": OWNED, "annotations": {"infill/template-hash": hashes["headgroup"]}},
                    "spec": {**pod, "containers": [head], "terminationGracePeriodSeconds": 3},
                },
            },
            "workerGroupSpecs": [
                {
                    "groupName": "cpu",
                    "minReplicas": 0,
                    "maxReplicas": 10,
                    "rayStartParams": {},
                    "template": {
                        "metadata": {"labels": OWNED, "annotations": {"infill/template-hash": hashes["cpu"]}},
                        "spec": {**pod, "containers": [{**container, "name": "ray-worker"}]},
                    },
                }
            ],
        },
    }


@pytest.mark.parametrize(
    ("resource", "params"),
    [
        ("nvidia.com/gpu", {}),
        ("google.com/tpu", {}),
        ("nvidia.com/mig-1g.10gb", {"num-gpus": "2"}),
        ("habana.ai/gaudi", {"num-gpus": "2"}),
    ],
)
def test_ray_is_told_of_accelerators_that_kuberay_does_not_count(resource: str, params: dict[str, str]) -> None:
    groups = body_of(worker_groups=[{"gpus": 2, "gpu_resource": resource}, {"gpu_resource": resource}])["spec"]["workerGroupSpecs"]
    assert [group["rayStartParams"] for group in groups] == [params, {}]


def test_no_gpu_tasks_on_the_head_either() -> None:
    assert body_of(head_group={"gpus": 1})["spec"]["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}


def test_references_become_keys_of_the_cluster_s_secret() -> None:
    env = {"A": "${env:X}", "B": "b-${env:X}-${env:Y}"}
    body = body_of(head_group={"env": env}, worker_groups=[{"name": "w", "env": env}])
    for group, name in ((body["spec"]["headGroupSpec"], "head"), (body["spec"]["workerGroupSpecs"][0], "w")):
        assert at(group, f"{RAY}.env")[1:] == [
            {"name": variable, "valueFrom": {"secretKeyRef": {"name": "a-env", "key": f"{name}.{variable}"}}} for variable in env
        ]
    assert "${env" not in json.dumps(body)


def test_overrides_reach_groups_and_containers_by_name() -> None:
    change = {"name": "ray-worker", "resources": {"limits": {"example.com/x": "1"}}, "env": [{"name": "A", "value": "2"}]}
    group = {"env": {"A": "1", "B": "1"}, "overrides": {"template": {"spec": {"containers": [change, {"name": "sidecar"}]}}}}
    whole = {
        "spec": {
            "workerGroupSpecs": [
                {"groupName": "cpu", "maxReplicas": 99},
                {"groupName": "more", "template": {"spec": {}}, "rayStartParams": {}},
            ]
        }
    }
    groups = body_of(worker_groups=[group], overrides=whole)["spec"]["workerGroupSpecs"]
    assert [(found["groupName"], found.get("maxReplicas")) for found in groups] == [("cpu", 99), ("more", None)]
    ray, sidecar = groups[0]["template"]["spec"]["containers"]
    assert [(variable["name"], variable["value"]) for variable in ray["env"]] == [("HOME", "/home/infill"), ("A", "2"), ("B", "1")]
    assert ray["resources"]["limits"] == {"cpu": "4", "memory": "8Gi", "example.com/x": "1"}
    assert sidecar == {"name": "sidecar"}


def test_overrides_may_leave_out_what_kuberay_does_not_ask_for() -> None:
    added = {"groupName": "more"}
    body = body_of(upgrade_strategy="NewCluster", overrides={"spec": {"workerGroupSpecs": [added]}})
    assert set(template_hashes(body)) == {"headgroup", "cpu", "more"}
    assert set(template_hashes(body_of(upgrade_strategy="NewCluster", overrides={"spec": {"workerGroupSpecs": None}}))) == {
        "headgroup"
    }


def hashes_of(**fields: Any) -> dict[str, str]:
    return template_hashes(body_of(**fields))


TWO = [{"name": "x"}, {"name": "y"}]


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        (
            {"worker_groups": [{"name": "x", "max_replicas": 50, "min_replicas": 1}, {"name": "y", "idle_timeout_seconds": 9}]},
            set(),
        ),
        ({"labels": {"a": "b"}, "annotations": {"a": "b"}, "suspend": True, "namespace": "b"}, set()),
        ({"worker_groups": [{"name": "x"}, {"name": "y", "cpus": 5}]}, {"y"}),
        ({"worker_groups": [{"name": "y"}, {"name": "x", "overrides": {"rayStartParams": {"a": "b"}}}]}, {"x"}),
        ({"head_group": {"env": {"A": "b"}}}, {"headgroup"}),
        ({"autoscaler": {"idle_timeout_seconds": 5}}, {"headgroup"}),
        ({"gcs_fault_tolerance": REDIS}, {"headgroup"}),
        ({"ray_version": "2.59.0"}, {"headgroup", "x", "y"}),
        ({"python_version": "3.12"}, {"headgroup", "x", "y"}),
        ({"token_authentication": False}, {"headgroup", "x", "y"}),
    ],
)
def test_the_hash_of_a_template_changes_where_its_pods_do(fields: dict[str, Any], changed: set[str]) -> None:
    before, after = hashes_of(worker_groups=TWO), hashes_of(**{"worker_groups": TWO, **fields})
    assert set(before) == set(after) == {"headgroup", "x", "y"}
    assert {name for name in before if before[name] != after[name]} == changed


def name_of(**fields: Any) -> str:
    return str(body_of(upgrade_strategy="NewCluster", **fields)["metadata"]["name"])


def test_a_new_cluster_is_named_after_what_it_is() -> None:
    name = name_of()
    assert re.fullmatch(r"a-[0-9a-f]{6}", name)
    same = [
        {"worker_groups": [{"min_replicas": 3, "max_replicas": 70}]},
        {"labels": {"a": "b"}},
        {"ready_timeout_seconds": 5},
        {"namespace": "b"},
    ]
    assert {name_of(**fields) for fields in same} == {name}
    off = {"autoscaler": {"enabled": False}}
    assert name_of(**off, worker_groups=[{"replicas": 5}]) == name_of(**off) != name
    others = [{"head_group": {"image": "mine:1"}}, {"worker_groups": [{"cpus": 1}]}, {"worker_groups": []}, {"suspend": True}, off]
    assert len({name_of(**fields) for fields in others} | {name}) == len(others) + 1
    assert len(ray_cluster_body(parsed({"name": "n" * 43, "upgrade_strategy": "NewCluster"}))["metadata"]["name"]) == 50


def test_the_alias_leads_to_the_head_of_a_cluster() -> None:
    service = alias_service_body(parsed({"name": "a", "namespace": "ns"}), "a-123456")
    assert service["metadata"] == {"name": "a-head-svc", "namespace": "ns", "labels": OWNED}
    assert service["spec"]["selector"] == {"ray.io/cluster": "a-123456", "ray.io/node-type": "head"}
    assert [(port["name"], port["port"]) for port in service["spec"]["ports"]] == [
        ("gcs-server", 6379),
        ("dashboard", 8265),
        ("client", 10001),
    ]


def test_the_network_policy_lets_in_its_own_pods_the_operator_and_those_named() -> None:
    spec = parsed({"name": "a", "namespace": "ns", "network_policy": {"from_namespaces": ["jobs"], "from_blocks": ["10.0.0.0/8"]}})
    policy = network_policy_body(spec, "kuberay")
    own = {"podSelector": {"matchLabels": {"infill/cluster": "a"}}}
    operator = {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay"}},
    }
    jobs = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "jobs"}}}
    ports = [{"protocol": "TCP", "port": port} for port in (6379, 8265, 10001, 8080)]
    assert policy["metadata"] == {"name": "a", "namespace": "ns", "labels": OWNED}
    assert policy["spec"] == {
        **own,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [own]}, {"from": [operator, jobs, {"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": ports}],
    }
    # What it selects is on the pods.
    assert at(ray_cluster_body(spec), "spec.headGroupSpec.template.metadata.labels.infill/cluster") == "a"
    assert network_policy_body(spec)["spec"]["ingress"][1]["from"][0] == {**operator, "namespaceSelector": {}}
