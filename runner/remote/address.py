"""From a cluster's spec or its address to its dashboard, which is reached in whichever way works from here.

Within the Kubernetes that the cluster is in: its head's Service, by DNS. From elsewhere: the API server's proxy to that Service,
with whatever credentials the kubeconfig has, a client's certificate as well. An address is asked directly.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runner.errors import BadInput, RunnerError
from runner.remote.dashboard import PATIENCE_SECONDS, ClusterUnreachable, Dashboard, Dropped, NotRay

if TYPE_CHECKING:
    import httpx

    from infra.kube import Access
    from infra.spec import ClusterSpec, KubeRayClusterSpec

CONNECT_TIMEOUT = 5.0
PAUSE_SECONDS = 0.2


class NoCluster(RunnerError):
    """Nothing runs that a spec describes."""


def open_dashboard(
    target: ClusterSpec | str,
    *,
    name: str | None = None,
    access: Access | None = None,
    wait: float = 0.0,
    patience: float = PATIENCE_SECONDS,
) -> Dashboard:
    """The dashboard of a cluster; it has answered once.

    Args:
        target: the spec of a cluster, or the address of a dashboard, ``http(s)://host:8265``; a path in front of ``/api`` may
            follow.
        name: of the RayCluster. Default: the newest of the spec's.
        access: to the Kubernetes that it is in. Default: what the spec says, as far as this machine has it.
        wait: seconds to wait for a dashboard that does not answer yet.
        patience: of the requests afterwards; see `Dashboard`.

    Raises:
        BadInput: no address of a dashboard.
        NotRay: something else answers.
        NoCluster: the spec's cluster does not run.
        ClusterUnreachable: nothing answers.
        TokenRefused: Ray asks for a token.
        infra.NotAllowed: Kubernetes refuses; with the right that is missing.
        infra.InfraError: Kubernetes cannot be reached.
    """
    from infra.errors import InfraError

    try:
        ways = _ways(target, name, access, patience)
    except ImportError as exc:
        raise InfraError(f"the dashboard cannot be asked: {exc}; pip install 'infill[kubernetes]'") from exc
    found = None
    try:
        found = _first_that_answers(ways, wait)
    finally:
        for way in ways:
            if way is not found:
                way.close()
    return found


def _ways(target: ClusterSpec | str, name: str | None, access: Access | None, patience: float) -> list[Dashboard]:
    from infra.spec import ExternalClusterSpec, KubeRayClusterSpec

    if isinstance(target, ExternalClusterSpec):
        target = target.address
    if isinstance(target, str):
        return [Dashboard(Direct(target), OwnToken(), patience=patience)]
    if isinstance(target, KubeRayClusterSpec):
        return _ways_to_service(target, name, access, patience)
    raise BadInput(f"{target!r} has no dashboard that is reached by an address; it is of kind {getattr(target, 'kind', '?')}")


def _first_that_answers(ways: list[Dashboard], wait: float) -> Dashboard:
    """The first of several ways that leads there; tried in turn until one does."""
    from infra.errors import NotAllowed

    end = time.monotonic() + wait
    left = list(ways)
    refused: list[NotAllowed] = []
    while True:
        problems: list[RunnerError] = []
        for way in list(left):
            try:
                way.version(patience=0.0)
            except (ClusterUnreachable, NotRay) as exc:
                problems.append(exc)
            except NotAllowed as exc:  # a right does not come by waiting
                refused.append(exc)
                left.remove(way)
            else:
                return way
        if not left and len(refused) == len(ways):
            raise refused[0]
        if time.monotonic() >= end:
            if len(ways) == 1:
                raise problems[0]
            raise ClusterUnreachable("\n".join(map(str, [*problems, *refused])))
        time.sleep(PAUSE_SECONDS)


def _ways_to_service(spec: KubeRayClusterSpec, name: str | None, access: Access | None, patience: float) -> list[Dashboard]:
    from infra.body import head_service_name
    from infra.kube import Kubernetes, run
    from infra.live import clusters_path, find_all, token_secret_name
    from runner.provision.reach import access_here

    access = access or access_here(spec)
    kube = run(Kubernetes.connect(access))
    if name is None:
        found = run(find_all(kube, spec))
        body = found[0].body if found else None
    else:
        body = run(kube.get(f"{clusters_path(spec.namespace)}/{name}"))
    if body is None:
        raise NoCluster(
            f"no RayCluster {name or f'of cluster {spec.name!r}'} in namespace {spec.namespace} ({access}); is it provisioned, "
            "and is this the right kubeconfig and context?"
        )
    name = str(body["metadata"]["name"])
    service = body.get("status", {}).get("head", {}).get("serviceName") or head_service_name(name)
    token = SecretToken(kube, spec.namespace, token_secret_name(body))
    proxy = Dashboard(ServiceProxy(kube, spec.namespace, service), token, patience=patience)
    if access.kubeconfig is not None:
        return [proxy]
    return [Dashboard(Direct(f"http://{service}.{spec.namespace}.svc:{_port()}"), token, patience=patience), proxy]


def _port() -> int:
    from infra.body import PORTS

    return PORTS["dashboard"]


class Direct:
    """Requests to an address. httpx takes proxies and ``SSL_CERT_FILE`` from the environment.

    Raises:
        BadInput: the address is none of a dashboard.
    """

    header = "Authorization"

    def __init__(self, address: str) -> None:
        import httpx

        self.where = _checked(address)
        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT)
        self._client = httpx.Client(base_url=self.where, timeout=timeout, follow_redirects=True)

    def send(self, method: str, path: str, headers: dict[str, str], options: dict[str, Any]) -> httpx.Response:
        import httpx

        timeout = httpx.Timeout(options["timeout"], connect=min(CONNECT_TIMEOUT, options["timeout"]))
        try:
            return self._client.request(method, path, headers=headers, **{**options, "timeout": timeout})
        except (httpx.TransportError, httpx.TooManyRedirects, OSError) as exc:
            raise Dropped(_reason(exc)) from None

    def close(self) -> None:
        self._client.close()


class ServiceProxy:
    """Requests that Kubernetes' API server passes on to a head's Service. Connections and credentials are renewed by themselves.

    ``Authorization`` is for the API server itself, so Ray's token goes in a header of its own.
    """

    header = "X-Ray-Authorization"

    def __init__(self, kube: Any, namespace: str, service: str) -> None:
        self._kube = kube
        self._path = f"/api/v1/namespaces/{namespace}/services/http:{service}:{_port()}/proxy"
        self.where = f"Service {service} of namespace {namespace}, by the proxy of Kubernetes ({kube.access})"

    def send(self, method: str, path: str, headers: dict[str, str], options: dict[str, Any]) -> httpx.Response:
        from infra.errors import InfraError, NotAllowed
        from infra.kube import run

        try:
            response: httpx.Response = run(self._kube.forward(method, f"{self._path}{path}", headers=headers, **options))
        except NotAllowed as exc:
            verb = {"GET": "get", "POST": "create", "PUT": "update", "DELETE": "delete"}[method]
            raise NotAllowed(f"{exc}; reaching the dashboard takes the right to {verb} services/proxy there") from None
        except InfraError as exc:
            raise Dropped(str(exc)) from None
        if response.status_code == 404 and _is_status(response):
            raise Dropped(str(response.json().get("message")))
        return response

    def close(self) -> None:
        """The connection to Kubernetes is shared."""


class OwnToken:
    """Ray's token as Ray itself takes it on this machine: RAY_AUTH_TOKEN, the file of RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token."""

    origin = (
        "RAY_AUTH_TOKEN, the file of RAY_AUTH_TOKEN_PATH and ~/.ray/auth_token are looked at, in that order; "
        "`ray get-auth-token` on the cluster's head prints the one that it wants"
    )

    def read(self) -> str | None:
        if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
            return token
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
        try:
            return path.read_text().strip() or None
        except (OSError, UnicodeDecodeError):
            return None


