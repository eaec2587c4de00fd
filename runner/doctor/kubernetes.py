"""Kubernetes: how it is reached, its clock, KubeRay, and what these credentials may do."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from runner.doctor.check import Check, Status, clock

if TYPE_CHECKING:
    from infra.kube import Access
    from infra.spec import KubeRayClusterSpec

TESTED = "1.7.0"


def look(spec: KubeRayClusterSpec | None) -> Iterator[Check]:
    """All of it, for a cluster; without one, for the default namespace, where a kubeconfig says which Kubernetes."""
    from infra.errors import InfraError

    if spec is None and not os.environ.get("KUBECONFIG") and not Path("~/.kube/config").expanduser().is_file():
        yield Check("kubernetes", "OK", "no kubeconfig: local Ray only")
        return
    try:
        from infra.kube import access_of, local_access, server_of

        access = access_of(spec) if spec else local_access()
        yield Check("kubeconfig", "OK", f"{access}, {server_of(access) or 'in the cluster'}")
    except ImportError as exc:
        yield Check("kubeconfig", "FAIL", str(exc), "pip install 'infill[kubernetes]'")
        return
    except InfraError as exc:
        problem, _, remedy = str(exc).partition("; ")
        yield Check("kubeconfig", "FAIL", problem, remedy or "set KUBECONFIG to one that reaches the cluster")
        return
    yield from _ask(access, spec)


def _ask(access: Access, spec: KubeRayClusterSpec | None) -> Iterator[Check]:
    from infra.errors import InfraError, NotAllowed
    from infra.kube import run

    try:
        yield from run(_server(access))
        yield run(_operator(access))
        yield from run(_rights(access, spec))
    except NotAllowed as exc:
        yield Check("kubernetes", "FAIL", str(exc), "log in again, or ask for the right")
    except InfraError as exc:
        problem, _, remedy = str(exc).partition("; ")
        yield Check("kubernetes", "FAIL", problem, remedy or "see whether the API server is up")


async def _server(access: Access) -> list[Check]:
    from infra.kube import Kubernetes

    kube = await Kubernetes.connect(access)
    answer = await kube.request("GET", "/version/")
    found = [Check("kubernetes", "OK", f"{answer.json().get('gitVersion', 'no version')}")]
    if "date" in answer.headers:
        apart = time.time() - parsedate_to_datetime(answer.headers["date"]).timestamp()
        found.append(clock("clock of kubernetes", 0.0 if abs(apart) < 1 else apart, "the API server's"))
    return found


async def _operator(access: Access) -> Check:
    from infra.kube import Kubernetes
    from infra.preflight import INSTALL, find_operator

    kube = await Kubernetes.connect(access)
    if await kube.get("/apis/ray.io/v1") is None:
        return Check("kuberay", "FAIL", "not installed: Kubernetes has no RayCluster", INSTALL)
    operator = await find_operator(kube)
    if operator.version is None:
        remedy = "it may be that these credentials do not see its Deployment; what a cluster asks of it is not checked then"
        return Check("kuberay", "WARN", "its definitions are there, its operator is not found", remedy)
    gates = ", ".join(sorted(operator.gates or ())) or "none"
    found = f"{operator.version}, feature gates turned on: {gates}"
    if operator.version.split(".")[:2] != TESTED.split(".")[:2]:
        return Check("kuberay", "WARN", found, f"Infill is tested with {TESTED}; docs/clusters.md says what older ones lack")
    return Check("kuberay", "OK", found)


async def _rights(access: Access, spec: KubeRayClusterSpec | None) -> list[Check]:
    """Those that clusters of stacks need, and the further ones of on-demand clusters."""
    from infra import preflight
    from runner.provision import objects

    namespace = spec.namespace if spec else "default"
    usual = "bind them to a Role that allows it, such as infra.RunnerAccess makes, or name a cluster of a namespace where they may"
    further = "without them clusters come from a stack (`pulumi up`) only; a Role that allows them, for `--cluster NAME`"
    return [
        await _allowed("rights", access, preflight.RIGHTS, namespace, "FAIL" if spec else "WARN", usual),
        await _allowed("rights for on-demand clusters", access, objects.RIGHTS, namespace, "WARN", further),
    ]


async def _allowed(
    name: str, access: Access, rights: Sequence[tuple[str, str]], namespace: str, otherwise: Status, remedy: str
) -> Check:
    from infra.kube import Kubernetes

    kube = await Kubernetes.connect(access)
    allowed = await asyncio.gather(*[kube.may(verb, resource, namespace) for verb, resource in rights])
    missing = [f"{verb} {resource.rpartition(':')[2]}" for (verb, resource), may in zip(rights, allowed, strict=True) if not may]
    if missing:
        return Check(name, otherwise, f"in namespace {namespace} these credentials may not {', '.join(missing)}", remedy)
    return Check(name, "OK", f"all {len(rights)} in namespace {namespace}")
