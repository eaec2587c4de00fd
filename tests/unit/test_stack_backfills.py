"""Backfills that a stack declares from a folder: which, where, behind what, and what refuses the whole of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from infra.kube import Access, Kubernetes
from stacks.new import write_project
from stacks.program import declare
from tests.unit.declared_backfills import PLAIN
from tests.unit.fake_kubernetes import kubeconfig_of
from tests.unit.pulumi_mocks import Ran, run_program

SMALL: dict[str, Any] = {"ray_version": "2.60.0", "python_version": "3.11"}
STACKS = Path(__file__).parents[2] / "stacks"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a cluster ``small``, in a world without Kubernetes and databases."""
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig_of("https://kubernetes.example.com:6443")))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    folder = tmp_path / "project"
    for name in ("clusters", "backfills"):
        (folder / name).mkdir(parents=True)
    (folder / "clusters" / "small.yaml").write_text(yaml.safe_dump({"name": "small", "namespace": "ray", **SMALL}))
    monkeypatch.chdir(folder)

    async def asked(access: Access) -> Kubernetes:
        raise AssertionError(f"{access} was asked")

    monkeypatch.setattr(Kubernetes, "connect", asked)
    return folder


def write(name: str, **fields: Any) -> None:
    plain = {**PLAIN, "name": name, "code": "image", **fields}
    Path("backfills", f"{name}.yaml").write_text(yaml.safe_dump(plain))


def up(**config: Any) -> Ran:
    given = {"infill:wait": False, **{f"infill:{key}": value for key, value in config.items()}}
    return run_program(lambda: declare("clusters", "backfills"), config=given)


def kinds(ran: Ran) -> list[str]:
    return sorted(item.type.rpartition(":")[2] for item in ran.ok().resources.values() if "infill:" not in item.type)


def test_a_run_takes_the_shape_of_a_cluster_that_need_not_stand() -> None:
    write("captions")
    ran = up(clusters=[], namespace="batch", access=True)
    assert kinds(ran) == ["Namespace", "RayJob", "Role", "RoleBinding", "ServiceAccount", "kubernetes"]
    assert set(ran.exports) == {"backfill-captions"}
    assert ran.exports["backfill-captions"]["namespace"] == "batch"
    (job,) = [item for item in ran.resources.values() if item.type.endswith("RayJob")]
    assert job.metadata["namespace"] == "batch"
    assert "Namespace runner-batch" in ran["infill:BackfillJob captions"].depends_on


def test_a_run_on_a_standing_cluster_comes_behind_it() -> None:
    write("captions", standing=True)
    ran = up()
    assert kinds(ran) == ["RayCluster", "RayJob", "kubernetes"]
    assert "RayCluster small" in ran["infill:BackfillJob captions"].depends_on


def test_the_stack_names_the_backfills_and_what_makes_scheduled_runs() -> None:
    write("captions", schedule="@daily")
    write("others")
    assert kinds(up(clusters=[], backfills=[])) == []
    ran = up(clusters=[], backfills=["captions"], schedules="RayCronJob")
    assert kinds(ran) == ["RayCronJob", "kubernetes"]


@pytest.mark.parametrize(
    ("fields", "config", "said"),
    [
        ({"cluster": "large"}, {}, "backfill 'captions': cluster: nobody declares 'large'; declared are small"),
        ({"standing": True}, {"clusters": []}, "'small' is declared, and this stack does not make it"),
        ({"schedule": "0 0 31 2 *"}, {}, "backfills/captions.yaml: schedule: '0 0 31 2 *' never fires"),
        ({"on_error": "ignore"}, {}, "backfill 'captions': on_error='ignore' is not one of"),
        ({"name": "other"}, {"backfills": ["captions"]}, "no file in backfills declares the backfill 'captions'; there are other"),
        ({}, {"schedules": "cron"}, "schedules: Input should be 'RayCronJob' or 'CronJob'"),
        ({}, {"backfil": ["captions"]}, "unknown key 'backfil'; did you mean 'backfills'?"),
    ],
)
def test_one_wrong_thing_and_nothing_is_declared(fields: dict[str, Any], config: dict[str, Any], said: str) -> None:
    write("good")
    Path("backfills", "captions.yaml").write_text(yaml.safe_dump({**PLAIN, "code": "image", **fields}))
    if "name" in fields:
        Path("backfills", "good.yaml").unlink()
    ran = up(**config)
    assert said in ran.failed(pulumi.RunError)
    assert ran.resources == {}


def test_two_files_of_one_name() -> None:
    write("a")
    Path("backfills", "b.yml").write_text(yaml.safe_dump({**PLAIN, "name": "a"}))
    assert "backfills/b.yml: name: 'a' is that of backfills/a.yaml too" in up().failed(pulumi.RunError)


def test_a_folder_that_is_not_there_has_none() -> None:
    Path("backfills").rmdir()
    assert kinds(up()) == ["RayCluster", "kubernetes"]


def test_a_new_project_has_an_example_that_no_stack_declares(tmp_path: Path) -> None:
    place = tmp_path / "new"
    assert place / "backfills" / "words.yaml" in write_project(place)
    for stack in ("dev", "gpu", "eks"):
        config = yaml.safe_load((place / f"Pulumi.{stack}.yaml").read_text())["config"]
        assert config["infill:backfills"] == []
    config = {"infill:wait": False, "infill:clusters": [], "infill:backfills": ["words"], "infill:namespace": "ray-dev"}
    ran = run_program(lambda: declare(place / "clusters", place / "backfills"), config=config, preview=True)
    assert "BackfillSchedule" in str(ran.ok().resources)
