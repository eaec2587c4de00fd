"""Backfills declared in files: `pulumi up` runs them on clusters of their own, once or by a schedule, and leaves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

import runner
from runner import Connection
from tests.cluster.conftest import RAY, Api, delete_namespace, eventually, make_namespace
from tests.cluster.on_demand import objects_in
from tests.cluster.pulumi_project import SMALL, Project, cluster
from tests.e2e.helpers import run

ROOT = str(Path(__file__).parents[2])
DECLARE = "from stacks.program import declare\n\ndeclare('clusters', 'backfills')\n"
RUN_SECONDS = 200.0
FEATURES = """
def length(word: str) -> int:
    return len(word)

def slow(word: str) -> int:
    import time
    time.sleep(60)
    return len(word)
"""


@dataclass(frozen=True)
class World:
    """A stack that declares backfills of one table, and that table."""

    project: Project
    db: Connection
    api: Api
    namespace: str
    options: dict[str, Any]

    def write(self, name: str, **fields: Any) -> Path:
        """A backfill's file."""
        plain = {
            "name": name, "database": self.db.uri, "table": "t", "cluster": "small", "storage_options": self.options, **fields,
        }  # fmt: skip
        file = self.project.folder / "backfills" / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(plain))
        return file

    def runs(self) -> dict[str, dict[str, Any]]:
        """The status of each RayJob, by its name."""
        found = self.api.list(f"{RAY}/namespaces/{self.namespace}/rayjobs")
        return {body["metadata"]["name"]: body.get("status", {}) for body in found}

    def wait(self, done: Callable[[], bool]) -> None:
        """Skips where the operator is somewhere from where it reaches no dashboard."""

        def over() -> bool:
            return done() or any(status.get("jobDeploymentStatus") == "Failed" for status in self.runs().values())

        eventually(over, RUN_SECONDS)
        if any("jobStatusCheckFailureStartTime" in status for status in self.runs().values()):
            pytest.skip("KubeRay's operator does not reach Ray's dashboards from where it runs (-use-kubernetes-proxy)")
        assert done(), (self.runs(), [vars(job) for job in self.db.jobs()])

    def succeeded(self, name: str) -> bool:
        return any(run.startswith(f"{name}-") and status.get("jobStatus") == "SUCCEEDED" for run, status in self.runs().items())


@pytest.fixture(scope="module")
def world(pulumi: Callable[..., Project], api: Api, s3: dict[str, str]) -> Iterator[World]:
    namespace = make_namespace(api, "infill-backfills")
    secret = {"metadata": {"name": "s3"}, "stringData": {"id": s3["aws_access_key_id"], "key": s3["aws_secret_access_key"]}}
    api.request("POST", f"/api/v1/namespaces/{namespace}/secrets", json=secret).raise_for_status()
    options = {
        **{name: text for name, text in s3.items() if not name.startswith("aws_")},
        "aws_access_key_id": {"secret": "s3", "key": "id"},
        "aws_secret_access_key": {"secret": "s3", "key": "key"},
    }
    db = runner.connect(f"s3://faults/{namespace}", storage_options=s3)
    db.create_table("t", pa.table({"word": ["a", "bb", "ccc"]}))
    project = pulumi("backfills", program=DECLARE, clusters=[])
    project.environment(AWS_ACCESS_KEY_ID=s3["aws_access_key_id"], AWS_SECRET_ACCESS_KEY=s3["aws_secret_access_key"])
    small = {"autoscaler": {"enabled": False}, "worker_groups": [{"name": "cpu", **SMALL, "replicas": 1}]}
    project.write(cluster("small", namespace, **small))
    (project.folder / "features.py").write_text(FEATURES)
    try:
        yield World(project, db, api, namespace, options)
    finally:
        project.destroy()
        delete_namespace(api, namespace)


@pytest.mark.timeout(900)
def test_a_file_s_backfill_runs_once_and_goes_with_its_file(world: World) -> None:
    file = world.write("lengths", columns="length", function="features:length")
    world.project.up().ok()
    (name,) = world.runs()
    assert world.project.outputs()["backfill-lengths"] == {"namespace": world.namespace, "run_name": name}
    world.wait(lambda: world.succeeded("lengths"))
    assert world.db.open_table("t").to_arrow(["length"])["length"].to_pylist() == [1, 2, 3]
    (record,) = world.db.jobs()
    assert (record.status, record.declared, record.cluster, record.submission_id) == (
        "DONE", "lengths", "small", world.runs()[name]["jobId"],
    )  # fmt: skip
    options = [f"--storage-option={key}={value}" for key, value in world.db.store.storage_options.items()]
    listed = run(["-m", "runner", "jobs", "list", world.db.uri, *options], Path.cwd(), PYTHONPATH=ROOT)
    assert "t.length  3 of 3 rows" in listed.stdout
    assert listed.stdout.rstrip().endswith("small  (declared: lengths)")
    assert eventually(lambda: "RayCluster" not in objects_in(world.api, world.namespace), 60)

    world.project.up("--expect-no-changes").ok()
    assert list(world.runs()) == [name]
    file.unlink()
    world.project.up().ok()
    assert eventually(lambda: world.runs() == {}, 60)
    assert eventually(lambda: objects_in(world.api, world.namespace) == {"Secret": ["s3"]}, 60)


@pytest.mark.timeout(900)
def test_a_run_that_is_cancelled_takes_its_cluster_along(world: World) -> None:
    file = world.write("held", columns="slow", function="features:slow", backoff_limit=2, on_exit="RETAIN_ON_FAILURE")
    world.project.up().ok()

    def computing() -> bool:
        return any(job.declared == "held" and job.phase == "compute" for job in world.db.jobs())

    world.wait(computing)
    (record,) = [job for job in world.db.jobs() if job.declared == "held"]
    options = [f"--storage-option={key}={value}" for key, value in world.db.store.storage_options.items()]
    done = run(["-m", "runner", "jobs", "cancel", world.db.uri, record.job_id, *options], Path.cwd(), PYTHONPATH=ROOT)
    assert done.stdout.strip() == f"job {record.job_id}: CANCELLED", done.stderr
    world.wait(lambda: world.succeeded("held"))  # neither tried again nor kept as a failure
    assert eventually(lambda: "RayCluster" not in objects_in(world.api, world.namespace), 60)
    file.unlink()
    world.project.up().ok()


@pytest.mark.timeout(900)
def test_a_schedule_fires_again_and_again(world: World) -> None:
    file = world.write("nightly", columns="by_night", function="features:length", schedule="* * * * *")
    world.project.up().ok()
    assert world.project.outputs()["backfill-nightly"]["kind"] == "CronJob"
    world.wait(lambda: world.succeeded("nightly"))
    world.db.open_table("t").to_lancedb().add(pa.table({"word": ["dddd"], **_nulls(world)}))

    def all_filled() -> bool:
        return world.db.open_table("t").to_arrow(["by_night"])["by_night"].to_pylist() == [1, 2, 3, 4]

    world.wait(all_filled)
    assert sorted(record.rows_done for record in world.db.jobs() if record.declared == "nightly")[-2:] == [1, 3]
    world.project.up("--expect-no-changes").ok()
    file.unlink()
    world.project.up().ok()
    assert eventually(lambda: world.runs() == {}, 60)
    assert eventually(lambda: objects_in(world.api, world.namespace) == {"Secret": ["s3"]}, 60)


def _nulls(world: World) -> dict[str, Any]:
    schema = world.db.open_table("t").schema
    return {field.name: pa.nulls(1, field.type) for field in schema if field.name != "word"}
