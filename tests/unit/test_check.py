"""A client's facts beside a cluster's, with what a manifest brings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runner.manifests.check import Problem, compare
from runner.manifests.facts import Facts
from runner.manifests.manifest import Manifest

OWN = {"pylance": "14.0.2", "pyarrow": "26.0.1", "numpy": "2.3.1", "cloudpickle": "3.1.1", "obstore": "0.12.1", "ray": "2.60.0"}
CLIENT = Facts(
    python="3.11.9",
    platform="linux-x86_64",
    ray="2.60.0",
    distributions={**OWN, "pillow": "11.3.0", "open-clip-torch": "3.0.0", "torch": "2.9.0"},
    requires={"open-clip-torch": ("torch", "pillow"), "torch": ("numpy",)},
    env=frozenset({"HOME", "HF_TOKEN"}),
    modules={"PIL": "site", "torch": "site", "numpy": "site", "features": "workspace", "beside": "/home/ana/beside/__init__.py"},
    provided_by={"PIL": ("pillow",), "torch": ("torch",), "numpy": ("numpy",)},
)
CLUSTER = Facts(
    python="3.11.7", platform="linux-x86_64", ray="2.60.0", distributions=OWN, env=frozenset({"HOME"}), modules={"numpy": "site"}
)


def found(
    cluster: Facts = CLUSTER, manifest: dict[str, Any] | None = None, *imports: str, client: Facts = CLIENT, **options: Any
) -> list[Problem]:
    made = Manifest(name="dev", **manifest) if manifest is not None else None
    return compare(client, cluster, made, imports, **options)


def subjects(problems: list[Problem]) -> list[tuple[str, str]]:
    return [(problem.severity, problem.subject) for problem in problems]


def test_nothing_is_said_of_what_fits() -> None:
    assert found(CLUSTER, None, "numpy", "features") == []
    assert found(CLIENT, {"pip": ["attrs==25.1.0"]}, "numpy", "features", "PIL") == []


@pytest.mark.parametrize(
    ("changed", "subject", "words"),
    [
        ({"python": "3.12.1"}, "python", ("Python 3.11.9 here and 3.12.1 there", "with Python 3.12", 'python_version: "3.11"')),
        ({"ray": "2.59.0"}, "ray", ("Ray 2.60.0 here and 2.59.0 there", "pip install 'ray==2.59.0'", "ray_version: 2.60.0")),
        ({"ray": None}, "ray", ("the `python` that jobs find there (Python 3.11.7) has no Ray",)),
    ],
)
def test_python_and_ray_are_to_be_the_same(changed: dict[str, Any], subject: str, words: tuple[str, ...]) -> None:
    (problem,) = found(replace(CLUSTER, **changed))
    assert (problem.severity, problem.subject) == ("error", subject)
    assert [word for word in words if word not in problem.message] == []
    assert str(problem).startswith("error: ")


def test_what_the_runner_needs_is_installed_and_that_is_said() -> None:
    lacking = {name: version for name, version in OWN.items() if name != "obstore"} | {"pyarrow": "25.0.0", "numpy": "2.0.0"}
    cluster = replace(CLUSTER, distributions=lacking)
    assert subjects(found(cluster)) == [("warning", "pyarrow"), ("warning", "obstore")]
    assert "pyarrow 26.0.1 here and 25.0.0 there: it is installed when workers start" in str(found(cluster)[0])
    assert "obstore 0.12.1 here and none there" in str(found(cluster)[1])
    assert found(cluster, {"pip": ["attrs==25.1.0"]}) == []  # its installer gets them too


def test_a_manifest_does_not_change_what_writes_files() -> None:
    problems = found(CLUSTER, {"pip": ["pyarrow==24.0.0", "numpy==2.0.0"]})
    assert subjects(problems) == [("error", "pyarrow")]
    assert "pyarrow 26.0.1 here, and the manifest wants pyarrow==24.0.0" in problems[0].message


@pytest.mark.parametrize(
    ("manifest", "module"),
    [
        ({"pip": ["pillow==11.3.0"]}, "PIL"),
        ({"pip": ["open-clip-torch==3.0.0"]}, "PIL"),  # which needs it
        ({"pip": ["Torch==2.9.0"]}, "torch"),
        ({"kind": "uv", "pip": ["not_here==1.0"]}, "not_here"),
        ({"kind": "conda", "conda": {"dependencies": ["conda-forge::pillow=11", {"pip": ["torch==2.9.0"]}]}}, "PIL"),
        ({"kind": "conda", "conda": {"dependencies": ["conda-forge::pillow=11", {"pip": ["torch==2.9.0"]}]}}, "torch"),
        ({"kind": "site"}, "PIL"),
        ({}, "features"),
        ({"py_modules": ["/home/ana/beside"]}, "beside"),
        ({"py_modules": [f"beside.py@{'0' * 64}"]}, "beside"),
        ({"py_modules": ["/home/ana/beside-1.0-py3-none-any.whl"]}, "beside"),
    ],
)
def test_a_module_that_the_manifest_brings(manifest: dict[str, Any], module: str) -> None:
    assert found(CLUSTER, manifest, module) == []
    assert subjects(found(CLUSTER, {"working_dir": False}, module)) == [("error", module)]


def test_a_module_that_nothing_brings_is_an_error_with_what_to_do() -> None:
    problems = {problem.subject: problem.message for problem in found(CLUSTER, {"working_dir": False}, *CLIENT.modules, "cv2")}
    assert set(problems) == {"PIL", "torch", "features", "beside", "cv2"}
    assert problems["PIL"].startswith("the function imports PIL, which workers lack and nothing brings; ")
    assert problems["PIL"].endswith("; add pillow==11.3.0 to pip of the manifest")
    assert problems["features"].endswith("; it is in the workspace, which this manifest leaves here: working_dir: true sends it")
    assert problems["beside"].endswith("; it is at /home/ana/beside/__init__.py here: add that to py_modules")
    assert problems["cv2"].endswith("; add the package that has it to pip of the manifest")
    assert subjects(found(CLUSTER, None, "cv2", optional=["av"])) == [("error", "cv2"), ("warning", "av")]


def test_what_else_an_unknown_requirement_brings_is_not_known() -> None:
    (problem,) = found(CLUSTER, {"pip": ["opencv-python==4.12"]}, "cv2")
    assert problem.severity == "warning"
    assert "unless a requirement of the manifest needs it itself" in problem.message


def test_a_conda_environment_has_nothing_of_the_image() -> None:
    conda = {"kind": "conda", "conda": {"dependencies": ["pillow"]}}
    cluster = replace(CLUSTER, modules={"torch": "site"})
    (problem,) = found(cluster, conda, "torch", "numpy")
    assert (problem.severity, problem.subject) == ("error", "torch")
    assert problem.message.endswith("add torch==2.9.0 to conda of the manifest")
    assert found(cluster, {}, "torch") == []


def test_what_the_runner_itself_puts_on_workers_is_there() -> None:
    bare = replace(CLUSTER, distributions={"ray": "2.60.0"}, modules={})
    assert {problem.severity for problem in found(bare, None, "numpy", "pyarrow", "ray")} == {"warning"}


def test_another_version_of_what_is_imported_warns() -> None:
    cluster = replace(CLUSTER, distributions={**OWN, "numpy": "2.0.0"})
    (problem,) = found(cluster, None, "numpy")
    assert (problem.severity, problem.subject) == ("warning", "numpy")
    assert problem.message.endswith("numpy 2.3.1 here and 2.0.0 there; pin numpy==2.3.1 in the manifest")


def test_variables_are_compared_by_name() -> None:
    manifest = {
        "env_vars": {"TOKEN_HERE": "${env:HF_TOKEN}", "OTHER": "${env:NOT_SET}"},
        "index_url": "https://${env:ME}@host/simple",
    }
    assert subjects(found(CLUSTER, manifest)) == [("error", "ME"), ("error", "NOT_SET")]
    (problem,) = found(CLUSTER, {}, env_names=["HF_TOKEN", "HOME", "ELSEWHERE"])
    assert (problem.severity, problem.subject) == ("warning", "HF_TOKEN")
    assert problem.message.endswith("env_vars of the manifest: {HF_TOKEN: ${env:HF_TOKEN}}")
    assert found(CLUSTER, {"env_vars": {"HF_TOKEN": "${env:HF_TOKEN}"}}, env_names=["HF_TOKEN"]) == []


def test_site_packages_of_another_platform_do_not_run() -> None:
    arm = replace(CLUSTER, platform="linux-aarch64")
    assert subjects(found(arm, {"kind": "site"})) == [("error", "platform")]
    assert found(arm, {"kind": "pip"}) == []
    assert found(CLUSTER, {"kind": "site"}) == []


def test_errors_come_first() -> None:
    cluster = replace(CLUSTER, python="3.12.1", distributions={})
    assert [problem.severity for problem in found(cluster, None, "cv2")] == ["error"] * 2 + ["warning"] * 5