class SecretToken:
    """Ray's token in the Secret that KubeRay made; this machine's own where the Secret may not be read."""

    def __init__(self, kube: Any, namespace: str, secret: str) -> None:
        self._kube, self._namespace, self._secret = kube, namespace, secret
        self.origin = f"it is auth_token of Secret {secret} of namespace {namespace}, which KubeRay makes"

    def read(self) -> str | None:
        from infra.errors import NotAllowed
        from infra.kube import run

        try:
            secret = run(self._kube.get(f"/api/v1/namespaces/{self._namespace}/secrets/{self._secret}"))
        except NotAllowed as exc:
            own = OwnToken().read()
            if own is None:
                raise NotAllowed(
                    f"{exc}; Ray's token is in that Secret: it takes the right to get it, or RAY_AUTH_TOKEN set to the token"
                ) from None
            return own
        return base64.b64decode((secret or {}).get("data", {}).get("auth_token", "")).decode().strip() or None


def _checked(address: str) -> str:
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, or too high
        good, parts = False, urlsplit("")
    if parts.scheme == "ray":
        raise BadInput(f"{address!r} is Ray Client's address; jobs go to the dashboard, http://{parts.hostname}:8265")
    if not good or parts.query or parts.fragment:
        raise BadInput(f"{address!r} is no address of a dashboard; write http://host:8265, or https://")
    if parts.username or parts.password:
        raise BadInput("the address has credentials in plain sight; Ray's token goes in RAY_AUTH_TOKEN")
    return address.rstrip("/")


def _is_status(response: httpx.Response) -> bool:
    """Whether it is the API server's own answer."""
    try:
        return bool(response.json()["kind"] == "Status")
    except (ValueError, KeyError, TypeError):
        return False


def _is_of_names(exc: BaseException | None) -> bool:
    return exc is not None and (isinstance(exc, socket.gaierror) or _is_of_names(exc.__cause__ or exc.__context__))


def _reason(exc: BaseException) -> str:
    """Why there was no answer, and what to do about it."""
    import httpx

    text = " ".join(str(exc).split()) or type(exc).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"its certificate is not trusted ({text}); set SSL_CERT_FILE to the file of the authority that signed it"
    if isinstance(exc, ssl.SSLError) or "SSL" in text:
        return f"TLS fails ({text}); is it http:// there?"
    if isinstance(exc, httpx.ConnectTimeout):
        return f"nothing answers within {CONNECT_TIMEOUT:g} s; is the address right, and open to this machine?"
    if isinstance(exc, httpx.ConnectError) and _is_of_names(exc):
        return f"there is no such host ({text}); is the address right?"
    if isinstance(exc, httpx.ConnectError):
        return f"nothing listens there ({text}); is the address right, and is Ray up?"
    if isinstance(exc, httpx.RemoteProtocolError | httpx.ReadError):
        return f"the connection ended ({text}); the dashboard's port is 8265 (10001 is Ray Client's, 6379 GCS's)"
    return text
