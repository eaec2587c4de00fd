"""The components of declared backfills against Pulumi's mocks: what they declare, under which names, and what is said."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from infra.backfill_body import Driver, ray_cron_job_body, ray_job_body
from infra.job import BackfillArgs, BackfillJob, BackfillSchedule
from infra.kube import Access
from infra.support import Operator
from tests.unit.declared_backfills import DRIVER, backfill, cluster
from tests.unit.pulumi_mocks import Ran, run_program

Body = dict[str, Any]

DAILY: Body = {"schedule": "@daily"}


def declared(
    driver: Driver = DRIVER, args: dict[str, Any] | None = None, shape: dict[str, Any] | None = None, **fields: Any
) -> Ran:
    component = BackfillSchedule if "schedule" in fields else BackfillJob

    def program() -> None:
        made = component("c", BackfillArgs(backfill(**fields), cluster(**(shape or {})), driver, **{"wait": False, **(args or {})}))
        pulumi.export("c", made.outputs)

    return run_program(program)


def kinds(ran: Ran) -> list[str]:
    return sorted(f"{item.type.rpartition(':')[2]} {item.name}" for item in ran.ok().resources.values())


def test_a_run_is_a_resource_of_its_declaration() -> None:
    ran = declared()
    body = ray_job_body(backfill(), cluster(), DRIVER)
    name = body["metadata"]["name"]
    assert kinds(ran) == ["BackfillJob c", f"RayJob {name}"]
    resource = ran[f"RayJob {name}"]
    assert resource.inputs["spec"] == {**body["spec"], "preRunningDeadlineSeconds": 900}
    assert resource.metadata["annotations"] == {"infill/declared-by": "infill.test", "pulumi.com/skipAwait": "true"}
    assert list(resource.request.ignoreChanges) == ["spec.entrypoint", "spec.runtimeEnvYAML", "spec.rayClusterSpec"]
    assert ran.exports["c"] == {"run_name": name, "namespace": "ray"}
    again = declared(Driver("another", {"env_vars": {}}, DRIVER.environment))
    assert kinds(again) == kinds(ran)
    assert kinds(declared(where="day > 7")) != kinds(ran)


def test_what_a_run_s_own_cluster_asks_for_comes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "v3ry-s3cr3t-value")
    ran = declared(shape={"network_policy": {}}, storage_options={"token": "${env:TOKEN}"})
    assert [kind for kind in kinds(ran) if not kind.startswith("RayJob")] == ["BackfillJob c", "NetworkPolicy c", "Secret c-env"]
    (job,) = [item for item in ran.resources.values() if item.type.endswith("RayJob")]
    assert job.depends_on == {"NetworkPolicy c", "Secret c-env"}
    assert ran["Secret c-env"].metadata["name"] == "captions-run-env"
    assert ran["Secret c-env"].secrets == {"stringData": {"head.INFILL_STORAGE_OPTION_TOKEN": "v3ry-s3cr3t-value"}}
    assert "v3ry-s3cr3t-value" not in ran.everything_in_clear()


def test_a_schedule_is_a_cron_job_where_the_gate_is_not_known_to_be_on() -> None:
    ran = declared(**DAILY)
    assert kinds(ran) == ["BackfillSchedule c", "ConfigMap c", "CronJob c", "Role c", "RoleBinding c", "ServiceAccount c"]
    assert ran["CronJob c"].depends_on == {"ServiceAccount c", "Role c", "RoleBinding c", "ConfigMap c"}
    assert ran["CronJob c"].inputs["spec"]["schedule"] == "@daily"
    assert ran["RoleBinding c"].inputs["roleRef"]["name"] == "captions-schedule"
    assert ran.exports["c"] == {"kind": "CronJob", "schedule_name": "captions", "namespace": "ray"}
    assert (
        "INFO",
        "backfill captions: KubeRay's feature gate RayCronJob is not known to be on: a CronJob makes its runs",
    ) in ran.said


@pytest.mark.parametrize(
    ("gates", "kind", "word"),
    [({"RayCronJob"}, "RayCronJob", "on"), (set(), "CronJob", "off"), (None, "CronJob", "not known to be on")],
)
def test_the_gate_decides_and_is_said(monkeypatch: pytest.MonkeyPatch, gates: set[str] | None, kind: str, word: str) -> None:
    async def look(*_: Any, **__: Any) -> Operator:
        return Operator("1.7.0", frozenset(gates) if gates is not None else None)

    async def suspended(*_: Any) -> bool:
        return True

    monkeypatch.setattr("infra.job.access_of", lambda _: Access("kubeconfig"))
    monkeypatch.setattr("infra.job.look", look)
    monkeypatch.setattr("infra.job.is_suspended_now", suspended)
    ran = declared(args={"wait": True}, **DAILY)
    assert ran.ok().exports["c"]["kind"] == kind
    assert f"KubeRay's feature gate RayCronJob is {word}: a {kind} makes its runs" in ran.said[0][1]
    if kind == "RayCronJob":
        made = ran["RayCronJob c"]
        assert made.inputs["spec"] == ray_cron_job_body(backfill(**DAILY), cluster(), DRIVER)["spec"]
        assert list(made.request.replaceOnChanges) == ["spec.suspend"]  # what it missed is not made up for
        assert made.request.deleteBeforeReplace
        again = declared(args={"wait": True}, suspend=True, **DAILY)
        assert list(again.ok()["RayCronJob c"].request.replaceOnChanges) == []


def test_the_stack_may_choose_and_not_wrongly() -> None:
    assert declared(args={"kind": "RayCronJob"}, **DAILY).ok().exports["c"]["kind"] == "RayCronJob"
    assert declared(standing=True, **DAILY).ok().exports["c"]["kind"] == "CronJob"
    refused = declared(args={"kind": "RayCronJob"}, standing=True, **DAILY).failed(pulumi.RunError)
    assert "nothing removes the runs of a RayCronJob on a standing cluster" in refused


def test_each_is_for_its_own_kind_of_backfill() -> None:
    def program() -> None:
        BackfillSchedule("c", BackfillArgs(backfill(), cluster(), DRIVER, wait=False))

    assert "has no schedule; declare it with BackfillJob" in run_program(program).failed(pulumi.RunError)
