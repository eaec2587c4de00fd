"""The dashboard of a RayCluster with token authentication, found from its spec: from outside, and within Kubernetes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.body import ray_cluster_body
from infra.errors import NotAllowed
from infra.kube import Access, local_access
from infra.spec import KubeRayClusterSpec, parse_spec
from runner.manifests.facts import facts_of
from runner.manifests.facts_script import name_of
from runner.manifests.requirements import own_requirements
from runner.remote.address import NoCluster, open_dashboard
from runner.remote.dashboard import Dashboard
from runner.remote.ray_jobs import RayJobs, UnknownJob
from tests.cluster.conftest import RAY, Api, delete_namespace, eventually, make_namespace
from tests.cluster.live import Live
from tests.cluster.pulumi_project import LIMIT_SECONDS, SMALL, cluster

ROOT = Path(__file__).parents[2]
ACCOUNT = "client"


@pytest.fixture(scope="module")
def spec(api: Api, operator: None) -> Iterator[KubeRayClusterSpec]:
    """A cluster of a head and a worker, that serves."""
    namespace = make_namespace(api, "infill-address")
    groups = {"worker_groups": [{"name": "cpu", **SMALL, "replicas": 1, "env": {"ONLY_ON_WORKERS": "1"}}]}
    made = parse_spec(cluster("c", namespace, autoscaler={"enabled": False}, **groups))
    assert isinstance(made, KubeRayClusterSpec)
    assert made.has_token
    try:
        path = f"{RAY}/namespaces/{namespace}/rayclusters"
        api.request("POST", path, json=ray_cluster_body(made)).raise_for_status()
        open_dashboard(made, wait=LIMIT_SECONDS)
        yield made
    finally:
        delete_namespace(api, namespace)


@pytest.fixture
def dashboard(spec: KubeRayClusterSpec) -> Dashboard:
    return open_dashboard(spec)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, without a token of Ray's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_spec_is_enough_from_outside(spec: KubeRayClusterSpec, dashboard: Dashboard) -> None:
    kubeconfig = local_access().kubeconfig
    expected = f"Service c-head-svc of namespace {spec.namespace}, by the proxy of Kubernetes ({kubeconfig})"
    assert dashboard.where == expected
    assert dashboard.check_ray("2.60.0").ray_version == "2.60.0"
    assert open_dashboard(spec, name="c").version() == dashboard.version()
    with pytest.raises(NoCluster, match=rf"^no RayCluster d in namespace {spec.namespace} "):
        open_dashboard(spec, name="d")
    other = spec.model_copy(update={"name": "other"})
    with pytest.raises(NoCluster, match=rf"^no RayCluster of cluster 'other' in namespace {spec.namespace} "):
        open_dashboard(other, wait=LIMIT_SECONDS)


def test_jobs_and_packages_go_through_the_proxy(dashboard: Dashboard, tmp_path: Path) -> None:
    jobs = RayJobs(dashboard)
    (tmp_path / "sent.py").write_text("print('sent and', __name__)\n")
    uri = jobs.upload({"sent.py": tmp_path / "sent.py"})
    job = jobs.submit("python -m sent; exit 3", runtime_env={"py_modules": [uri]})
    assert "".join(jobs.follow(job)).endswith("\nsent and __main__\n")
    assert (jobs.info(job).status, jobs.info(job).driver_exit_code) == ("FAILED", 3)
    stopped = jobs.submit("sleep 600", entrypoint_num_cpus=1)
    assert jobs.stop(stopped)
    assert jobs.wait(stopped, LIMIT_SECONDS).status == "STOPPED"
    assert jobs.delete(stopped)
    assert stopped not in [each.submission_id for each in jobs.list()]


def test_the_facts_are_a_worker_s(dashboard: Dashboard) -> None:
    jobs = RayJobs(dashboard)
    worker, head = facts_of(jobs, ["ray", "httpx", "json"], timeout=LIMIT_SECONDS), facts_of(jobs, on_worker=False)
    assert (worker.ray, worker.python_minor) == ("2.60.0", "3.11")
    assert worker.modules["ray"] == "site"
    assert "KUBERNETES_SERVICE_HOST" in worker.env & head.env
    assert "ONLY_ON_WORKERS" in worker.env - head.env


def restricted(api: Api, spec: KubeRayClusterSpec, folder: Path, rules: list[dict[str, Any]]) -> Access:
    """A kubeconfig of an account with some rights in the cluster's namespace."""
    base, rbac = (f"/{path}/namespaces/{spec.namespace}" for path in ("api/v1", "apis/rbac.authorization.k8s.io/v1"))
    api.request("POST", f"{base}/serviceaccounts", json={"metadata": {"name": ACCOUNT}})
    for kind in ("rolebindings", "roles"):
        api.request("DELETE", f"{rbac}/{kind}/{ACCOUNT}")
    api.request("POST", f"{rbac}/roles", json={"metadata": {"name": ACCOUNT}, "rules": rules}).raise_for_status()
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": spec.namespace}
    role = {"kind": "Role", "name": ACCOUNT, "apiGroup": "rbac.authorization.k8s.io"}
    binding = {"metadata": {"name": ACCOUNT}, "subjects": [subject], "roleRef": role}
    api.request("POST", f"{rbac}/rolebindings", json=binding).raise_for_status()
    answer = api.request("POST", f"{base}/serviceaccounts/{ACCOUNT}/token", json={"spec": {"expirationSeconds": 3600}})
    config = yaml.safe_load(Path(local_access().kubeconfig or "").read_text())
    config["users"] = [{"name": ACCOUNT, "user": {"token": answer.json()["status"]["token"]}}]
    config["contexts"][0]["context"]["user"] = ACCOUNT
    file = folder / f"kubeconfig-{len(rules)}"
    file.write_text(yaml.safe_dump(config))
    return Access(str(file))


