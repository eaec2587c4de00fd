"""Reads of Kubernetes, for what Pulumi's provider does not tell: why pods do not start, what runs on a cluster, who may do what."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from infra.errors import BadSpec, InfraError, NotAllowed
from infra.parts import K8sConfigMethod
from infra.spec import KubeRayClusterSpec

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

IN_CLUSTER_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
REQUEST_TIMEOUT = 30.0


@dataclass(frozen=True)
class Access:
    """How to reach one Kubernetes.

    Attributes:
        kubeconfig: path, or several joined as KUBECONFIG joins them; None within a cluster.
        context: context in it, None for its current one.
    """

    kubeconfig: str | None
    context: str | None = None

    def __str__(self) -> str:
        where = self.kubeconfig or "the service account of this pod"
        return f"{where}, context {self.context}" if self.context else where


def access_of(spec: KubeRayClusterSpec) -> Access:
    """The access that a spec's config method names.

    Raises:
        BadSpec: the kubeconfig or its context is missing, or this is no pod.
        InfraError: AWS refuses.
    """
    if spec.config_method is K8sConfigMethod.IN_CLUSTER:
        if not os.path.isdir(IN_CLUSTER_FOLDER):
            raise BadSpec("config_method: IN_CLUSTER works in a pod with a service account, and this is none; use LOCAL")
        return Access(None)
    if spec.config_method is K8sConfigMethod.EKS_AUTH:
        return _eks_access(spec)
    return local_access(spec.kubeconfig, spec.context)


def local_access(kubeconfig: str | None = None, context: str | None = None) -> Access:
    """A kubeconfig: the one given, those that KUBECONFIG joins, or ~/.kube/config.

    Raises:
        BadSpec: it, or the context, is missing.
    """
    paths = [kubeconfig] if kubeconfig else (os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep)
    found = [str(Path(path).expanduser().absolute()) for path in paths if path and Path(path).expanduser().is_file()]
    if not found:
        source = "kubeconfig" if kubeconfig else "KUBECONFIG" if os.environ.get("KUBECONFIG") else "the default"
        raise BadSpec(
            f"no kubeconfig at {os.pathsep.join(paths)} ({source}); set KUBECONFIG, or kubeconfig: PATH in the cluster's spec"
        )
    known, current = _contexts(found)
    if context and context not in known:
        raise BadSpec(f"context: {context!r} is not in {os.pathsep.join(found)}; it has {', '.join(known) or 'none'}")
    if not context and current not in known:
        raise BadSpec(
            f"{os.pathsep.join(found)} has no current context; name one with context: ({', '.join(known) or 'it has none'})"
        )
    return Access(os.pathsep.join(found), context)


def server_of(access: Access) -> str | None:
    """Address of the API server that a kubeconfig's context leads to; None within a cluster."""
    if access.kubeconfig is None:
        return None
    import yaml

    configs = [yaml.safe_load(Path(path).read_text()) for path in access.kubeconfig.split(os.pathsep)]
    current = access.context or next((config.get("current-context") for config in configs if config.get("current-context")), None)
    for config in configs:
        for context in config.get("contexts") or []:
            if context.get("name") == current:
                wanted = context.get("context", {}).get("cluster")
                servers = [
                    item["cluster"].get("server") for one in configs for item in one.get("clusters") or [] if item["name"] == wanted
                ]
                return servers[0] if servers else None
    return None


def _contexts(paths: list[str]) -> tuple[list[str], str | None]:
    import yaml

    names: list[str] = []
    current = None
    for path in paths:
        try:
            config = yaml.safe_load(Path(path).read_text())
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as exc:
            raise BadSpec(f"cannot read the kubeconfig {path}: {' '.join(str(exc).split())}") from None
        if not isinstance(config, Mapping):
            raise BadSpec(f"{path} is no kubeconfig")
        names += [str(context.get("name")) for context in config.get("contexts") or []]
        current = current or config.get("current-context")
    return names, current


def _eks_access(spec: KubeRayClusterSpec) -> Access:
    from infra.eks import eks_kubeconfig, write_kubeconfig

    aws = spec.aws_config
    if aws is None or not aws.cluster_name:
        raise BadSpec("aws_config.cluster_name: EKS_AUTH needs the name of the EKS cluster")
    return Access(str(write_kubeconfig(eks_kubeconfig(aws.region, aws.cluster_name, aws.role))))


