"""Clusters that a database keeps under a name, in a script; those of the seed page among them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import runner
from infra import (
    BadSpec,
    Cluster,
    ExternalClusterSpec,
    KubeRayClusterSpec,
    LocalClusterSpec,
    parse_spec,
    ray_cluster_body,
)
from runner import Connection
from runner.cli import app
from runner.errors import BadInput
from tests.e2e.helpers import files
from tests.unit.test_imports import imported

# -- the seed page, verbatim but for the imports

IMPORTS = """
import os
import runner as geneva
from infra import GenevaCluster, K8sConfigMethod, KubeRayClusterBuilder
"""

KUBERAY = """
db = geneva.connect("s3://my-bucket/my-db")

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

db.define_cluster(cluster_name, cluster)
"""

EXTERNAL = """
db = geneva.connect(my_db_uri)
cluster_name = "my-geneva-external-cluster"

cluster = (
    GenevaCluster.create_external(cluster_name, "ray://my_ip:my_port")
    .build()
)
db.define_cluster(cluster_name, cluster)
"""

# Its line "..." stands for more calls.
ENVIRONMENT = """
cluster = (
    GenevaCluster.create_kuberay(cluster_name) # or create_external(cluster_name)
        .ray_init_kwargs({
            "runtime_env": {
                "env_vars": {
                    "MY_VAR": "value",
                    "AWS_ACCESS_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"]
                },
            },
        })
    .build()
)
"""

IMAGES = """
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
"""

Script = Callable[..., dict[str, Any]]


@pytest.fixture
def script(db: Connection, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Run a script whose `connect` opens the database of the test, whatever it names; its variables."""
    connect = runner.connect
    monkeypatch.setattr(runner, "connect", lambda uri: connect(db.uri))

    def run(source: str, **variables: Any) -> dict[str, Any]:
        exec(IMPORTS + source, variables)
        return variables

    return run


def test_the_kuberay_cluster_of_the_seed_page(db: Connection, script: Script) -> None:
    with pytest.warns(UserWarning, match="'my_k8s_service_account' is not lowercase") as warned:
        spec = script(KUBERAY)["cluster"]
    assert {str(each.message).partition(": ")[2].partition(":")[0] for each in warned} == {
        "head_group.service_account",
        "worker_groups.cpu.service_account",
        "worker_groups.gpu.service_account",
    }
    stored = db.get_cluster("my-geneva-cluster")
    assert isinstance(stored, KubeRayClusterSpec)
    assert stored == spec
    assert stored.plain() == spec.plain()
    assert (stored.namespace, stored.head_group.cpus, stored.head_group.service_account) == (
        "geneva",
        "2",
        "my_k8s_service_account",
    )
    assert [(group.name, group.cpus, group.memory, group.gpus) for group in stored.worker_groups] == [
        ("cpu", "4", "8Gi", 0),
        ("gpu", "2", "8Gi", 1),
    ]
    assert ray_cluster_body(stored) == ray_cluster_body(spec)


def test_the_external_cluster_of_the_seed_page(db: Connection, script: Script) -> None:
    with pytest.warns(UserWarning, match="placeholder my_port"):
        spec = script(EXTERNAL, my_db_uri="data/db")["cluster"]
    stored = db.get_cluster("my-geneva-external-cluster")
    assert isinstance(stored, ExternalClusterSpec)
    assert (stored, stored.address) == (spec, "ray://my_ip:my_port")


def test_the_images_of_the_seed_page(db: Connection, script: Script) -> None:
    spec = script(IMAGES, cluster_name="dev")["cluster"]
    db.define_cluster("dev", spec)
    stored = db.get_cluster("dev")
    assert stored == spec
    assert isinstance(stored, KubeRayClusterSpec)
    assert stored.image_of(stored.head_group) == "myregistry.example.com/my-custom-head-image:latest"
    assert [stored.image_of(group).split("/")[1] for group in stored.worker_groups] == [
        "my-custom-cpu-worker-image:latest",
        "my-custom-gpu-worker-image:latest",
    ]


# -- secrets

ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def kept(db: Connection) -> bytes:
    """Every byte that the database holds."""
    return b"\n".join(path.read_bytes() for path in Path(db.uri).rglob("*") if path.is_file())


@pytest.mark.usefixtures("keys")
def test_the_key_of_the_seed_page_is_stored_as_a_reference(db: Connection, script: Script) -> None:
    spec = script(ENVIRONMENT, cluster_name="dev")["cluster"]
    db.define_cluster("dev", spec)
    content = kept(db)
    assert b'"AWS_ACCESS_KEY_ID": "${env:AWS_ACCESS_KEY_ID}"' in content
    assert ID.encode() not in content
    assert b'"MY_VAR": "value"' in content
    assert db.get_cluster("dev") == spec


@pytest.mark.usefixtures("keys")
def test_no_secret_is_stored_wherever_it_is_given(db: Connection) -> None:
    environment = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    external = (
        Cluster.create_external("ext", "ray://head:10001").ray_init_kwargs({"runtime_env": {"env_vars": environment}}).build()
    )
    kuberay = Cluster.create_kuberay("dev").head_group(env_vars=environment).build()
    for spec in (external, kuberay):
        db.define_cluster(spec.name, spec)
        assert db.get_cluster(spec.name) == spec
    content = kept(db)
    assert content.count(b"${env:AWS_SECRET_ACCESS_KEY}") == content.count(b"${env:AWS_ACCESS_KEY_ID}") == 2
    assert ID.encode() not in content
    assert SECRET.encode() not in content


