"""Each kind of change of a running cluster: what the preview says, and what happens to pods and jobs (``pytest -s`` prints both).

The tests of one cluster are in order, each begins with what the one before left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.conftest import Api, delete_namespace, eventually, make_namespace
from tests.cluster.live import MOVES_SECONDS, Live
from tests.cluster.pulumi_project import LIMIT_SECONDS, SMALL, Done, Project, cluster, worker

GPU_IMAGE = "rayproject/ray:2.60.0-py311-gpu"
LIGHT = {"requests": {"cpus": "200m", "memory": "512Mi"}}
"""Two clusters fit the node."""


@dataclass
class Stack:
    """A stack of one cluster, c, and what was seen of it."""

    project: Project
    live: Live
    spec: dict[str, Any]
    table: list[str]

    def up(self, *, force: bool = False) -> Done:
        self.project.write(self.spec)
        self.project.configure(force=force)
        return self.project.up()

    def preview(self) -> str:
        self.project.write(self.spec)
        return self.project.preview().ok().said

    def steady(self) -> None:
        """Nothing is left to do, nor to say."""
        assert "cluster c:" not in self.project.preview("--expect-no-changes").ok().said

    def note(self, kind: str, preview: str, happened: str) -> None:
        said = re.findall(r"^(?:warning: )?cluster \w+:? (.*)$", preview, re.MULTILINE)
        self.table.append(f"{kind}\n  preview   {' | '.join(said)[:220] or 'create, delete'}\n  happened  {happened}")


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    rows: list[str] = []
    yield rows
    print("\n\n" + "\n".join(rows))


@pytest.fixture(scope="module")
def stack(pulumi: Callable[..., Project], api: Api, table: list[str]) -> Iterator[Stack]:
    namespace = make_namespace(api, "infill-upgrades")
    project = pulumi("upgrades")
    # So long that Ray's autoscaler moves nothing by itself.
    autoscaler = {"requests": {"cpus": "100m", "memory": "256Mi"}, "idle_timeout_seconds": 900}
    spec = cluster("c", namespace, head_group={**SMALL, **LIGHT}, worker_groups=[worker("cpu", **LIGHT)], autoscaler=autoscaler)
    made = Stack(project, Live(api, namespace), spec, table)
    try:
        made.up().ok()
        yield made
    finally:
        delete_namespace(api, namespace)


@pytest.fixture(scope="module")
def job(stack: Stack) -> str:
    """A job that runs as long as its cluster."""
    return stack.live.start_job("c", "sleep 3600")


def test_bounds_change_in_place_and_autoscaled_replicas_stay(stack: Stack) -> None:
    stack.live.patch("c", replicas=2)
    assert eventually(lambda: len(stack.live.pods("cpu")) == 2, MOVES_SECONDS)
    pods = stack.live.uids()
    stack.spec["worker_groups"][0]["max_replicas"] = 3
    preview = stack.preview()
    assert "cluster c: in place: no pod is touched\n  spec.workerGroupSpecs[cpu].maxReplicas: 2 -> 3\n" in preview

    stack.up().ok()

    assert stack.live.uids() == pods
    (group,) = (stack.live.cluster("c") or {})["spec"]["workerGroupSpecs"]
    assert (group["replicas"], group["maxReplicas"]) == (2, 3)
    stack.note("bounds", preview, "the same pods, 2 autoscaled replicas kept")


def test_a_group_is_added_in_place(stack: Stack) -> None:
    pods = stack.live.uids()
    stack.spec["worker_groups"].append(worker("two", **LIGHT))
    preview = stack.preview()
    assert "cluster c: in place: no pod is touched\n  spec.workerGroupSpecs[two]: nothing -> {" in preview

    stack.up().ok()

    assert stack.live.uids("headgroup", "cpu") >= pods
    assert [pod.phase for pod in stack.live.pods("two").values()] == ["Running"]
    stack.note("add group", preview, "the same pods, and one of the new group")


def test_a_group_is_removed_with_its_pods_and_not_under_a_job(stack: Stack, job: str) -> None:
    others, pods = stack.live.uids("headgroup", "cpu"), stack.live.uids()
    del stack.spec["worker_groups"][1]
    preview = stack.preview()
    assert "cluster c: group two goes, with its pods\n  spec.workerGroupSpecs[two]: {" in preview

    refused = stack.up().failed()
    assert f"cluster c runs 1 jobs, which this change (group two goes, with its pods) ends: {job} (sleep 3600)" in refused.error
    assert stack.live.uids() == pods

    stack.up(force=True).ok()
    assert stack.live.pods("two") == {}
    assert stack.live.uids("headgroup", "cpu") >= others
    assert stack.live.job_status("c", job) == "RUNNING"
    stack.note("remove group", preview, "refused while a job ran; forced: its pods went, others stayed, the job went on")


def test_an_image_replaces_all_pods(stack: Stack, job: str) -> None:
    pods = stack.live.uids()
    stack.spec["head_group"]["image"] = stack.spec["worker_groups"][0]["image"] = GPU_IMAGE
    preview = stack.preview()
    assert "cluster c: the head changes: all pods are deleted and made anew, jobs that run end\n" in preview
    assert f"spec.headGroupSpec.template.spec.containers[ray-head].image: rayproject/ray:2.60.0-py311 -> {GPU_IMAGE}" in preview

    assert "warning: cluster c runs 1 jobs, which this change (the head changes: all pods are deleted and made anew" in preview

    done = stack.up(force=True).ok()
    assert stack.live.uids().isdisjoint(pods)
    assert stack.live.job_status("c", job) == ""  # Ray's memory of it went with the head
    stack.steady()
    stack.note(
        "image of head and workers",
        preview,
        f"forced under a job: all pods anew in {done.seconds:.0f} s, the job ended",
    )


def test_under_none_pods_stay_as_they_were(stack: Stack) -> None:
    pods = stack.live.uids()
    stack.spec["upgrade_strategy"] = "None"
    stack.spec["head_group"]["env"] = stack.spec["worker_groups"][0]["env"] = {"A": "1"}
    preview = stack.preview()
    assert "cluster c: pods of the head, cpu stay as they were made until something else ends them\n" in preview

    stack.up().ok()

    assert stack.live.uids() == pods
    stack.steady()
    stack.note("template, strategy None", preview, "the same pods; nothing to change afterwards")


def test_back_from_none_the_pods_left_behind_are_named_and_spared_under_a_job(stack: Stack) -> None:
    pods = stack.live.uids()
    second = stack.live.start_job("c", "sleep 3600")
    stack.spec["upgrade_strategy"] = "Recreate"
    preview = stack.preview()
    assert (
        "cluster c: the head changes: all pods are deleted and made anew, jobs that run end, which an earlier change left"
        in preview
    )

    assert f"ends: {second} (sleep 3600)" in stack.up().failed().error

    assert stack.live.uids() == pods
    stack.note("strategy None to Recreate", preview, "refused while a job ran, the same pods")


def test_another_name_is_another_cluster_and_the_old_one_is_spared_under_a_job(stack: Stack) -> None:
    pods = stack.live.uids()
    stack.spec["name"], stack.spec["suspend"] = "d", True
    (stack.project.folder / "clusters/c.yaml").unlink()
    preview = stack.preview()
    assert "warning: cluster c runs 1 jobs, which its removal ends" in preview

    assert "cluster c runs 1 jobs, which its removal ends" in stack.up().failed().error
    assert stack.live.uids() == pods

    stack.up(force=True).ok()
    assert stack.live.clusters() == {"d"}
    assert eventually(lambda: stack.live.pods() == {}, MOVES_SECONDS)
    assert set(stack.project.outputs()) == {"d"}
    stack.note("name", preview, "refused while a job ran; forced: the new one made, the old one removed")


def test_a_new_cluster_takes_over_when_it_serves_and_the_old_goes_when_its_jobs_are_done(
    pulumi: Callable[..., Project], api: Api, namespace: str, table: list[str]
) -> None:
    live, project = Live(api, namespace), pulumi("new-cluster")
    groups = {"head_group": {**SMALL, **LIGHT}, "worker_groups": [worker("cpu", **LIGHT)]}
    stack = Stack(project, live, cluster("c", namespace, upgrade_strategy="NewCluster", **groups), table)
    stack.up().ok()
    old = project.outputs()["c"]["cluster_name"]
    assert re.fullmatch("c-[0-9a-f]{6}", old)
    assert alias(live) == old
    job = live.start_job(old, "until [ -e /tmp/enough ]; do sleep 0.1; done")

    stack.spec["worker_groups"][0]["env"] = {"A": "1"}
    preview = stack.preview()
    new = (re.findall(r"a new cluster (\S+) is made beside it; the old one goes when its jobs are done", preview) or [""])[0]
    assert new not in ("", old)

    process = project.begin("up", "--yes", "--skip-preview")
    assert eventually(lambda: alias(live) == new, LIMIT_SECONDS)
    assert live.clusters() == {old, new}
    assert [live.job_status(cluster, job) for cluster in (old, new)] == ["RUNNING", ""]
    live.start_job(old, "touch /tmp/enough")
    assert eventually(lambda: live.job_status(old, job) == "SUCCEEDED", MOVES_SECONDS)
    said, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 0, said
    assert f"{new} has taken over; waiting for the jobs of {old}: {job}" in said
    assert live.clusters() == {new}
    assert project.outputs()["c"]["cluster_name"] == new
    stack.steady()
    stack.note(
        "template, strategy NewCluster",
        preview,
        "the alias Service moved when the new one served; the old went when its job had SUCCEEDED",
    )


def alias(live: Live) -> str:
    """The RayCluster that the Service under the spec's name leads to."""
    service = live.api.get(f"/api/v1/namespaces/{live.namespace}/services/c-head-svc")
    return str(service["spec"]["selector"]["ray.io/cluster"]) if service else ""
