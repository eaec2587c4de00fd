"""Digests of images, asked of their registry by its HTTP API: https://github.com/opencontainers/distribution-spec."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from urllib.parse import urlencode, urlsplit

from infra import kubernetes_names as names
from infra.errors import BadSpec, InfraError, NotAllowed

TIMEOUT_SECONDS = 30.0
_DOCKER_HUB = ("docker.io", "index.docker.io")
_LARGEST_MANIFEST = 4 * 2**20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


@dataclass(frozen=True)
class _Place:
    """Where a registry has an image."""

    host: str
    path: str
    tag: str

    @property
    def url(self) -> str:
        # What runs on this machine seldom has a certificate; docker and containerd take it over plain HTTP too.
        local = re.fullmatch(r"localhost|127\.[0-9.]+", self.host.partition(":")[0])
        return f"{'http' if local else 'https'}://{self.host}/v2/{self.path}/manifests/{self.tag}"


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Message
    body: bytes


def pinned(image: str) -> str:
    """An image with the digest that its tag has now: ``rayproject/ray:2.60.0-py311@sha256:...``. One with a digest stays.

    Nobody logs in: the image has to be one that everybody may pull.

    Raises:
        BadSpec: no image, or its registry has none of that tag.
        NotAllowed: its registry does not give it to everybody.
        InfraError: its registry cannot be reached, or answers nonsense.
    """
    if "@" in _checked(image):
        return image
    place = _place(image)
    answer = _manifest(image, place, "HEAD")
    digest = answer.headers.get("Docker-Content-Digest")
    if digest is None:  # an answer to HEAD may lack it; it is the hash of the manifest
        digest = f"sha256:{hashlib.sha256(_manifest(image, place, 'GET').body).hexdigest()}"
    if not _DIGEST.fullmatch(digest):
        raise InfraError(f"{place.host} gives {digest!r} as the digest of {image}, which is none; give IMAGE@sha256:... yourself")
    return f"{image}@{digest}"


def _checked(image: str) -> str:
    try:
        return names.image(image)
    except ValueError as exc:
        raise BadSpec(str(exc)) from None


def _place(image: str) -> _Place:
    path, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        path, tag = image, "latest"
    host, slash, rest = path.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = _DOCKER_HUB[0], path
    if host in _DOCKER_HUB:
        return _Place("registry-1.docker.io", rest if "/" in rest else f"library/{rest}", tag)
    return _Place(host, rest, tag)


def _manifest(image: str, place: _Place, method: str) -> _Answer:
    """The answer to a request for an image's manifest, with the token that the registry asks for."""
    answer = _ask(image, place.url, method)
    if answer.status == 401 and (challenge := answer.headers.get("WWW-Authenticate", "")).lower().startswith("bearer "):
        answer = _ask(image, place.url, method, _token(image, place, challenge))
    if answer.status == 404:
        raise BadSpec(f"{place.host} has no image {image}; check its name and tag")
    if answer.status in (401, 403):
        raise NotAllowed(f"{place.host} does not give {image} to everybody ({answer.status}); give IMAGE@sha256:... yourself")
    if answer.status != 200:
        raise InfraError(f"{place.host} answered {answer.status} when asked for {image}; try again, or give IMAGE@sha256:...")
    return answer


def _token(image: str, place: _Place, challenge: str) -> str:
    """A token for whoever asks: https://distribution.github.io/distribution/spec/auth/token/"""
    wanted = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = wanted.pop("realm", "")
    if urlsplit(realm).scheme not in ("http", "https"):
        raise InfraError(f"{place.host} asks for a token of {realm!r}, which is no address; give IMAGE@sha256:... yourself")
    wanted = {"scope": f"repository:{place.path}:pull", **{key: wanted[key] for key in ("service", "scope") if key in wanted}}
    answer = _ask(image, f"{realm}{'&' if '?' in realm else '?'}{urlencode(wanted)}", "GET")
    try:
        given = json.loads(answer.body) if answer.status == 200 else {}
        return str(given.get("token") or given["access_token"])
    except (ValueError, KeyError, AttributeError):
        raise NotAllowed(f"{realm} gives no token to pull {image} ({answer.status}); give IMAGE@sha256:... yourself") from None


def _ask(image: str, url: str, method: str, token: str | None = None) -> _Answer:
    request = urllib.request.Request(url, method=method, headers={"Accept": ", ".join(_MANIFESTS)})
    if token is not None:
        request.add_unredirected_header("Authorization", f"Bearer {token}")  # for the registry alone
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return _Answer(answer.status, answer.headers, answer.read(_LARGEST_MANIFEST))
    except urllib.error.HTTPError as exc:
        with exc:
            return _Answer(exc.code, exc.headers, b"")
    except (OSError, HTTPException) as exc:
        reason = getattr(exc, "reason", None) or exc
        raise InfraError(
            f"cannot reach {urlsplit(url).netloc} for the digest of {image}: {reason}; give IMAGE@sha256:..., or go on without one"
        ) from None
