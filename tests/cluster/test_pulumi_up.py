"""The life of a cluster: `pulumi up` of the dev stack's file, a Ray job, changes, drift, `pulumi destroy`."""

from __future__ import annotations

import ast
import os
import secrets
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.job_submission import JobStatus, JobSubmissionClient

from tests.cluster.conftest import RAY, Api, delete_namespace, eventually
from tests.cluster.live import MOVES_SECONDS, Live
from tests.cluster.pulumi_project import ROOT, Done, Project

NAME = "dev"
PROGRAM = """
import ray
ray.init(log_to_driver=False)
@ray.remote
def square(x):
    import socket
    return socket.gethostname(), x * x
print("computed", ray.get([square.remote(x) for x in range(4)]))
"""


@dataclass
class Stack:
    """The stack dev, in a namespace of its own."""

    project: Project
    live: Live
    made: Done
    spec: dict[str, Any]

    def declare(self, **fields: Any) -> None:
        """Change fields of the only worker group."""
        self.spec["worker_groups"][0].update(fields)
        self.project.write(self.spec)


@pytest.fixture(scope="module")
def dev(pulumi: Callable[..., Project], api: Api) -> Iterator[Stack]:
    """The cluster of stacks/clusters/dev.yaml, with the config of stacks/Pulumi.dev.yaml but for the namespace."""
    namespace = f"infill-up-{secrets.token_hex(3)}"
    config = yaml.safe_load((ROOT / "stacks/Pulumi.dev.yaml").read_text())["config"]
    given = {key.partition(":")[2]: value for key, value in config.items()}
    spec = yaml.safe_load((ROOT / "stacks/clusters/dev.yaml").read_text())
    project = pulumi("up", **{**given, "namespace": namespace})
    project.write(spec)
    try:
        yield Stack(project, Live(api, namespace), project.up().ok(), spec)
    finally:
        project.destroy()
        if api.get(f"/api/v1/namespaces/{namespace}"):
            delete_namespace(api, namespace)


def test_head_and_worker_run_in_a_restricted_namespace(dev: Stack) -> None:
    assert sorted((pod.group, pod.phase) for pod in dev.live.pods().values()) == [("cpu", "Running"), ("headgroup", "Running")]
    namespace = dev.live.api.get(f"/api/v1/namespaces/{dev.live.namespace}")
    assert namespace is not None
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert "dev: waiting for head 0/1, cpu 0/1" in dev.made.said


def test_the_outputs_are_where_the_cluster_is(dev: Stack) -> None:
    space, outputs = dev.live.namespace, dev.project.outputs()[NAME]
    assert {key: value for key, value in outputs.items() if key != "spec_hash"} == {
        "cluster_name": NAME,
        "namespace": space,
        "head_service": "dev-head-svc",
        "ray_address": f"ray://dev-head-svc.{space}.svc:10001",
        "dashboard_url": f"http://dev-head-svc.{space}.svc:8265",
        "token_secret": NAME,
    }
    assert dev.live.api.get(f"/api/v1/namespaces/{space}/services/{outputs['head_service']}") is not None


def test_a_ray_job_runs_with_the_rights_of_the_runner_and_no_more(dev: Stack, tmp_path: Path) -> None:
    """All that a data engineer needs: the outputs, and a token of the service account that the stack has made."""
    outputs, core = dev.project.outputs()[NAME], f"/api/v1/namespaces/{dev.live.namespace}"
    answer = dev.live.api.request("POST", f"{core}/serviceaccounts/infill-runner/token", json={"spec": {}})
    runner = answer.json()["status"]["token"]
    server, authority = server_of(tmp_path)
    service = f"{server}{core}/services/http:{outputs['head_service']}:8265/proxy"
    headers = {"Authorization": f"Bearer {runner}", "X-Ray-Authorization": f"Bearer {dev.live.token(outputs['token_secret'])}"}
    client = JobSubmissionClient(service, headers=headers, verify=authority)

    job = client.submit_job(entrypoint=f"python -c {shlex.quote(PROGRAM)}", runtime_env={"working_dir": str(packed(tmp_path))})

    assert eventually(lambda: client.get_job_status(job).is_terminal(), MOVES_SECONDS)
    logs = client.get_job_logs(job)
    assert client.get_job_status(job) is JobStatus.SUCCEEDED, logs
    computed = ast.literal_eval(logs.partition("computed ")[2])
    assert [square for _, square in computed] == [0, 1, 4, 9]
    assert {host for host, _ in computed} <= set(dev.live.pods("cpu"))
    assert may(dev, "get", "", "secrets", NAME)
    assert not may(dev, "get", "", "secrets", "another")
    assert not may(dev, "create", "", "pods")
    assert not may(dev, "delete", "ray.io", "rayclusters", namespace="default")


def packed(folder: Path) -> Path:
    """A folder to upload, which is a PUT through the proxy."""
    place = folder / "work"
    place.mkdir()
    (place / "data.txt").write_text("x")
    return place


