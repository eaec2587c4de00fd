"""Everything declared against everything that is there, with a small API server in place of Kubernetes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

import runner
from infra.access_bodies import RunnerAccessArgs, access_bodies
from infra.body import resources
from infra.drift import Drift, collection_of
from infra.spec import KubeRayClusterSpec
from runner.cli import app
from runner.provision.record import Record, Records, as_provisioned
from stacks.comparing import drift_of
from stacks.preparing import prepare_backfill
from stacks.project import read_project
from stacks.rendering import stack_bodies
from tests.unit.fake_kubernetes import Body, FakeKubernetes, running

SMALL: Body = {"namespace": "ray", "ray_version": "2.60.0", "python_version": "3.11"}
ALL = "/apis/ray.io/v1/rayclusters"


@pytest.fixture
def folder(tmp_path: Path, fake: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two clusters in a Kubernetes that has nothing."""
    monkeypatch.setenv("KUBECONFIG", fake.kubeconfig(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clusters").mkdir()
    (tmp_path / "Pulumi.yaml").write_text("{name: p, runtime: python}")
    (tmp_path / "Pulumi.dev.yaml").write_text("config: {}")
    for name in ("a", "b"):
        write(tmp_path, name)
    return tmp_path


def write(folder: Path, name: str, **fields: Any) -> None:
    (folder / "clusters" / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, **SMALL, **fields}))


def specs(folder: Path) -> dict[str, KubeRayClusterSpec]:
    return {spec.name: spec for spec in read_project(folder).declared}


def stacked(body: Body, stack: str | None) -> Body:
    """As a stack has made it, or none."""
    labels = {**body["metadata"]["labels"], **({"infill/stack": stack} if stack else {})}
    return {**body, "metadata": {**body["metadata"], "labels": labels}}


def told(found: list[Drift]) -> list[str]:
    return [" ".join([drift.kind, drift.name, drift.state, *map(str, drift.changes)]) for drift in found]


def diff(*args: str) -> Result:
    return CliRunner().invoke(app, ["diff", *args])


def test_what_is_as_declared_differs_or_is_missing(folder: Path, fake: FakeKubernetes) -> None:
    found = specs(folder)
    fake.add(stacked(running(found["a"]), "p.dev"))
    assert told(drift_of(read_project(folder))) == ["RayCluster a same", "RayCluster b missing"]
    write(folder, "a", worker_groups=[{"name": "cpu", "max_replicas": 20}])
    assert told(drift_of(read_project(folder)))[0] == ("RayCluster a differs spec.workerGroupSpecs[cpu].maxReplicas: 10 -> 20")


def test_one_list_for_all_clusters_of_a_namespace(folder: Path, fake: FakeKubernetes) -> None:
    for number in range(20):
        write(folder, f"c{number}")
    drift_of(read_project(folder))
    made = ["/apis/ray.io/v1/rayjobs", "/apis/ray.io/v1/raycronjobs", "/apis/batch/v1/cronjobs"]
    asked = [path for path in fake.requests("GET") if path != "/version"]
    assert asked[0] == "/apis/ray.io/v1/namespaces/ray/rayclusters"
    assert sorted(asked[1:]) == sorted([ALL, *made])


def test_clusters_that_are_declared_no_more(folder: Path, fake: FakeKubernetes) -> None:
    """Of a stack of this project; of no stack beside those that are declared. Those of others are theirs."""
    found = specs(folder)
    fake.add(running(found["a"]), running(found["b"]))
    old = found["a"].model_copy(update={"name": "old"})
    others = [
        stacked(running(old.model_copy(update={"name": name, "namespace": namespace})), stack)
        for name, namespace, stack in (
            ("here", "ray", None), ("ours", "far", "p.dev"), ("far", "far", None), ("theirs", "ray", "q.dev"),
        )
    ]  # fmt: skip
    bare = {**running(old), "metadata": {**running(old)["metadata"], "labels": {}}}
    fake.add(*others, bare)
    fake.objects[ALL] = {"items": [*others]}
    assert told(drift_of(read_project(folder)))[2:] == [
        "RayCluster here undeclared", "RayCluster ours undeclared", "RayCluster far other", "RayCluster theirs other",
    ]  # fmt: skip
    fake.answers[f"GET {ALL}"] = [(403, {"message": "forbidden"})]
    assert told(drift_of(read_project(folder)))[2:] == ["RayCluster here undeclared", "RayCluster theirs other"]