@pytest.mark.usefixtures("keys")
def test_a_spec_changed_past_its_checks_is_checked_before_it_is_stored(db: Connection) -> None:
    spec = Cluster.create_local("dev").build()
    unknown = spec.model_copy(update={"ray_init_kwargs": {"_redis_password": "hunter2hunter2"}})
    with pytest.raises(BadSpec, match="_redis_password looks like a secret in plain sight"):
        db.define_cluster("dev", unknown)
    assert files(db.uri) == {}
    known = spec.model_copy(update={"ray_init_kwargs": {"runtime_env": {"env_vars": {"AWS_SECRET_ACCESS_KEY": SECRET}}}})
    db.define_cluster("dev", known)
    assert b'"AWS_SECRET_ACCESS_KEY": "${env:AWS_SECRET_ACCESS_KEY}"' in kept(db)
    assert SECRET.encode() not in kept(db)


# -- in a script


def test_definitions_change_and_go_and_their_history_stays(db: Connection) -> None:
    assert db.list_clusters() == []
    small, large = (parse_spec({"name": "dev", "head_group": {"cpus": cpus}}) for cpus in (2, 4))
    laptop, ray = LocalClusterSpec(name="a-laptop"), ExternalClusterSpec(name="ray", address="http://head:8265")
    for spec in (ray, small, laptop):
        assert db.define_cluster(spec.name, spec).is_new
    assert db.list_clusters() == [laptop, small, ray]
    assert not db.define_cluster("dev", parse_spec({"kind": "kuberay", "head_group": {"cpus": "2"}, "name": "dev"})).is_new
    assert db.define_cluster("dev", large).revision == 2
    assert db.get_cluster("dev") == large

    db.delete_cluster("dev")
    assert db.list_clusters() == [laptop, ray]
    with pytest.raises(BadInput, match=r"cluster 'dev' of .* was deleted"):
        db.get_cluster("dev")
    history = db.cluster_history("dev")
    assert [each.revision for each in history] == [3, 2, 1]
    assert [each.spec and parse_spec(each.spec) for each in history] == [None, large, small]
    with pytest.raises(BadInput, match=r"no cluster 'laptop' in .*; it has a-laptop$"):
        db.delete_cluster("laptop")
    assert db.define_cluster("dev", small).revision == 4
    assert runner.connect(db.uri).get_cluster("dev") == small
    assert db.table_names() == []


def test_every_kind_comes_back_as_it_was_defined(db: Connection) -> None:
    full = parse_spec(
        {
            "name": "full",
            "config_method": "EKS_AUTH",
            "aws_config": {"region": "us-east-1", "role": "ops", "cluster_name": "prod"},
            "head_group": {"env": {"TOKEN": {"secret": "s", "key": "k"}, "ON": "yes"}, "overrides": {"serviceType": "NodePort"}},
            "worker_groups": [{"cpus": 0.5, "memory": 2**31}, {"kind": "gpu", "max_replicas": 3}, {"kind": "gpu"}],
            "autoscaler": {"idle_timeout_seconds": 5},
            "gcs_fault_tolerance": {"redis_address": "redis:6379"},
            "network_policy": {"from_blocks": ["10.0.0.0/8"]},
            "upgrade_strategy": "NewCluster",
            "scheduler": {"name": "kueue", "queue": "team"},
        }
    )
    for spec in (full, LocalClusterSpec(name="here"), ExternalClusterSpec(name="there", address="ray://[::1]:10001")):
        db.define_cluster(spec.name, spec)
        stored = db.get_cluster(spec.name)
        assert (stored, type(stored), stored.plain()) == (spec, type(spec), {"kind": spec.kind, **spec.plain()})


def test_only_a_spec_of_that_name_is_taken(db: Connection) -> None:
    builder = Cluster.create_kuberay("dev")
    with pytest.raises(BadInput, match=r"this is a KubeRayClusterBuilder; add \.build\(\)"):
        db.define_cluster("dev", builder)  # type: ignore[arg-type]
    for given in ({"name": "dev"}, "clusters/dev.yaml", None):
        with pytest.raises(BadInput, match=rf"takes a ClusterSpec, not a {type(given).__name__}; infra.parse_spec"):
            db.define_cluster("dev", given)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="known as 'prod' and its spec says 'dev'"):
        db.define_cluster("prod", builder.build())
    assert files(db.uri) == {}


def test_what_this_version_does_not_take_is_told_with_its_place_and_can_be_deleted(db: Connection) -> None:
    db.define_cluster("dev", parse_spec({"name": "dev"}))
    path = Path(db.uri) / "_runner/clusters/dev/000001.json"
    path.write_text(path.read_text().replace('"kind"', '"colour": "blue", "kind"'))
    for call in (lambda: db.get_cluster("dev"), db.list_clusters):
        with pytest.raises(BadSpec, match=rf"cluster 'dev' of {db.uri}, revision 1: unknown key 'colour'"):
            call()
    deleted = CliRunner().invoke(app, ["clusters", "delete", db.uri, "dev"])
    assert (deleted.exit_code, deleted.stdout) == (0, "deleted dev (revision 2)\n")
    assert "whether it runs is not known: cluster 'dev'" in deleted.stderr
    assert db.list_clusters() == []


def test_importing_the_runner_imports_no_specs() -> None:
    names, _ = imported("-c", "import runner; runner.connect('db')")
    assert names.isdisjoint({"infra", "pydantic", "yaml"})
