"""The fluent builders, with the code of Geneva's page "Execution Contexts" verbatim, but for its imports."""

from __future__ import annotations

import copy
import inspect
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import Cluster, GenevaCluster, K8sConfigMethod, KubeRayClusterBuilder
from infra.body import ray_cluster_body
from infra.builder import ExternalRayClusterBuilder, GpuWorkerBuilder, LocalRayClusterBuilder, WorkerBuilder, _Builder
from infra.errors import BadSpec
from infra.files import read_spec
from infra.groups import WorkerGroup
from infra.spec import ClusterSpec, ExternalClusterSpec, KubeRayClusterSpec, LocalClusterSpec, parse_spec

AWS_KEY = "AKIAIOSFODNN7EXAMPLE"


def of_yaml(text: str) -> ClusterSpec:
    return parse_spec(yaml.safe_load(text))


def seed_page() -> KubeRayClusterSpec:
    # fmt: off
    cluster_name = "my-geneva-cluster" # lowercase, numbers, hyphens only
    service_account = "my_k8s_service_account" # k8s service account that Geneva runs as
    k8s_namespace = "geneva"  # k8s namespace

    cluster = (
        GenevaCluster.create_kuberay(cluster_name)
            .namespace(k8s_namespace)
            .aws_config(region="us-east-1") # only required if using AWS
            .config_method(K8sConfigMethod.LOCAL) # Load k8s config from `~/.kube.config`
            # (other options include EKS_AUTH to load from AWS EKS, or IN_CLUSTER to load the
            # config when running inside a pod in the cluster)
            .head_group(
                service_account=service_account,
                cpus=2,
                node_selector={"geneva.lancedb.com/ray-head":""}, # k8s label required for head in your cluster
            )
            .add_worker_group(
                KubeRayClusterBuilder.cpu_worker()
                .cpus(4)
                .memory("8Gi")
                .service_account(service_account)
                .build()
            )
            .add_worker_group(
                KubeRayClusterBuilder.gpu_worker() # defaults to 1 GPU
                .cpus(2)
                .memory("8Gi")
                .service_account(service_account)
                .build()
            )
            .build()
    )
    # fmt: on
    return cluster  # noqa: RET504


def test_the_seed_page_s_kuberay_cluster() -> None:
    with pytest.warns(UserWarning, match="service_account: 'my_k8s_service_account'") as caught:
        cluster = seed_page()
    assert len(caught) == 3  # one for each group
    assert cluster == of_yaml("""
        name: my-geneva-cluster
        namespace: geneva
        aws_config: {region: us-east-1}
        config_method: LOCAL
        head_group:
          service_account: my_k8s_service_account
          cpus: 2
          node_selector: {geneva.lancedb.com/ray-head: ""}
        worker_groups:
        - {name: cpu, kind: cpu, cpus: 4, memory: 8Gi, service_account: my_k8s_service_account}
        - {name: gpu, kind: gpu, gpus: 1, cpus: 2, memory: 8Gi, service_account: my_k8s_service_account}
    """)
    head = ray_cluster_body(cluster)["spec"]["headGroupSpec"]["template"]["spec"]
    assert head["nodeSelector"] == {"kubernetes.io/arch": "amd64", "geneva.lancedb.com/ray-head": ""}
    with pytest.raises(BadSpec, match="Kubernetes will refuse it"):
        cluster.check_provisionable()


def test_the_seed_page_s_images() -> None:
    cluster_name = "my-geneva-cluster"
    # fmt: off
    cluster = (
        GenevaCluster.create_kuberay(cluster_name)
            .head_group(
                image="myregistry.example.com/my-custom-head-image:latest",
            )
            .add_worker_group(KubeRayClusterBuilder.cpu_worker()
                .image("myregistry.example.com/my-custom-cpu-worker-image:latest")
            )
            .add_worker_group(KubeRayClusterBuilder.gpu_worker()
                .image("myregistry.example.com/my-custom-gpu-worker-image:latest")
            )
        .build()
    )
    # fmt: on
    assert {name: group.image for name, group in cluster.groups().items()} == {
        "head": "myregistry.example.com/my-custom-head-image:latest",
        "cpu": "myregistry.example.com/my-custom-cpu-worker-image:latest",
        "gpu": "myregistry.example.com/my-custom-gpu-worker-image:latest",
    }
    assert cluster.warnings() == []


def test_the_seed_page_s_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", AWS_KEY)
    kwargs = {
        "runtime_env": {
            "env_vars": {
                "MY_VAR": "value",
                "AWS_ACCESS_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"],
            },
        },
    }
    for begun in (GenevaCluster.create_kuberay("a"), GenevaCluster.create_external("a", "ray://h:10001")):
        cluster = begun.ray_init_kwargs(kwargs).build()
        env_vars = {"MY_VAR": "value", "AWS_ACCESS_KEY_ID": "${env:AWS_ACCESS_KEY_ID}"}
        assert cluster.ray_init_kwargs == {"runtime_env": {"env_vars": env_vars}}
        assert AWS_KEY not in repr(cluster)