def test_the_last_file_of_a_stack_is_gone(folder: Path, fake: FakeKubernetes) -> None:
    old = stacked(running(specs(folder)["a"]), "p.dev")
    fake.objects[ALL] = {"items": [old]}
    (folder / "Pulumi.dev.yaml").write_text("config: {'infill:clusters': []}")
    assert told(drift_of(read_project(folder))) == ["RayCluster a undeclared"]


def test_all_that_a_cluster_becomes_is_compared(folder: Path, fake: FakeKubernetes) -> None:
    (folder / "clusters" / "b.yaml").unlink()
    write(folder, "a", network_policy={"from_blocks": ["10.0.0.0/8"]}, upgrade_strategy="NewCluster")
    (folder / "Pulumi.dev.yaml").write_text("config: {'infill:access': {service_account: me}}")
    (stack,) = read_project(folder).stacks
    spec = stack.specs[0]
    made = resources(spec)
    assert [body["kind"] for body in made] == ["RayCluster", "NetworkPolicy", "Service"]
    args = RunnerAccessArgs("ray", service_account="me", clusters=["a", made[0]["metadata"]["name"]])
    space, *rights = access_bodies(args, {"app.kubernetes.io/managed-by": "infill", "more": "of others"})
    fake.add(running(spec), *rights)
    fake.objects["/api/v1/namespaces/ray"] = space
    fake.objects["/apis/networking.k8s.io/v1/namespaces/ray/networkpolicies"] = {"items": [made[1]]}
    service = {**made[2], "spec": {**made[2]["spec"], "clusterIP": "10.1.2.3", "type": "ClusterIP"}}
    service["spec"]["ports"] = [{**port, "protocol": "TCP"} for port in service["spec"]["ports"]]
    fake.add(service)
    assert [drift.state for drift in drift_of(read_project(folder))] == ["same"] * 7
    service["spec"]["selector"] = {**service["spec"]["selector"], "ray.io/cluster": "a-older"}
    rights[1]["rules"][0]["verbs"].append("deletecollection")
    del fake.objects["/api/v1/namespaces/ray"]
    differing = [line.partition(":")[0] for line in told(drift_of(read_project(folder))) if "same" not in line]
    assert differing == [
        "Namespace ray missing",
        "Role me differs rules",
        "Service a-head-svc differs spec.selector.ray.io/cluster",
    ]


def test_a_cluster_that_another_is_to_take_over_from(folder: Path, fake: FakeKubernetes) -> None:
    write(folder, "a", upgrade_strategy="NewCluster")
    old = running(specs(folder)["a"])
    fake.add(old)
    write(folder, "a", upgrade_strategy="NewCluster", head_group={"cpus": 8})
    (line,) = [line for line in told(drift_of(read_project(folder))) if line.startswith("RayCluster a")]
    assert f"differs metadata.name: {old['metadata']['name']} -> a-" in line
    assert "containers[ray-head].resources.limits.cpu: 4 -> 8" in line


BACKFILL = {"database": "s3://b/db", "table": "t", "columns": "x", "cluster": "a", "code": "image"}


def declared_backfill(folder: Path, name: str, **fields: Any) -> list[Body]:
    """A file of one, and the resources that it becomes."""
    (folder / "backfills").mkdir(exist_ok=True)
    (folder / "backfills" / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, **BACKFILL, **fields}))
    (stack,) = read_project(folder).stacks
    ready = [prepare_backfill(backfill, send=False) for backfill in stack.backfills if backfill.spec.name == name]
    return [body for body in stack_bodies(stack, ready, None) if body["metadata"].get("labels", {}).get("infill/backfill") == name]