def server_of(folder: Path) -> tuple[str, str | bool]:
    """Address and certificate authority of the API server."""
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"].split(os.pathsep)[0]).read_text())
    cluster = config["clusters"][0]["cluster"]
    if "certificate-authority-data" in cluster:
        import base64

        (folder / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        return cluster["server"], str(folder / "ca.crt")
    return cluster["server"], cluster.get("certificate-authority", True)


def may(dev: Stack, verb: str, group: str, resource: str, name: str | None = None, namespace: str | None = None) -> bool:
    """Whether the runner's service account may."""
    space = dev.live.namespace
    attributes = {"verb": verb, "group": group, "resource": resource, "name": name or "", "namespace": namespace or space}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": f"system:serviceaccount:{space}:infill-runner", "resourceAttributes": attributes},
    }
    answer = dev.live.api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", json=review)
    return bool(answer.json()["status"]["allowed"])


def test_no_secret_is_in_the_state(dev: Stack) -> None:
    state = dev.project.state()
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"].split(os.pathsep)[0]).read_text())
    user = config["users"][0]["user"]
    kept = [value for key, value in user.items() if isinstance(value, str) and key not in ("client-certificate", "client-key")]
    for secret in [dev.live.token(NAME), *kept]:
        assert secret not in state
    assert os.environ["KUBECONFIG"] not in state  # another machine has it elsewhere


def test_nothing_changes_without_a_change(dev: Stack) -> None:
    assert "cluster dev:" not in dev.project.preview("--expect-no-changes").ok().said


def test_what_the_autoscaler_moves_is_no_change(dev: Stack) -> None:
    dev.live.patch(NAME, replicas=2)
    assert eventually(lambda: len(dev.live.pods("cpu")) == 2, MOVES_SECONDS)
    assert "maxReplicas" not in dev.project.refresh().ok().said
    assert "cluster dev:" not in dev.project.preview("--expect-no-changes").ok().said
    assert len(dev.live.pods("cpu")) == 2


def test_more_memory_for_workers_replaces_their_pods_only_and_not_under_a_job(dev: Stack) -> None:
    head, workers = dev.live.uids("headgroup"), dev.live.uids("cpu")
    job = dev.live.start_job(NAME, "sleep 600")
    dev.declare(memory="3Gi")
    change = "spec.workerGroupSpecs[cpu].template.spec.containers[ray-worker].resources.limits.memory: 2Gi -> 3Gi"

    preview = dev.project.preview().ok().said
    assert f"cluster dev: pods of cpu are deleted and made anew\n  {change}\n" in preview
    assert 'memory: "2Gi" => "3Gi"' in preview
    assert f"cluster dev runs 1 jobs, which this change (pods of cpu are deleted and made anew) ends: {job} (sleep 600)" in preview

    refused = dev.project.up().failed()
    assert f"{job} (sleep 600). Wait for them, choose upgrade_strategy: NewCluster, or force it" in refused.error
    assert dev.live.uids("headgroup", "cpu") == head | workers

    dev.project.configure(force=True)
    done = dev.project.up().ok()
    dev.project.configure(force=False)
    assert "made from what was declared before" in done.said
    assert dev.live.uids("headgroup") == head
    assert dev.live.uids("cpu").isdisjoint(workers)
    path = f"/api/v1/namespaces/{dev.live.namespace}/pods"
    sizes = [
        pod["spec"]["containers"][0]["resources"]["limits"]["memory"]
        for pod in dev.live.api.list(path, labelSelector="ray.io/group=cpu")
    ]
    assert set(sizes) == {"3Gi"}
    assert dev.live.job_status(NAME, job) == "RUNNING"  # the driver is on the head, and its tasks are tried again
    dev.live.stop_job(NAME, job)


def test_drift_is_named_by_refresh_and_preview_and_mended_by_up(dev: Stack) -> None:
    pods = dev.live.uids()
    memory = dev.spec["worker_groups"][0]["memory"]
    dev.live.patch(NAME, maxReplicas=7, **{"template/spec/containers/0/resources/limits/memory": "1Gi"})
    limit = "spec.workerGroupSpecs[cpu].template.spec.containers[ray-worker].resources.limits.memory"
    named = f"maxReplicas: 7 -> 2\n  {limit}: 1Gi -> {memory}"
    assert named in dev.project.preview().ok().said

    refreshed = dev.project.refresh().ok().said
    assert "maxReplicas: 2 => 7" in refreshed
    assert f'memory: "{memory}" => "1Gi"' in refreshed
    preview = dev.project.preview().ok().said
    assert f"cluster dev: in place: no pod is touched\n  spec.workerGroupSpecs[cpu].{named}" in preview
    assert "maxReplicas: 7 => 2" in preview

    dev.project.up().ok()
    group = (dev.live.cluster(NAME) or {})["spec"]["workerGroupSpecs"][0]
    assert group["maxReplicas"] == 2
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] == memory
    assert dev.live.uids() >= pods & dev.live.uids("headgroup")
    dev.project.refresh("--expect-no-changes").ok()


def test_destroy_leaves_only_the_definitions(dev: Stack) -> None:
    dev.project.destroy().ok()
    assert dev.live.api.get(f"/api/v1/namespaces/{dev.live.namespace}") is None
    assert dev.live.api.get(RAY) is not None
