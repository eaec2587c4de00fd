"""What a manifest, a cluster and a call say together, as Ray's runtime_env and as a cluster with other images."""

from __future__ import annotations

import asyncio
import itertools
import os
import platform
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.runtime_env.conda import CondaPlugin
from ray._private.runtime_env.context import RuntimeEnvContext
from ray.runtime_env import RuntimeEnv

from infra.spec import KubeRayClusterSpec, parse_spec
from runner import Manifest, ManifestFactory
from runner.environments.environment import Environment
from runner.environments.runtime_env import environment, on_cluster, with_requirements
from runner.errors import BadInput
from runner.manifests.builder import _ManifestBuilder

HASH = "--hash=sha256:" + "0" * 64
OWN = ["pylance==14.0.2", "pyarrow==22.0.0"]
CONDA = {"name": "mine", "prefix": "/opt/x", "channels": ["conda-forge"], "dependencies": ["numpy"]}
FACTORIES = {
    "pip": lambda: ManifestFactory.create_pip("m"),
    "conda": lambda: ManifestFactory.create_conda("m").conda({"dependencies": ["numpy"]}),
    "site": lambda: ManifestFactory.create_site("m"),
}
ALL = tuple(FACTORIES)


def cluster(**fields: Any) -> KubeRayClusterSpec:
    groups = {
        "head_group": {"image": "own/head:1"},
        "worker_groups": [{"image": "own/cpu:1"}, {"kind": "gpu", "image": "own/gpu:1"}],
    }
    spec = parse_spec({"name": "c", "ray_version": "2.60.0", "python_version": "3.11", **groups, **fields})
    assert isinstance(spec, KubeRayClusterSpec)
    return spec


def images(manifest: Manifest, spec: KubeRayClusterSpec | None = None) -> list[str]:
    """Of head, CPU workers and GPU workers."""
    made = on_cluster(spec or cluster(), environment(manifest), manifest)
    return [made.image_of(group) for group in made.groups().values()]


# -- "What's in a manifest?" of https://docs.lancedb.com/geneva/jobs/contexts, a row each


@pytest.mark.parametrize("kind", ALL)
def test_the_working_directory_goes_by_itself(kind: str) -> None:
    found = environment(FACTORIES[kind]().build())
    assert (found.workspace, found.folder) == (True, None)
    assert not environment(FACTORIES[kind]().working_dir(False).build()).workspace


@pytest.mark.parametrize(("kind", "goes"), [("pip", False), ("conda", False), ("site", True)])
def test_site_packages_go_with_create_site(kind: str, goes: bool) -> None:
    assert environment(FACTORIES[kind]().build()).site is goes


def test_pip_packages(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("attrs==25.1.0\nclick==8.1.8\n")
    listed = ManifestFactory.create_pip("m").pip(["attrs==25.1.0", "click==8.1.8"]).build()
    for manifest in (listed, ManifestFactory.create_pip("m").requirements_path(file).build()):
        assert environment(manifest).runtime_env["pip"]["packages"] == ["attrs==25.1.0", "click==8.1.8"]


def test_conda_packages(tmp_path: Path) -> None:
    file = tmp_path / "environment.yml"
    file.write_text("name: mine\nprefix: /opt/x\nchannels: [conda-forge]\ndependencies: [numpy]\n")
    wanted = {"channels": ["conda-forge"], "dependencies": ["numpy"]}  # its place on this machine means nothing on another
    for manifest in (
        ManifestFactory.create_conda("m").conda(CONDA).build(),
        ManifestFactory.create_conda("m").conda_environment_path(file).build(),
    ):
        assert environment(manifest).runtime_env == {"conda": wanted}


@pytest.mark.parametrize("kind", ALL)
def test_py_modules(kind: str) -> None:
    assert environment(FACTORIES[kind]().py_modules(["/lib/a"]).add_py_module("/lib/b").build()).modules == ("/lib/a", "/lib/b")


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda b: b, ["own/head:1", "own/cpu:1", "own/gpu:1"]),
        (lambda b: b.head_image("h:2"), ["h:2", "own/cpu:1", "own/gpu:1"]),
        (lambda b: b.default_head_image(), ["rayproject/ray:2.60.0-py311", "own/cpu:1", "own/gpu:1"]),
        (lambda b: b.worker_image("w:2"), ["own/head:1", "w:2", "w:2"]),
        (lambda b: b.worker_image("w:2", gpu="g:2"), ["own/head:1", "w:2", "g:2"]),
        (lambda b: b.default_worker_image(), ["own/head:1", "rayproject/ray:2.60.0-py311", "rayproject/ray:2.60.0-py311-gpu"]),
    ],
)
def test_images_take_priority_over_the_cluster_s(kind: str, call: Any, expected: list[str]) -> None:
    builder: _ManifestBuilder = call(FACTORIES[kind]())
    assert images(builder.build()) == expected