def test_backfills_are_compared(folder: Path, fake: FakeKubernetes) -> None:
    """A run by its name, which tells one declaration from another, and not by what is uploaded anew with each commit."""
    fake.add(*(running(spec) for spec in specs(folder).values()))
    (run,) = declared_backfill(folder, "once")
    account, role, binding, files, cron = declared_backfill(folder, "nightly", schedule="0 3 * * *")
    cron = {**cron, "spec": {**cron["spec"], "suspend": False}}  # as Kubernetes fills it in
    run = {**run, "spec": {**run["spec"], "entrypoint": "python -c older", "runtimeEnvYAML": "{}"}}
    for body in (run, account, role, binding, files, cron):
        place = collection_of(body)
        fake.objects[place] = {"items": [*fake.objects.get(place, {"items": []})["items"], body]}
    assert {line.split()[2] for line in told(drift_of(read_project(folder)))} == {"same"}
    cron["spec"]["schedule"] = "0 4 * * *"
    assert [line for line in told(drift_of(read_project(folder))) if "same" not in line] == [
        "CronJob nightly differs spec.schedule: 0 4 * * * -> 0 3 * * *"
    ]
    (again,) = declared_backfill(folder, "once", revision="2")
    fake.objects["/apis/ray.io/v1/rayjobs"] = {"items": [run]}
    assert [line for line in told(drift_of(read_project(folder))) if "RayJob" in line] == [
        f"RayJob {again['metadata']['name']} missing",
        f"RayJob {run['metadata']['name']} undeclared",
    ]


def test_the_kind_of_a_schedule_is_by_the_gates_of_the_operator_that_runs(folder: Path, fake: FakeKubernetes) -> None:
    """As `pulumi up` chooses it."""
    declared_backfill(folder, "nightly", schedule="0 3 * * *")
    arguments = {"image": "quay.io/kuberay/operator:v1.7.0", "args": ["--feature-gates=RayCronJob=true"]}
    deployment = {
        "metadata": {"labels": {"app.kubernetes.io/name": "kuberay-operator"}},
        "spec": {"template": {"spec": {"containers": [arguments]}}},
    }
    assert "CronJob nightly missing" in told(drift_of(read_project(folder)))
    fake.objects["/apis/apps/v1/deployments"] = {"items": [deployment]}
    lines = told(drift_of(read_project(folder)))
    assert "RayCronJob nightly missing" in lines
    assert "CronJob nightly missing" not in lines


