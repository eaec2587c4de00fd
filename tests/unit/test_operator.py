"""The component of KubeRay's operator: the release, its values, and the definitions that outlive it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pytest
import yaml

from infra.operator import KINDS, KubeRayOperator, KubeRayOperatorArgs
from infra.support import Operator
from tests.unit.pulumi_mocks import Ran, run_program

Body = dict[str, Any]

PLURALS = ("rayclusters", "rayjobs", "rayservices", "raycronjobs")
OWNED = {"app.kubernetes.io/managed-by": "infill", "infill/stack": "infill.test"}


def definition(plural: str) -> Body:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.ray.io",
            "annotations": {"controller-gen.kubebuilder.io/version": "v0.16.5"},
            "labels": {"app.kubernetes.io/name": "kuberay"},
        },
        "spec": {"group": "ray.io", "names": {"plural": plural, "kind": plural.title()}, "scope": "Namespaced", "versions": []},
    }


def definitions_in(folder: Path) -> str:
    """A folder of definitions as KubeRay's chart has them."""
    for plural in PLURALS:
        (folder / f"ray.io_{plural}.yaml").write_text(yaml.safe_dump(definition(plural)))
    return str(folder)


def operated(folder: Path, **args: Any) -> Ran:
    def program() -> None:
        given = {"definitions": definitions_in(folder), **args}
        pulumi.export("namespace", KubeRayOperator("op", KubeRayOperatorArgs(**given)).namespace)

    return run_program(program)


def test_resources_and_their_order(tmp_path: Path) -> None:
    ran = operated(tmp_path).ok()
    definitions = {f"CustomResourceDefinition op-{plural}" for plural in PLURALS}
    assert {(item.type, item.name, item.parent) for item in ran.resources.values()} == {
        ("infill:kubernetes:KubeRayOperator", "op", "Stack infill-test"),
        ("kubernetes:core/v1:Namespace", "op", "infill:KubeRayOperator op"),
        ("kubernetes:helm.sh/v3:Release", "op", "infill:KubeRayOperator op"),
        *{
            ("kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition", key.split()[1], "infill:KubeRayOperator op")
            for key in definitions
        },
    }
    assert ran["Release op"].depends_on == {"Namespace op", *definitions}
    assert PLURALS == KINDS


def test_the_release(tmp_path: Path) -> None:
    ran = operated(tmp_path).ok()
    inputs = ran["Release op"].inputs
    assert {key: inputs.get(key) for key in ("name", "chart", "version", "namespace", "skipCrds", "repositoryOpts", "values")} == {
        "name": "kuberay-operator",
        "chart": "kuberay-operator",
        "version": "1.7.0",
        "namespace": "kuberay-system",
        "skipCrds": True,
        "repositoryOpts": {"repo": "https://ray-project.github.io/kuberay-helm/"},
        "values": {},
    }
    assert ran["Namespace op"].metadata == {"name": "kuberay-system", "labels": OWNED}
    assert ran.exports == {"namespace": "kuberay-system"}
    assert ran.outputs["infill:KubeRayOperator op"] == {"namespace": "kuberay-system", "version": "1.7.0"}


def test_version_namespace_gates_and_values_are_those_given(tmp_path: Path) -> None:
    gates = {"RayCronJob": True, "RayClusterStatusConditions": False}
    ran = operated(
        tmp_path, version="1.6.2", namespace="kr", feature_gates=gates, values={"image": {"repository": "mirror/operator"}}
    ).ok()
    inputs = ran["Release op"].inputs
    assert (inputs["version"], inputs["namespace"]) == ("1.6.2", "kr")
    assert inputs["values"] == {
        "featureGates": [{"name": "RayCronJob", "enabled": True}, {"name": "RayClusterStatusConditions", "enabled": False}],
        "image": {"repository": "mirror/operator"},
    }
    assert ran["Namespace op"].metadata["name"] == "kr"


def test_a_chart_of_one_s_own_has_no_repository(tmp_path: Path) -> None:
    inputs = operated(tmp_path, chart="./charts/kuberay-operator.tgz").ok()["Release op"].inputs
    assert inputs["chart"] == "./charts/kuberay-operator.tgz"
    assert "repositoryOpts" not in inputs


def test_definitions_are_read_as_they_are_and_outlive_the_stack(tmp_path: Path) -> None:
    ran = operated(tmp_path).ok()
    for plural in PLURALS:
        resource, body = ran[f"CustomResourceDefinition op-{plural}"], definition(plural)
        assert resource.inputs["spec"] == body["spec"]
        assert resource.metadata == {
            "name": f"{plural}.ray.io",
            "labels": {"app.kubernetes.io/name": "kuberay", **OWNED},
            "annotations": {**body["metadata"]["annotations"], "pulumi.com/patchForce": "true"},
        }
        assert resource.request.retainOnDelete is True
    assert {key for key, item in ran.resources.items() if item.request.retainOnDelete} == {
        f"CustomResourceDefinition op-{plural}" for plural in PLURALS
    }


def test_a_provider_reaches_all(tmp_path: Path) -> None:
    def program() -> None:
        options = pulumi.ResourceOptions(providers=[kubernetes.Provider("here", context="a")])
        KubeRayOperator("op", KubeRayOperatorArgs(definitions=definitions_in(tmp_path)), options)

    ran = run_program(program).ok()
    children = [item for item in ran.resources.values() if item.parent == "infill:KubeRayOperator op"]
    assert len(children) == 6
    assert {item.provider for item in children} == {"kubernetes here"}


def test_what_it_says_of_itself_for_the_support_matrix(tmp_path: Path) -> None:
    found: list[Operator] = []

    def program() -> None:
        args = KubeRayOperatorArgs(version="1.6.2", feature_gates={"A": True, "B": False}, definitions=definitions_in(tmp_path))
        found.append(KubeRayOperator("op", args).operator)

    run_program(program).ok()
    assert found == [Operator("1.6.2", frozenset({"A"}))]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("/nonexistent", "No such file or directory"),
        ("http://127.0.0.1:1/crds", "Connection refused"),
    ],
)
def test_definitions_that_cannot_be_read(tmp_path: Path, place: str, reason: str) -> None:
    ran = operated(tmp_path, definitions=place)
    text = ran.failed(pulumi.RunError)
    assert text.startswith(f"cannot read {place}/ray.io_rayclusters.yaml: ")
    assert reason in text
    assert text.endswith("; set definitions: to a folder that has KubeRay's")
    assert ran.resources == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not YAML: while parsing a flow node"),
        ("just text", "is no definition (CustomResourceDefinition)"),
        ("kind: Deployment\n", "is no definition (CustomResourceDefinition)"),
        ("", "is no definition (CustomResourceDefinition)"),
    ],
)
def test_a_file_that_is_no_definition(tmp_path: Path, text: str, problem: str) -> None:
    folder = definitions_in(tmp_path)
    (tmp_path / "ray.io_rayjobs.yaml").write_text(text)
    ran = run_program(lambda: KubeRayOperator("op", KubeRayOperatorArgs(definitions=folder)))
    assert ran.failed(pulumi.RunError).startswith(f"{folder}/ray.io_rayjobs.yaml {problem}")