def test_the_seed_page_s_external_cluster() -> None:
    cluster_name = "my-geneva-external-cluster"
    # fmt: off
    with pytest.warns(UserWarning, match="address: its port is the placeholder my_port"):
        cluster = (
            GenevaCluster.create_external(cluster_name, "ray://my_ip:my_port")
            .build()
        )
    # fmt: on
    assert cluster == ExternalClusterSpec(name=cluster_name, address="ray://my_ip:my_port")


def test_every_way_to_begin_is_the_same() -> None:
    assert GenevaCluster is Cluster
    assert (
        KubeRayClusterBuilder.create("a").build() == Cluster.create_kuberay("x").name("a").build() == KubeRayClusterSpec(name="a")
    )
    assert LocalRayClusterBuilder.create("a").build() == Cluster.create_local("a").build() == LocalClusterSpec(name="a")
    external = ExternalClusterSpec(name="a", address="http://h:1")
    assert ExternalRayClusterBuilder.create("a", "http://h:1").build() == external
    assert ExternalRayClusterBuilder.create("a").ray_address("http://h:1").build() == external
    assert Cluster.create_external("a").ray_address("http://h:1").build() == external


def test_every_method_is_a_field(tmp_path: Path) -> None:
    """Each call of the builders, and the same cluster as a YAML file."""
    cpu = (
        KubeRayClusterBuilder.cpu_worker()
        .name("small").image("mine:1").arch("arm64").cpus(1.5).memory("2Gi").service_account("sa")
        .node_selector({"pool": "a"}).labels({"a": "b"}).add_label("c", "d").annotations({"e": "f"})
        .tolerations([{"key": "g", "operator": "Exists"}]).add_toleration("h", value="i", effect="NoSchedule")
        .add_toleration("j", "Exists").min_replicas(1).max_replicas(2).idle_timeout_seconds(3)
        .env_vars({"K": 1}).add_env_var("L", "m").options(shared_memory="1Gi", priority_class="high")
    )  # fmt: skip
    gpu = KubeRayClusterBuilder.gpu_worker(2).gpus(3).gpu_resource("amd.com/gpu").cpus("12")
    built = (
        Cluster.create_kuberay("x").name("full").namespace("ray").config_method(K8sConfigMethod.EKS_AUTH)
        .aws_config("eu-west-1", cluster_name="prod", role_name="ops")
        .head_group(cpus=2, env_vars={"N": "o"}, memory=None)
        .add_worker_group(cpu).add_worker_group(gpu.build())
        .ray_init_kwargs({"log_to_driver": False}).options(suspend=True, autoscaler={"idle_timeout_seconds": 9}, context=None)
        .build()
    )  # fmt: skip
    file = tmp_path / "full.yaml"
    file.write_text("""
        name: full
        namespace: ray
        config_method: EKS_AUTH
        aws_config: {region: eu-west-1, role: ops, cluster_name: prod}
        head_group: {cpus: 2, env: {N: o}}
        worker_groups:
        - name: small
          image: mine:1
          arch: arm64
          cpus: 1.5
          memory: 2Gi
          service_account: sa
          node_selector: {pool: a}
          labels: {a: b, c: d}
          annotations: {e: f}
          tolerations:
          - {key: g, operator: Exists}
          - {key: h, operator: Equal, value: i, effect: NoSchedule}
          - {key: j, operator: Exists}
          min_replicas: 1
          max_replicas: 2
          idle_timeout_seconds: 3
          env: {K: 1, L: m}
          shared_memory: 1Gi
          priority_class: high
        - {gpus: 3, gpu_resource: amd.com/gpu, cpus: 12}
        ray_init_kwargs: {log_to_driver: false}
        suspend: true
        autoscaler: {idle_timeout_seconds: 9}
    """)
    assert built == read_spec(file)
    assert built.spec_hash() == read_spec(file).spec_hash()
    assert ray_cluster_body(built) == ray_cluster_body(read_spec(file))

    local = Cluster.create_kuberay("a").kubeconfig("~/k", "ctx").add_worker_group(WorkerBuilder().replicas(2))
    assert local.options(autoscaler={"enabled": False}).build() == of_yaml(
        "{name: a, kubeconfig: ~/k, context: ctx, worker_groups: [{replicas: 2}], autoscaler: {enabled: false}}"
    )


def test_no_method_is_left_out_above() -> None:
    source = inspect.getsource(inspect.getmodule(test_no_method_is_left_out_above))
    classes = (KubeRayClusterBuilder, ExternalRayClusterBuilder, LocalRayClusterBuilder, GpuWorkerBuilder, Cluster)
    methods = {name for kind in classes for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}
    assert [name for name in methods if f".{name}(" not in source] == []
    assert {"head_group", "add_toleration", "create_local"} <= methods


