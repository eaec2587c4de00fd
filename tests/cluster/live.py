"""What runs in a namespace: its clusters, its pods, and the jobs on them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from infra.body import head_service_name
from tests.cluster.conftest import RAY, Api, eventually

JSON_PATCH = {"Content-Type": "application/json-patch+json"}
MOVES_SECONDS = 60.0


@dataclass(frozen=True)
class Pod:
    """A pod that is not being deleted."""

    uid: str
    group: str
    phase: str


class Live:
    """A namespace, with the rights of whoever runs the tests."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace

    def pods(self, *groups: str) -> dict[str, Pod]:
        """Pods by name, of all groups or of some."""
        found = {}
        for item in self.api.list(f"/api/v1/namespaces/{self.namespace}/pods"):
            pod = Pod(item["metadata"]["uid"], item["metadata"]["labels"].get("ray.io/group", ""), item["status"]["phase"])
            if "deletionTimestamp" not in item["metadata"] and (not groups or pod.group in groups):
                found[item["metadata"]["name"]] = pod
        return found

    def uids(self, *groups: str) -> set[str]:
        return {pod.uid for pod in self.pods(*groups).values()}

    def cluster(self, name: str) -> dict[str, Any] | None:
        return self.api.get(f"{RAY}/namespaces/{self.namespace}/rayclusters/{name}")

    def clusters(self) -> set[str]:
        """Names of the RayClusters that are not being deleted."""
        found = self.api.list(f"{RAY}/namespaces/{self.namespace}/rayclusters")
        return {item["metadata"]["name"] for item in found if "deletionTimestamp" not in item["metadata"]}

    def patch(self, cluster: str, **fields: Any) -> None:
        """Set fields of the first worker group by a JSON patch, as Ray's autoscaler sets `replicas`."""
        operations = [{"op": "add", "path": f"/spec/workerGroupSpecs/0/{key}", "value": value} for key, value in fields.items()]
        path = f"{RAY}/namespaces/{self.namespace}/rayclusters/{cluster}"
        self.api.request("PATCH", path, json=operations, headers=JSON_PATCH).raise_for_status()

    def token(self, cluster: str) -> str:
        """Ray's token, from the Secret that KubeRay made for a RayCluster."""
        secret = self.api.get(f"/api/v1/namespaces/{self.namespace}/secrets/{cluster}")
        assert secret is not None
        return base64.b64decode(secret["data"]["auth_token"]).decode()

    def start_job(self, cluster: str, entrypoint: str) -> str:
        """Submit a job to a RayCluster and wait until it runs."""
        answer = self._jobs(cluster, "POST", "", json={"entrypoint": entrypoint})
        answer.raise_for_status()
        job = str(answer.json()["submission_id"])
        assert eventually(lambda: self.job_status(cluster, job) not in ("", "PENDING"), MOVES_SECONDS)
        return job

    def job_status(self, cluster: str, job: str) -> str:
        """Ray's word; empty where the cluster does not answer or does not know the job."""
        answer = self._jobs(cluster, "GET", job)
        return str(answer.json()["status"]) if answer.is_success else ""

    def job_logs(self, cluster: str, job: str) -> str:
        return str(self._jobs(cluster, "GET", f"{job}/logs").json()["logs"])

    def stop_job(self, cluster: str, job: str) -> None:
        self._jobs(cluster, "POST", f"{job}/stop").raise_for_status()
        assert eventually(lambda: self.job_status(cluster, job) == "STOPPED", MOVES_SECONDS)

    def _jobs(self, cluster: str, method: str, rest: str, **options: Any) -> Any:
        service = f"/api/v1/namespaces/{self.namespace}/services/http:{head_service_name(cluster)}:8265/proxy"
        headers = {"X-Ray-Authorization": f"Bearer {self.token(cluster)}"}
        return self.api.request(method, f"{service}/api/jobs/{rest}", headers=headers, **options)
