"""An API server as far as `infra` talks to one: objects by path, and answers that a test sets."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from infra import labels
from infra.body import ray_cluster_body, template_hashes
from infra.kube import Access, Kubernetes, run
from infra.spec import KubeRayClusterSpec

Body = dict[str, Any]
CREATED = "2026-01-01T00:00:00Z"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
DEPLOYMENTS = "/apis/apps/v1/deployments"


@dataclass(frozen=True)
class Asked:
    """A request that the server had."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class FakeKubernetes:
    """The server. All but its own address may be changed while it runs.

    Attributes:
        objects: by path.
        answers: status and body of the next requests of a ``METHOD /path``; the last one stays.
        denied: what SelfSubjectAccessReviews say no to, as ``verb group/resource``.
        asked: requests so far, the reviews of rights apart.
        on_request: called before each is answered.
    """

    url: str
    objects: dict[str, Body] = field(default_factory=dict)
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    asked: list[Asked] = field(default_factory=list)
    reviews: list[Body] = field(default_factory=list)
    on_request: Callable[[Asked], None] = lambda _: None

    def answer(self, request: Asked) -> tuple[int, Any]:
        if request.path == REVIEWS:
            self.reviews.append(request.body)
            attributes = request.body["spec"]["resourceAttributes"]
            right = f"{attributes['verb']} {attributes.get('group', '')}/{attributes['resource']}".replace(" /", " ")
            return 201, {"status": {"allowed": right not in self.denied}}
        self.asked.append(request)
        self.on_request(request)
        if waiting := self.answers.get(str(request)):
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if request.method == "DELETE":
            return (200, {}) if self.objects.pop(request.path, None) else not_found(request.path)
        if request.path in self.objects:
            return 200, self.objects[request.path]
        inside = [body for path, body in self.objects.items() if path.rpartition("/")[0] == request.path]
        if inside or request.path.rpartition("/")[2] in COLLECTIONS:
            return 200, {"items": [body for body in inside if _selected(body, request.query)]}
        return not_found(request.path)

    def add(self, *bodies: Body) -> None:
        for body in bodies:
            self.objects[path_of(body)] = body

    def requests(self, method: str) -> list[str]:
        """Paths of the requests of a method, in order."""
        return [request.path for request in self.asked if request.method == method]

    def kubeconfig(self, folder: Path) -> str:
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(kubeconfig_of(self.url)))
        return str(path)

    def connect(self, folder: Path) -> Kubernetes:
        return run(Kubernetes.connect(Access(self.kubeconfig(folder))))


COLLECTIONS = {"pods", "events", "rayclusters", "deployments", "services"}
API: Body = {"kind": "APIResourceList", "groupVersion": "ray.io/v1", "resources": []}


def not_found(path: str) -> tuple[int, Any]:
    return 404, {"kind": "Status", "message": f"{path} not found", "code": 404}


def kubeconfig_of(server: str, *, user: Body | None = None) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "users": [{"name": "ana", "user": {"token": "text-of-a-token"} if user is None else user}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "ana"}}],
        "current-context": "here",
    }


def serve() -> tuple[FakeKubernetes, ThreadingHTTPServer]:
    """A server that answers ``/version`` and has KubeRay's definitions; shut it down when done."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            path = parts.path.rstrip("/") if not parts.path.endswith("/jobs/") else parts.path
            headers = {key.lower(): value for key, value in self.headers.items()}
            status, body = fake.answer(Asked(self.command, path, query, headers, json.loads(text) if text else None))
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake = FakeKubernetes(f"http://127.0.0.1:{server.server_port}")
    fake.objects["/version"] = {"gitVersion": "v1.34.0"}
    fake.objects["/apis/ray.io/v1"] = API
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    return fake, server


def path_of(body: Body) -> str:
    group = "/api/v1" if body["apiVersion"] == "v1" else f"/apis/{body['apiVersion']}"
    metadata = body["metadata"]
    return f"{group}/namespaces/{metadata['namespace']}/{body['kind'].lower()}s/{metadata['name']}"


def _selected(body: Body, query: dict[str, str]) -> bool:
    by_label = _pairs(query.get("labelSelector", ""))
    by_field = _pairs(query.get("fieldSelector", ""))
    labels_of = body["metadata"].get("labels", {})
    return all(labels_of.get(key) == value for key, value in by_label) and all(
        _field(body, path) == value for path, value in by_field
    )


def _pairs(selector: str) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (part.partition("=") for part in selector.split(",") if part)]


def _field(body: Any, path: str) -> Any:
    for key in path.split("."):
        body = body.get(key, {})
    return body


def running(spec: KubeRayClusterSpec, *, created: str = CREATED, **metadata: Any) -> Body:
    """The RayCluster of a spec as Kubernetes holds it once it serves."""
    body = ray_cluster_body(spec)
    body["metadata"] |= {"uid": f"uid-{body['metadata']['name']}", "creationTimestamp": created, **metadata}
    return {**body, "status": {"state": "ready"}}


def pods_of(cluster: Body, **groups: int) -> list[Body]:
    """Ready pods of a RayCluster: its head, and so many of each group, made from its templates."""
    hashes = template_hashes(cluster)
    wanted = {labels.HEAD_GROUP: 1, **groups}
    return [pod(cluster, group, number, hashes[group]) for group, count in wanted.items() for number in range(count)]


def pod(cluster: Body, group: str, number: int = 0, template: str = "older") -> Body:
    name = f"{cluster['metadata']['name']}-{group}-{number}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": cluster["metadata"]["namespace"],
            "uid": f"uid-{name}",
            "labels": {labels.RAY_CLUSTER: cluster["metadata"]["name"], labels.RAY_GROUP: group},
            "annotations": {labels.TEMPLATE_HASH: template},
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def jobs_path(cluster: str, namespace: str = "default") -> str:
    """Of Ray's Jobs API through the API server."""
    return f"/api/v1/namespaces/{namespace}/services/http:{cluster}-head-svc:8265/proxy/api/jobs/"
