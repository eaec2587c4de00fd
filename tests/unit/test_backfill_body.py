"""A declared backfill as resources: by value, for each exit mode, once and by a schedule."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from infra.backfill_body import own_cluster, ray_cron_job_body, ray_job_body, run_name
from infra.backfill_resources import backfill_resources
from infra.body import env_secret_name, ray_cluster_body
from infra.errors import BadSpec
from tests.unit.declared_backfills import DRIVER, backfill, cluster


def rules(spec: dict[str, Any]) -> list[tuple[str, str, int]]:
    found = []
    for rule in spec.get("deletionStrategy", {}).get("deletionRules", []):
        status = rule["condition"].get("jobStatus") or rule["condition"]["jobDeploymentStatus"]
        found.append((rule["policy"], status, rule["condition"]["ttlSeconds"]))
    return found


def test_a_run_has_a_cluster_of_its_own() -> None:
    body = ray_job_body(backfill(active_deadline_seconds=60, backoff_limit=2), cluster(ready_timeout_seconds=30), DRIVER)
    spec = body["spec"]
    assert (body["kind"], body["metadata"]["namespace"]) == ("RayJob", "ray")
    assert body["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "infill", "infill/backfill": "captions"}
    assert spec["rayClusterSpec"] == ray_cluster_body(own_cluster(backfill(), cluster(ready_timeout_seconds=30)))["spec"]
    assert (spec["submissionMode"], spec["entrypoint"], spec["backoffLimit"]) == ("HTTPMode", "python -m driver", 2)
    assert (spec["activeDeadlineSeconds"], spec["preRunningDeadlineSeconds"]) == (60, 30)
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == DRIVER.runtime_env
    assert "clusterSelector" not in spec


def test_what_becomes_of_the_cluster_of_one_run() -> None:
    spec = ray_job_body(backfill(suspend=True), cluster(), DRIVER)["spec"]
    assert (spec["shutdownAfterJobFinishes"], spec["suspend"], rules(spec)) == (True, True, [])
    kept = ray_job_body(backfill(on_exit="RETAIN_ON_FAILURE"), cluster(), DRIVER)["spec"]
    assert rules(kept) == [("DeleteCluster", "SUCCEEDED", 0)]
    for spec in (kept, ray_job_body(backfill(on_exit="RETAIN"), cluster(), DRIVER)["spec"]):
        assert "shutdownAfterJobFinishes" not in spec
        assert "DeleteSelf" not in json.dumps(spec)


@pytest.mark.parametrize(
    ("on_exit", "wanted"),
    [
        (
            "DELETE",
            [
                ("DeleteCluster", "SUCCEEDED", 0), ("DeleteSelf", "SUCCEEDED", 60),
                ("DeleteCluster", "Failed", 0), ("DeleteSelf", "Failed", 60),
            ],
        ),
        ("RETAIN_ON_FAILURE", [("DeleteCluster", "SUCCEEDED", 0), ("DeleteSelf", "SUCCEEDED", 60), ("DeleteSelf", "Failed", 60)]),
        ("RETAIN", [("DeleteSelf", "SUCCEEDED", 60), ("DeleteSelf", "Failed", 60)]),
    ],
)  # fmt: skip
def test_runs_of_a_schedule_become_history_and_go(on_exit: str, wanted: list[tuple[str, str, int]]) -> None:
    spec = backfill(on_exit=on_exit, schedule="@daily", time_zone="Europe/Berlin", history_seconds=60)
    body = ray_cron_job_body(spec, cluster(), DRIVER)
    assert (body["metadata"]["name"], body["spec"]["schedule"], body["spec"]["timeZone"]) == ("captions", "@daily", "Europe/Berlin")
    assert rules(body["spec"]["jobTemplate"]) == wanted
    assert "suspend" not in body["spec"]


def test_a_run_on_a_standing_cluster_names_it_and_deletes_nothing() -> None:
    spec = ray_job_body(backfill(standing=True), cluster(), DRIVER)["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": "small"}
    assert set(spec) == {"clusterSelector", "submissionMode", "entrypoint", "runtimeEnvYAML"}
    replaced = cluster(upgrade_strategy="NewCluster")
    selector = ray_job_body(backfill(standing=True), replaced, DRIVER)["spec"]["clusterSelector"]
    assert selector == {"ray.io/cluster": ray_cluster_body(replaced)["metadata"]["name"]}


def test_the_name_changes_with_the_declaration_and_nothing_else() -> None:
    name = run_name(backfill(), cluster(), DRIVER)
    assert name.startswith("captions-")
    assert len(run_name(backfill(name="c" * 36), cluster(), DRIVER)) <= 47
    code = type(DRIVER)("another command", {"env_vars": {"PACKAGE": "another"}}, DRIVER.environment)
    elsewhere = cluster(context="prod", kubeconfig="/another/machine")
    assert {run_name(backfill(columns=["caption"]), elsewhere, code), run_name(backfill(suspend=True), cluster(), DRIVER)} == {name}
    others = [
        run_name(backfill(where="day > 7"), cluster(), DRIVER),
        run_name(backfill(revision=2), cluster(), DRIVER),
        run_name(backfill(), cluster(head_group={"memory": "9Gi"}), DRIVER),
        run_name(backfill(), cluster(), type(DRIVER)(DRIVER.entrypoint, DRIVER.runtime_env, {"name": "prod"})),
    ]
    assert len({name, *others}) == 5
    on_standing = {run_name(backfill(standing=True), cluster(head_group={"memory": memory}), DRIVER) for memory in ("8Gi", "9Gi")}
    assert len(on_standing) == 1


def test_secret_options_are_variables_of_the_head_alone() -> None:
    options = {"region": "x", "aws_secret_access_key": {"secret": "s3", "key": "key"}, "token": "${env:TOKEN}"}
    body = ray_job_body(backfill(storage_options=options), cluster(), DRIVER)
    groups = body["spec"]["rayClusterSpec"]
    env = {item["name"]: item for item in groups["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["INFILL_STORAGE_OPTION_AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "s3", "key": "key"}
    own = own_cluster(backfill(storage_options=options), cluster())
    assert env["INFILL_STORAGE_OPTION_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == env_secret_name(own) == "captions-run-env"
    assert "INFILL_STORAGE_OPTION" not in json.dumps(groups["workerGroupSpecs"])


def test_a_batch_scheduler_s_labels_are_the_run_s() -> None:
    body = ray_job_body(backfill(), cluster(scheduler={"name": "kueue", "queue": "gpu"}, labels={"team": "data"}), DRIVER)
    assert body["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "infill",
        "infill/backfill": "captions",
        "kueue.x-k8s.io/queue-name": "gpu",
        "team": "data",
    }


def test_a_cron_job_makes_the_runs_with_the_least_rights() -> None:
    spec = backfill(schedule="0 3 * * *", concurrency_policy="Replace", history_seconds=60, suspend=True)
    account, role, binding, files, cron = backfill_resources(spec, cluster(), DRIVER)
    assert [body["kind"] for body in (account, role, binding, files, cron)] == [
        "ServiceAccount", "Role", "RoleBinding", "ConfigMap", "CronJob",
    ]  # fmt: skip
    assert role["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "list", "delete"]},
        {"apiGroups": ["batch"], "resources": ["cronjobs"], "resourceNames": ["captions"], "verbs": ["get"]},
    ]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "captions-schedule", "namespace": "ray"}]
    made = json.loads(files["data"]["rayjob.json"])
    assert made["spec"] == ray_cron_job_body(spec, cluster(), DRIVER)["spec"]["jobTemplate"]
    assert "name" not in made["metadata"]
    assert (cron["spec"]["schedule"], cron["spec"]["timeZone"], cron["spec"]["suspend"]) == ("0 3 * * *", "Etc/UTC", True)
    assert cron["spec"]["startingDeadlineSeconds"] == 300
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["containers"][0]["image"]) == ("captions-schedule", "rayproject/ray:2.60.0-py311")
    values = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
    assert values == {"BACKFILL": "captions", "POLICY": "Replace", "HISTORY_SECONDS": "60", "RUN": None}


def test_a_network_policy_goes_with_a_cluster_that_has_one() -> None:
    policy, job = backfill_resources(backfill(), cluster(network_policy={}), DRIVER)
    assert (policy["kind"], policy["spec"]["podSelector"]) == ("NetworkPolicy", {"matchLabels": {"infill/cluster": "captions-run"}})
    labels = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["labels"]
    assert labels["infill/cluster"] == "captions-run"
    assert [body["kind"] for body in backfill_resources(backfill(standing=True), cluster(network_policy={}), DRIVER)] == ["RayJob"]


def test_a_ray_cron_job_on_a_standing_cluster_is_refused() -> None:
    with pytest.raises(BadSpec, match="nothing removes the runs of a RayCronJob on a standing cluster; use CronJob"):
        backfill_resources(backfill(standing=True, schedule="@daily"), cluster(), DRIVER, "RayCronJob")
