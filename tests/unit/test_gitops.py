"""The Stack of the Pulumi Kubernetes Operator: its fields, what is refused, the component, and the command that prints it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner, Result

from infra.errors import BadSpec
from infra.gitops import GitOps
from infra.gitops_bodies import GitOpsStack, gitops_resources, stack_body, stack_rules
from runner.cli import app
from tests.unit.pulumi_mocks import run_program

ROOT = Path(__file__).parents[2]
GIVEN: dict[str, Any] = {"name": "images", "stack": "dev", "repository": "https://github.com/example/clusters.git"}
TEXT, FLAG = {"type": "string"}, {"type": "boolean"}
SECRET = {
    "type": "object",
    "required": ["type", "secret"],
    "properties": {"type": {"const": "Secret"}, "secret": {"required": ["name", "key"]}},
}
# The fields used here, as version 2.9 of the operator defines them (deploy/crds/pulumi.com_stacks.yaml).
SCHEMA = {
    "required": ["stack"],
    "additionalProperties": False,
    "properties": {
        **dict.fromkeys(("stack", "projectRepo", "branch", "repoDir", "backend", "serviceAccountName"), TEXT),
        **dict.fromkeys(("refresh", "preview", "destroyOnFinalize", "shallow", "continueResyncOnCommitMatch"), FLAG),
        "resyncFrequencySeconds": {"type": "integer"},
        "envRefs": {"additionalProperties": SECRET},
        "gitAuth": {"properties": {"accessToken": SECRET}, "additionalProperties": False},
        "workspaceTemplate": {"properties": {"spec": {"properties": {"image": TEXT}, "additionalProperties": False}}},
    },
}


def spec_of(**fields: Any) -> dict[str, Any]:
    return dict(stack_body(GitOpsStack.parse({**GIVEN, **fields}))["spec"])


def gitops(*args: str) -> Result:
    return CliRunner().invoke(app, ["gitops", *args])


def test_the_stack_of_a_folder() -> None:
    body = stack_body(GitOpsStack.parse({**GIVEN, "namespace": "pulumi", "branch": "prod", "folder": "./clusters/"}))
    assert (body["apiVersion"], body["kind"]) == ("pulumi.com/v1", "Stack")
    assert body["metadata"] == {"name": "images", "namespace": "pulumi", "labels": {"app.kubernetes.io/managed-by": "infill"}}
    assert body["spec"] == {
        "serviceAccountName": "images",
        "stack": "dev",
        "projectRepo": "https://github.com/example/clusters.git",
        "branch": "prod",
        "repoDir": "clusters",
        "shallow": True,
        "refresh": True,
        "destroyOnFinalize": False,
        "workspaceTemplate": {"spec": {"image": "pulumi/pulumi:3.259.0-nonroot"}},
    }


def test_every_field_is_one_of_the_operator_s() -> None:
    key = {"secret": "pulumi", "key": "passphrase"}
    full = spec_of(
        backend="s3://state", env={"PULUMI_CONFIG_PASSPHRASE": key}, git_token=key, image="r.example.com/p:1", resync_seconds=600,
        destroy=True, refresh=False,
    )  # fmt: skip
    assert list(Draft202012Validator(SCHEMA).iter_errors(full)) == []
    assert list(Draft202012Validator(SCHEMA).iter_errors(spec_of(preview=True))) == []
    reference = {"type": "Secret", "secret": {"name": "pulumi", "key": "passphrase"}}
    assert full["envRefs"] == {"PULUMI_CONFIG_PASSPHRASE": reference}
    assert full["gitAuth"] == {"accessToken": reference}
    assert (full["continueResyncOnCommitMatch"], full["resyncFrequencySeconds"]) == (True, 600)
    assert (full["destroyOnFinalize"], full["refresh"], full["backend"]) == (True, False, "s3://state")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"repository": "clusters"}, "repository: 'clusters' is no address of git; write https://host/owner/name.git"),
        ({"repository": "https://me:pw@host/a.git"}, "repository: an address with a password in it would be kept in plain sight"),
        ({"folder": "/clusters"}, "folder: '/clusters' is not within the repository"),
        ({"folder": "../x"}, "folder: '../x' is not within the repository"),
        ({"resync_seconds": 5}, "resync_seconds: Input should be greater than or equal to 60"),
        ({"preview": True, "destroy": True}, "destroy: a stack that is only previewed makes nothing"),
        ({"env": {"TOKEN": "text"}}, "env.TOKEN"),
        ({"branche": "x"}, "unknown key 'branche'; did you mean 'branch'?"),
        ({"name": "Images"}, "name: 'Images' is not lowercase"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadSpec) as caught:
        GitOpsStack(**{**GIVEN, **fields})
    assert problem in str(caught.value)


def test_the_rights_of_its_pod() -> None:
    """What `pulumi up` of clusters makes, in any namespace; cluster-admin only where it is asked for."""
    found = gitops_resources(GitOpsStack.parse(GIVEN))
    assert [(body["kind"], body["metadata"]["name"]) for body in found] == [
        ("ServiceAccount", "images"),
        ("ClusterRole", "default-images"),
        ("ClusterRoleBinding", "default-images"),
        ("ClusterRoleBinding", "default-images-auth-delegator"),
        ("Stack", "images"),
    ]
    assert [body["roleRef"]["name"] for body in found if body["kind"] == "ClusterRoleBinding"] == [
        "default-images",
        "system:auth-delegator",
    ]
    rights = {(verb, resource) for rule in stack_rules() for verb in rule["verbs"] for resource in rule["resources"]}
    assert {("create", "rayclusters"), ("list", "deployments"), ("patch", "secrets"), ("delete", "pods")} <= rights
    assert "*" not in {part for rule in stack_rules() for part in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])}
    admin = gitops_resources(GitOpsStack.parse({**GIVEN, "cluster_admin": True}))
    assert [body["roleRef"]["name"] for body in admin if body["kind"] == "ClusterRoleBinding"] == [
        "cluster-admin",
        "system:auth-delegator",
    ]
    assert "ClusterRole" not in {body["kind"] for body in admin}


def test_the_component_declares_the_same_in_order() -> None:
    def program() -> None:
        pulumi.export("stack", GitOps("g", GitOpsStack.parse(GIVEN)).stack)

    ran = run_program(program).ok()
    assert [key for key in ran.resources if not key.startswith("infill:")] == [
        "ServiceAccount g", "ClusterRole g", "ClusterRoleBinding g", "ClusterRoleBinding g-delegator", "Stack g",
    ]  # fmt: skip
    stack = ran["Stack g"]
    assert stack.inputs["spec"] == spec_of()
    assert stack.metadata["labels"]["infill/stack"] == "infill.test"
    assert stack.depends_on >= {"ServiceAccount g", "ClusterRole g", "ClusterRoleBinding g", "ClusterRoleBinding g-delegator"}
    assert ran["ClusterRole g"].inputs["rules"] == stack_rules()
    assert ran["ClusterRoleBinding g"].inputs["subjects"] == [{"kind": "ServiceAccount", "name": "images", "namespace": "default"}]
    assert ran.exports == {"stack": "images"}


def test_the_command_prints_what_the_example_holds() -> None:
    printed = gitops(
        "clusters", "--repository", GIVEN["repository"], "--stack", "production", "--cluster-admin",
        "--backend", "s3://example-state", "--env", "PULUMI_CONFIG_PASSPHRASE=pulumi/passphrase",
    )  # fmt: skip
    assert (printed.exit_code, printed.stdout) == (0, (ROOT / "examples" / "gitops" / "stack.yaml").read_text())
    assert [body["kind"] for body in yaml.safe_load_all(printed.stdout)][-1] == "Stack"
    refused = gitops("a", "--repository", GIVEN["repository"], "--stack", "dev", "--git-token", "ghp_secret")
    assert (refused.exit_code, refused.stderr) == (
        2,
        "error: --git-token: 'ghp_secret' names no key of a Secret; write SECRET/KEY, never the value itself\n",
    )
