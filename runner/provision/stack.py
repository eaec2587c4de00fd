"""The Pulumi stack of an on-demand cluster, by the Automation API: made, removed, and its lock broken."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import InfraError
from infra.kube import Access
from runner.provision.backend import FOLDER, PASSPHRASE, backend_url, backend_variables, kubernetes_variables
from runner.provision.deadline import deadline_name
from runner.provision.record import Record, head_account
from runner.store import Store

if TYPE_CHECKING:
    from pulumi.automation import PulumiCommand, Stack

    from infra.spec import KubeRayClusterSpec

INSTALL = (
    "install it, https://www.pulumi.com/docs/install/ says how, or let Pulumi's Python package do it: "
    '`python -c "from pulumi.automation import PulumiCommand; PulumiCommand.install()"`'
)
ORPHAN_SECONDS = 20.0


@functools.cache
def pulumi_command() -> PulumiCommand:
    """Pulumi's CLI: the one on PATH, or the one that its Python package has installed for this user.

    Raises:
        InfraError: there is none, or it is too old; with how to install it.
    """
    try:
        from pulumi import automation
        from pulumi._version import version
    except ImportError as exc:
        raise InfraError(f"Pulumi's Python package is needed: {exc}; pip install 'infill[kubernetes]'") from exc
    root = os.path.expanduser(f"~/.pulumi/versions/{version}")
    if not shutil.which("pulumi") and not os.path.exists(f"{root}/bin/pulumi"):
        raise InfraError(f"Pulumi's CLI is needed, and there is no `pulumi` on PATH; {INSTALL}")
    try:
        return automation.PulumiCommand(root=None if shutil.which("pulumi") else root)
    except automation.InvalidVersionError as exc:
        raise InfraError(f"{exc}; {INSTALL}") from exc


class ClusterStack:
    """The stack of a provisioned cluster. Use it under the cluster's lock."""

    def __init__(self, store: Store, record: Record, access: Access) -> None:
        self._store, self._record, self._access = store, record, access

    def make(self, spec: KubeRayClusterSpec, owner: Mapping[str, Any]) -> None:
        """Declare the cluster, without waiting for its pods.

        Args:
            owner: ownerReference of all that is declared.

        Raises:
            InfraError: Kubernetes or Pulumi refuses, in their words.
        """
        self.remove()  # what a process wrote that outlived its killed client by a moment
        with self._open() as (stack, access):
            self._drop_lock_folder()
            stack.up(program=functools.partial(_declare, spec, owner, access), color="never", suppress_progress=True)

    def preview(self, spec: KubeRayClusterSpec, owner: Mapping[str, Any]) -> str:
        """What `make` would declare, as Pulumi shows it. Nothing is kept of it."""
        lines: list[str] = []
        try:
            with self._open() as (stack, access):
                program = functools.partial(_declare, spec, owner, access)
                stack.preview(program=program, color="never", diff=True, suppress_progress=True, on_output=lines.append)
        finally:
            self.remove()
        return "\n".join(line for line in lines if line.strip())

    def remove(self) -> None:
        """Remove the stack: state, history, backups, and the lock that a killed client left.

        What it declares goes from Kubernetes with its owner. To Pulumi's backends a stack is these objects; Pulumi itself does not
        remove one whose state a crash cut short.
        """
        for kind in ("history", "backups", "locks/organization"):
            self._store.delete_folder(f"{self._folder(kind)}/{self._record.stack}")
        self._drop_lock_folder()
        states = self._folder("stacks")
        own = [path for path, _ in self._store.objects(states) if path.startswith(f"{states}/{self._record.stack}.json")]
        self._store.delete(own)

    def wait_for_pulumi(self) -> None:
        """Wait for a process of Pulumi whose client was killed and that is still at work on this machine. It notices in a second.

        Raises:
            InfraError: it does not end.
        """
        deadline = time.monotonic() + ORPHAN_SECONDS
        while alive := [pid for pid in self._lockers() if _is_running(pid)]:
            if time.monotonic() > deadline:
                raise InfraError(
                    f"cluster {self._record.name}: Pulumi (process {alive[0]}) still works on it, without a client; end it"
                )
            time.sleep(0.1)

    def _drop_lock_folder(self) -> None:
        """Stores that keep folders (SeaweedFS) list an emptied one as an object, which Pulumi takes for a lock it cannot read."""
        if not self._store.is_local:
            self._store.delete([f"{self._folder('locks/organization')}/{self._record.stack}"])

    def _lockers(self) -> list[int]:
        """Processes of this machine that have Pulumi's lock."""
        locks = [path for path, _ in self._store.objects(f"{self._folder('locks/organization')}/{self._record.stack}")]
        contents = [json.loads(data) for path in locks if (data := self._store.get(path))]
        return [content["pid"] for content in contents if content.get("hostname") == socket.gethostname()]

    def _folder(self, kind: str) -> str:
        """Pulumi's folder of the stacks of the project, or of their history, ..."""
        return f"{FOLDER}/.pulumi/{kind}/{self._record.project}"

    @contextmanager
    def _open(self) -> Iterator[tuple[Stack, Access]]:
        """The stack, made; and the access as Pulumi's processes have it."""
        from pulumi import automation

        command = pulumi_command()
        with tempfile.TemporaryDirectory(prefix="infill-") as name, _in_its_words(self._record.name):
            folder = Path(name)
            database = backend_variables(self._store)
            kubernetes = kubernetes_variables(self._access, folder, database)
            if self._store.is_local:
                Path(self._store.url(FOLDER)).mkdir(parents=True, exist_ok=True)
            backend = automation.ProjectBackend(url=backend_url(self._store))
            workspace = automation.LocalWorkspace(
                work_dir=name,
                project_settings=automation.ProjectSettings(name=self._record.project, runtime="python", backend=backend),
                env_vars={**_QUIET, **database, **kubernetes, "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE, "PULUMI_BACKEND_URL": ""},
                pulumi_command=command,
            )
            yield automation.Stack.create(self._record.stack, workspace), Access(kubernetes["KUBECONFIG"] or None)


_QUIET = {"PULUMI_SKIP_UPDATE_CHECK": "true", "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true"}


def _declare(spec: KubeRayClusterSpec, owner: Mapping[str, Any], access: Access) -> None:
    """The program: the cluster, and the right of its head to renew its time to live."""
    import pulumi
    import pulumi_kubernetes as kubernetes

    from infra.provider import kubernetes_provider, owned_here
    from infra.raycluster import RayCluster, RayClusterArgs

    provider = kubernetes_provider("kubernetes", access, ambient=True)
    options = pulumi.ResourceOptions(provider=provider)
    account, is_ours = head_account(spec)
    named: Any = {"namespace": spec.namespace, "labels": owned_here(spec.name), "owner_references": [_snake(owner)]}
    before: list[pulumi.Resource] = []
    if is_ours:
        metadata: Any = {**named, "name": account}
        before.append(kubernetes.core.v1.ServiceAccount("head", metadata=metadata, opts=options))
    role: Any = {**named, "name": deadline_name(spec.name)}
    rule: Any = {
        "api_groups": ["batch"],
        "resources": ["jobs"],
        "resource_names": [deadline_name(spec.name)],
        "verbs": ["get", "patch"],
    }
    referred: Any = {"api_group": "rbac.authorization.k8s.io", "kind": "Role", "name": deadline_name(spec.name)}
    head: Any = {"kind": "ServiceAccount", "name": account, "namespace": spec.namespace}
    kubernetes.rbac.v1.Role("deadline", metadata=role, rules=[rule], opts=options)
    kubernetes.rbac.v1.RoleBinding(
        "deadline",
        metadata=role,
        role_ref=referred,
        subjects=[head],
        opts=options,
    )
    args = RayClusterArgs(spec, wait=False, owner=owner, env_secret=False)
    RayCluster(spec.name, args, pulumi.ResourceOptions(providers=[provider], depends_on=before))


def _snake(owner: Mapping[str, Any]) -> Any:
    return {re.sub("([A-Z])", lambda match: f"_{match[1].lower()}", key): value for key, value in owner.items()}


def _is_running(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).name().startswith("pulumi"))
    except psutil.Error:
        return False


@contextmanager
def _in_its_words(cluster: str) -> Iterator[None]:
    """Errors of Pulumi's CLI as ours, with what it says went wrong and no more."""
    from pulumi.automation import CommandError

    try:
        yield
    except CommandError as exc:
        raise InfraError(f"cluster {cluster}: {said_by_pulumi(str(exc))}") from exc


def said_by_pulumi(text: str) -> str:
    """The errors in the output of Pulumi's CLI, each once."""
    found = [
        " ".join(match.split())
        for match in re.findall(r"^\s*(?:stderr: )?error: (.*(?:\n {4,}(?!error: )\S.*)*)", text, re.MULTILINE)
    ]
    useful = [error for error in dict.fromkeys(found) if not re.match(r"update failed|an unhandled error|preview failed", error)]
    return "; ".join(useful or found) or " ".join(text.split())[-500:]
