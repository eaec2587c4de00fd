"""What is refused before workers of another machine start: another Python, site-packages of another platform."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest

from infra.spec import parse_spec
from runner.environments.environment import Environment
from runner.environments.worker_setup import on_workers, uploads
from runner.errors import BadInput
from runner.packages.package import this_python
from runner.remote.places import Standing
from runner.store import Store

HERE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine().lower()]
ELSEWHERE, THEIR_MACHINE = ("arm64", "aarch64") if HERE == "amd64" else ("amd64", "x86_64")


def test_workers_of_another_python_or_platform(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    found = {"python": "3.9", "platform": "linux-x86_64", "versions": {}}
    with pytest.raises(BadInput, match=rf"workers run Python 3\.9, and this is {this_python()}: functions do not travel"):
        on_workers(Environment(), store, {"platform": "linux-x86_64"}, found)
    found = {"python": this_python(), "platform": "linux-aarch64", "versions": {}}
    with pytest.raises(BadInput, match=r"workers run on linux-aarch64, and the site-packages that were sent are for linux-x86_64"):
        on_workers(Environment(site=True), store, {"site": ["a"], "platform": "linux-x86_64"}, found)


@pytest.mark.parametrize(
    ("groups", "machine"),
    [
        ([{"name": "a", "arch": HERE}], platform.machine().lower()),
        ([{"name": "a", "arch": ELSEWHERE}], THEIR_MACHINE),
        ([{"name": "a", "arch": HERE}, {"name": "b", "arch": ELSEWHERE}], THEIR_MACHINE),
    ],
)
def test_the_platform_of_a_cluster_is_its_workers_groups_(groups: list[dict[str, Any]], machine: str) -> None:
    assert Standing("c", parse_spec({"name": "c", "worker_groups": groups})).platform == f"linux-{machine}"
    assert Standing("c", "http://h:8265").platform == f"linux-{platform.machine().lower()}"


def test_site_packages_are_refused_before_any_upload_with_what_would_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site/own-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "WHEEL").write_text(f"Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_17_{platform.machine().lower()}\n")
    monkeypatch.setattr("runner.packages.roots.site.getsitepackages", lambda: [str(tmp_path / "site")])
    environment = Environment(site=True, workspace=False)
    with pytest.raises(BadInput, match=rf"(?s)1 packages are not built for .* linux-{THEIR_MACHINE}:\n  own 1\.0: built for cp311"):
        uploads(environment, Store(str(tmp_path / "db")), "3.11", f"linux-{THEIR_MACHINE}")
    assert not (tmp_path / "db").exists()