@pytest.mark.parametrize("gpus", [0, -1])
def test_a_gpu_worker_without_gpus_is_refused(gpus: int) -> None:
    with pytest.raises(BadSpec, match="gpus: "):
        KubeRayClusterBuilder.gpu_worker(gpus).build()


@pytest.mark.parametrize("group", [{"cpus": 1}, None, KubeRayClusterBuilder.cpu_worker])
def test_only_groups_are_added(group: Any) -> None:
    with pytest.raises(BadSpec, match=r"add_worker_group takes cpu_worker\(\) or gpu_worker\(\)"):
        Cluster.create_kuberay("a").add_worker_group(group)


def test_a_wrong_field_is_refused_by_its_name() -> None:
    with pytest.raises(BadSpec, match=r"head_group: unknown key 'cpu'; did you mean 'cpus'\?"):
        Cluster.create_kuberay("a").head_group(cpu=2).build()
    with pytest.raises(BadSpec, match=r"unknown key 'suspended'; did you mean 'suspend'\?"):
        Cluster.create_kuberay("a").options(suspended=True).build()
    with pytest.raises(BadSpec, match="WorkerGroup: memory: '8 GB' is no quantity"):
        KubeRayClusterBuilder.cpu_worker().memory("8 GB").build()


def test_groups_get_names_in_the_order_they_are_added() -> None:
    begun = Cluster.create_kuberay("a")
    for group in (
        KubeRayClusterBuilder.cpu_worker(),
        WorkerGroup(),
        KubeRayClusterBuilder.gpu_worker(),
        KubeRayClusterBuilder.cpu_worker().build(),
    ):
        begun.add_worker_group(group)
    assert [group.name for group in begun.build().worker_groups] == ["cpu", "cpu-2", "gpu", "cpu-3"]


def _spoilt(value: Any) -> None:
    """Change every dict and list below `value`."""
    for item in list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []:
        _spoilt(item)
    if isinstance(value, dict):
        value["spoilt"] = "x"
    elif isinstance(value, list):
        value.append("spoilt")


def _nested() -> dict[str, Any]:
    return {"a": {"b": [{"c": {"d": ["e"]}}]}}


def test_what_was_given_can_change_without_the_spec() -> None:
    group = {
        "node_selector": {"a": "b"}, "labels": {"a": "b"}, "annotations": {"a": "b"}, "env": {"A": "b"}, "env_from_secrets": ["a"],
        "tolerations": [{"key": "a", "more": _nested()}], "image_pull_secrets": ["a"], "security_context": _nested(),
        "volumes": [{"name": "v", **_nested()}], "mounts": [{"name": "v", "path": "/v"}], "affinity": _nested(),
        "requests": {"cpus": 1}, "pod_security_context": _nested(), "topology_spread": [_nested()], "overrides": _nested(),
    }  # fmt: skip
    cluster = {
        "labels": {"a": "b"}, "annotations": {"a": "b"}, "overrides": _nested(), "autoscaler": {"requests": {"cpus": "1m"}},
        "network_policy": {"from_blocks": ["::/0"]}, "head_group": group, "worker_groups": [group],
    }  # fmt: skip
    kwargs, env, selector = _nested(), {"A": "b"}, {"a": "b"}
    tolerations: list[dict[str, Any]] = [{"key": "a", "more": _nested()}]
    worker = KubeRayClusterBuilder.cpu_worker().name("w").env_vars(env).node_selector(selector).tolerations(tolerations)
    begun = (
        Cluster.create_kuberay("a").ray_init_kwargs(kwargs).options(**cluster).add_worker_group(worker.options(**_only_raw(group)))
    )
    spec, built = begun.build(), worker.build()
    before = copy.deepcopy((spec.plain(), ray_cluster_body(spec), built.plain()))

    for given in (cluster, kwargs, env, selector, tolerations):
        _spoilt(given)
    begun.name("b").namespace("b").head_group(cpus=1).add_worker_group(KubeRayClusterBuilder.cpu_worker())
    worker.cpus(1).add_label("x", "y").add_env_var("Z", "z").add_toleration("t", "Exists")

    assert (spec.plain(), ray_cluster_body(spec), built.plain()) == before


def test_what_is_taken_from_a_spec_is_not_the_spec() -> None:
    spec = Cluster.create_kuberay("a").head_group(affinity=_nested(), overrides=_nested()).build()
    before = copy.deepcopy(spec)
    _spoilt(spec.plain())
    _spoilt(ray_cluster_body(spec))
    assert spec == before


def test_a_builder_builds_more_than_once() -> None:
    begun: _Builder = Cluster.create_kuberay("a").head_group(cpus=1)
    assert isinstance(begun, KubeRayClusterBuilder)
    first = begun.build()
    assert begun.build() == first
    assert begun.namespace("b").build().namespace == "b"
    assert first.namespace == "default"


def _only_raw(group: dict[str, Any]) -> dict[str, Any]:
    return {key: group[key] for key in ("affinity", "topology_spread", "volumes")}
