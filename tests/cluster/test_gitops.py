"""Delivery from git with real parts: the API server for what is rendered, git, Pulumi's CLI, the policy pack, the workflow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.drift import collection_of
from stacks import rendering
from stacks.project import read_project
from tests.cluster.conftest import Api
from tests.cluster.pulumi_project import SMALL, Project
from tests.cluster.test_dry_run import STRICT

NAMESPACE = "gitops-tests"
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "gitops"
TREES = ("rendered", "__pycache__", "venv")
WHEN = {"github.event_name == 'pull_request'": {"pull_request"}, "github.event_name == 'push'": {"push"}}
WHEN["github.event_name != 'pull_request'"] = {"push", "schedule"}


class Repository:
    """The example in a git repository of its own, in a namespace of its own, and its workflow as GitHub would run it."""

    def __init__(self, folder: Path, namespace: str, variables: dict[str, str]) -> None:
        self.folder = Path(shutil.copytree(EXAMPLE, folder / "repository", ignore=shutil.ignore_patterns(*TREES)))
        self.said, self._temp = "", folder
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        (bin_folder / "gh").write_text(f'#!/bin/sh\necho "$@" > {folder}/asked; cp comment.md {folder}/comment\n')
        (bin_folder / "gh").chmod(0o755)
        self._environment = {
            **variables,
            "PATH": os.pathsep.join([str(bin_folder), str(Path(sys.executable).parent), variables["PATH"]]),
            "PULUMI_BACKEND_URL": f"file://{folder}",
            "STACK": "production",
            "RUNNER_TEMP": str(folder),
            "GITHUB_ENV": str(folder / "github-env"),
        }
        settings = {"infill:namespace": namespace}
        (self.folder / "Pulumi.yaml").write_text("{name: gitops-tests, runtime: python}")
        (self.folder / "Pulumi.production.yaml").write_text(yaml.safe_dump({"config": settings}))
        (self.folder / "policy.yaml").write_text(yaml.safe_dump({"namespaces": [namespace], "max_replicas": 20}))
        for name in ("images", "texts"):
            self.write(name, suspend=True, protect=False, head_group=SMALL, worker_groups=[{"name": "cpu", **SMALL}])
        once = self.folder / "backfills" / "captions.yaml"
        once.write_text(yaml.safe_dump({**yaml.safe_load(once.read_text()), "schedule": None, "suspend": True}))
        self.git("init", "--quiet", "--initial-branch", "main")
        self.commit("clusters")
        self.run("pulumi", "stack", "init", "production")

    def write(self, name: str, **fields: Any) -> None:
        file = self.folder / "clusters" / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **fields}))

    def git(self, *words: str) -> str:
        return self.run("git", "-c", "user.name=t", "-c", "user.email=t@example.com", *words)

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def run(self, *words: str, ok: tuple[int, ...] = (0,), **variables: str) -> str:
        environment = {**self._environment, **variables}
        done = subprocess.run(
            words, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120
        )
        assert done.returncode in ok, done.stdout
        return done.stdout

    def workflow(self, event: str, ok: tuple[int, ...] = (0,)) -> dict[str, str]:
        """What each step says that the event runs, the installation apart; the last one may end with one of `ok`."""
        made = yaml.safe_load((self.folder / ".github" / "workflows" / "clusters.yaml").read_text())
        steps = [step for step in made["jobs"]["clusters"]["steps"] if "run" in step and step["name"] != "Install"]
        due = [step for step in steps if event in WHEN.get(step.get("if", ""), {event})]
        said = {}
        for step in due:
            given = {"KUBECONFIG_TEXT": Path(os.environ["KUBECONFIG"]).read_text(), "NUMBER": "7", "GH_TOKEN": "token"}
            codes = ok if step is due[-1] else (0,)
            said[step["name"]] = self.run("bash", "-eo", "pipefail", "-c", step["run"], ok=codes, **given)
        return said


@pytest.fixture
def repository(pulumi: Callable[..., Project], namespace: str, tmp_path: Path) -> Iterator[Repository]:
    made = Repository(tmp_path, namespace, pulumi("home").variables())
    yield made
    made.run("pulumi", "destroy", "--yes", "--skip-preview", "--non-interactive", "--stack", "production")


def test_the_api_server_takes_every_file_of_the_trees(api: Api, namespace: str, tmp_path: Path) -> None:
    """But for the kinds of Argo CD and Flux, whose fields the unit tests check."""
    place = Path(shutil.copytree(EXAMPLE, tmp_path / "example", ignore=shutil.ignore_patterns(*TREES)))
    config = yaml.safe_load((place / "Pulumi.production.yaml").read_text())["config"]
    (place / "Pulumi.production.yaml").write_text(yaml.safe_dump({"config": {**config, "infill:namespace": namespace}}))
    (place / "policy.yaml").unlink()
    kinds: set[str] = set()
    for tool in ("argocd", "flux"):
        tree = rendering.rendered(read_project(place), rendering.Target(tool, "rendered"))  # type: ignore[arg-type]
        bodies = [yaml.safe_load(text) for path, text in tree.items() if "/clusters/" in path and "kustomization" not in path]
        for body in bodies:
            body["metadata"].pop("uid", None)
            path = "/api/v1/namespaces" if body["kind"] == "Namespace" else collection_of(body)
            if body["kind"] == "Namespace":
                body["metadata"]["name"] = f"{namespace}-more"
            answer = api.request("POST", path, json=body, params=STRICT)
            assert (answer.status_code, answer.headers.get("warning")) == (201, None), answer.text
        kinds |= {body["kind"] for body in bodies}
    rights = {"ServiceAccount", "Role", "RoleBinding"}
    assert kinds == {"Namespace", "RayCluster", "NetworkPolicy", "ConfigMap", "CronJob", *rights}


def test_from_a_pull_request_to_what_runs(repository: Repository, namespace: str) -> None:
    """Previewed, brought up by the merge, found as declared; a change is told before it is made; a file less, a cluster less."""
    previewed = repository.workflow("pull_request")
    assert list(previewed) == ["Kubeconfig", "Policy", "Preview", "Cost", "Comment"]
    assert previewed["Policy"] == "2 clusters keep to policy.yaml\n"
    assert "infill|local|" in previewed["Preview"]  # the pack has run
    temp = repository.folder.parent
    assert (temp / "asked").read_text().startswith("pr comment 7 --edit-last --create-if-none")
    assert "What `pulumi up` of `production` would change:" in (temp / "comment").read_text()
    assert "+ kubernetes:ray.io/v1:RayCluster: (create)" in (temp / "comment").read_text()
    assert previewed["Cost"].count("USD an hour") == 2
    assert previewed["Cost"] in (temp / "comment").read_text()
    assert [line.split()[:2] for line in told(repository.workflow("schedule", ok=(1,)), namespace)[:4]] == [
        ["RayCluster", "images"],
        ["NetworkPolicy", "images"],
        ["RayCluster", "texts"],
        ["NetworkPolicy", "captions-run"],
    ]

    merged = repository.workflow("push")
    assert list(merged) == ["Kubeconfig", "Policy", "Up", "Diff"]
    assert told(merged, namespace)[-1].startswith("5 as declared")

    repository.write("images", worker_groups=[{"name": "cpu", **SMALL, "max_replicas": 12}])
    (repository.folder / "clusters" / "texts.yaml").unlink()
    (repository.folder / "backfills" / "captions.yaml").unlink()
    repository.commit("fewer")
    nightly = told(repository.workflow("schedule", ok=(1,)), namespace)
    assert nightly[:3] == [
        "RayCluster images differs",
        "spec.workerGroupSpecs[cpu].maxReplicas: 10 -> 12",
        "RayCluster texts there, and not declared (of stack gitops-tests.production)",
    ]
    assert nightly[3].startswith("RayJob captions-")
    assert nightly[3].endswith("there, and not declared (of stack gitops-tests.production)")
    assert told(repository.workflow("push"), namespace)[-1].startswith("2 as declared")


def told(said: dict[str, str], namespace: str) -> list[str]:
    """The lines of the comparison, without their spaces."""
    return [" ".join(line.replace(f"{namespace}/", "").split()) for line in said["Diff"].splitlines()]


def test_what_the_policy_forbids_is_previewed_by_nobody(repository: Repository) -> None:
    """Not by the program that reads the files, and not by one that makes a cluster in its own way, which the pack holds."""
    repository.write("images", worker_groups=[{"name": "cpu", **SMALL, "max_replicas": 99}])
    refusal = "cluster 'images': worker_groups.cpu.max_replicas: 99 is more than 20 (rule max_replicas)"
    assert refusal in repository.run("infill", "policy", "check", ".", ok=(2,))
    previewed = ("pulumi", "preview", "--stack", "production", "--non-interactive", "--color", "never")
    assert refusal in repository.run(*previewed, ok=(1,))

    (repository.folder / "__main__.py").write_text(OWN_PROGRAM)
    assert "Policy Packs run" not in repository.run(*previewed)
    said = repository.run(*previewed, "--policy-pack", "policy_pack", ok=(1,))
    assert "[mandatory]  max-replicas  (kubernetes:ray.io/v1:RayCluster: images)" in said
    assert "images: spec.workerGroupSpecs[cpu].maxReplicas: 99 is more than 20 (rule max_replicas)" in said


OWN_PROGRAM = """
from infra.files import read_spec
from infra.raycluster import RayCluster, RayClusterArgs

RayCluster("images", RayClusterArgs(read_spec("clusters/images.yaml"), wait=False))
"""