# -- precedence


LEVELS = ("manifest", "ray_init_kwargs", "call")


@pytest.mark.parametrize("given", [given for count in (1, 2, 3) for given in itertools.combinations(LEVELS, count)])
def test_call_over_ray_init_kwargs_over_manifest(given: tuple[str, ...]) -> None:
    def wish(level: str) -> dict[str, Any]:
        return {"env_vars": {"BOTH": level, level.upper(): "own"}, "pip": [f"attrs=={LEVELS.index(level)}"]}

    manifest = Manifest(name="m", pip=["attrs==0"], env_vars=wish("manifest")["env_vars"]) if "manifest" in given else None
    kwargs = {"runtime_env": wish("ray_init_kwargs")} if "ray_init_kwargs" in given else {}
    found = environment(manifest, kwargs, wish("call") if "call" in given else None)
    strongest = given[-1]
    assert found.runtime_env["env_vars"] == {"BOTH": strongest, **{level.upper(): "own" for level in given}}
    packages = found.runtime_env["pip"]
    packages = packages["packages"] if isinstance(packages, dict) else packages
    assert packages == [f"attrs=={LEVELS.index(strongest)}"]


@pytest.mark.parametrize(("low", "high"), [("pip", "conda"), ("conda", "uv"), ("uv", "pip")])
def test_one_installer_replaces_another(low: str, high: str) -> None:
    found = environment(None, {"runtime_env": {low: ["a"], "config": {"setup_timeout_seconds": 9}}}, {high: ["b"]})
    assert found.runtime_env == {high: ["b"], "config": {"setup_timeout_seconds": 9}}
    assert found.installer == high


def test_folders_are_ours_to_upload_and_addresses_ray_s() -> None:
    found = environment(
        None, {"runtime_env": {"working_dir": "/ws", "py_modules": ["/lib/a", "s3://b/c.zip"], "excludes": ["*.bin"]}}
    )
    assert found == Environment({"py_modules": ["s3://b/c.zip"]}, folder="/ws", modules=("/lib/a",), exclude=("*.bin",))
    found = environment(Manifest(name="m", exclude=["a"]), None, {"working_dir": "s3://b/w.zip"})
    assert found == Environment({"working_dir": "s3://b/w.zip"}, workspace=False, exclude=("a",))
    assert environment() == Environment()


# -- secrets


def test_a_variable_with_a_secret_is_not_part_of_runtime_env() -> None:
    manifest = Manifest(name="m", env_vars={"HF_TOKEN": "${env:HF_TOKEN}", "URL": "https://${env:USER}@host", "LEVEL": "debug"})
    found = environment(manifest, None, {"env_vars": {"API_KEY": "0123456789abcdef", "DEPTH": "3"}})
    assert found.runtime_env == {"env_vars": {"LEVEL": "debug", "DEPTH": "3"}}
    expected = {"HF_TOKEN": "${env:HF_TOKEN}", "URL": "https://${env:USER}@host", "API_KEY": "0123456789abcdef"}
    assert found.secrets == expected


def test_a_plain_variable_over_a_secret_one_is_plain() -> None:
    found = environment(Manifest(name="m", env_vars={"WHERE": "${env:WHERE}"}), None, {"env_vars": {"WHERE": "here"}})
    assert (found.runtime_env, found.secrets) == ({"env_vars": {"WHERE": "here"}}, {})


def test_credentials_of_an_index_are_expanded_by_the_installer() -> None:
    urls = ["https://${env:INDEX_USER}:${env:INDEX_TOKEN}@host/simple"]
    found = environment(Manifest(name="m", pip=["attrs==25.1.0"], index_url="https://host/simple", extra_index_urls=urls))
    assert found.runtime_env["pip"]["packages"] == [
        "--index-url https://host/simple",
        "--extra-index-url https://${INDEX_USER}:${INDEX_TOKEN}@host/simple",
        "attrs==25.1.0",
    ]
    assert RuntimeEnv(**found.runtime_env).pip_config()["packages"] == found.runtime_env["pip"]["packages"]


