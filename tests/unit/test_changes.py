"""What a changed spec does to the RayCluster that runs: each kind of change, field by field, and what is no change at all."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from infra.body import ray_cluster_body
from infra.changes import Change, Upgrade, declared_replicas, differences, plan_upgrade
from infra.spec import KubeRayClusterSpec, parse_spec

Body = dict[str, Any]

CPU: Body = {"name": "cpu", "cpus": 1, "memory": "2Gi", "min_replicas": 1, "max_replicas": 4}
IO: Body = {"name": "io", "cpus": 2, "memory": "4Gi", "node_selector": {"disk": "ssd"}}
PLAIN: Body = {
    "name": "dev",
    "ray_version": "2.60.0",
    "python_version": "3.11",
    "labels": {"team": "data"},
    "annotations": {"note": "ours"},
    "head_group": {"cpus": 1, "memory": "2Gi"},
    "worker_groups": [CPU, IO],
}


def spec_of(**changed: Any) -> KubeRayClusterSpec:
    spec = parse_spec({**PLAIN, **changed})
    assert isinstance(spec, KubeRayClusterSpec)
    return spec


def live_of(**changed: Any) -> Body:
    """The RayCluster of a spec, with what the API server, KubeRay and the autoscaler write into it."""
    body = copy.deepcopy(ray_cluster_body(spec_of(**changed)))
    body["metadata"] |= {
        "uid": "u",
        "resourceVersion": "12",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "pulumi"}],
        "finalizers": ["ray.io/x"],
    }
    body["metadata"]["annotations"] = {**body["metadata"].get("annotations", {}), "kubectl.kubernetes.io/restartedAt": "x"}
    body["metadata"]["labels"]["argocd.argoproj.io/instance"] = "apps"
    for group in body["spec"]["workerGroupSpecs"]:
        group |= {"numOfHosts": 1, "priority": 0, "replicas": 3, "scaleStrategy": {"workersToDelete": ["dev-cpu-x"]}}
    head = body["spec"]["headGroupSpec"]["template"]
    head["metadata"]["creationTimestamp"] = None
    for port in head["spec"]["containers"][0]["ports"]:
        port["protocol"] = "TCP"
    return {**body, "status": {"state": "ready", "desiredWorkerReplicas": 3}}


def shown(changes: tuple[Change, ...] | list[Change]) -> list[str]:
    return [str(change) for change in changes]


def worker(name: str) -> Callable[[Body], Body]:
    """Finds the Ray container of a group."""

    def find(body: Body) -> Body:
        group = next(group for group in body["spec"]["workerGroupSpecs"] if group["groupName"] == name)
        container: Body = group["template"]["spec"]["containers"][0]
        return container

    return find


def test_what_runs_as_declared_has_no_difference() -> None:
    assert differences(spec_of(), live_of()) == []
    assert plan_upgrade(spec_of(), live_of()) == Upgrade()
    assert plan_upgrade(spec_of(), live_of()).describe() == "in place: no pod is touched"
    assert not plan_upgrade(spec_of(), live_of()).disrupts


# Kinds of change, by what each does


def test_bounds_change_in_place() -> None:
    upgrade = plan_upgrade(spec_of(worker_groups=[{**CPU, "min_replicas": 0, "max_replicas": 9}, IO]), live_of())
    assert shown(upgrade.changes) == [
        "spec.workerGroupSpecs[cpu].minReplicas: 1 -> 0",
        "spec.workerGroupSpecs[cpu].maxReplicas: 4 -> 9",
    ]
    assert (upgrade.restarted, upgrade.removed, upgrade.kept, upgrade.disrupts) == ((), (), (), False)


def test_idle_timeout_changes_in_place() -> None:
    upgrade = plan_upgrade(spec_of(worker_groups=[{**CPU, "idle_timeout_seconds": 5}, IO]), live_of())
    assert shown(upgrade.changes) == ["spec.workerGroupSpecs[cpu].idleTimeoutSeconds: nothing -> 5"]
    assert not upgrade.disrupts


def test_a_group_is_added_in_place() -> None:
    upgrade = plan_upgrade(spec_of(worker_groups=[CPU, {"name": "big", "cpus": 8}, IO]), live_of())
    assert [(change.path, change.before) for change in upgrade.changes] == [("spec.workerGroupSpecs[big]", None)]
    assert upgrade.changes[0].after["groupName"] == "big"
    assert not upgrade.disrupts


def test_a_group_is_removed_with_its_pods() -> None:
    upgrade = plan_upgrade(spec_of(worker_groups=[CPU]), live_of())
    assert [(change.path, change.after) for change in upgrade.changes] == [("spec.workerGroupSpecs[io]", None)]
    assert upgrade.removed == ("io",)
    assert upgrade.disrupts
    assert upgrade.describe() == "group io goes, with its pods"


def test_a_group_that_is_renamed_goes_and_comes() -> None:
    upgrade = plan_upgrade(spec_of(worker_groups=[CPU, {**IO, "name": "disk"}]), live_of())
    assert {change.path for change in upgrade.changes} == {"spec.workerGroupSpecs[disk]", "spec.workerGroupSpecs[io]"}
    assert (upgrade.restarted, upgrade.removed) == ((), ("io",))


def test_the_order_of_groups_is_no_change() -> None:
    assert differences(spec_of(worker_groups=[IO, CPU]), live_of()) == []


@pytest.mark.parametrize(
    ("group", "change"),
    [
        (
            {"memory": "3Gi"},
            [
                "spec.workerGroupSpecs[cpu].template.spec.containers[ray-worker].resources.limits.memory: 2Gi -> 3Gi",
                "spec.workerGroupSpecs[cpu].template.spec.containers[ray-worker].resources.requests.memory: 2Gi -> 3Gi",
            ],
        ),
        (
            {"image": "example.com/ray:1"},
            [
                "spec.workerGroupSpecs[cpu].template.spec.containers[ray-worker].image: "
                "rayproject/ray:2.60.0-py311 -> example.com/ray:1"
            ],
        ),
        (
            {"env": {"MODE": "fast"}},
            [
                "spec.workerGroupSpecs[cpu].template.spec.containers[ray-worker].env[MODE]: "
                'nothing -> {"name": "MODE", "value": "fast"}'
            ],
        ),
        (
            {"overrides": {"rayStartParams": {"object-store-memory": "100"}}},
            ["spec.workerGroupSpecs[cpu].rayStartParams.object-store-memory: nothing -> 100"],
        ),
        (
            {"tolerations": [{"key": "spot", "operator": "Exists"}]},
            ['spec.workerGroupSpecs[cpu].template.spec.tolerations: nothing -> [{"key": "spot", "operator": "Exists"}]'],
        ),
    ],
)
def test_a_changed_template_restarts_the_pods_of_its_group(group: Body, change: list[str]) -> None:
    upgrade = plan_upgrade(spec_of(worker_groups=[{**CPU, **group}, IO]), live_of())
    assert shown(upgrade.changes) == change
    assert (upgrade.restarted, upgrade.removed) == (("cpu",), ())
    assert upgrade.disrupts
    assert upgrade.describe() == "pods of cpu are deleted and made anew"


def test_a_field_that_is_dropped_is_named() -> None:
    upgrade = plan_upgrade(spec_of(worker_groups=[CPU, {**IO, "node_selector": {}}]), live_of())
    assert upgrade.changes == (Change("spec.workerGroupSpecs[io].template.spec.nodeSelector.disk", "ssd", None),)
    assert str(upgrade.changes[0]).endswith("nodeSelector.disk: ssd -> nothing")
    assert upgrade.restarted == ("io",)


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        (
            {"head_group": {"cpus": 2, "memory": "2Gi"}},
            "spec.headGroupSpec.template.spec.containers[ray-head].resources.limits.cpu",
        ),
        ({"autoscaler": {"idle_timeout_seconds": 5}}, "spec.autoscalerOptions.idleTimeoutSeconds"),
        ({"token_authentication": False}, "spec.authOptions"),
        ({"gcs_fault_tolerance": {"redis_address": "r:6379"}}, "spec.gcsFaultToleranceOptions"),
    ],
)
def test_a_changed_head_restarts_all(changed: Body, path: str) -> None:
    upgrade = plan_upgrade(spec_of(**changed), live_of())
    assert upgrade.changes[0].path == path
    assert upgrade.restarted == ("all",)
    assert upgrade.describe() == "the head changes: all pods are deleted and made anew, jobs that run end"


def test_another_ray_version_restarts_all_even_with_images_of_one_s_own() -> None:
    own = {"image": "example.com/ray:stable"}
    groups = {"head_group": {**PLAIN["head_group"], **own}, "worker_groups": [{**CPU, **own}]}
    upgrade = plan_upgrade(spec_of(ray_version="2.61.0", **groups), live_of(**groups))
    assert shown(upgrade.changes) == ["spec.rayVersion: 2.60.0 -> 2.61.0"]
    assert upgrade.restarted == ("all",)


def test_several_kinds_in_one_sentence() -> None:
    more = [CPU, IO, {"name": "a"}, {"name": "b"}]
    upgrade = plan_upgrade(spec_of(worker_groups=[{**CPU, "cpus": 2}, {**IO, "cpus": 3}]), live_of(worker_groups=more))
    assert upgrade.describe() == "pods of cpu, io are deleted and made anew; group a, b goes, with its pods"


def test_labels_and_suspension_are_in_place() -> None:
    upgrade = plan_upgrade(spec_of(labels={"team": "ops"}, suspend=True), live_of())
    assert shown(upgrade.changes) == ["metadata.labels.team: data -> ops", "spec.suspend: nothing -> true"]
    assert not upgrade.restarted


# Strategies


def test_under_none_pods_stay_as_they_are() -> None:
    changed = {"head_group": {"cpus": 2, "memory": "2Gi"}, "worker_groups": [{**CPU, "cpus": 2}]}
    upgrade = plan_upgrade(spec_of(upgrade_strategy="None", **changed), live_of())
    assert (upgrade.restarted, upgrade.removed, upgrade.kept) == ((), ("io",), ("the head", "cpu"))
    assert upgrade.describe() == (
        "group io goes, with its pods; pods of the head, cpu stay as they were made until something else ends them"
    )


def test_under_new_cluster_another_is_made_beside_it() -> None:
    strategy = {"upgrade_strategy": "NewCluster"}
    after = spec_of(**strategy, worker_groups=[{**CPU, "cpus": 2}, IO])
    upgrade = plan_upgrade(after, live_of(**strategy))
    name = ray_cluster_body(after)["metadata"]["name"]
    assert name != live_of(**strategy)["metadata"]["name"]
    assert upgrade.new_cluster == name
    assert {change.path.rpartition(".")[2] for change in upgrade.changes} == {"cpu"}
    assert (upgrade.restarted, upgrade.removed, upgrade.disrupts) == ((), (), False)
    assert upgrade.describe() == f"a new cluster {name} is made beside it; the old one goes when its jobs are done"


def test_under_new_cluster_bounds_still_change_in_place() -> None:
    strategy = {"upgrade_strategy": "NewCluster"}
    upgrade = plan_upgrade(spec_of(**strategy, worker_groups=[{**CPU, "max_replicas": 9}, IO]), live_of(**strategy))
    assert upgrade.new_cluster is None
    assert shown(upgrade.changes) == ["spec.workerGroupSpecs[cpu].maxReplicas: 4 -> 9"]
    assert not upgrade.disrupts


def test_back_from_new_cluster_ends_the_old_one_s_pods() -> None:
    """The resource has another name then: Pulumi makes it and deletes the old one, and nothing waits for the jobs."""
    upgrade = plan_upgrade(spec_of(), live_of(upgrade_strategy="NewCluster"))
    assert upgrade.disrupts
    assert upgrade.describe() == "a new cluster dev is made and the old one deleted at once, jobs that run end"


# What is no change


def test_quantities_that_mean_the_same() -> None:
    live = live_of()
    worker("cpu")(live)["resources"] = {
        "limits": {"cpu": "1000m", "memory": "2048Mi"},
        "requests": {"cpu": 1, "memory": "2097152Ki"},
    }
    assert differences(spec_of(), live) == []
    worker("cpu")(live)["resources"]["limits"]["cpu"] = "1001m"
    assert shown(differences(spec_of(), live)) == [
        "spec.workerGroupSpecs[cpu].template.spec.containers[ray-worker].resources.limits.cpu: 1001m -> 1"
    ]


def test_labels_and_annotations_of_others_are_no_change_and_ours_are() -> None:
    live = live_of()
    live["metadata"]["labels"]["team"] = "someone else"
    del live["metadata"]["annotations"]["note"]
    assert shown(differences(spec_of(), live)) == [
        "metadata.labels.team: someone else -> data",
        "metadata.annotations.note: nothing -> ours",
    ]


def test_a_cluster_without_any_label_has_all_to_get() -> None:
    live = live_of()
    del live["metadata"]["labels"], live["metadata"]["annotations"]
    assert [change.path for change in differences(spec_of(), live)] == [
        "metadata.labels.app.kubernetes.io/managed-by",
        "metadata.labels.infill/cluster",
        "metadata.labels.team",
        "metadata.annotations.note",
    ]


def test_drift_within_a_template_is_named_though_its_stamp_is_not() -> None:
    live = live_of()
    container = worker("io")(live)
    container["image"] = "example.com/tampered"
    container["env"].append({"name": "DEBUG", "value": "1"})
    live["spec"]["workerGroupSpecs"][1]["template"]["metadata"]["annotations"]["infill/template-hash"] = "0"
    found = shown(differences(spec_of(), live))
    prefix = "spec.workerGroupSpecs[io].template.spec.containers[ray-worker]"
    assert found == [
        f"{prefix}.image: example.com/tampered -> rayproject/ray:2.60.0-py311",
        f'{prefix}.env[DEBUG]: {{"name": "DEBUG", "value": "1"}} -> nothing',
    ]


@pytest.mark.parametrize(("declared", "named"), [(False, True), (0, True), ({}, False), ([], False), ("", False)])
def test_an_empty_value_is_as_good_as_none_but_false_and_zero_are_not(declared: Any, named: bool) -> None:
    group = {**CPU, "overrides": {"template": {"spec": {"field": declared}}}}
    assert bool(differences(spec_of(worker_groups=[group, IO]), live_of())) is named


def test_replicas_are_the_autoscaler_s_unless_it_is_off() -> None:
    off = {"autoscaler": {"enabled": False}, "worker_groups": [{"name": "cpu", "cpus": 1, "memory": "2Gi", "replicas": 2}]}
    assert shown(differences(spec_of(**off), live_of(**off))) == ["spec.workerGroupSpecs[cpu].replicas: 3 -> 2"]


def test_mounts_are_known_by_their_path_and_not_by_their_order() -> None:
    volumes = [{"name": "data", "emptyDir": {}}]
    mounts: list[Body] = [{"name": "data", "path": "/a"}, {"name": "data", "path": "/b"}]
    before = live_of(worker_groups=[{**CPU, "volumes": volumes, "mounts": mounts}])
    worker("cpu")(before)["volumeMounts"].reverse()
    assert differences(spec_of(worker_groups=[{**CPU, "volumes": volumes, "mounts": mounts}]), before) == []
    mounts = [mounts[0], {**mounts[1], "read_only": True}]
    assert shown(differences(spec_of(worker_groups=[{**CPU, "volumes": volumes, "mounts": mounts}]), before)) == [
        "spec.workerGroupSpecs[cpu].template.spec.containers[ray-worker].volumeMounts[/b].readOnly: nothing -> true"
    ]


@pytest.mark.parametrize(("field", "value"), [("priority", 3), ("numOfHosts", 2), ("suspend", True)])
def test_a_field_that_others_set_to_more_than_its_default_is_named(field: str, value: Any) -> None:
    live = live_of()
    live["spec"]["workerGroupSpecs"][0][field] = value
    assert shown(differences(spec_of(), live)) == [f"spec.workerGroupSpecs[cpu].{field}: {json.dumps(value)} -> nothing"]


def test_a_value_of_80_characters_is_told_whole() -> None:
    assert str(Change("a", None, "x" * 80)) == f"a: nothing -> {'x' * 80}"


def test_a_long_value_is_shortened() -> None:
    text = str(Change("a.b", "x" * 100, ["y" * 100]))
    assert text == f"a.b: {'x' * 77}... -> {('[' + chr(34) + 'y' * 100)[:77]}..."


# The number of workers that the autoscaler has set


@pytest.mark.parametrize(
    ("runs", "least", "most", "kept"), [(3, 1, 4, 3), (3, 0, 2, 2), (3, 5, 9, 5), (0, 0, 4, 0), (0, 1, 4, 1), (7, 0, 7, 7)]
)
def test_workers_that_run_are_written_within_the_bounds_declared_now(runs: int, least: int, most: int, kept: int) -> None:
    body = ray_cluster_body(spec_of(worker_groups=[{**CPU, "min_replicas": least, "max_replicas": most}]))
    live = live_of()
    live["spec"]["workerGroupSpecs"][0]["replicas"] = runs
    declared_replicas(body, live)
    assert body["spec"]["workerGroupSpecs"][0]["replicas"] == kept


def test_a_new_group_gets_no_number_and_a_declared_number_stays() -> None:
    body = ray_cluster_body(spec_of(worker_groups=[{"name": "new"}]))
    declared_replicas(body, live_of())
    assert "replicas" not in body["spec"]["workerGroupSpecs"][0]

    body = ray_cluster_body(spec_of(worker_groups=[{**CPU, "overrides": {"replicas": 2}}]))
    declared_replicas(body, live_of())
    assert body["spec"]["workerGroupSpecs"][0]["replicas"] == 2


def test_a_group_that_has_no_number_yet_has_none_running() -> None:
    body, live = ray_cluster_body(spec_of()), live_of()
    for group in live["spec"]["workerGroupSpecs"]:
        del group["replicas"]
    declared_replicas(body, live)
    assert [group["replicas"] for group in body["spec"]["workerGroupSpecs"]] == [1, 0]
