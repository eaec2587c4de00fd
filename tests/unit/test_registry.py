"""Digests of images, from a registry that speaks the protocol over HTTP."""

from __future__ import annotations

import hashlib
import socket

import pytest

from infra.errors import BadSpec, InfraError, NotAllowed
from infra.registry import _place, pinned
from tests.unit.image_tools import DIGEST, MANIFEST, TOKEN, registry


def test_the_digest_of_a_tag_with_the_token_that_the_registry_asks_for() -> None:
    with registry("team/ray:2.60.0-py311") as known:
        assert pinned(f"{known.host}/team/ray:2.60.0-py311") == f"{known.host}/team/ray:2.60.0-py311@{DIGEST}"
        path = "/v2/team/ray/manifests/2.60.0-py311"
        assert known.asked == [("HEAD", path, None), ("HEAD", path, f"Bearer {TOKEN}")]


def test_no_tag_is_latest() -> None:
    with registry("team/ray:latest") as known:
        assert pinned(f"{known.host}/team/ray") == f"{known.host}/team/ray@{DIGEST}"


def test_an_image_with_a_digest_is_asked_for_nowhere() -> None:
    image = f"registry.invalid/team/ray:2@sha256:{'0' * 64}"
    assert pinned(image) == image


def test_a_registry_that_gives_no_digest_gives_the_manifest() -> None:
    with registry("team/ray:1") as known:
        known.says_digest = None
        assert pinned(f"{known.host}/team/ray:1").endswith(f"@sha256:{hashlib.sha256(MANIFEST).hexdigest()}")
        assert [method for method, _, _ in known.asked] == ["HEAD", "HEAD", "GET", "GET"]


def test_the_token_stays_with_its_registry() -> None:
    with registry("team/ray:1") as known, registry("team/ray:1") as other:
        known.elsewhere, other.open_to_all = other.host, True
        assert pinned(f"{known.host}/team/ray:1").endswith(DIGEST)
        assert [authorization for _, _, authorization in other.asked] == [None]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"tags": set()}, BadSpec, "has no image {host}/team/ray:1; check its name and tag"),
        ({"no_token": True}, NotAllowed, "gives no token to pull {host}/team/ray:1 (403)"),
        ({"refuses": 403}, NotAllowed, "does not give {host}/team/ray:1 to everybody (403)"),
        ({"refuses": 401}, NotAllowed, "does not give {host}/team/ray:1 to everybody (401)"),
        ({"refuses": 500}, InfraError, "{host} answered 500 when asked for {host}/team/ray:1"),
        ({"refuses": 429}, InfraError, "{host} answered 429 when asked for {host}/team/ray:1"),
        ({"says_digest": "md5:1"}, InfraError, "gives 'md5:1' as the digest of {host}/team/ray:1, which is none"),
    ],
)
def test_a_registry_that_gives_none(change: dict[str, object], error: type[InfraError], says: str) -> None:
    with registry("team/ray:1") as known:
        for name, value in change.items():
            setattr(known, name, value)
        with pytest.raises(InfraError) as caught:
            pinned(f"{known.host}/team/ray:1")
        assert says.format(host=known.host) in str(caught.value)
        assert type(caught.value) is error


def test_a_registry_that_cannot_be_reached() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InfraError, match=rf"cannot reach {host} for the digest of {host}/ray:1: .*refused.*IMAGE@sha256"):
            pinned(f"{host}/ray:1")


def test_what_is_no_image() -> None:
    with pytest.raises(BadSpec, match="'Ray:1' is no image"):
        pinned("Ray:1")


@pytest.mark.parametrize(
    ("image", "url"),
    [
        ("rayproject/ray:2.60.0", "https://registry-1.docker.io/v2/rayproject/ray/manifests/2.60.0"),
        ("ubuntu", "https://registry-1.docker.io/v2/library/ubuntu/manifests/latest"),
        ("docker.io/rayproject/ray:1", "https://registry-1.docker.io/v2/rayproject/ray/manifests/1"),
        ("ghcr.io/a/b/c:1", "https://ghcr.io/v2/a/b/c/manifests/1"),
        ("localhost:5000/ray:1", "http://localhost:5000/v2/ray/manifests/1"),
        ("registry.example:5000/ray", "https://registry.example:5000/v2/ray/manifests/latest"),
    ],
)
def test_where_an_image_is(image: str, url: str) -> None:
    assert _place(image).url == url