def test_a_reference_where_nothing_expands_it_is_refused() -> None:
    with pytest.raises(BadInput, match=r"runtime_env\.config: \$\{env:\.\.\.\} works in env_vars, pip, uv and conda only"):
        environment(None, None, {"config": {"a": "${env:B}"}})


def test_on_kubernetes_what_is_referred_to_becomes_a_secret_of_the_pods() -> None:
    manifest = Manifest(
        name="m",
        pip=["attrs==25.1.0"],
        extra_index_urls=["https://${env:INDEX_TOKEN}@host/simple"],
        env_vars={"HF_TOKEN": "${env:HF_TOKEN}", "LEVEL": "debug", "OWN": "${env:MINE}"},
    )
    spec = cluster(head_group={"env": {"OWN": "head", "ELSE": "kept"}})
    made = on_cluster(spec, environment(manifest), manifest)
    wanted = {"INDEX_TOKEN": "${env:INDEX_TOKEN}", "HF_TOKEN": "${env:HF_TOKEN}", "OWN": "${env:MINE}"}
    assert made.head_group.env == {"ELSE": "kept", **wanted}
    assert [group.env for group in made.worker_groups] == [wanted, wanted]
    assert spec.head_group.env == {"OWN": "head", "ELSE": "kept"}
    assert on_cluster(spec, environment(Manifest(name="m")), Manifest(name="m")) == spec
    assert on_cluster(spec, environment()) == spec


@pytest.mark.parametrize(
    ("manifest", "kwargs", "call", "secret", "shown"),
    [
        ({"A": "${env:ONE}"}, {"A": "${env:TWO}"}, {"A": "${env:THREE}"}, "${env:THREE}", None),
        ({"A": "${env:ONE}"}, {"A": "${env:TWO}"}, {}, "${env:TWO}", None),
        ({"A": "plain"}, {}, {"A": "${env:THREE}"}, "${env:THREE}", None),
        ({"A": "${env:ONE}"}, {}, {"A": "plain"}, None, "plain"),
        ({}, {"A": "${env:TWO}"}, {}, "${env:TWO}", None),
    ],
)
def test_the_strongest_wish_for_a_secret_is_in_the_pods(
    manifest: dict[str, str], kwargs: dict[str, str], call: dict[str, str], secret: str | None, shown: str | None
) -> None:
    given = environment(Manifest(name="m", env_vars=manifest), {"runtime_env": {"env_vars": kwargs}}, {"env_vars": call})
    made = on_cluster(cluster(head_group={"env": {"A": "cluster"}}), given)
    assert made.head_group.env == {"A": secret or "cluster"}  # what is shown is over it
    assert given.runtime_env.get("env_vars", {}).get("A") == shown


def test_the_pods_have_what_an_index_of_the_call_asks_for() -> None:
    given = environment(None, None, {"pip": ["--index-url https://${env:INDEX_TOKEN}@host/simple", "attrs==25.1.0"]})
    assert given.expanded == ("INDEX_TOKEN",)
    assert on_cluster(cluster(), given).worker_groups[0].env == {"INDEX_TOKEN": "${env:INDEX_TOKEN}"}


# -- the runner's own requirements


def test_own_requirements_go_with_those_of_pip_uv_and_conda() -> None:
    pip = with_requirements(environment(Manifest(name="m", pip=["attrs==25.1.0", "PyArrow==22.0.0"])), OWN)
    assert pip.runtime_env["pip"]["packages"] == ["attrs==25.1.0", "PyArrow==22.0.0", "pylance==14.0.2"]
    uv = with_requirements(environment(Manifest(name="m", kind="uv", pip=[f"attrs==25.1.0 {HASH}"])), OWN)
    assert uv.runtime_env["uv"]["packages"] == [f"attrs==25.1.0 {HASH}", *OWN]
    conda = with_requirements(environment(Manifest(name="m", kind="conda", conda=CONDA)), OWN)
    assert conda.runtime_env["conda"]["dependencies"] == ["numpy", "pip", {"pip": OWN}]
    nested = {"dependencies": ["pip=24", {"pip": ["attrs", "pylance==14.0.2"]}]}
    conda = with_requirements(environment(Manifest(name="m", kind="conda", conda=nested)), OWN)
    assert conda.runtime_env["conda"]["dependencies"] == ["pip=24", {"pip": ["attrs", "pylance==14.0.2", "pyarrow==22.0.0"]}]
    nothing = with_requirements(environment(), OWN)
    assert nothing.runtime_env["pip"]["packages"] == OWN
    assert with_requirements(environment(), []) == Environment()


