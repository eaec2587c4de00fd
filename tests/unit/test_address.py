"""Addresses that are none, and the way through an API server that takes a client's certificate only."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.body import ray_cluster_body
from infra.errors import InfraError, NotAllowed
from infra.kube import Access
from infra.spec import KubeRayClusterSpec
from runner.errors import BadInput
from runner.remote.address import open_dashboard
from runner.remote.dashboard import ClusterUnreachable, NotRay, RayVersion
from tests.e2e.certificate import self_signed
from tests.e2e.forwarder import Forwarder
from tests.unit.fake_kubernetes import CREATED, FakeKubernetes, kubeconfig_of

SPEC = KubeRayClusterSpec(name="c", namespace="n", ray_version="2.60.0", token_authentication=False)
PROXIED = "/api/v1/namespaces/n/services/http:c-head-svc:8265/proxy/api/version"
VERSION = {"ray_version": "2.60.0", "version": "4", "ray_commit": "abc", "session_name": "session_1"}


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("host:8265", "'host:8265' is no address of a dashboard; write http://host:8265, or https://"),
        ("localhost", "is no address of a dashboard"),
        ("", "is no address of a dashboard"),
        ("http://", "is no address of a dashboard"),
        ("http://host:port", "is no address of a dashboard"),
        ("http://host:99999", "is no address of a dashboard"),
        ("http://host:8265/?token=abc", "is no address of a dashboard"),
        ("ftp://host:8265", "is no address of a dashboard"),
        ("ray://head:10001", "'ray://head:10001' is Ray Client's address; jobs go to the dashboard, http://head:8265"),
    ],
)
def test_what_is_no_address_is_refused(address: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_dashboard(address)
    assert words in str(caught.value)


def test_credentials_in_an_address_are_not_repeated() -> None:
    with pytest.raises(BadInput, match="credentials in plain sight") as caught:
        open_dashboard("https://ana:geheim@host:8265")
    assert "geheim" not in str(caught.value)


@contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """Something that says the same to everyone and hangs up; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(1 << 16)
                    client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_something_else_that_answers_is_told_apart() -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    with saying(page) as address, pytest.raises(NotRay, match=rf"^{address} answers, and not as .*: 200 text/html\); give the"):
        open_dashboard(address)
    other = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{"version": "1"'
    with saying(other[:-1] + b"}") as address, pytest.raises(NotRay):
        open_dashboard(address)
    with saying(b"-ERR unknown command\r\n") as address, pytest.raises(ClusterUnreachable, match="10001 is Ray Client's"):
        open_dashboard(address)
    waiting = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwait"
    with saying(waiting) as address, pytest.raises(ClusterUnreachable, match=r"no dashboard behind it answers now \(503: wait\)"):
        open_dashboard(address)


def mutual_tls(fake: FakeKubernetes, folder: Path) -> tuple[Forwarder, Path]:
    """The server behind TLS that asks for a client's certificate; and the certificate that it takes."""
    context, authority = self_signed("127.0.0.1", folder)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority)
    return Forwarder("127.0.0.1", int(fake.url.rpartition(":")[2]), context), authority


def test_a_client_s_certificate_takes_the_proxy_as_a_token_does(fake: FakeKubernetes, tmp_path: Path) -> None:
    import yaml

    body = ray_cluster_body(SPEC)
    body["metadata"]["creationTimestamp"] = CREATED
    fake.add(body)
    fake.answers[f"GET {PROXIED}"] = [(200, VERSION)]
    forwarder, authority = mutual_tls(fake, tmp_path)
    with forwarder:
        user = {"client-certificate": str(authority), "client-key": str(tmp_path / "key.pem")}
        config = kubeconfig_of(f"https://127.0.0.1:{forwarder.port}", user=user)
        config["clusters"][0]["cluster"]["certificate-authority"] = str(authority)
        files = {"with": config, "without": {**config, "users": [{"name": "ana", "user": {"token": "t"}}]}}
        for name, content in files.items():
            (tmp_path / name).write_text(yaml.safe_dump(content))

        dashboard = open_dashboard(SPEC, access=Access(str(tmp_path / "with")))
        assert dashboard.version() == RayVersion("2.60.0", "4", "abc", "session_1")
        assert dashboard.where == f"Service c-head-svc of namespace n, by the proxy of Kubernetes ({tmp_path / 'with'})"
        with pytest.raises(InfraError, match="cannot reach Kubernetes"):
            open_dashboard(SPEC, access=Access(str(tmp_path / "without")))


def test_the_service_that_kuberay_names_is_the_one_that_is_asked(fake: FakeKubernetes, tmp_path: Path) -> None:
    body = ray_cluster_body(SPEC)
    body["metadata"]["creationTimestamp"] = CREATED
    body["status"] = {"head": {"serviceName": "another-svc"}}
    fake.add(body)
    fake.answers[f"GET {PROXIED.replace('c-head-svc', 'another-svc')}"] = [(200, VERSION)]
    assert open_dashboard(SPEC, access=Access(fake.kubeconfig(tmp_path))).version().session_name == "session_1"


def test_a_service_that_is_not_there_yet_is_waited_for(fake: FakeKubernetes, tmp_path: Path) -> None:
    body = ray_cluster_body(SPEC)
    body["metadata"]["creationTimestamp"] = CREATED
    fake.add(body)
    access = Access(fake.kubeconfig(tmp_path))
    with pytest.raises(ClusterUnreachable, match=r"c-head-svc.* not found"):
        open_dashboard(SPEC, access=access)
    no_endpoints = (503, {"kind": "Status", "message": 'no endpoints available for service "c-head-svc"'})
    starting = (500, {"detail": "no module of the dashboard runs yet"})
    missing = (404, {"kind": "Status", "message": "services c-head-svc not found"})
    fake.answers[f"GET {PROXIED}"] = [missing, no_endpoints, starting, (200, VERSION)]
    assert open_dashboard(SPEC, access=access, wait=60).version().session_name == "session_1"
    assert fake.requests("GET").count(PROXIED) == 6


def test_kubernetes_credentials_that_expired_are_renewed_on_the_way(fake: FakeKubernetes, tmp_path: Path) -> None:
    body = ray_cluster_body(SPEC)
    body["metadata"]["creationTimestamp"] = CREATED
    fake.add(body)
    fake.answers[f"GET {PROXIED}"] = [(200, VERSION)]
    dashboard = open_dashboard(SPEC, access=Access(fake.kubeconfig(tmp_path)))
    expired = (401, {"kind": "Status", "message": "Unauthorized", "code": 401})
    fake.answers[f"GET {PROXIED}"] = [expired, (200, VERSION)]
    assert dashboard.version(patience=0.0).session_name == "session_1"
    fake.answers[f"GET {PROXIED}"] = [expired]
    with pytest.raises(NotAllowed, match="does not accept these credentials: Unauthorized"):
        dashboard.version(patience=60)