def test_what_kuberay_makes_of_backfills_is_its_own(folder: Path, fake: FakeKubernetes) -> None:
    found = specs(folder)
    fake.add(*(running(spec) for spec in found.values()))
    cluster = running(found["a"].model_copy(update={"name": "once-x"}))
    cluster["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "infill", "infill/backfill": "once"}
    owner = [{"kind": "CronJob", "name": "nightly"}]
    run = {
        "metadata": {"name": "nightly-1", "namespace": "ray", "labels": {"infill/backfill": "nightly"}, "ownerReferences": owner}
    }
    fake.objects[ALL], fake.objects["/apis/ray.io/v1/rayjobs"] = {"items": [cluster]}, {"items": [run]}
    assert told(drift_of(read_project(folder))) == ["RayCluster a same", "RayCluster b same"]


def test_kuberay_s_version(folder: Path, fake: FakeKubernetes) -> None:
    (folder / "Pulumi.dev.yaml").write_text("config: {'infill:operator': {version: 1.7.0}}")
    assert told(drift_of(read_project(folder)))[-1] == "KubeRay operator unknown"
    deployment = {
        "metadata": {"labels": {"app.kubernetes.io/name": "kuberay-operator"}},
        "spec": {"template": {"spec": {"containers": [{"image": "quay.io/kuberay/operator:v1.6.1"}]}}},
    }
    fake.objects["/apis/apps/v1/deployments"] = {"items": [deployment]}
    assert told(drift_of(read_project(folder)))[-1] == "KubeRay operator differs version: 1.6.1 -> 1.7.0"
    del fake.objects["/apis/ray.io/v1"]
    assert told(drift_of(read_project(folder)))[-1] == "KubeRay operator missing"


def test_what_cannot_be_told(folder: Path, fake: FakeKubernetes) -> None:
    """A list that is forbidden, and a Kubernetes that is not there, do not hide the rest."""
    fake.add(running(specs(folder)["a"]))
    write(folder, "b", namespace="closed")
    write(folder, "c", kubeconfig="/nonexistent")
    fake.answers["GET /apis/ray.io/v1/namespaces/closed/rayclusters"] = [(403, {"message": "no list in closed"})]
    (folder / "Pulumi.far.yaml").write_text("config: {'infill:clusters': [c]}")
    (folder / "Pulumi.dev.yaml").write_text("config: {'infill:clusters': [a, b]}")
    found = drift_of(read_project(folder))
    assert told(found) == ["RayCluster a same", "RayCluster b unknown", "stack far unknown"]
    assert "no list in closed" in found[1].note
    assert found[2].note.startswith("no kubeconfig at /nonexistent")


# The command


def test_the_page_and_the_exit_codes(folder: Path, fake: FakeKubernetes) -> None:
    found = specs(folder)
    fake.add(stacked(running(found["a"]), "p.dev"), stacked(running(found["b"]), "p.dev"))
    fake.objects[ALL] = {"items": []}
    same = diff(".")
    assert (same.exit_code, same.stdout) == (0, "2 as declared\n")
    assert diff(".", "--all").stdout.splitlines()[:2] == ["RayCluster ray/a  as declared", "RayCluster ray/b  as declared"]
    write(folder, "a", suspend=True)
    write(folder, "new")
    differs = diff(".", "--stack", "dev")
    assert (differs.exit_code, differs.stdout) == (
        1,
        "RayCluster ray/a    differs\n  spec.suspend: nothing -> true\nRayCluster ray/new  declared, and not there\n"
        "1 differs, 1 declared, and not there, 1 as declared\n",
    )
    printed = json.loads(diff(".", "--json").stdout)
    assert [(item["name"], item["state"]) for item in printed] == [("a", "differs"), ("b", "same"), ("new", "missing")]
    assert printed[0]["changes"] == [{"path": "spec.suspend", "before": None, "after": True}]
    fake.answers["GET /apis/ray.io/v1/namespaces/ray/rayclusters"] = [(500, {"message": "etcd is away"})]
    unknown = diff(".")
    assert (unknown.exit_code, "RayCluster ray/a    cannot be told" in unknown.stdout) == (2, True)
    (folder / "policy.yaml").write_text("namespacess: [a]")
    assert "did you mean 'namespaces'?" in diff(".").stderr
    assert diff(".").exit_code == 2


def test_the_definitions_of_a_database(folder: Path, fake: FakeKubernetes) -> None:
    """One that does not run is no difference; one that runs of another definition is, and one that is defined no more."""
    db = runner.connect(str(folder / "db"))
    found = specs(folder)
    for spec in found.values():
        db.define_cluster(spec.name, spec)
    fake.objects[ALL] = {"items": []}
    idle = diff("--db", db.uri)
    assert (idle.exit_code, idle.stdout) == (0, "2 as declared\n")
    made = as_provisioned(found["a"], has_options=True)
    base = {"kubernetes": fake.url, "project": "p", "keep": True, "time_to_live": None, "made_at": "2026", "user": "u", "host": "h"}
    for name in ("a", "gone"):
        record: dict[str, Any] = {**base, "name": name, "namespace": "ray", "stack": f"ray.{name}", "spec": made.plain()}
        Records(db.store).put(Record(**record, state="made"))
    fake.add(running(made))
    ran = diff("--db", db.uri)
    assert (ran.exit_code, ran.stdout) == (
        1,
        "RayCluster ray/gone  there, and not declared (provisioned 2026 by u on h, and defined no more)\n"
        "1 there, and not declared, 2 as declared\n",
    )
    db.define_cluster("a", found["a"].model_copy(update={"suspend": True}))
    assert "RayCluster ray/a     differs\n  spec.suspend: nothing -> true\n" in diff("--db", db.uri).stdout