@pytest.mark.parametrize("kind", ["pip", "uv", "conda"])
def test_what_writes_files_is_the_client_s_version(kind: str) -> None:
    def together(line: str) -> list[str]:
        fields = {"conda": {"dependencies": ["pip", {"pip": [line]}]}} if kind == "conda" else {"pip": [line]}
        made = with_requirements(environment(Manifest.parse({"name": "m", "kind": kind, **fields})), OWN).runtime_env[kind]
        return made["dependencies"][1]["pip"] if kind == "conda" else made["packages"]

    assert together("pyarrow>=22") == OWN
    assert together("pyarrow==22.0.0") == ["pyarrow==22.0.0", "pylance==14.0.2"]
    with pytest.raises(BadInput, match=r"^pyarrow==23\.0\.0: workers write files with pyarrow==22\.0\.0, as this client does"):
        together("pyarrow==23.0.0")


def test_hashed_requirements_of_pip_go_by_uv_which_takes_others_beside_them() -> None:
    found = environment(Manifest(name="m", pip=[f"attrs==25.1.0 {HASH}"]))
    assert set(found.runtime_env) == {"uv"}


def test_a_conda_environment_of_the_nodes_cannot_be_added_to() -> None:
    with pytest.raises(
        BadInput, match=r"runtime_env\.conda: 'mine' is an environment of the nodes, and it lacks pylance==14\.0\.2"
    ):
        with_requirements(environment(None, None, {"conda": "mine"}), OWN)


@pytest.mark.parametrize(
    "manifest",
    [
        Manifest(name="m", pip=["attrs==25.1.0"], env_vars={"A": "b"}),
        Manifest(name="m", kind="uv", pip=[f"attrs==25.1.0 {HASH}"]),
        Manifest(name="m", kind="conda", conda=CONDA),
        Manifest(name="m", kind="site"),
    ],
)
def test_ray_takes_what_is_made(manifest: Manifest) -> None:
    made = with_requirements(environment(manifest), OWN).runtime_env
    assert RuntimeEnv(**made).to_dict().keys() >= made.keys() - {"pip", "uv"}


CONDA_COMMAND = """#!/bin/sh
case "$1 $2" in
"env list") echo '{"envs": []}' ;;
"env create") cp "$(echo "$@" | sed 's/.*--file \\([^ ]*\\).*/\\1/')" "$RECORD"; exit 1 ;;
esac
"""


def test_conda_is_called_with_the_environment_the_client_s_python_and_what_the_runner_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own way to conda, up to the call: no registry that tests may use has a conda."""
    (tmp_path / "conda").write_text(CONDA_COMMAND)
    (tmp_path / "conda").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "created.yml"))
    monkeypatch.delenv("CONDA_EXE", raising=False)
    monkeypatch.delenv("RAY_CONDA_HOME", raising=False)
    manifest = Manifest(name="m", kind="conda", conda={**CONDA, "dependencies": ["numpy=2.1", {"pip": ["attrs==25.1.0"]}]})
    made = RuntimeEnv(**with_requirements(environment(manifest), OWN).runtime_env)
    with pytest.raises(RuntimeError, match="Failed to install conda environment"):
        asyncio.run(CondaPlugin(str(tmp_path / "resources")).create(made.conda_uri(), made, RuntimeEnvContext()))
    asked = yaml.safe_load((tmp_path / "created.yml").read_text())
    assert asked["channels"] == ["conda-forge"]
    *packages, requirements = sorted(asked["dependencies"], key=lambda each: isinstance(each, dict))
    assert sorted(packages) == ["numpy=2.1", "pip", f"python={platform.python_version()}"]
    assert [line for line in requirements["pip"] if "ray" not in line] == ["attrs==25.1.0", *OWN]
    assert "ray[default]" in requirements["pip"]
