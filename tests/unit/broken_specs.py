"""Specs with one thing broken, and the field that the refusal must name."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.unit.cluster_specs import Plain, plain_specs

GONE = object()
VOLUME = {"name": "data", "emptyDir": {}}
MOUNT = {"name": "data", "path": "/data"}
AWS_KEY = "AKIAIOSFODNN7EXAMPLE"
LONG = "x" * 64
NO_SIZES = {"requests": {}, "shared_memory": GONE}
REDIS = {"redis_address": "redis:6379"}

ANY_GROUP: list[tuple[Plain, str]] = [
    ({"image": "Upper/Case:tag"}, ".image"),
    ({"image": "repo:tag:tag"}, ".image"),
    ({"image": "repo:" + "t" * 129}, ".image"),
    ({"image": ""}, ".image"),
    ({"arch": "riscv64"}, ".arch"),
    ({"arch": "arm64", "node_selector": {"kubernetes.io/arch": "amd64"}}, ": node_selector"),
    ({"arch": "amd64", "node_selector": {}, "image": "rayproject/ray:2.60.0-py311-aarch64"}, ": image"),
    ({"cpus": "four"}, ".cpus"),
    ({"cpus": "-1"}, ".cpus"),
    ({"cpus": 0}, ".cpus"),
    ({"cpus": True}, ".cpus"),
    ({"cpus": float("nan")}, ".cpus"),
    ({"memory": "8GB"}, ".memory"),
    ({"memory": "8 Gi"}, ".memory"),
    ({"memory": "1e999999999"}, ".memory"),
    ({"memory": None}, ".memory"),
    ({"ephemeral_storage": "1,5Gi"}, ".ephemeral_storage"),
    ({"gpus": -1}, ".gpus"),
    ({"gpus": "two"}, ".gpus"),
    ({"gpu_resource": "gpu"}, ".gpu_resource"),
    ({"requests": {"cpu": "1"}}, ".requests: unknown key 'cpu'; did you mean 'cpus'?"),
    ({"cpus": "2", "requests": {"cpus": "2001m"}}, ": requests.cpus"),
    ({"memory": "8Gi", "requests": {"memory": "9G"}, "shared_memory": GONE}, ": requests.memory"),
    ({"ephemeral_storage": "1Gi", "requests": {"ephemeral_storage": "2Gi"}}, ": requests.ephemeral_storage"),
    ({"memory": "8Gi", **NO_SIZES, "shared_memory": "8Gi"}, ": shared_memory"),
    ({"service_account": 5}, ".service_account"),
    ({"node_selector": {"not a key": "x"}}, ".node_selector"),
    ({"node_selector": {"zone": "-a"}}, ".node_selector"),
    ({"node_selector": {"zone": LONG}}, ".node_selector"),
    ({"node_selector": "zone=a"}, ".node_selector"),
    ({"labels": {"p" * 254 + "/a": "b"}}, ".labels"),
    ({"labels": {"a/b/c": "d"}}, ".labels"),
    ({"labels": {"version": 1}}, ".labels.version"),
    ({"annotations": {LONG: "x"}}, ".annotations"),
    ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, ": tolerations"),
    ({"tolerations": ["NoSchedule"]}, ".tolerations[0]"),
    ({"env": {"1ST": "x"}}, ".env.1ST"),
    ({"env": {"A=B": "x"}}, ".env.A=B"),
    ({"env": {"A": None}}, ".env.A"),
    ({"env": {"DB_PASSWORD": "hunter2"}}, ".env: DB_PASSWORD"),
    ({"env": {"INNOCENT": f"key={AWS_KEY}"}}, ".env: INNOCENT"),
    ({"env": {"A": {"secret": "Keys", "key": "a"}}}, ".env.A"),
    ({"env": {"A": {"secret": "keys", "key": "a b"}}}, ".env.A"),
    ({"env": {"A": {"secret": "keys"}}}, ".env.A"),
    ({"env_from_secrets": ["Keys"]}, ".env_from_secrets[0]"),
    ({"priority_class": "high priority"}, ".priority_class"),
    ({"image_pull_secrets": ["a", "b_c"]}, ".image_pull_secrets[1]"),
    ({"volumes": [{"emptyDir": {}}], "mounts": []}, ": volumes"),
    ({"volumes": [{"name": "Data"}], "mounts": []}, ": volumes"),
    ({"volumes": [VOLUME, VOLUME], "mounts": []}, ": volumes"),
    ({"volumes": [{"name": "home", "emptyDir": {}}], "mounts": []}, ": volumes"),
    ({"volumes": [VOLUME], "mounts": [{"name": "other", "path": "/data"}]}, ": mounts"),
    ({"volumes": [VOLUME], "mounts": [MOUNT, MOUNT]}, ": mounts"),
    ({"volumes": [VOLUME], "mounts": [{"name": "data", "path": "/home/infill"}]}, ": mounts"),
    ({"volumes": [VOLUME], "mounts": [{"name": "data", "path": "data"}]}, ".mounts[0].path"),
    ({"volumes": [VOLUME], "mounts": [{**MOUNT, "read_only": "perhaps"}]}, ".mounts[0].read_only"),
    ({"volumes": [{"name": "a", "csi": {"volumeAttributes": {"password": "hunter2"}}}], "mounts": []}, ".volumes: password"),
    ({"security_context": ["ALL"]}, ".security_context"),
    ({"affinity": "gpu"}, ".affinity"),
    ({"affinity": {"since": dt.date(2026, 1, 1)}}, ".affinity: Object of type date"),
    ({"topology_spread": {"maxSkew": 1}}, ".topology_spread"),
    ({"overrides": {"template": {"spec": {"x": [{"name": "API_TOKEN", "value": "abcdefg1"}]}}}}, ".overrides: API_TOKEN"),
    ({"overrides": {"template": {"metadata": {"annotations": {"a": "${env:A}"}}}}}, ".overrides: a: ${env:A}"),
    ({"memry": "8Gi"}, ": unknown key 'memry'; did you mean 'memory'?"),
]
HEAD: list[tuple[Plain, str]] = [
    ({"env": {"REDIS_USERNAME": "x"}}, "head_group.env: REDIS_USERNAME"),
    ({"env": {"RAY_REDIS_ADDRESS": "x"}}, "head_group.env: RAY_REDIS_ADDRESS"),
    ({"env": {"RAY_enable_autoscaler_v2": "1"}}, "head_group.env: RAY_enable_autoscaler_v2"),
    ({"replicas": 1}, "head_group: unknown key 'replicas'"),
]
WORKER: list[tuple[Plain, str]] = [
    ({"name": "Big"}, ".name"),
    ({"name": "g" * 51}, ".name"),
    ({"kind": "tpu"}, ".kind"),
    ({"kind": "gpu", "gpus": 0}, ": gpus"),
    ({"kind": "cpu", "gpus": 1}, ": gpus"),
    ({"kind": "gpu", "gpus": 1, "memory": "512Mi", **NO_SIZES}, ": memory"),
    ({"min_replicas": 3, "max_replicas": 2}, ": min_replicas"),
    ({"min_replicas": -1}, ".min_replicas"),
    ({"max_replicas": 2**31}, ".max_replicas"),
    ({"replicas": "many"}, ".replicas"),
    ({"idle_timeout_seconds": -5}, ".idle_timeout_seconds"),
]
CLUSTER: list[tuple[Plain, str]] = [
    ({"name": "My-Cluster"}, "name"),
    ({"name": "1st"}, "name"),
    ({"name": "end-"}, "name"),
    ({"name": ""}, "name"),
    ({"name": "n" * 51, "upgrade_strategy": "Recreate"}, "name"),
    ({"name": "n" * 44, "upgrade_strategy": "NewCluster"}, "name"),
    ({"name": GONE}, "name"),
    ({"namespace": "my_namespace"}, "namespace"),
    ({"namespace": "a.b"}, "namespace"),
    ({"ray_version": "2.60"}, "ray_version"),
    ({"ray_version": 2.6}, "ray_version"),
    ({"python_version": "3"}, "python_version"),
    ({"config_method": "GKE"}, "config_method"),
    ({"config_method": "IN_CLUSTER", "kubeconfig": "~/.kube/config"}, "kubeconfig, context"),
    ({"aws_config": {"zone": "a"}}, "aws_config: unknown key 'zone'"),
    ({"head_group": []}, "head_group"),
    ({"worker_groups": {"cpu": {}}}, "worker_groups"),
    ({"worker_groups": [{"name": "a"}, {"name": "a"}]}, "worker_groups: two groups have the name 'a'"),
    ({"worker_groups": [{"name": "head"}]}, "worker_groups: 'head'"),
    ({"autoscaler": {"enabled": True}, "worker_groups": [{"replicas": 2}]}, "worker_groups.cpu: replicas"),
    ({"autoscaler": {"enabled": False}, "worker_groups": [{"max_replicas": 2}]}, "worker_groups.cpu: min_replicas, max_replicas"),
    ({"autoscaler": {"version": "v1"}, "worker_groups": [{"idle_timeout_seconds": 2}]}, "worker_groups.cpu: idle_timeout_seconds"),
    ({"autoscaler": {"version": "v3"}}, "autoscaler.version"),
    ({"autoscaler": {"idle_timeout_seconds": -1}}, "autoscaler.idle_timeout_seconds"),
    ({"autoscaler": {"upscaling_mode": "default"}}, "autoscaler.upscaling_mode"),
    ({"autoscaler": {"requests": {"cpus": "501m"}}}, "autoscaler: requests.cpus"),
    ({"autoscaler": False}, "autoscaler"),
    ({"gcs_fault_tolerance": {}}, "gcs_fault_tolerance: redis_address"),
    ({"gcs_fault_tolerance": {"backend": "etcd"}}, "gcs_fault_tolerance.backend"),
    ({"gcs_fault_tolerance": {**REDIS, "backend": "rocksdb"}}, "gcs_fault_tolerance: redis_address"),
    ({"gcs_fault_tolerance": {**REDIS, "storage": {}}}, "gcs_fault_tolerance: storage"),
    ({"gcs_fault_tolerance": {**REDIS, "redis_password": "hunter2"}}, "gcs_fault_tolerance.redis_password"),
    (
        {"gcs_fault_tolerance": {"backend": "rocksdb", "storage": {"claim_name": "a", "size": "1Gi"}}},
        "gcs_fault_tolerance.storage: claim_name",
    ),
    ({"gcs_fault_tolerance": REDIS, "head_group": {"env": {"REDIS_PASSWORD": "${env:P}"}}}, "head_group.env: REDIS_PASSWORD"),
    ({"network_policy": {"from_blocks": ["10.0.0.0/99"]}}, "network_policy.from_blocks[0]"),
    ({"network_policy": {"from_blocks": ["10.0.0.0/8", "10.0.0.1/8"]}}, "network_policy.from_blocks[1]"),
    ({"network_policy": {"from_blocks": ["10.0.0.1"]}}, "network_policy.from_blocks[0]"),
    ({"network_policy": {"from_namespaces": [LONG]}}, "network_policy.from_namespaces[0]"),
    ({"ray_version": "2.51.0", "token_authentication": True}, "token_authentication"),
    ({"upgrade_strategy": "Rolling"}, "upgrade_strategy"),
    ({"scheduler": {"name": "slurm", "queue": "a"}}, "scheduler.name"),
    ({"scheduler": {"name": "kueue", "queue": ""}}, "scheduler.queue"),
    ({"scheduler": {"name": "kueue"}}, "scheduler.queue"),
    ({"scheduler": {"name": "volcano", "queue": "a", "priority_class": "s" * 64}}, "scheduler.priority_class"),
    ({"suspend": "maybe"}, "suspend"),
    ({"ready_timeout_seconds": 0}, "ready_timeout_seconds"),
    ({"unschedulable_seconds": -1}, "unschedulable_seconds"),
    ({"labels": {"team": "a team"}}, "labels"),
    ({"annotations": {"": "x"}}, "annotations"),
    ({"overrides": {"spec": {"headGroupSpec": {"x": AWS_KEY}}}}, "overrides: x"),
    ({"overrides": {"metadata": {"annotations": {"a": "${env:A}"}}}}, "overrides: a: ${env:A}"),
    ({"ray_init_kwargs": {"runtime_env": {"env_vars": {"N": 1}}}}, "ray_init_kwargs: runtime_env.env_vars.N"),
    ({"ray_init_kwargs": {"runtime_env": {"env_vars": {"HF_TOKEN": "abcdefgh"}}}}, "ray_init_kwargs: HF_TOKEN"),
    ({"head_grp": {}}, "unknown key 'head_grp'; did you mean 'head_group'?"),
]


@dataclass(frozen=True)
class Broken:
    """A spec that must be refused.

    Attributes:
        plain: the spec.
        field: how each line of the refusal begins, after the name of the spec's class.
    """

    plain: Plain
    field: str


def broken(plain: Plain, number: int, *, in_head: bool = False) -> Broken:
    """`plain`, which is valid, with entry `number` of the tables applied."""
    spec = copy.deepcopy(plain)
    for table, groups in ((ANY_GROUP, True), (WORKER, True), (HEAD, False), (CLUSTER, False)):
        if number >= len(table):
            number -= len(table)
            continue
        change, field = table[number]
        if not groups:
            place = spec.setdefault("head_group", {}) if table is HEAD else spec
        elif in_head and table is ANY_GROUP:
            place, field = spec.setdefault("head_group", {}), f"head_group{field}"
        else:
            spec["worker_groups"] = spec.get("worker_groups") or [{}]
            place, field = spec["worker_groups"][0], f"worker_groups[0]{field}"
        _apply(place, change)
        return Broken(spec, field)
    raise IndexError(number)


ENTRIES = range(len(ANY_GROUP) + len(WORKER) + len(HEAD) + len(CLUSTER))


def invalid_specs() -> st.SearchStrategy[Broken]:
    return st.builds(
        lambda plain, number, in_head: broken(plain, number, in_head=in_head),
        plain_specs(),
        st.sampled_from(ENTRIES),
        st.booleans(),
    )


def _apply(place: Plain, change: Mapping[str, Any]) -> None:
    for key, value in change.items():
        if value is GONE:
            place.pop(key, None)
        else:
            place[key] = copy.deepcopy(value)
