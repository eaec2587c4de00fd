"""The cluster of LanceDB's page on execution contexts, on a real Kubernetes: only imports, and literals for the node, differ.

https://docs.lancedb.com/geneva/jobs/contexts
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Api, eventually
from tests.cluster.live import Live
from tests.cluster.pulumi_project import LIMIT_SECONDS, Project

PAGE = """
  import geneva
  from geneva.cluster import GenevaCluster, K8sConfigMethod
  from geneva.cluster.builder import KubeRayClusterBuilder

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
IMPORTS = {
    "import geneva\n": "import runner as geneva\n",
    "from geneva.cluster import": "from infra import",
    "from geneva.cluster.builder import": "from infra import",
}
PROVISIONED = """
import pulumi
from infra.raycluster import RayCluster, RayClusterArgs

pulumi.export("cluster", RayCluster(cluster_name, RayClusterArgs(db.get_cluster(cluster_name))).outputs)
"""
WORK = """
import ray
ray.init(log_to_driver=False)
@ray.remote(num_gpus=1)
def where():
    import socket
    return socket.gethostname(), ray.get_gpu_ids()
print("worked on", *ray.get(where.remote()))
"""
NODES = "/api/v1/nodes"
MERGE = {"Content-Type": "application/merge-patch+json"}


def fitted(text: str, changes: dict[str, str]) -> str:
    """A text with each of some parts replaced, wherever it is."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.fixture
def gpu_node(api: Api) -> Iterator[None]:
    """A node that says it has GPUs, and is one for heads, while a test runs."""
    node = f"{NODES}/{api.list(NODES)[0]['metadata']['name']}"

    def patch(path: str, **fields: Any) -> None:
        api.request("PATCH", path, json=fields, headers=MERGE).raise_for_status()

    had = (api.get(node) or {})["status"]["capacity"].get("nvidia.com/gpu")
    try:
        patch(f"{node}/status", status={"capacity": {"nvidia.com/gpu": "2"}})
        patch(node, metadata={"labels": {"geneva.lancedb.com/ray-head": ""}})
        yield
    finally:
        patch(f"{node}/status", status={"capacity": {"nvidia.com/gpu": had}, "allocatable": {"nvidia.com/gpu": had}})
        patch(node, metadata={"labels": {"geneva.lancedb.com/ray-head": None}})


@pytest.mark.usefixtures("gpu_node")
def test_the_page_s_cluster_runs_work_on_its_gpu_workers(
    pulumi: Callable[..., Project], api: Api, namespace: str, tmp_path: Path
) -> None:
    literals = {
        '"s3://my-bucket/my-db"': repr(str(tmp_path / "db")),
        '"my_k8s_service_account"': '"my-k8s-service-account"',  # an underscore is not allowed in it
        '"geneva"  #': f'"{namespace}"  #',
        "cpus=2": "cpus=0.7",
        ".cpus(2)": ".cpus(0.5)",
        ".cpus(4)": ".cpus(0.4)",
        '.memory("8Gi")': '.memory("2Gi")',
    }
    page = "\n".join(line.removeprefix("  ") for line in PAGE.splitlines())
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "my-k8s-service-account"}}
    api.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", json=account).raise_for_status()
    live, project = Live(api, namespace), pulumi("seed-page", program=fitted(fitted(page, IMPORTS), literals) + PROVISIONED)

    project.up().ok()

    name = project.outputs()["cluster"]["cluster_name"]
    assert name == "my-geneva-cluster"
    assert {pod.group: pod.phase for pod in live.pods().values()} == {"headgroup": "Running"}  # workers come when there is work
    job = live.start_job(name, f"python -c {shlex.quote(WORK)}")
    assert eventually(lambda: [pod.phase for pod in live.pods("gpu").values()] == ["Running"], LIMIT_SECONDS)
    assert live.pods("cpu") == {}
    (worker,) = live.pods("gpu")
    pod = api.get(f"/api/v1/namespaces/{namespace}/pods/{worker}") or {}
    assert pod["spec"]["nodeName"]
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["spec"]["serviceAccountName"] == "my-k8s-service-account"
    assert eventually(lambda: live.job_status(name, job) in ("SUCCEEDED", "FAILED"), LIMIT_SECONDS)
    logs = live.job_logs(name, job)
    assert f"worked on {worker} [0]" in logs, logs
    project.preview("--expect-no-changes").ok()
    project.destroy().ok()
    assert live.clusters() == set()
