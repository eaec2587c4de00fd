"""What declared backfills are rendered as, before the judges of it: the API server, and KubeRay's operator."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from infra.backfill_body import Driver, ray_cron_job_body
from infra.backfill_resources import backfill_resources
from infra.spec import KubeRayClusterSpec
from tests.cluster.conftest import Api, eventually
from tests.cluster.test_dry_run import STRICT, problem_of
from tests.unit.declared_backfills import DRIVER, backfill, cluster

NAMESPACE = "spec-tests"
PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "CronJob": "/apis/batch/v1/namespaces/{}/cronjobs",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "RayCronJob": "/apis/ray.io/v1/namespaces/{}/raycronjobs",
    "RayJob": "/apis/ray.io/v1/namespaces/{}/rayjobs",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
}
EXITS = ("DELETE", "RETAIN_ON_FAILURE", "RETAIN")
GIVEN: list[dict[str, Any]] = [
    {},
    {"active_deadline_seconds": 60, "backoff_limit": 3},
    {"storage_options": {"region": "x", "token": {"secret": "s3", "key": "token"}, "key": "${env:HOME}"}},
    {"name": "c" * 36},
]
SHAPES: list[dict[str, Any]] = [
    {},
    {"autoscaler": {"enabled": False}, "network_policy": {"from_blocks": ["10.0.0.0/8"]}},
    {"scheduler": {"name": "kueue", "queue": "q"}, "worker_groups": [{"kind": "gpu"}], "head_group": {"image_pull_secrets": ["r"]}},
]


def shape(namespace: str, **fields: Any) -> KubeRayClusterSpec:
    return cluster(**{**fields, "namespace": namespace})


def rendered(namespace: str) -> list[dict[str, Any]]:
    """Every kind of backfill: once and by a schedule, of each exit mode, on its own cluster and on a standing one."""
    found = []
    for fields, on_exit, plain in product(GIVEN, EXITS, SHAPES):
        once = backfill(**fields, on_exit=on_exit)
        nightly = backfill(**fields, on_exit=on_exit, schedule="0 3 * * *", time_zone="Europe/Berlin", suspend=True)
        found += backfill_resources(once, shape(namespace, **plain), DRIVER)
        for kind in ("CronJob", "RayCronJob"):
            found += backfill_resources(nightly, shape(namespace, **plain), DRIVER, kind)  # type: ignore[arg-type]
    standing = {"standing": True, "active_deadline_seconds": 60}
    found += backfill_resources(backfill(**standing), shape(namespace), DRIVER)
    found += backfill_resources(backfill(**standing, schedule="@daily"), shape(namespace), DRIVER)
    return [*found, *backfill_resources(backfill(suspend=True), shape(namespace), DRIVER)]


def test_the_api_server_takes_what_is_rendered_without_a_warning(api: Api, namespace: str) -> None:
    bodies = rendered(namespace)
    assert {body["kind"] for body in bodies} == set(PATHS)

    def asked(body: dict[str, Any]) -> Any:
        return api.kube.request("POST", PATHS[body["kind"]].format(namespace), json=body, params=STRICT)

    answers = api.all([asked(body) for body in bodies])
    assert [problem for body, answer in zip(bodies, answers, strict=True) if (problem := problem_of(body, answer))] == []

    bodies[0]["spec"]["entrypiont"] = "x"
    (answer,) = api.all([asked(bodies[0])])
    assert 'unknown field "spec.entrypiont"' in problem_of(bodies[0], answer)


@pytest.mark.usefixtures("operator")
def test_the_operator_finds_nothing_invalid_in_what_is_rendered(api: Api, namespace: str) -> None:
    """It looks at the template of a RayCronJob that is suspended, too, and makes nothing of it."""
    path = PATHS["RayCronJob"].format(namespace)
    bodies = {}
    for number, (fields, on_exit, plain) in enumerate(product(GIVEN[:3], EXITS, SHAPES[:2])):
        spec = backfill(**{**fields, "name": f"b{number}".ljust(36, "x")}, on_exit=on_exit, schedule="0 3 * * *", suspend=True)
        bodies[spec.name] = ray_cron_job_body(spec, shape(namespace, **plain), DRIVER)
        # As of a run that `pulumi up` makes, which is not a template.
        once = backfill(**{**fields, "name": f"o{number}".ljust(36, "x")}, on_exit=on_exit)
        (*_, job) = backfill_resources(once, shape(namespace, **plain), DRIVER)
        bodies[once.name] = {**bodies[spec.name], "metadata": {"name": once.name, "namespace": namespace}}
        bodies[once.name]["spec"] = {**bodies[spec.name]["spec"], "jobTemplate": job["spec"]}
    wrong = {**bodies["b0".ljust(36, "x")], "metadata": {"name": "wrong", "namespace": namespace}}
    template = {**wrong["spec"]["jobTemplate"], "shutdownAfterJobFinishes": True}
    bodies["wrong"] = {**wrong, "spec": {**wrong["spec"], "jobTemplate": template}}
    answers = api.all([api.kube.request("POST", path, json=body) for body in bodies.values()])
    assert [problem for body, answer in zip(bodies.values(), answers, strict=True) if (problem := problem_of(body, answer))] == []

    def said() -> dict[str, str]:
        events = api.list(f"/api/v1/namespaces/{namespace}/events")
        return {event["involvedObject"]["name"]: f"{event['reason']}: {event['message']}" for event in events}

    if not eventually(lambda: "wrong" in said(), 20):
        pytest.skip("KubeRay's feature gate RayCronJob is off: its operator looks at none")
    assert "deletionRules are mutually exclusive" in said()["wrong"]
    assert eventually(lambda: set(said()) == set(bodies), 60), set(bodies) - set(said())
    assert {name: text for name, text in said().items() if "Suspended" not in text and name != "wrong"} == {}


def test_a_long_request_goes_in_whole(api: Api, namespace: str) -> None:
    """The code that travels with a run is a variable of a few KB; the API server takes a hundred times as much."""
    driver = Driver('python -c "$X"', {"env_vars": {"X": "import os\n" * 20_000}})
    (body,) = backfill_resources(backfill(), shape(namespace), driver)
    (answer,) = api.all([api.kube.request("POST", PATHS["RayJob"].format(namespace), json=body, params=STRICT)])
    assert problem_of(body, answer) == ""
