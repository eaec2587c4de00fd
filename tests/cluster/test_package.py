"""The component package: its schema, and a program in YAML that declares a cluster by it."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.groups import WorkerGroup
from infra.spec import KubeRayClusterSpec
from tests.cluster.pulumi_project import COMMANDS, ROOT, cluster

NEEDED = (*COMMANDS, "pulumi-language-yaml")
PROVIDER = "4.32.0"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with a virtual environment of its own, which Pulumi brings up to date as it likes."""
    absent = [command for command in NEEDED if shutil.which(command) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)}: not on PATH")
    folder = tmp_path_factory.mktemp("package") / "infill"
    shutil.copytree(ROOT / "infra" / "package", folder, ignore=shutil.ignore_patterns("__pycache__"))
    venv = folder.parent / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    (place,) = venv.glob("lib/python3*/site-packages")
    (place / "infill.pth").write_text("\n".join([str(ROOT), *site.getsitepackages()]))
    plugin = yaml.safe_load((folder / "PulumiPlugin.yaml").read_text())
    plugin["runtime"]["options"]["virtualenv"] = str(venv)
    (folder / "PulumiPlugin.yaml").write_text(yaml.safe_dump(plugin))
    return folder


@pytest.fixture(scope="module")
def environment(package: Path) -> dict[str, str]:
    environment = {
        **os.environ,
        "PULUMI_HOME": str(package.parent / "home"),
        "PULUMI_CONFIG_PASSPHRASE": "",
        "PULUMI_SKIP_UPDATE_CHECK": "1",
    }
    provider = shutil.which("pulumi-resource-kubernetes")
    assert provider is not None
    pulumi(package.parent, environment, "plugin", "install", "resource", "kubernetes", PROVIDER, "--file", provider)
    return environment


def pulumi(folder: Path, environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        ["pulumi", *words, "--non-interactive"], cwd=folder, env=environment, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_schema_has_the_fields_of_a_spec(package: Path, environment: dict[str, str]) -> None:
    schema: dict[str, Any] = json.loads(pulumi(package.parent, environment, "package", "get-schema", str(package)))
    component = schema["resources"]["infill:index:RayCluster"]
    assert component["isComponent"] is True
    assert set(component["properties"]) == {
        "clusterName", "namespace", "headService", "rayAddress", "dashboardUrl", "tokenSecret", "specHash",
    }  # fmt: skip
    ours = {"options", "wait", "force"}
    inputs = {_snake(name) for name in component["inputProperties"]} - ours
    assert inputs <= set(KubeRayClusterSpec.model_fields)
    group = {_snake(name) for name in schema["types"]["infill:index:GroupInputs"]["properties"]} - ours
    assert group <= set(WorkerGroup.model_fields)
    assert {"cpus", "memory", "gpus", "min_replicas"} <= group


def test_a_yaml_program_declares_a_cluster(package: Path, environment: dict[str, str], namespace: str, tmp_path: Path) -> None:
    plain = cluster("from-yaml", namespace)
    properties = {
        "name": plain["name"],
        "namespace": namespace,
        "rayVersion": plain["ray_version"],
        "pythonVersion": plain["python_version"],
        "headGroup": {"cpus": "1", "memory": "2Gi", "options": {"requests": {"cpus": "300m"}}},
        "workerGroups": [{"cpus": "1", "memory": "2Gi", "minReplicas": 1, "maxReplicas": 2}],
        "options": {"autoscaler": plain["autoscaler"]},
    }
    program = {
        "name": "from-yaml",
        "runtime": "yaml",
        "backend": {"url": f"file://{tmp_path}"},
        "packages": {"infill": str(package)},
        "resources": {"ray": {"type": "infill:RayCluster", "properties": properties}},
        "outputs": {"address": "${ray.rayAddress}"},
    }
    (tmp_path / "Pulumi.yaml").write_text(yaml.safe_dump(program))
    pulumi(tmp_path, environment, "stack", "init", "test")
    said = pulumi(tmp_path, environment, "preview", "--json")
    steps = {step["urn"].split("::")[-2].rpartition("$")[2]: step for step in json.loads(said)["steps"]}
    assert {"infill:index:RayCluster", "infill:kubernetes:RayCluster", "kubernetes:ray.io/v1:RayCluster"} <= set(steps)
    made = steps["kubernetes:ray.io/v1:RayCluster"]["newState"]["inputs"]
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("from-yaml", namespace)
    (group,) = made["spec"]["workerGroupSpecs"]
    assert (group["groupName"], group["minReplicas"], group["maxReplicas"]) == ("cpu", 1, 2)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