class Kubernetes:
    """One API server. Its coroutines run in `run`'s loop.

    All methods raise `NotAllowed` where the API server forbids, `InfraError` where it cannot be reached or fails.
    """

    def __init__(self, access: Access, api: Any) -> None:
        self.access = access
        self._api = api

    @classmethod
    async def connect(cls, access: Access) -> Kubernetes:
        """Connect, or the connection made before."""
        known = _clients.get(access)
        if known is None:
            known = _clients[access] = cls(access, await _open(access))
        return known

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any request; a status of 404, 409 and 422 is the caller's to read."""
        response = await self._send(method, path, lambda _: True, options)
        if response.status_code == 403:
            raise NotAllowed(f"Kubernetes ({self.access}): {_message(response)}")
        if response.is_error and response.status_code not in (404, 409, 422):
            raise InfraError(f"Kubernetes ({self.access}) answered {response.status_code} to {method} {path}: {_message(response)}")
        return response

    async def forward(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request that the API server passes on to a Service or a pod, and its answer, whatever the status."""
        response = await self._send(method, path, _is_refusal, options)
        if _is_refusal(response):
            raise NotAllowed(f"Kubernetes ({self.access}): {_message(response)}")
        return response

    async def _send(
        self, method: str, path: str, has_expired: Callable[[httpx.Response], bool], options: dict[str, Any]
    ) -> httpx.Response:
        import httpx
        import kr8s

        base, _, last = path.rpartition("/")
        call = {"method": method, "version": "", "base": base, "url": last, "timeout": REQUEST_TIMEOUT, **options}
        response: httpx.Response
        try:
            async with self._api.call_api(raise_for_status=False, **call) as response:
                pass
            if response.status_code == 401 and has_expired(response):  # an exec credential: kr8s renews it where it may raise
                async with self._api.call_api(**call) as response:
                    pass
        except (kr8s.ServerError, RuntimeError) as exc:
            raise _not_accepted(self.access, exc) from None
        except (httpx.HTTPError, OSError, kr8s.APITimeoutError) as exc:
            raise unreachable(self.access, exc) from None
        return response

    async def get(self, path: str) -> dict[str, Any] | None:
        """An object, None where there is none."""
        response = await self.request("GET", path)
        return None if response.status_code == 404 else dict(response.json())

    async def list(self, path: str, **params: str) -> list[dict[str, Any]]:
        """The items of a collection, e.g. with ``labelSelector``; empty where there is no such collection."""
        response = await self.request("GET", path, params=params)
        return [] if response.status_code == 404 else list(response.json().get("items", []))

    async def delete(self, path: str) -> None:
        """Delete an object; one that is gone is no error."""
        await self.request("DELETE", path)

    async def may(self, verb: str, resource: str, namespace: str | None, *, name: str | None = None) -> bool:
        """Whether these credentials may do `verb` on ``[group/]resource[/subresource]``."""
        group, _, rest = resource.rpartition(":")
        kind, _, subresource = rest.partition("/")
        attributes = {
            "verb": verb,
            "group": group,
            "resource": kind,
            "subresource": subresource,
            "namespace": namespace,
            "name": name,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        response = await self.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json=review)
        return bool(response.json().get("status", {}).get("allowed"))


_clients: dict[Access, Kubernetes] = {}


async def _open(access: Access) -> Any:
    import httpx
    import kr8s.asyncio

    try:
        # It takes context and namespace of the first file only, and fails where that has none.
        opening = kr8s.asyncio.api(
            kubeconfig=access.kubeconfig or "/nonexistent",
            serviceaccount=IN_CLUSTER_FOLDER if access.kubeconfig is None else "",
            context=access.context or (_contexts(access.kubeconfig.split(os.pathsep))[1] if access.kubeconfig else None),
            namespace="default",
        )
        return await asyncio.wait_for(opening, REQUEST_TIMEOUT)
    except (kr8s.ServerError, RuntimeError) as exc:
        raise _not_accepted(access, exc) from None
    except (httpx.HTTPError, OSError, kr8s.APITimeoutError) as exc:
        raise unreachable(access, exc) from None
    except (ValueError, KeyError) as exc:
        raise BadSpec(f"the kubeconfig {access} cannot be used: {exc}") from None


def _not_accepted(access: Access, exc: Exception) -> InfraError:
    """Of an answer that kr8s does not take, or of a kubeconfig's command for credentials that failed (its RuntimeError)."""
    response: httpx.Response | None = getattr(exc, "response", None)
    if response is not None and response.is_server_error:
        return InfraError(f"Kubernetes ({access}) answered {response.status_code}: {_message(response)}")
    return NotAllowed(f"Kubernetes ({access}) does not accept these credentials: {' '.join(str(exc).split())}")


def unreachable(access: Access, exc: BaseException) -> InfraError:
    reason = str(exc) or type(exc).__name__
    return InfraError(f"cannot reach Kubernetes ({access}): {reason}; is it up, and is this the right kubeconfig and context?")


def _is_refusal(response: httpx.Response) -> bool:
    """Whether it is the API server that refuses, which answers in JSON, and not what it passed the request on to: Ray's is text."""
    return response.status_code in (401, 403) and "json" in response.headers.get("content-type", "")


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:300] or response.reason_phrase


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """A loop of our own: Pulumi runs programs within its own, which must not be blocked."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="infra-kubernetes", daemon=True).start()
    return loop


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that uses `Kubernetes`, and wait for it."""
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()


async def run_async(work: Coroutine[Any, Any, T]) -> T:
    """The same from another loop, without blocking it."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, _loop()))
