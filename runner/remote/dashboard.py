"""`Dashboard`: requests to a Ray cluster's dashboard over the way that leads there, with its token, and again after a drop."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol

from runner.errors import BadInput, RunnerError
from runner.packages.package import this_python

if TYPE_CHECKING:
    import httpx

REQUEST_TIMEOUT = 30.0
PATIENCE_SECONDS = 30.0
"""How long a request is tried again where nothing answers: a head that KubeRay makes anew, a tunnel that restarts."""

_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
_NOT_NOW = (429, 502, 503, 504)
_REFUSALS = {401: "Unauthorized: Missing authentication token", 403: "Forbidden: Invalid authentication token"}


class ClusterUnreachable(RunnerError):
    """No dashboard answers, or it does not answer any more."""


class NotRay(BadInput):
    """Something answers at an address, and it is not Ray's dashboard."""


class TokenRefused(RunnerError):
    """Ray asks for a token, and there is none here, or another one."""


class OtherRay(BadInput):
    """The cluster runs another version of Ray than this process has."""


class OtherPython(BadInput):
    """The cluster runs another Python than this process."""


class Dropped(Exception):
    """A request that got no answer; its text is the reason."""


@dataclass(frozen=True)
class RayVersion:
    """What a dashboard says of itself.

    Attributes:
        ray_version: such as ``2.60.0``.
        version: of the Jobs API.
        session_name: changes when the head starts anew.
    """

    ray_version: str
    version: str
    ray_commit: str
    session_name: str


class Token(Protocol):
    """Where Ray's token comes from."""

    origin: str
    """In words, for a message: where it was looked for."""

    def read(self) -> str | None:
        """The token as it is now, None where there is none."""


class Way(Protocol):
    """How requests get to a dashboard."""

    where: str
    """In words: what is asked, and by way of what."""
    header: str
    """Name of the header that Ray's token goes in."""

    def send(self, method: str, path: str, headers: dict[str, str], options: dict[str, Any]) -> httpx.Response:
        """One request, whatever the status of its answer.

        Raises:
            Dropped: no answer.
            infra.InfraError: a right or a credential is missing.
        """

    def close(self) -> None: ...


class Dashboard:
    """A connection to the dashboard of a Ray cluster. Threads may share it.

    Ray's token is sent once Ray has asked for one, and read anew when Ray refuses it.

    Args:
        patience: seconds for which a request that gets no answer is made again.

    All requests raise `ClusterUnreachable`, `TokenRefused`, or `infra.NotAllowed` with the right that is missing.
    """

    def __init__(self, way: Way, token: Token, *, patience: float = PATIENCE_SECONDS) -> None:
        self._way = way
        self._source = token
        self._token: str | None = None
        self.patience = patience

    @property
    def where(self) -> str:
        """What is asked, and by way of what, in words."""
        return self._way.where

    def request(self, method: str, path: str, *, patience: float | None = None, **options: Any) -> httpx.Response:
        """A request, whatever the status of its answer; made again while nothing answers, so it must bear being made twice.

        Args:
            path: begins with ``/api``.
            patience: in place of the connection's.
            options: of httpx: ``json``, ``content``, ``params``, ``timeout`` (default 30 s).
        """
        end = time.monotonic() + (self.patience if patience is None else patience)
        tries = 0
        while True:
            try:
                return self._authorized(method, path, options)
            except Dropped as exc:
                pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
                if time.monotonic() + pause > end:
                    raise ClusterUnreachable(f"{self.where}: {exc}") from None
            time.sleep(pause)
            tries += 1

    def version(self, *, patience: float | None = None) -> RayVersion:
        """What runs there.

        Raises:
            NotRay: something else answers.
        """
        response = self.request("GET", "/api/version", patience=patience)
        try:
            found = response.json() if response.is_success else {}
            return RayVersion(*(str(found[name]) for name in ("ray_version", "version", "ray_commit", "session_name")))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            said = f"{response.status_code} {response.headers.get('content-type', '')}".strip()
            raise NotRay(
                f"{self.where} answers, and not as Ray's dashboard does (GET /api/version: {said}); give the dashboard's address, "
                "http://host:8265 unless the cluster says otherwise"
            ) from None

    def check_ray(self, own: str | None = None) -> RayVersion:
        """What runs there, where it is the Ray of this process.

        Args:
            own: the version to be had; default: the one that is installed here.

        Raises:
            OtherRay: it is another version.
        """
        found, wanted = self.version(), own or metadata.version("ray")
        if found.ray_version != wanted:
            raise OtherRay(
                f"{self.where} runs Ray {found.ray_version}, and Ray {wanted} is installed here; functions and data pass between "
                f"equal versions only: pip install 'ray=={found.ray_version}', or give the cluster an image of Ray {wanted}"
            )
        return found

    def check_python(self, own: str | None = None) -> None:
        """Refuse a head whose Python is another than this process's: functions do not pass between minor versions.

        Args:
            own: the version to be had, ``3.11``; default: the one that runs here.

        Raises:
            OtherPython: it is another minor version. Where the dashboard does not tell, the driver of a job refuses it.
        """
        response = self.request("GET", "/api/v0/cluster_metadata")
        try:
            found = str(response.json()["data"]["pythonVersion"])
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            return
        wanted, there = own or this_python(), ".".join(found.split(".")[:2])
        if there != wanted:
            raise OtherPython(
                f"{self.where} runs Python {found}, and this is Python {wanted}: functions do not pass between minor versions; "
                f'give the cluster images of {wanted} (python_version: "{wanted}"), or run this with Python {there}'
            )

    def close(self) -> None:
        """Close what is open. Requests afterwards fail."""
        self._way.close()

    def __repr__(self) -> str:
        return f"Dashboard({self.where!r})"

    def _authorized(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        used = self._token
        response = self._send(method, path, used, options)
        if not _is_refused(response):
            return response
        fresh = self._source.read()
        if fresh is None:
            raise TokenRefused(f"{self.where}: Ray asks for a token, and there is none: {self._source.origin}")
        if fresh != used:
            response = self._send(method, path, fresh, options)
            self._token = fresh
        if _is_refused(response):
            raise TokenRefused(f"{self.where}: Ray refuses the token that is here: {self._source.origin}")
        return response

    def _send(self, method: str, path: str, token: str | None, options: dict[str, Any]) -> httpx.Response:
        headers = {self._way.header: f"Bearer {token}"} if token else {}
        response = self._way.send(method, path, headers, {"timeout": REQUEST_TIMEOUT, **options})
        if response.status_code in _NOT_NOW:
            raise Dropped(f"no dashboard behind it answers now ({response.status_code}: {message_of(response)})")
        return response


def message_of(response: httpx.Response) -> str:
    """What an answer says went wrong, on one line: the last line of a traceback, Kubernetes' message, or the text."""
    try:
        return " ".join(str(response.json()["message"]).split())
    except (ValueError, KeyError, TypeError):
        lines = [line for line in response.text.splitlines() if any(map(str.isalnum, line))]
        text = lines[-1] if lines and lines[0].startswith("Traceback") else " ".join(lines)
        return " ".join(text.split())[:500] or response.reason_phrase


def _is_refused(response: httpx.Response) -> bool:
    expected = _REFUSALS.get(response.status_code)
    return expected is not None and response.text.startswith(expected)
