"""From the outputs of a Pulumi stack to the cluster that it made; the CLI is a script that prints them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.errors import InfraError
from runner.errors import BadInput, RunnerError
from runner.provision.stack import pulumi_command
from runner.remote.stack_outputs import cluster_of_stack

IMAGES = {"cluster_name": "images-3f9a1c", "head_service": "images-head-svc", "namespace": "ray"}
CLI = """#!/bin/sh
if [ "$1" = version ]; then echo v3.259.0; exit; fi
if [ "$*" = "--non-interactive stack output --json --stack dev" ]; then cat '{outputs}'; exit; fi
echo "error: no stack named '$6' found" >&2
exit 255
"""


def outputs(folder: Path, monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    """A stack ``dev`` has them."""
    (folder / "outputs.json").write_text(json.dumps(values))
    (folder / "pulumi").write_text(CLI.format(outputs=folder / "outputs.json"))
    (folder / "pulumi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    pulumi_command.cache_clear()


@pytest.fixture(autouse=True)
def afterwards() -> Any:
    yield
    pulumi_command.cache_clear()


def test_the_cluster_of_a_stack_is_in_its_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs(tmp_path, monkeypatch, images=IMAGES, url="http://x")
    spec, ray_cluster = cluster_of_stack("dev")
    assert (spec.name, spec.namespace, ray_cluster) == ("images", "ray", "images-3f9a1c")
    assert cluster_of_stack("dev/images") == (spec, ray_cluster)


def test_one_of_several_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs(tmp_path, monkeypatch, images=IMAGES, texts={**IMAGES, "cluster_name": "texts"})
    with pytest.raises(BadInput, match="stack 'dev' has 2 clusters; name one: dev/images"):
        cluster_of_stack("dev")
    with pytest.raises(BadInput, match="stack 'dev' has no cluster 'image'; it has images, texts"):
        cluster_of_stack("dev/image")
    assert cluster_of_stack("dev/texts")[1] == "texts"


def test_a_stack_without_a_cluster_and_no_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs(tmp_path, monkeypatch, url="http://x")
    with pytest.raises(BadInput, match=r"stack 'dev' has no cluster in its outputs; export one: pulumi\.export\('images', "):
        cluster_of_stack("dev")
    with pytest.raises(RunnerError, match="pulumi does not give the outputs of stack 'prod': no stack named 'prod' found"):
        cluster_of_stack("prod")


def test_without_pulumi_s_cli_it_is_said_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    pulumi_command.cache_clear()
    with pytest.raises(InfraError, match=r"there is no `pulumi` on PATH; install it, https://www\.pulumi\.com/docs/install/ .*"):
        cluster_of_stack("dev")
