"""`doctor` on set-ups that are whole and on ones that are broken, a part at a time."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.spec import KubeRayClusterSpec
from runner.cli.main import app
from runner.doctor import kubernetes, machine, pulumi_cli, storage
from runner.doctor.check import Check, clock
from runner.store import Store
from tests.unit.fake_kubernetes import DEPLOYMENTS, FakeKubernetes

Usage = namedtuple("Usage", "total used free")
GB = 10**9


def by_name(checks: Any) -> dict[str, Check]:
    return {check.name: check for check in checks}


# -- this machine


@pytest.mark.parametrize(
    ("total", "free", "status"),
    [(100 * GB, 50 * GB, "OK"), (100 * GB, 4 * GB, "WARN"), (1000 * GB, 40 * GB, "WARN"), (100 * GB, GB // 2, "FAIL")],
)
def test_little_disk(monkeypatch: pytest.MonkeyPatch, total: int, free: int, status: str) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: Usage(total, total - free, free))
    found = machine.disk("disk", Path("/data"))
    assert (found.status, bool(found.remedy)) == (status, status != "OK")


def test_a_database_on_a_disk_that_is_looked_at_already_is_not_told_twice(tmp_path: Path) -> None:
    names = [check.name for check in machine.disks(str(tmp_path / "not" / "there" / "yet"))]
    assert len(names) == len(set(names)) >= 1


def test_small_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: Usage(64 << 20, 0, 64 << 20))
    found = machine.shared_memory()
    assert (found.status, found.found) == ("WARN", "64.0 MB free at /dev/shm")
    assert "shared_memory" in found.remedy


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    found = by_name(machine.packages(kubernetes=True))
    assert {check.status for check in found.values()} == {"OK"}
    assert "ray 2." in found["packages"].found
    versions = {"ray": "2.9.0", "kr8s": None}
    monkeypatch.setattr(machine, "_version", lambda name: versions.get(name, machine.metadata.version(name)))
    asked = by_name(machine.packages(kubernetes=True))
    assert asked["packages"].status == "FAIL"
    assert asked["packages"].found == "ray 2.9.0 is not <3,>=2.60"
    assert (asked["packages for kubernetes"].status, asked["packages for kubernetes"].found) == ("FAIL", "kr8s is missing")
    assert asked["packages for kubernetes"].remedy == "pip install --upgrade 'infill[kubernetes]'"
    assert by_name(machine.packages(kubernetes=False))["packages for kubernetes"].status == "WARN"


@pytest.mark.parametrize(
    ("apart", "status", "found"),
    [(-2, "OK", "with the store's"), (6, "WARN", "6 s ahead of the store's"), (-45, "FAIL", "45 s behind the store's")],
)
def test_clocks_that_are_apart(apart: float, status: str, found: str) -> None:
    check = clock("clock", apart, "the store's")
    assert (check.status, check.found, bool(check.remedy)) == (status, found, status != "OK")


def test_a_clock_that_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    steady = machine.SteadyClock()
    assert steady.check().status == "OK"
    monkeypatch.setattr(machine, "time", SimpleNamespace(time=lambda: time.time() - 3600, monotonic=time.monotonic))
    assert (steady.check().status, steady.check().found) == ("FAIL", "it jumped by -3600 s within this check")


# -- the store


def test_a_store_that_does_all(store: Store) -> None:
    assert {check.status for check in storage.look(store)} == {"OK"}
    assert list(store.objects("")) == []


class Forgetful(Store):
    """Takes every create, as stores without conditional puts do; its clock is a minute ahead."""

    def create(self, path: str, data: bytes) -> bool:
        self.put(path, data)
        return True

    def modified(self, path: str) -> dt.datetime | None:
        found = super().modified(path)
        return found + dt.timedelta(seconds=60) if found else None


def test_a_store_without_conditional_puts_whose_clock_is_ahead(tmp_path: Path) -> None:
    found = by_name(storage.look(Forgetful(str(tmp_path))))
    assert found["store: create once"].status == "FAIL"
    assert "two backfills of a column do not see each other" in found["store: create once"].remedy
    assert (found["clock of the store"].status, found["clock of the store"].found) == ("FAIL", "60 s behind the store's")


def test_a_store_that_refuses(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("a file in the place of the folder")
    (found,) = storage.look(Store(str(tmp_path / "db")))
    assert (found.name, found.status) == ("store", "FAIL")
    assert "cannot write" in found.found


# -- Pulumi and Kubernetes


def test_no_pulumi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from runner.provision.stack import pulumi_command

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    pulumi_command.cache_clear()
    (needed,) = pulumi_cli.look(needed=True)
    assert (needed.status, needed.found) == ("FAIL", "Pulumi's CLI is needed, and there is no `pulumi` on PATH")
    assert "https://www.pulumi.com/docs/install/" in needed.remedy
    (not_needed,) = pulumi_cli.look(needed=False)
    assert not_needed.status == "WARN"


def test_pulumi_without_its_provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pulumi = tmp_path / "pulumi"
    pulumi.write_text('#!/bin/sh\nif [ "$1" = version ]; then echo v3.300.0; else cat "$0.plugins"; fi\n')
    pulumi.chmod(0o755)
    plugins = tmp_path / "pulumi.plugins"
    plugins.write_text("[]")
    from runner.provision.stack import pulumi_command

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    pulumi_command.cache_clear()
    try:
        cli, provider = pulumi_cli.look(needed=True)
        assert (cli.status, cli.found.split()[0], provider.status) == ("OK", "3.300.0", "WARN")
        plugins.write_text(json.dumps([{"name": "aws", "version": "7.0.0"}, {"name": "kubernetes", "version": "4.32.0"}]))
        assert list(pulumi_cli.look(needed=True))[1] == Check("pulumi's provider of Kubernetes", "OK", "4.32.0")
    finally:
        pulumi_command.cache_clear()


def spec_at(fake: FakeKubernetes, folder: Path) -> KubeRayClusterSpec:
    return KubeRayClusterSpec.parse({"name": "c", "namespace": "ray", "kubeconfig": fake.kubeconfig(folder)})


def operator(tag: str, *words: str) -> dict[str, Any]:
    container = {"image": f"quay.io/kuberay/operator:{tag}", "args": list(words)}
    labels = {"app.kubernetes.io/name": "kuberay-operator"}
    metadata = {"name": "kuberay-operator", "namespace": "kuberay-system", "labels": labels}
    return {"metadata": metadata, "spec": {"template": {"spec": {"containers": [container]}}}}


def test_kubernetes_that_has_all(fake: FakeKubernetes, tmp_path: Path) -> None:
    fake.answers[f"GET {DEPLOYMENTS}"] = [(200, {"items": [operator("v1.7.0", "--feature-gates=RayCronJob=true")]})]
    found = by_name(kubernetes.look(spec_at(fake, tmp_path)))
    assert {check.status for check in found.values()} == {"OK"}
    assert found["kubeconfig"].found.endswith(fake.url)
    assert found["kubernetes"].found == "v1.34.0"
    assert found["kuberay"].found == "1.7.0, feature gates turned on: RayCronJob"
    assert found["rights"].found.endswith("in namespace ray")


def test_missing_rights_and_an_old_kuberay(fake: FakeKubernetes, tmp_path: Path) -> None:
    fake.answers[f"GET {DEPLOYMENTS}"] = [(200, {"items": [operator("v1.4.2")]})]
    fake.denied = {"create ray.io/rayclusters", "patch batch/jobs"}
    found = by_name(kubernetes.look(spec_at(fake, tmp_path)))
    assert (found["kuberay"].status, found["kuberay"].found) == ("WARN", "1.4.2, feature gates turned on: none")
    assert found["rights"].status == "FAIL"
    assert found["rights"].found == "in namespace ray these credentials may not create rayclusters"
    on_demand = found["rights for on-demand clusters"]
    assert (on_demand.status, on_demand.found) == ("WARN", "in namespace ray these credentials may not patch jobs")


def test_no_kuberay_and_a_clock_that_is_ahead(fake: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del fake.objects["/apis/ray.io/v1"]
    monkeypatch.setattr(kubernetes, "time", SimpleNamespace(time=lambda: time.time() + 50))
    found = by_name(kubernetes.look(spec_at(fake, tmp_path)))
    assert (found["kuberay"].status, found["kuberay"].remedy.startswith("install it: helm repo add")) == ("FAIL", True)
    assert found["clock of kubernetes"].status == "FAIL"
    assert "ahead of the API server's" in found["clock of kubernetes"].found


def test_the_command_fails_where_something_cannot_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    monkeypatch.setenv("NO_COLOR", "1")
    done = CliRunner().invoke(app, ["doctor", "--db", str(tmp_path / "db")])
    assert done.exit_code == 1
    assert f"FAIL  kubeconfig: no kubeconfig at {tmp_path}/nowhere (KUBECONFIG)\n      -> set KUBECONFIG" in done.stdout
    assert f"OK    store: {tmp_path}/db: put, get, list\n" in done.stdout
    found = {check["name"]: check for check in json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)}
    assert (found["kubeconfig"]["status"], found["python"]["status"]) == ("FAIL", "OK")
    assert "store" not in found


def test_without_a_kubeconfig_nothing_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(kubernetes.look(None)) == [Check("kubernetes", "OK", "no kubeconfig: local Ray only")]
