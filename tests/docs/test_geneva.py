"""Every name of LanceDB's page on execution contexts is on the page for those who come from Geneva, and exists here.

https://docs.lancedb.com/geneva/jobs/contexts
"""

from __future__ import annotations

import re

import pytest

import infra
import runner
from infra.builder import WorkerBuilder
from runner.manifests import builder
from tests.docs.blocks import ROOT

TEXT = (ROOT / "docs" / "geneva.md").read_text()
NAMES = {
    runner: ["connect", "udf", "Connection", "ExitMode", "GenevaManifest"],
    runner.Connection: [
        "local_ray_context", "get_table", "context", "define_cluster", "list_clusters", "define_manifest", "list_manifests",
    ],
    runner.Context: ["__enter__", "__exit__"],
    runner.Table: ["add_columns", "backfill", "backfill_async"],
    runner.ExitMode: ["DELETE", "RETAIN_ON_FAILURE", "RETAIN"],
    infra: ["GenevaCluster", "K8sConfigMethod", "KubeRayClusterBuilder", "LocalRayClusterBuilder", "ExternalRayClusterBuilder"],
    infra.K8sConfigMethod: ["LOCAL", "EKS_AUTH", "IN_CLUSTER"],
    infra.GenevaCluster: ["create_kuberay", "create_external"],
    infra.KubeRayClusterBuilder: [
        "namespace", "config_method", "aws_config", "ray_init_kwargs", "head_group", "add_worker_group", "cpu_worker", "gpu_worker",
        "build",
    ],
    WorkerBuilder: ["cpus", "memory", "service_account", "image", "build"],
    runner.GenevaManifest: ["create_pip", "create_conda", "create_site"],
    builder: ["PipManifestBuilder", "CondaManifestBuilder", "SiteManifestBuilder"],
    builder.PipManifestBuilder: [
        "pip", "requirements_path", "py_modules", "add_py_module", "head_image", "worker_image", "default_head_image",
        "default_worker_image", "delete_local_zips", "local_zip_output_dir",
    ],
    builder.CondaManifestBuilder: ["conda", "conda_environment_path"],
}  # fmt: skip


@pytest.mark.parametrize(("home", "name"), [(home, name) for home, names in NAMES.items() for name in names])
def test_a_name_of_the_page_is_here_and_has_its_line(home: object, name: str) -> None:
    assert hasattr(home, name)
    table = TEXT.partition("## Name by name")[2].partition("\n## ")[0]
    assert re.search(rf"`[^`]*\b{name}\b[^`]*`", table), name
