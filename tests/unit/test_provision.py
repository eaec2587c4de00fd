"""On-demand clusters, the parts without Kubernetes: what differs, where Pulumi's state is, who uses a cluster, Pulumi's words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.errors import InfraError
from infra.kube import Access
from infra.spec import KubeRayClusterSpec, parse_spec
from runner.errors import BadInput
from runner.provision import stack
from runner.provision.backend import backend_url, backend_variables, kubernetes_variables
from runner.provision.leases import ClusterBusy, ClusterLease, cluster_lock, living_leases
from runner.provision.life import up
from runner.provision.record import Record, Records, as_provisioned, head_account, project_of, spec_differences
from runner.provision.stack import said_by_pulumi
from runner.store import Store

ROOT = Path(__file__).parents[2]
S3 = {"aws_access_key_id": "AKID", "aws_secret_access_key": "s3cr3t", "endpoint": "http://store:8333", "region": "eu-west-1"}


def spec_of(**fields: Any) -> KubeRayClusterSpec:
    spec = parse_spec({"name": "gpu", "ray_version": "2.60.0", "python_version": "3.11", **fields})
    assert isinstance(spec, KubeRayClusterSpec)
    return spec


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return spec_differences(as_provisioned(spec_of(**before)).plain(), as_provisioned(spec_of(**after)).plain())


# What differs


def test_a_spec_is_the_same_however_its_kubernetes_is_reached() -> None:
    local = {"kubeconfig": "/home/ana/config", "context": "prod", "ready_timeout_seconds": 5}
    aws = {"config_method": "EKS_AUTH", "aws_config": {"cluster_name": "prod"}, "ray_init_kwargs": {"namespace": "x"}}
    assert differences(local, aws) == []


def test_a_version_left_to_the_client_counts_as_what_the_client_has() -> None:
    import ray

    here = {"ray_version": None, "python_version": None}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert differences(here, {"ray_version": ray.__version__, "python_version": python}) == []
    assert differences(here, {"ray_version": "2.55.0", "python_version": python}) == [f"ray_version: {ray.__version__} -> 2.55.0"]


def test_fields_that_differ_are_named_groups_by_their_names() -> None:
    before = {"worker_groups": [{"name": "a", "max_replicas": 2}, {"name": "b"}]}
    after = {"worker_groups": [{"name": "b"}, {"name": "a", "max_replicas": 3}], "namespace": "ray", "head_group": {"cpus": 2}}
    found = differences(before, after)
    assert "worker_groups.a.max_replicas: 2 -> 3" in found
    assert "namespace: nothing -> ray" in found
    assert "head_group.cpus: nothing -> 2" in found
    assert len(found) == 3


def test_without_an_autoscaler_the_head_has_an_account_of_its_own() -> None:
    off = {"autoscaler": {"enabled": False}}
    assert as_provisioned(spec_of(**off)).head_group.service_account == "gpu-head"
    assert head_account(as_provisioned(spec_of(**off))) == ("gpu-head", True)
    assert head_account(as_provisioned(spec_of(**off, head_group={"service_account": "given"}))) == ("given", False)
    assert as_provisioned(spec_of()).head_group.service_account is None
    assert head_account(as_provisioned(spec_of())) == ("gpu", False)  # KubeRay makes it


def test_secret_storage_options_reach_the_head_and_are_no_difference() -> None:
    spec = spec_of(head_group={"env": {"A": "b"}})
    head = as_provisioned(spec, has_options=True).plain()["head_group"]
    assert head["env"] == {"A": "b", "INFILL_STORAGE_SECRETS": {"secret": "gpu-storage", "key": "options"}}
    assert spec_differences(as_provisioned(spec, has_options=True).plain(), as_provisioned(spec).plain()) == []
    assert spec_differences(as_provisioned(spec_of(), has_options=True).plain(), as_provisioned(spec_of()).plain()) == []
    assert differences({"head_group": {"env": {"A": "b"}}}, {}) == ["head_group.env.A: b -> nothing"]


def test_a_cluster_that_is_never_changed_keeps_its_name() -> None:
    from infra.body import ray_cluster_body

    spec = as_provisioned(spec_of(upgrade_strategy="NewCluster"))
    assert ray_cluster_body(spec)["metadata"]["name"] == "gpu"


# Where Pulumi's state is


def test_the_state_of_a_local_database_is_in_its_folder(tmp_path: Path) -> None:
    assert backend_url(Store(tmp_path / "a db")) == f"file://{tmp_path}/a%20db/_runner/pulumi"
    assert backend_variables(Store(tmp_path, S3)) == {}


def test_the_state_of_a_database_in_s3_is_beside_it() -> None:
    store = Store("s3://bucket/team/db", S3)
    assert backend_url(store) == ("s3://bucket/team/db/_runner/pulumi?endpoint=http%3A%2F%2Fstore%3A8333&s3ForcePathStyle=true")
    assert backend_variables(store) == {
        "AWS_ACCESS_KEY_ID": "AKID",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "AWS_REGION": "eu-west-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    assert backend_url(Store("s3://bucket/db")) == "s3://bucket/db/_runner/pulumi"


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT", "AWS_ENDPOINT_URL"])
def test_an_endpoint_of_the_environment_is_pulumi_s_too(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "http://store:8333")
    store = Store("s3://bucket/db")
    assert backend_url(store) == "s3://bucket/db/_runner/pulumi?endpoint=http%3A%2F%2Fstore%3A8333&s3ForcePathStyle=true"
    assert backend_variables(store)["AWS_REQUEST_CHECKSUM_CALCULATION"] == "when_required"


def test_other_stores_have_their_own_names() -> None:
    azure = Store("az://container/db", {"azure_storage_account_name": "acc", "azure_storage_account_key": "key"})
    assert backend_url(azure) == "azblob://container/db/_runner/pulumi"
    assert backend_variables(azure) == {"AZURE_STORAGE_ACCOUNT": "acc", "AZURE_STORAGE_KEY": "key"}
    google = Store("gs://bucket/db", {"google_service_account": "/key.json"})
    assert backend_url(google) == "gs://bucket/db/_runner/pulumi"
    assert backend_variables(google) == {"GOOGLE_APPLICATION_CREDENTIALS": "/key.json"}


def test_storage_that_pulumi_has_no_backend_for_is_refused() -> None:
    with pytest.raises(BadInput, match="hdfs://x/db: Pulumi keeps no state there"):
        backend_url(Store("hdfs://x/db"))


# How Pulumi's processes reach Kubernetes


def kubeconfig(folder: Path, user: dict[str, Any]) -> Access:
    path = folder / "config"
    contexts = [{"name": name, "context": {"cluster": "c", "user": "ana"}} for name in ("dev", "prod")]
    path.write_text(yaml.safe_dump({"contexts": contexts, "users": [{"name": "ana", "user": user}], "current-context": "dev"}))
    return Access(str(path), "prod")


def overlay(folder: Path, access: Access, database: dict[str, str]) -> dict[str, Any]:
    paths = kubernetes_variables(access, folder, database)["KUBECONFIG"].split(os.pathsep)
    assert paths[1:] == [access.kubeconfig]
    return dict(yaml.safe_load(Path(paths[0]).read_text()))


def test_pulumi_gets_the_context_and_no_copy_of_the_credentials(tmp_path: Path) -> None:
    (tmp_path / "over").mkdir()
    access = kubeconfig(tmp_path, {"token": "secret-token"})
    assert overlay(tmp_path / "over", access, {"AWS_ACCESS_KEY_ID": "AKID"}) == {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "prod",
        "users": [],
    }


def test_a_command_for_credentials_does_not_see_those_of_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "my-own")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    (tmp_path / "over").mkdir()
    access = kubeconfig(tmp_path, {"exec": {"command": "aws", "env": [{"name": "AWS_PROFILE", "value": "prod"}]}})
    (user,) = overlay(tmp_path / "over", access, {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SESSION_TOKEN": "t"})["users"]
    assert user["name"] == "ana"
    assert {item["name"]: item["value"] for item in user["user"]["exec"]["env"]} == {
        "AWS_PROFILE": "prod",
        "AWS_ACCESS_KEY_ID": "my-own",
        "AWS_SESSION_TOKEN": "",
    }


def test_in_a_pod_no_kubeconfig_is_looked_for(tmp_path: Path) -> None:
    assert kubernetes_variables(Access(None), tmp_path, {}) == {"KUBECONFIG": ""}


# Who uses a cluster


def test_a_lease_tells_who_uses_a_cluster_until_it_ends(store: Store) -> None:
    first, second = ClusterLease(store, "gpu"), ClusterLease(store, "gpu")
    assert [(item["pid"], item["path"]) for item in sorted(living_leases(store, "gpu"), key=lambda item: item["path"])] == [
        (os.getpid(), path) for path in sorted([first.path, second.path])
    ]
    first.end()
    first.end()
    assert [item["path"] for item in living_leases(store, "gpu")] == [second.path]
    assert living_leases(store, "other") == []
    second.end()
    assert list(store.objects("cluster-leases")) == []


def test_the_lease_of_a_killed_process_is_over_at_once(store: Store) -> None:
    script = (
        "import os, sys; from runner.provision.leases import ClusterLease; from runner.store import Store\n"
        "ClusterLease(Store(sys.argv[1]), 'gpu'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, store.uri], check=False, cwd=ROOT)
    assert len(list(store.objects("cluster-leases/gpu"))) == 1
    assert living_leases(store, "gpu") == []


def test_on_another_machine_a_lease_lives_by_its_renewals(store: Store) -> None:
    far = {"user": "bo", "host": "far.example", "pid": 7, "started": 0}
    store.put("cluster-leases/gpu/a.json", json.dumps({**far, "renewed": time.time() - 10}).encode())
    store.put("cluster-leases/gpu/b.json", json.dumps({**far, "renewed": time.time() - 60}).encode())
    assert [item["path"] for item in living_leases(store, "gpu")] == ["cluster-leases/gpu/a.json"]


def test_one_process_at_a_time_makes_a_cluster(store: Store) -> None:
    with (
        cluster_lock(store, "gpu", print),
        pytest.raises(ClusterBusy, match=rf"cluster gpu: .* \(process {os.getpid()}\) makes or removes it at this moment"),
        cluster_lock(Store(store.uri), "gpu", print, wait=False),
    ):
        raise AssertionError("both have it")
    assert list(store.objects("cluster-locks")) == []


# What the database keeps


def record(**fields: Any) -> Record:
    plain: dict[str, Any] = {
        "name": "gpu",
        "namespace": "ray",
        "kubernetes": "https://k:6443",
        "project": "infill-12345678",
        "stack": "ray.gpu",
        "spec": spec_of().plain(),
        "keep": False,
        "time_to_live": 60.0,
        "made_at": "2026-05-04T10:00:00+00:00",
        "user": "ana",
        "host": "laptop",
    }
    return Record(**{**plain, **fields})


def test_a_record_is_read_as_it_was_written(store: Store) -> None:
    records = Records(store)
    assert records.get("gpu") is None
    for made in (record(), record(name="a", time_to_live=None, state="made", owner="uid")):
        records.put(made)
    assert records.all() == [record(name="a", time_to_live=None, state="made", owner="uid"), record()]
    assert records.all()[1].cluster_spec() == spec_of()
    assert records.all()[1].label == "infill-12345678.ray.gpu"
    records.delete("gpu")
    assert [found.name for found in records.all()] == ["a"]


def test_each_database_has_a_project_of_its_own(tmp_path: Path) -> None:
    assert project_of(Store(tmp_path / "a")) == project_of(Store(f"{tmp_path}/a"))
    assert project_of(Store(tmp_path / "a")) != project_of(Store(tmp_path / "b"))


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reuse": "sometimes"}, "reuse='sometimes' is none of match, always, never"),
        ({"time_to_live": -1}, "time_to_live=-1 is less than 30 seconds; None is for ever"),
        ({"time_to_live": float("nan")}, "time_to_live=nan is less than 30"),
    ],
)
def test_wrong_arguments_are_refused(store: Store, arguments: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        up(store, spec_of(), **arguments)
    assert list(store.objects("")) == []


def test_a_protected_cluster_is_none_on_demand(store: Store) -> None:
    with pytest.raises(BadInput, match="protect: an on-demand cluster is deleted after use"):
        up(store, spec_of(protect=True))


def test_without_pulumi_s_cli_it_is_said_how_to_install_it(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    stack.pulumi_command.cache_clear()
    with pytest.raises(
        InfraError, match=r"no `pulumi` on PATH; install it, https://www.pulumi.com/docs/install/ .*PulumiCommand.install"
    ):
        up(store, spec_of())
    assert list(store.objects("")) == []


# Pulumi's words


def test_of_what_pulumi_says_only_the_errors_are_passed_on() -> None:
    said = """
 code: 255
 stdout: Updating (ray.gpu):
 +  kubernetes:ray.io/v1:RayCluster gpu creating (0s) error: denied the request:
Diagnostics:
  kubernetes:ray.io/v1:RayCluster (gpu):
    error: resource ray/gpu was not successfully created by the Kubernetes API server:
      rayclusters.ray.io is forbidden
  pulumi:pulumi:Stack (infill-ray.gpu):
    error: update failed
 stderr:
"""
    assert said_by_pulumi(said) == (
        "resource ray/gpu was not successfully created by the Kubernetes API server: rayclusters.ray.io is forbidden"
    )


def test_without_a_diagnosis_the_end_of_it_is_passed_on() -> None:
    assert said_by_pulumi("stderr: the bucket\n does not exist") == "stderr: the bucket does not exist"
