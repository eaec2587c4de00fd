"""Clusters that cannot be: how soon `pulumi up` says so, and in which words; and that the next `up` does not pass over them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import RAY, Api, eventually
from tests.cluster.hiding_proxy import HidingProxy
from tests.cluster.live import MOVES_SECONDS, Live
from tests.cluster.pulumi_project import SMALL, Done, Project, cluster, worker

NAMESPACE = "infill-failures"
NOWHERE = {"node_selector": {"disk": "tape"}}
NO_IMAGE = {"image": "registry.invalid/none:1"}
PRIVILEGED = {"security_context": {"privileged": True, "allowPrivilegeEscalation": True}}
CRASHES = {"overrides": {"rayStartParams": {"no-such-option": "1"}}}
SOON = 15.0
"""Seconds from the start of `pulumi up` to its end, on a machine that does other things too; a third of it where it does not."""


@dataclass
class Case:
    """A cluster that cannot be.

    Attributes:
        fields: of the cluster, over those of one that works.
        quota: of a ResourceQuota in the namespace.
        words: what the error says; ``{ns}`` is the namespace.
        again: whether a second `up` is tried.
        within: seconds.
        slow: not part of every run.
    """

    name: str
    words: list[str]
    fields: dict[str, Any] = field(default_factory=dict)
    quota: dict[str, str] | None = None
    restricted: bool = False
    again: bool = False
    within: float = SOON
    slow: bool = False


def head(**fields: Any) -> dict[str, Any]:
    return {"head_group": {**SMALL, **fields}}


def workers(**fields: Any) -> dict[str, Any]:
    return {"worker_groups": [worker("cpu", **fields)]}


CASES = [
    Case("image of the head", ["pod c-head-", "container ", "Pull", "registry.invalid/none:1"], head(**NO_IMAGE), again=True),
    Case("image of a worker", ["pod c-cpu-worker-", "container ", "Pull", "registry.invalid/none:1"], workers(**NO_IMAGE)),
    Case(
        "selector",
        ["pod c-cpu-worker-", "Unschedulable for", "0/1 nodes are available", "didn't match Pod's node affinity/selector"],
        {**workers(**NOWHERE), "unschedulable_seconds": 3},
        again=True,
    ),
    Case(
        "service account of the head",
        ["KubeRay: AutoscalerServiceAccountNotFound", "ServiceAccount nobody is not found"],
        head(service_account="nobody"),
    ),
    Case(
        "service account of a worker",
        ["KubeRay: FailedCreateWorkerPod", 'pods "c-cpu-worker-" is forbidden', 'serviceaccount "nobody" not found'],
        workers(service_account="nobody"),
    ),
    Case(
        "quota",
        [
            "KubeRay: FailedCreateHeadPod",
            "exceeded quota: small, requested: requests.memory=768Mi",
            "limited: requests.memory=100Mi",
        ],
        quota={"requests.memory": "100Mi"},
        again=True,
    ),
    Case(
        "quota for the head only",
        ["KubeRay: FailedCreateWorkerPod", "exceeded quota: small", "limited: pods=1"],
        quota={"pods": "1"},
    ),
    Case(
        "Pod Security, worker",
        ["KubeRay: FailedCreateWorkerPod", 'violates PodSecurity "restricted:latest": privileged'],
        workers(**PRIVILEGED),
        restricted=True,
    ),
    Case(
        "Pod Security, head",
        ["KubeRay: FailedCreateHeadPod", 'violates PodSecurity "restricted:latest": privileged'],
        head(**PRIVILEGED),
        restricted=True,
    ),
    Case(
        "invalid to KubeRay",
        ["KubeRay: InvalidRayClusterSpec: The RayCluster spec is invalid {ns}/c: worker group cpu: idleTimeoutSeconds is set"],
        {
            "overrides": {
                "spec": {
                    "autoscalerOptions": {"version": "v1"},
                    "workerGroupSpecs": [{"groupName": "cpu", "idleTimeoutSeconds": 9}],
                }
            }
        },
        again=True,
    ),
    Case(
        "Secret",
        ["pod c-cpu-worker-", 'CreateContainerConfigError: secret "none" not found'],
        workers(env={"A": {"secret": "none", "key": "a"}}),
    ),
    Case(
        "ConfigMap as a volume",
        ["pod c-cpu-worker-", "FailedMount", 'configmap "none" not found'],
        {
            **workers(volumes=[{"name": "v", "configMap": {"name": "none"}}], mounts=[{"name": "v", "path": "/v"}]),
            "unschedulable_seconds": 3,
        },
    ),
    Case(
        "volume claim",
        ["pod c-cpu-worker-", "Unschedulable for", 'persistentvolumeclaim "none" not found'],
        {
            **workers(
                volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "none"}}], mounts=[{"name": "v", "path": "/v"}]
            ),
            "unschedulable_seconds": 3,
        },
    ),
    Case("crash loop of the head", ["pod c-head-", "exit code 2", "no-such-option", "a crash loop"], head(**CRASHES), within=45.0),
    Case(
        "crash loop of a worker",
        ["pod c-cpu-worker-", "exit code 2", "no-such-option", "a crash loop"],
        workers(**CRASHES),
        within=75.0,
        slow=True,
    ),
]


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """What was measured, printed at the end (``pytest -s``)."""
    rows: list[str] = []
    yield rows
    print("\nseconds of `pulumi up`, the next `up`, what is said\n" + "\n".join(rows))


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name, marks=[pytest.mark.slow] * case.slow) for case in CASES])
def test_up_says_why(case: Case, pulumi: Callable[..., Project], api: Api, namespace: str, table: list[str]) -> None:
    prepare(api, namespace, case)
    project = pulumi("failure")
    project.write(cluster("c", namespace, **case.fields))
    runs = [project.up().failed() for _ in range(2 if case.again else 1)]
    said = f"cluster c in namespace {namespace} cannot start: "
    for run in runs:
        assert run.error.startswith(said)
        for word in case.words:
            assert word.format(ns=namespace) in run.error
        assert run.seconds < case.within
    second = f"{runs[1].seconds:.1f}" if case.again else "-"
    table.append(f"{case.name:28} {runs[0].seconds:5.1f} {second:>5}  {runs[0].error.removeprefix(said)[:150]}")


def prepare(api: Api, namespace: str, case: Case) -> None:
    core = f"/api/v1/namespaces/{namespace}"
    if case.quota:
        api.request("POST", f"{core}/resourcequotas", json=quota("small", case.quota)).raise_for_status()
        known = f"{core}/resourcequotas/small"
        assert eventually(lambda: bool((api.get(known) or {}).get("status", {}).get("hard")), MOVES_SECONDS)
    if case.restricted:
        labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
        api.request("PATCH", core, json=labels, headers={"Content-Type": "application/merge-patch+json"}).raise_for_status()


def quota(name: str, hard: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard}}


def test_what_is_mended_outside_is_seen_by_the_next_up(
    pulumi: Callable[..., Project], api: Api, namespace: str, table: list[str]
) -> None:
    """What KubeRay said of the cluster before is not what it says of it now: it looks again."""
    live, core = Live(api, namespace), f"/api/v1/namespaces/{namespace}"
    project = pulumi("mended")
    project.write(cluster("c", namespace, **head(service_account="late"), worker_groups=[], autoscaler={"enabled": False}))
    api.request("POST", f"{core}/resourcequotas", json=quota("small", {"pods": "0"})).raise_for_status()

    assert "limited: pods=0" in (first := project.up().failed()).error or 'serviceaccount "late" not found' in first.error
    api.request("DELETE", f"{core}/resourcequotas/small").raise_for_status()
    assert 'serviceaccount "late" not found' in project.up().failed().error
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "late"}}
    api.request("POST", f"{core}/serviceaccounts", json=account).raise_for_status()
    mended = project.up().ok()
    table.append(f"{'mended outside':28} {mended.seconds:5.1f}     -  serves")
    assert [pod.phase for pod in live.pods().values()] == ["Running"]

    # And a spec that KubeRay refuses does not end the pods of the one before.
    pods = live.uids()
    redis = {"containers": [{"name": "ray-head", "env": [{"name": "REDIS_USERNAME", "value": "x"}]}]}
    overrides = {"spec": {"headGroupSpec": {"template": {"spec": redis}}}}
    project.write(
        cluster(
            "c", namespace, **head(service_account="late"), worker_groups=[], autoscaler={"enabled": False}, overrides=overrides
        )
    )
    assert "InvalidRayClusterSpec" in project.up().failed().error
    assert live.uids() == pods
    project.destroy().ok()
    assert live.clusters() == set()


def test_a_provisioner_without_rights(
    pulumi: Callable[..., Project], api: Api, namespace: str, tmp_path: Path, table: list[str]
) -> None:
    core = f"/api/v1/namespaces/{namespace}"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "poor"}}
    api.request("POST", f"{core}/serviceaccounts", json=account).raise_for_status()
    token = api.request("POST", f"{core}/serviceaccounts/poor/token", json={"spec": {}}).json()["status"]["token"]
    config = written(tmp_path / "poor", lambda config: config["users"][0].update(user={"token": token}))
    project = refusing(pulumi, namespace, config)

    done = project.up().failed()
    assert (
        "may not get rayclusters, list rayclusters, create rayclusters, patch rayclusters, delete rayclusters, list pods"
        in done.error
    )
    assert f"in namespace {namespace}; bind them to a Role that allows it" in done.error
    nothing_is_made(project, api, namespace)
    table.append(row("no rights", done))


def test_a_kubernetes_without_kuberay(
    pulumi: Callable[..., Project], api: Api, namespace: str, tmp_path: Path, table: list[str]
) -> None:
    with HidingProxy("/apis/ray.io") as address:
        project = refusing(
            pulumi, namespace, written(tmp_path / "bare", lambda config: config["clusters"][0].update(cluster={"server": address}))
        )
        done = project.up().failed()
    assert "KubeRay is not installed in Kubernetes" in done.error
    assert "helm install kuberay-operator" in done.error
    nothing_is_made(project, api, namespace)
    table.append(row("no KubeRay", done))


def test_a_kubernetes_that_cannot_be_reached(
    pulumi: Callable[..., Project], api: Api, namespace: str, tmp_path: Path, table: list[str]
) -> None:
    def closed(config: dict[str, Any]) -> None:
        config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"

    project = refusing(pulumi, namespace, written(tmp_path / "closed", closed))
    done = project.up().failed()
    assert f"cannot reach Kubernetes ({tmp_path}/closed)" in done.error
    assert "is it up, and is this the right kubeconfig and context?" in done.error
    nothing_is_made(project, api, namespace)
    table.append(row("API server unreachable", done))


def test_no_kubeconfig_and_no_such_context(
    pulumi: Callable[..., Project], api: Api, namespace: str, tmp_path: Path, table: list[str]
) -> None:
    project = refusing(pulumi, namespace, tmp_path / "nowhere")
    done = project.up().failed()
    assert (
        f"no kubeconfig at {tmp_path}/nowhere (KUBECONFIG); set KUBECONFIG, or kubeconfig: PATH in the cluster's spec" in done.error
    )
    table.append(row("no kubeconfig", done))

    project.environment(KUBECONFIG=str(written(tmp_path / "some", lambda config: None)))
    project.configure(context="elsewhere")
    done = project.up().failed()
    assert "context: 'elsewhere' is not in" in done.error
    nothing_is_made(project, api, namespace)
    table.append(row("no such context", done))


def refusing(pulumi: Callable[..., Project], namespace: str, kubeconfig: Path) -> Project:
    project = pulumi("refused")
    project.environment(KUBECONFIG=str(kubeconfig))
    project.write(cluster("c", namespace))
    return project


def nothing_is_made(project: Project, api: Api, namespace: str) -> None:
    assert api.list(f"{RAY}/namespaces/{namespace}/rayclusters") == []
    assert "ray.io" not in project.state()


def row(name: str, done: Done) -> str:
    assert done.seconds < SOON
    return f"{name:28} {done.seconds:5.1f}     -  {done.error[:150]}"


def written(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The kubeconfig of the tests with a change, complete in one file."""
    flat = subprocess.run(
        ["kubectl", "config", "view", "--raw", "--flatten", "--minify", "-o", "json"], capture_output=True, text=True, check=True
    )
    config = yaml.safe_load(flat.stdout)
    change(config)
    path.write_text(yaml.safe_dump(config))
    return path
