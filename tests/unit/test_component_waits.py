"""The component of a cluster that looks at Kubernetes: Pulumi's mocks on one side, a small API server on the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

import infra.gate
import infra.wait
from infra.body import ray_cluster_body
from infra.raycluster import RayCluster, RayClusterArgs
from infra.spec import KubeRayClusterSpec, parse_spec
from stacks.program import declare
from tests.unit.fake_kubernetes import Body, FakeKubernetes, jobs_path, pod, pods_of, running, serve
from tests.unit.pulumi_mocks import UNKNOWN, Ran, run_program

BUSY = [{"submission_id": "raysubmit_1", "status": "RUNNING", "entrypoint": "python a.py"}]
PODS = "/api/v1/namespaces/default/pods"
REPLICAS = "spec.workerGroupSpecs[*].replicas"
GROUP: Body = {"name": "cpu", "min_replicas": 1, "max_replicas": 5}


@pytest.fixture
def fake() -> Iterator[FakeKubernetes]:
    made, server = serve()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.gate, "PAUSE", 0.001)
    monkeypatch.setattr(infra.wait, "PAUSES", ((float("inf"), 0.001),))
    monkeypatch.setattr(infra.wait, "REFUSAL_SECONDS", 0.01)


class World:
    """A folder with the kubeconfig of a fake Kubernetes, and what runs there."""

    def __init__(self, fake: FakeKubernetes, folder: Path) -> None:
        self.fake = fake
        self._kubeconfig = fake.kubeconfig(folder)

    def spec(self, **fields: Any) -> KubeRayClusterSpec:
        plain = {"name": "dev", "ray_version": "2.60.0", "python_version": "3.11", "token_authentication": False}
        spec = parse_spec({**plain, "worker_groups": [GROUP], "kubeconfig": self._kubeconfig, **fields})
        assert isinstance(spec, KubeRayClusterSpec)
        return spec

    def runs(self, spec: KubeRayClusterSpec, *, replicas: int | None = None, workers: int = 1, **metadata: Any) -> Body:
        """Put the RayCluster of a spec and its pods there, as made by the stack of these tests."""
        body = running(spec, **metadata)
        body["metadata"]["labels"] = {**body["metadata"]["labels"], "infill/stack": "infill.test"}
        if replicas is not None:
            body["spec"]["workerGroupSpecs"][0]["replicas"] = replicas
        self.fake.add(body, *pods_of(body, cpu=workers))
        return body

    def up(self, spec: KubeRayClusterSpec, *, preview: bool = False, **args: Any) -> Ran:
        def program() -> None:
            pulumi.export("c", RayCluster("c", RayClusterArgs(spec, **args)).outputs)

        return run_program(program, preview=preview)


@pytest.fixture
def world(fake: FakeKubernetes, tmp_path: Path) -> World:
    return World(fake, tmp_path)


def declared_replicas(ran: Ran) -> Any:
    return ran.ok()["RayCluster c"].inputs["spec"]["workerGroupSpecs"][0].get("replicas")


def in_kubernetes(ran: Ran) -> list[str]:
    return [key for key, item in ran.resources.items() if item.type.startswith("kubernetes:")]


def test_up_ends_when_the_cluster_serves(world: World) -> None:
    spec = world.spec()
    world.runs(spec)
    ran = world.up(spec).ok()
    assert ran.exports["c"]["ray_address"] == "ray://dev-head-svc.default.svc:10001"
    assert world.fake.requests("GET").count(PODS) == 3  # what an earlier change left, what this one does, and what is ready


def test_up_fails_in_kubernetes_words_and_so_does_the_next(world: World) -> None:
    spec = world.spec()
    body = world.runs(spec, workers=0)
    broken = pod(body, "cpu", template="")
    broken["status"] = {
        "containerStatuses": [{"name": "ray-worker", "state": {"waiting": {"reason": "ErrImagePull", "message": "none"}}}]
    }
    broken["metadata"]["annotations"] = pods_of(body, cpu=1)[1]["metadata"]["annotations"]
    world.fake.add(broken)
    for _ in range(2):
        ran = world.up(spec)
        assert ran.failed(pulumi.RunError) == (
            "cluster dev in namespace default cannot start: pod dev-cpu-0, container ray-worker: ErrImagePull: none"
        )
        assert "RayCluster c" in ran.resources  # it is in the state, so that it can be destroyed


def test_a_preview_looks_and_does_not_wait(world: World) -> None:
    spec = world.spec()
    ran = world.up(spec, preview=True).ok()
    assert set(ran.exports["c"].values()) == {UNKNOWN}
    assert PODS not in world.fake.requests("GET")
    assert "/apis/ray.io/v1/namespaces/default/rayclusters" in world.fake.requests("GET")


def test_without_wait_kubernetes_is_not_asked(world: World) -> None:
    ran = world.up(world.spec(), wait=False).ok()
    assert ran.exports["c"]["cluster_name"] == "dev"
    assert world.fake.asked == []


def test_kubernetes_is_not_there(world: World) -> None:
    ran = world.up(world.spec(kubeconfig="/nonexistent"))
    assert ran.failed(pulumi.RunError).startswith("no kubeconfig at /nonexistent (kubeconfig)")
    assert in_kubernetes(ran) == []


# Autoscaled replicas


def test_autoscaled_replicas_alone_are_no_change(world: World) -> None:
    spec = world.spec()
    world.runs(spec, replicas=3)
    ran = world.up(spec)
    assert declared_replicas(ran) is None
    assert list(ran["RayCluster c"].request.ignoreChanges) == [REPLICAS]
    assert ran.said == []


def test_with_a_change_autoscaled_replicas_are_written_within_the_new_bounds(world: World) -> None:
    world.runs(world.spec(), replicas=4)
    ran = world.up(world.spec(worker_groups=[{**GROUP, "max_replicas": 3}]))
    assert declared_replicas(ran) == 3
    assert list(ran["RayCluster c"].request.ignoreChanges) == []
    assert ran.said[0] == (
        "INFO", "cluster dev: in place: no pod is touched\n  spec.workerGroupSpecs[cpu].maxReplicas: 5 -> 3"
    )  # fmt: skip


def test_a_new_cluster_has_no_replicas_of_another(world: World) -> None:
    spec, other = world.spec(), world.spec(name="other")
    world.runs(other, replicas=4)
    ran = world.up(spec, preview=True)
    assert declared_replicas(ran) is None
    assert list(ran["RayCluster c"].request.ignoreChanges) == []


def test_without_the_autoscaler_replicas_are_always_declared(world: World) -> None:
    spec = world.spec(autoscaler={"enabled": False}, worker_groups=[{"name": "cpu", "replicas": 1}])
    world.runs(spec)
    ran = world.up(spec)
    assert declared_replicas(ran) == 1
    assert list(ran["RayCluster c"].request.ignoreChanges) == []


# Running jobs


def test_running_jobs_refuse_a_disruptive_change_before_anything_is_declared(world: World) -> None:
    world.runs(world.spec())
    world.fake.answers[f"GET {jobs_path('dev')}"] = [(200, BUSY)]
    changed = world.spec(head_group={"cpus": 2}, network_policy={})
    ran = world.up(changed)
    assert ran.failed(pulumi.RunError).startswith("cluster dev runs 1 jobs, which this change (the head changes: ")
    assert in_kubernetes(ran) == []


@pytest.mark.parametrize(("args", "preview"), [({"force": True}, False), ({}, True)])
def test_by_force_and_in_a_preview_they_are_a_warning(world: World, args: Body, preview: bool) -> None:
    world.runs(world.spec())
    world.fake.answers[f"GET {jobs_path('dev')}"] = [(200, BUSY)]
    changed = world.spec(worker_groups=[{**GROUP, "cpus": 2}])

    def replaced_by_kuberay() -> None:
        body = running(changed)
        body["metadata"]["labels"]["infill/stack"] = "infill.test"
        if world.fake.requests("DELETE"):
            world.fake.add(body, *pods_of(body, cpu=1))

    world.fake.on_request = lambda _: replaced_by_kuberay()
    ran = world.up(changed, preview=preview, **args).ok()
    warnings = [text for level, text in ran.said if level == "WARNING"]
    assert warnings == [
        "cluster dev runs 1 jobs, which this change (pods of cpu are deleted and made anew) ends: raysubmit_1 (python a.py)"
    ]
    assert world.fake.requests("DELETE") == ([] if preview else [f"{PODS}/dev-cpu-0"])


@pytest.mark.parametrize(("adopt", "taken"), [(False, False), (True, True)])
def test_a_cluster_that_others_made_is_taken_over_only_when_asked(world: World, adopt: bool, taken: bool) -> None:
    spec = world.spec()
    world.runs(spec)["metadata"]["labels"] = {}
    ran = world.up(spec, adopt=adopt)
    if taken:
        assert in_kubernetes(ran.ok()) == ["RayCluster c"]
    else:
        assert "no stack of Infill made it" in ran.failed(pulumi.RunError)
        assert in_kubernetes(ran) == []


# NewCluster


def test_the_alias_goes_over_once_the_new_cluster_serves_and_the_old_one_s_jobs_are_waited_for(world: World) -> None:
    before, after = (world.spec(upgrade_strategy="NewCluster", head_group={"cpus": cpus}) for cpus in (1, 2))
    old, new = (ray_cluster_body(spec)["metadata"]["name"] for spec in (before, after))
    world.runs(before)

    def made_by_pulumi() -> None:
        if PODS in world.fake.requests("GET"):
            world.runs(after, created="2026-02-01T00:00:00Z")

    world.fake.on_request = lambda _: made_by_pulumi()
    world.fake.answers[f"GET {jobs_path(old)}"] = [(200, BUSY), (200, [])]
    ran = world.up(after).ok()
    assert ran["RayCluster c"].metadata["name"] == new != old
    assert ran["Service c-head"].inputs["spec"]["selector"]["ray.io/cluster"] == new
    assert ran.exports["c"]["cluster_name"] == new
    assert ran.said[-1] == ("INFO", f"{new} has taken over; waiting for the jobs of {old}: raysubmit_1 (python a.py)")


def test_the_alias_stays_where_the_new_cluster_does_not_serve(world: World) -> None:
    before, after = (world.spec(upgrade_strategy="NewCluster", head_group={"cpus": cpus}) for cpus in (1, 2))
    world.runs(before)
    world.runs(after, workers=0)
    ran = world.up(after.model_copy(update={"ready_timeout_seconds": 0}))
    assert "does not serve after 0 s: still waiting for cpu 0/1" in ran.failed(pulumi.RunError)
    assert "Service c-head" not in ran.resources


# A stack that looks


def stack_up(world: World, folder: Path, *names: str, preview: bool = False, **config: Any) -> Ran:
    """`up` of a stack that has these clusters."""
    for name in names:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(world.spec(name=name).plain()))
    return run_program(lambda: declare(folder), config={f"infill:{key}": value for key, value in config.items()}, preview=preview)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clusters").mkdir()
    return tmp_path / "clusters"


def test_only_the_clusters_to_adopt_are_taken_over(world: World, folder: Path) -> None:
    for name in ("a", "b"):
        world.runs(world.spec(name=name))["metadata"]["labels"]["infill/stack"] = "infill.other"
    text = stack_up(world, folder, "a", "b", adopt=["a"]).failed(pulumi.RunError)
    assert text.startswith("cluster b exists already in namespace default, and the stack infill.other made it.")
    assert set(stack_up(world, folder, "a", "b", adopt=["a", "b"]).ok().exports) == {"a", "b"}


def test_a_cluster_whose_file_is_gone_is_not_removed_while_its_jobs_run(world: World, folder: Path) -> None:
    for name in ("a", "old"):
        world.runs(world.spec(name=name))
    world.fake.answers[f"GET {jobs_path('old')}"] = [(200, BUSY)]
    problem = "cluster old runs 1 jobs, which its removal ends: raysubmit_1 (python a.py)"
    ran = stack_up(world, folder, "a")
    assert ran.failed(pulumi.RunError).startswith(problem)
    assert ran.resources == {}
    for ran in (stack_up(world, folder, "a", force=True), stack_up(world, folder, "a", preview=True)):
        assert ran.ok().said == [("WARNING", problem)]
