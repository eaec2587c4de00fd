"""`GitOpsStack`: a stack that the Pulumi Kubernetes Operator brings up from git, as plain resources of Kubernetes.

The fields are those of version 2 of the operator:
https://github.com/pulumi/pulumi-kubernetes-operator/blob/master/docs/stacks.md
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from infra import kubernetes_names as names
from infra import labels
from infra.access_bodies import RBAC, rules
from infra.groups import SecretKey
from infra.model import EnvName, Image, Model

PULUMI = "3.259.0"
"""The CLI that stacks are tested with."""
SHORTEST_RESYNC = 60
_REPOSITORY = re.compile(r"(https?|ssh)://\S+|git@[^\s:]+:\S+")
_ALL = ["get", "list", "watch", "create", "update", "patch", "delete"]


class GitOpsStack(Model):
    """A Stack resource: which stack, from where, as whom."""

    name: Annotated[str, AfterValidator(names.dns_1123)]
    """Of the Stack, and of the service account that its pod runs as."""
    namespace: Annotated[str, AfterValidator(names.dns_1123)] = "default"
    """Of the Stack. Clusters are made where their own files say."""
    stack: str = Field(min_length=1)
    """Pulumi's name: ``dev``, or ``organization/project/dev`` on Pulumi Cloud."""
    repository: str
    """Address of the git repository."""
    branch: str = Field(default="main", min_length=1)
    folder: str = "."
    """Of the repository, where Pulumi.yaml is."""
    backend: str | None = None
    """Where the state is: ``s3://bucket``, ``gs://bucket``, ... Default: Pulumi Cloud."""
    env: dict[EnvName, SecretKey] = Field(default_factory=dict)
    """Variables from Secrets of the namespace: PULUMI_ACCESS_TOKEN, PULUMI_CONFIG_PASSPHRASE, what `${env:NAME}` names."""
    git_token: SecretKey | None = None
    """Access token of a private repository."""
    image: Image = f"pulumi/pulumi:{PULUMI}-nonroot"
    """Image of the pod that runs Pulumi. It installs the requirements.txt of the folder."""
    resync_seconds: Annotated[int, Field(ge=SHORTEST_RESYNC)] | None = None
    """How often to mend what drifts while git stays as it is. Default: only when git changes."""
    refresh: bool = True
    """Look at what runs before each `up`."""
    preview: bool = False
    """Only say what would change."""
    destroy: bool = False
    """Destroy the clusters when the Stack is deleted. Default: they stay."""
    cluster_admin: bool = False
    """Bind the service account to cluster-admin, which a stack with ``infill:operator`` needs. Default: to what clusters need."""

    @field_validator("repository")
    @classmethod
    def _is_repository(cls, repository: str) -> str:
        if not _REPOSITORY.fullmatch(repository):
            raise ValueError(f"{repository!r} is no address of git; write https://host/owner/name.git")
        if re.match(r"https?://[^/@]*:[^/@]*@", repository):
            raise ValueError(
                "an address with a password in it would be kept in plain sight; give git_token: {secret: NAME, key: KEY}"
            )
        return repository

    @field_validator("folder")
    @classmethod
    def _is_inside(cls, folder: str) -> str:
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{folder!r} is not within the repository; write it from the repository's top: clusters")
        return str(path)

    @model_validator(mode="after")
    def _destroys_what_it_makes(self) -> Self:
        if self.preview and self.destroy:
            raise ValueError("destroy: a stack that is only previewed makes nothing; drop preview or destroy")
        return self


def stack_body(given: GitOpsStack) -> dict[str, Any]:
    """The Stack resource, ``pulumi.com/v1``."""
    spec: dict[str, Any] = {
        "serviceAccountName": given.name,
        "stack": given.stack,
        "projectRepo": given.repository,
        "branch": given.branch,
        "repoDir": given.folder,
        "shallow": True,
        "refresh": given.refresh,
        "destroyOnFinalize": given.destroy,
    }
    if given.backend:
        spec["backend"] = given.backend
    if given.preview:
        spec["preview"] = True
    if given.resync_seconds is not None:
        spec |= {"continueResyncOnCommitMatch": True, "resyncFrequencySeconds": given.resync_seconds}
    if given.env:
        spec["envRefs"] = {name: _from_secret(key) for name, key in given.env.items()}
    if given.git_token:
        spec["gitAuth"] = {"accessToken": _from_secret(given.git_token)}
    spec["workspaceTemplate"] = {"spec": {"image": given.image}}
    return {"apiVersion": "pulumi.com/v1", "kind": "Stack", "metadata": _metadata(given), "spec": spec}


def gitops_resources(given: GitOpsStack) -> list[dict[str, Any]]:
    """The Stack, and before it the service account of its pod with its rights, in the order of their making."""
    account = {"kind": "ServiceAccount", "name": given.name, "namespace": given.namespace}
    named = {"name": f"{given.namespace}-{given.name}", "labels": labels.owned()}
    role = "cluster-admin" if given.cluster_admin else named["name"]
    found: list[dict[str, Any]] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(given)}]
    if not given.cluster_admin:
        found.append({"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": named, "rules": stack_rules()})
    found.append(_binding(named, str(role), account))
    # The operator asks the pod's own API in the name of this account.
    delegator = {**named, "name": f"{named['name']}-auth-delegator"}
    found.append(_binding(delegator, "system:auth-delegator", account))
    return [*found, stack_body(given)]


def stack_rules() -> list[dict[str, Any]]:
    """What `pulumi up` of clusters needs in any namespace: a runner's rights, which it may hand on, and what else it makes."""
    made = [
        ("", ["namespaces", "serviceaccounts", "secrets", "services"]),
        (RBAC, ["roles", "rolebindings"]),
        ("networking.k8s.io", ["networkpolicies"]),
        ("ray.io", ["rayclusters", "rayjobs", "raycronjobs"]),
        ("batch", ["cronjobs"]),
    ]
    found = [{"apiGroups": [group], "resources": resources, "verbs": _ALL} for group, resources in made]
    return [*rules(), *found, {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]}]


def _metadata(given: GitOpsStack) -> dict[str, Any]:
    return {"name": given.name, "namespace": given.namespace, "labels": labels.owned()}


def _binding(named: dict[str, Any], role: str, account: dict[str, Any]) -> dict[str, Any]:
    reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": named,
        "roleRef": reference,
        "subjects": [account],
    }


def _from_secret(key: SecretKey) -> dict[str, Any]:
    return {"type": "Secret", "secret": {"name": key.secret, "key": key.key}}
