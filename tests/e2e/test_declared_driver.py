"""The driver of a declared backfill, as a job of Ray's that no client follows: what it computes, leaves out and records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from runner import Connection, Table
from runner.records import JobRecord
from tests.e2e.helpers import Gate, eventually, make_table, values
from tests.e2e.ray_cluster import RayCluster, two_nodes

ROOT = str(Path(__file__).parents[2])
FUNCTIONS = """
from tests.e2e.helpers import pass_gate

def double(x: int) -> int:
    return 2 * x

def held(x: int) -> int:
    if x == 0:
        pass_gate({gate!r})
    return 3 * x

def failing(x: int) -> int:
    raise ValueError("no such row")
"""


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with two_nodes(tmp_path_factory.mktemp("ray"), dashboard=True) as found:
        yield found


@pytest.fixture
def client(ray_cluster: RayCluster) -> JobSubmissionClient:
    return JobSubmissionClient(f"http://{ray_cluster.dashboard}")


@pytest.fixture
def table(db: Connection) -> Table:
    return make_table(db, 20, rows_per_fragment=10)


class Runs:
    """Runs of one declared backfill."""

    def __init__(self, client: JobSubmissionClient, table: Table, folder: Path, gate: Gate) -> None:
        self._client, self._table, self._folder = client, table, folder
        (folder / "declared_functions.py").write_text(FUNCTIONS.format(gate=str(gate.folder)))

    def start(self, function: str, column: str = "y", **fields: Any) -> str:
        """Submit a run as KubeRay would; its submission id."""
        request = {
            "name": "nightly", "database": self._table.connection.uri, "table": "t", "columns": [column], "inputs": None,
            "function": f"declared_functions:{function}", "options": {}, "storage_options": {}, "policy": "Forbid",
            "cluster": "small", "manifest": None, "runtime_env": {}, "uploads": {}, **fields,
        }  # fmt: skip
        env_vars = {"INFILL_BACKFILL": json.dumps(request), "PYTHONPATH": f"{ROOT}:{self._folder}"}
        entrypoint = "python -m runner.remote.declared_driver"
        return self._client.submit_job(entrypoint=entrypoint, runtime_env={"env_vars": env_vars})

    def end(self, job: str) -> JobStatus:
        assert eventually(lambda: self._client.get_job_status(job).is_terminal())
        return self._client.get_job_status(job)

    def said(self, job: str) -> str:
        return self._client.get_job_logs(job)

    def record(self, job: str) -> JobRecord:
        (found,) = [record for record in self._table.connection.jobs() if record.submission_id == job]
        return found


@pytest.fixture
def runs(client: JobSubmissionClient, table: Table, tmp_path: Path, gate: Gate) -> Runs:
    return Runs(client, table, tmp_path, gate)


def test_a_run_adds_its_column_fills_it_and_is_on_record(runs: Runs, table: Table) -> None:
    job = runs.start("double", options={"where": "x < 15"})
    assert runs.end(job) is JobStatus.SUCCEEDED, runs.said(job)
    assert values(table, "y") == [2 * x for x in range(15)] + [None] * 5
    record = runs.record(job)
    assert (record.status, record.declared, record.cluster, record.executor) == ("DONE", "nightly", "small", "cluster")
    assert (record.rows_done, record.options["where"]) == (15, "x < 15")
    again = runs.start("double")
    assert runs.end(again) is JobStatus.SUCCEEDED
    assert runs.record(again).rows_done == 5
    assert values(table, "y") == [2 * x for x in range(20)]


def test_forbid_leaves_a_run_out_and_replace_cancels_the_one_before(runs: Runs, table: Table, gate: Gate) -> None:
    first = runs.start("held")
    gate.wait()
    left_out = runs.start("double")
    assert runs.end(left_out) is JobStatus.SUCCEEDED
    assert f"left out: job {runs.record(first).job_id} of nightly still runs" in runs.said(left_out)
    assert len(table.connection.jobs()) == 1

    last = runs.start("held", policy="Replace")
    assert eventually(lambda: runs.record(first).status == "CANCELLED")
    assert runs.end(first) is JobStatus.SUCCEEDED  # so that KubeRay neither tries it again nor keeps its cluster
    gate.open()
    assert runs.end(last) is JobStatus.SUCCEEDED, runs.said(last)
    assert values(table, "y") == [3 * x for x in range(20)]


def test_a_run_that_ray_stops_is_on_record_as_cancelled(runs: Runs, client: JobSubmissionClient, gate: Gate) -> None:
    job = runs.start("held")
    gate.wait()
    client.stop_job(job)
    assert runs.end(job) is JobStatus.STOPPED
    assert runs.record(job).status == "CANCELLED"


def test_a_run_that_fails_says_why(runs: Runs) -> None:
    job = runs.start("failing")
    assert runs.end(job) is JobStatus.FAILED
    assert "no such row" in (runs.record(job).error or "")
    unknown = runs.start("unknown", column="z")
    assert runs.end(unknown) is JobStatus.FAILED
    record = runs.record(unknown)
    assert (record.status, record.error_type) == ("FAILED", "BadInput")
    assert "has no 'unknown'" in (record.error or "")
