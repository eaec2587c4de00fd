"""Declared backfills and the real Pulumi, without a pod: what is made, changed, replaced and removed, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import Api, delete_namespace, eventually, make_namespace
from tests.cluster.on_demand import objects_in
from tests.cluster.pulumi_project import Project, cluster
from tests.cluster.test_backfills_dry_run import PATHS

DECLARE = "from stacks.program import declare\n\ndeclare('clusters', 'backfills')\n"
RARELY = "0 0 29 2 *"


@dataclass(frozen=True)
class World:
    """A stack that declares backfills."""

    project: Project
    api: Api
    namespace: str

    def write(self, name: str, **fields: Any) -> Path:
        plain = {"name": name, "database": "s3://bucket/db", "table": "t", "columns": "x", "cluster": "small", "code": "image"}
        file = self.project.folder / "backfills" / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump({**plain, **fields}))
        return file

    def found(self, kind: str) -> dict[str, dict[str, Any]]:
        return {body["metadata"]["name"]: body for body in self.api.list(PATHS[kind].format(self.namespace))}

    def steady(self) -> None:
        self.project.up("--expect-no-changes").ok()


@pytest.fixture(scope="module")
def world(pulumi: Callable[..., Project], api: Api) -> Iterator[World]:
    namespace = make_namespace(api, "infill-backfills")
    project = pulumi("backfills", program=DECLARE, clusters=[], schedules="RayCronJob")
    project.write(cluster("small", namespace))
    try:
        yield World(project, api, namespace)
    finally:
        project.destroy()
        delete_namespace(api, namespace)


def test_another_declaration_is_another_run_and_the_file_s_end_is_its_end(world: World) -> None:
    world.write("once", suspend=True)
    world.project.up().ok()
    ((name, body),) = world.found("RayJob").items()
    assert world.project.outputs()["backfill-once"]["run_name"] == name
    assert eventually(lambda: world.found("RayJob")[name]["status"]["jobDeploymentStatus"] == "Suspended", 30)
    world.steady()
    assert world.found("RayJob")[name]["metadata"]["uid"] == body["metadata"]["uid"]

    file = world.write("once", suspend=True, where="day > '$7'")
    world.project.up().ok()
    assert eventually(lambda: name not in world.found("RayJob"), 30)
    (other,) = world.found("RayJob")
    assert other != name
    file.unlink()
    world.project.up().ok()
    assert eventually(lambda: world.found("RayJob") == {}, 30)


def test_a_file_that_two_stacks_declare(world: World, pulumi: Callable[..., Project]) -> None:
    world.write("once", suspend=True)
    world.project.up().ok()
    second = World(pulumi("second", program=DECLARE, clusters=[], stack="prod"), world.api, world.namespace)
    second.project.write(cluster("small", world.namespace))
    file = second.write("once", suspend=True)
    refused = second.project.up().failed()
    assert "backfill 'once': the stack infill-tests.test declares it already" in refused.error
    file.unlink()
    world.write("once", suspend=True).unlink()
    world.project.up().ok()


def test_a_ray_cron_job_is_made_anew_when_it_is_resumed_and_changed_in_place_else(world: World) -> None:
    uids = []
    for fields in ({"suspend": True}, {"suspend": True, "where": "day > 7"}, {"where": "day > 7"}, {"suspend": True}):
        file = world.write("rarely", schedule=RARELY, **fields)
        world.project.up().ok()
        (body,) = world.found("RayCronJob").values()
        assert body["spec"].get("suspend", False) == fields.get("suspend", False)
        assert ("day > 7" in body["spec"]["jobTemplate"]["runtimeEnvYAML"]) == ("where" in fields)
        uids.append(body["metadata"]["uid"])
    assert uids[0] == uids[1] != uids[2] == uids[3]
    world.steady()
    file.unlink()
    world.project.up().ok()
    assert world.found("RayCronJob") == {}


def test_a_cron_job_comes_with_all_it_needs_and_leaves_nothing(world: World) -> None:
    world.project.configure(schedules="CronJob")
    file = world.write("rarely", schedule=RARELY, time_zone="Europe/Berlin")
    world.project.up().ok()
    (body,) = world.found("CronJob").values()
    assert (body["spec"]["schedule"], body["spec"]["timeZone"]) == (RARELY, "Europe/Berlin")
    assert objects_in(world.api, world.namespace) == {
        "Role": ["rarely-schedule"],
        "RoleBinding": ["rarely-schedule"],
        "ServiceAccount": ["rarely-schedule"],
    }
    world.steady()
    file.unlink()
    world.project.up().ok()
    assert eventually(lambda: objects_in(world.api, world.namespace) == {}, 30)
    assert world.found("CronJob") == {}
    assert set(world.found("ConfigMap")) <= {"kube-root-ca.crt"}