CLUSTERS = {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["get", "list"]}
PROXY = {"apiGroups": [""], "resources": ["services/proxy"], "verbs": ["get", "create", "update", "delete"]}
SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}


def test_a_right_that_is_missing_is_named(
    api: Api, spec: KubeRayClusterSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*rules: dict[str, Any]) -> Dashboard:
        return open_dashboard(spec, access=restricted(api, spec, tmp_path, list(rules)))

    with pytest.raises(NotAllowed, match=r'cannot list resource "rayclusters" in API group "ray\.io"'):
        opened()
    with pytest.raises(NotAllowed, match=r"takes the right to get services/proxy there$"):
        opened(CLUSTERS)
    with pytest.raises(NotAllowed, match=r'"secrets" .* it takes the right to get it, or RAY_AUTH_TOKEN set to the token$'):
        opened(CLUSTERS, PROXY)
    monkeypatch.setenv("RAY_AUTH_TOKEN", Live(api, spec.namespace).token("c"))
    assert opened(CLUSTERS, PROXY).version().ray_version == "2.60.0"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    jobs = RayJobs(opened(CLUSTERS, PROXY, SECRETS))
    assert jobs.wait(jobs.submit("true"), LIMIT_SECONDS).status == "SUCCEEDED"


def files_of(distribution: str) -> dict[str, Path]:
    """What is installed of a distribution and of all that it needs, by its place in site-packages."""
    found: dict[str, Path] = {}
    waiting, seen = [distribution], set[str]()
    while waiting:
        name = name_of(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        installed = metadata.distribution(name)
        for file in installed.files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__"):
                found[top] = Path(str(installed.locate_file(top)))
        waiting += [requirement.name for requirement in own_requirements(name)]
    return found


CLIENT = """
import json, sys
from infra.spec import parse_spec
from runner.remote.address import open_dashboard
dashboard = open_dashboard(parse_spec(json.loads(sys.argv[1])))
print("reached", dashboard.version().ray_version, "at", dashboard.where)
"""


def test_within_kubernetes_the_service_is_asked_by_its_name(
    api: Api, spec: KubeRayClusterSpec, dashboard: Dashboard, tmp_path: Path
) -> None:
    restricted(api, spec, tmp_path, [CLUSTERS, SECRETS])
    account = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{spec.namespace}/rolebindings"
    subjects = [{"kind": "ServiceAccount", "name": "default", "namespace": spec.namespace}]
    role = {"kind": "Role", "name": ACCOUNT, "apiGroup": "rbac.authorization.k8s.io"}
    api.request("POST", account, json={"metadata": {"name": "pods"}, "subjects": subjects, "roleRef": role}).raise_for_status()
    jobs = RayJobs(dashboard)
    own = jobs.upload({**{name: ROOT / name for name in ("runner", "infra")}, **files_of("kr8s")})
    inside = {**spec.plain(), "config_method": "IN_CLUSTER"}
    command = f"env -u RAY_AUTH_TOKEN python -c {shlex.quote(CLIENT)} {shlex.quote(json.dumps(inside))}"

    job = jobs.submit(command, runtime_env={"py_modules": [own]})

    text = "".join(jobs.follow(job))
    assert re.search(rf"^reached 2\.60\.0 at http://c-head-svc\.{spec.namespace}\.svc:8265$", text, re.MULTILINE), text


def test_a_head_that_is_made_anew_is_found_again(api: Api, spec: KubeRayClusterSpec, dashboard: Dashboard) -> None:
    live, jobs = Live(api, spec.namespace), RayJobs(dashboard)
    session = dashboard.version().session_name
    job = jobs.submit("sleep 600")
    (head,) = live.pods("headgroup")
    api.request("DELETE", f"/api/v1/namespaces/{spec.namespace}/pods/{head}").raise_for_status()
    assert eventually(lambda: dashboard.version(patience=LIMIT_SECONDS).session_name != session, LIMIT_SECONDS)
    with pytest.raises(UnknownJob, match=r"a head that starts anew has forgotten the jobs it had$"):
        jobs.wait(job, LIMIT_SECONDS)
