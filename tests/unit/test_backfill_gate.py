"""Before and after a backfill is declared, against a small API server: whose it is, what KubeRay has and says."""

from __future__ import annotations

from typing import Any

import pytest

import infra.backfill_gate
from infra.backfill_gate import is_suspended_now, look, wait_taken
from infra.errors import BadSpec, InfraError, NotAllowed
from infra.kube import Kubernetes, run
from infra.support import Operator
from tests.unit.declared_backfills import backfill
from tests.unit.fake_kubernetes import Asked, Body, FakeKubernetes

JOBS = "/apis/ray.io/v1/namespaces/ray/rayjobs"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.backfill_gate, "PAUSE", 0.001)


def made(kind: str, stack: str, **metadata: Any) -> Body:
    """A resource of the backfill that a stack has declared."""
    return {
        "apiVersion": "batch/v1" if kind == "CronJob" else "ray.io/v1",
        "kind": kind,
        "metadata": {
            "name": "captions-1",
            "namespace": "ray",
            "labels": {"infill/backfill": "captions"},
            "annotations": {"infill/declared-by": stack},
            **metadata,
        },
        "spec": {},
    }


def looked(kube: Kubernetes, operator: Operator | None = None, **fields: Any) -> Operator:
    return run(look(kube.access, backfill(**fields), "ray", operator, stack="infill.dev"))


def test_one_s_own_is_no_one_else_s(fake: FakeKubernetes, kube: Kubernetes) -> None:
    fake.add(made("RayJob", "infill.dev"))
    assert looked(kube) == Operator(None, None)
    fake.add(made("RayJob", "infill.other", ownerReferences=[{"kind": "CronJob"}]))  # of a schedule, which has its own look
    looked(kube)


@pytest.mark.parametrize("kind", ["RayJob", "RayCronJob", "CronJob"])
def test_a_file_that_two_stacks_declare(fake: FakeKubernetes, kube: Kubernetes, kind: str) -> None:
    fake.add(made(kind, "infill.prod"))
    with pytest.raises(BadSpec, match=r"backfill 'captions': the stack infill\.prod declares it already, in namespace ray"):
        looked(kube)


def test_what_is_too_old_and_what_is_not_allowed(fake: FakeKubernetes, kube: Kubernetes) -> None:
    with pytest.raises(BadSpec, match=r"backfill 'captions' needs KubeRay 1\.7\.0, and 1\.6\.2 runs; upgrade it"):
        looked(kube, Operator("1.6.2", frozenset()))
    fake.denied = {"create ray.io/rayjobs", "delete batch/cronjobs"}
    with pytest.raises(NotAllowed, match="may not create rayjobs in namespace ray"):
        looked(kube)
    with pytest.raises(NotAllowed, match="may not delete cronjobs in namespace ray"):
        looked(kube, schedule="@daily")
    looked(kube, Operator("1.7.0", frozenset({"RayCronJob"})), schedule="@daily")


@pytest.mark.parametrize(("spec", "suspended"), [(None, False), ({}, False), ({"suspend": True}, True)])
def test_whether_a_ray_cron_job_is_suspended(fake: FakeKubernetes, kube: Kubernetes, spec: Body | None, suspended: bool) -> None:
    if spec is not None:
        fake.add({**made("RayCronJob", "infill.dev", name="captions"), "spec": spec})
    assert run(is_suspended_now(kube.access, "captions", "ray")) is suspended


def test_kuberay_s_word_on_a_run_is_waited_for(fake: FakeKubernetes, kube: Kubernetes) -> None:
    body = made("RayJob", "infill.dev")

    def after_three(_: Asked) -> None:
        if len(fake.requests("GET")) == 4:  # the first is of the connection
            body["status"] = {"jobDeploymentStatus": "Initializing"}

    fake.add(body)
    fake.on_request = after_three
    assert run(wait_taken(kube.access, "captions-1", "ray")) == "Initializing"
    assert fake.requests("GET")[1:] == [f"{JOBS}/captions-1"] * 3


def test_what_kuberay_refuses_is_told_in_its_words(fake: FakeKubernetes, kube: Kubernetes) -> None:
    status = {"jobDeploymentStatus": "ValidationFailed", "message": "a RayJob is not allowed to be suspended"}
    fake.add({**made("RayJob", "infill.dev"), "status": status})
    with pytest.raises(InfraError, match="run captions-1: KubeRay does not take it: a RayJob is not allowed to be suspended"):
        run(wait_taken(kube.access, "captions-1", "ray"))


def test_an_operator_that_does_not_look(monkeypatch: pytest.MonkeyPatch, kube: Kubernetes) -> None:
    monkeypatch.setattr(infra.backfill_gate, "TAKEN_SECONDS", 0.01)
    assert run(wait_taken(kube.access, "captions-1", "ray")) == ""
