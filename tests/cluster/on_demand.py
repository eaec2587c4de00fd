"""On-demand clusters in tests: small specs, clients that are killed, and what is left in Kubernetes and in the database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from infra.kube import local_access
from infra.spec import KubeRayClusterSpec, parse_spec
from runner.provision import collect
from runner.store import Store
from tests.cluster.conftest import Api
from tests.cluster.pulumi_project import cluster, worker

ROOT = Path(__file__).parents[2]
GONE_SECONDS = 120.0
KINDS = {
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "RayCluster": "/apis/ray.io/v1/namespaces/{}/rayclusters",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Pod": "/api/v1/namespaces/{}/pods",
}


def plain_of(namespace: str, **fields: Any) -> dict[str, Any]:
    """A head, and workers when there is work."""
    return {**cluster("gpu", namespace, worker_groups=[worker("cpu", min_replicas=0)]), **fields}


def spec_of(namespace: str, **fields: Any) -> KubeRayClusterSpec:
    spec = parse_spec(plain_of(namespace, **fields))
    assert isinstance(spec, KubeRayClusterSpec)
    return spec


def objects_in(api: Api, namespace: str) -> dict[str, list[str]]:
    """What is in a namespace, by kind, but for what Kubernetes puts into each."""
    found = {kind: [item["metadata"]["name"] for item in api.list(path.format(namespace))] for kind, path in KINDS.items()}
    return {kind: names for kind, names in ((kind, sorted(set(names) - {"default"})) for kind, names in found.items()) if names}


def kept(store: Store) -> list[str]:
    """What the database has of clusters; that Pulumi's backend was here is no secret."""
    return [path for path, _ in store.objects("") if not path.startswith(("pulumi/.pulumi/meta.yaml", "clusters/"))]


def killed(store: Store, namespace: str, point: str, *, seconds: float = 600, **fields: Any) -> None:
    """A client of another process that dies at a point."""
    command = [sys.executable, "-m", "tests.cluster.killed_client", store.uri, json.dumps(plain_of(namespace, **fields)), point]
    environment = {**os.environ, "TMPDIR": str(Path(store.uri).parent)}  # what it leaves there goes with the test
    done = subprocess.run([*command, str(seconds)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


def states(store: Store) -> list[str]:
    return [standing.state for standing in collect.status(store)]


def local_kubeconfig() -> str:
    return str(local_access().kubeconfig)
