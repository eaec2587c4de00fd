"""Backfills whose driver is a job of a Ray that others run: by its dashboard's address, and by Ray Client."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

import runner
from runner import Connection, ExitMode, Table
from runner.errors import BackfillFailed, BadInput, JobCancelled, JobLost, RunnerError
from runner.records import JobRecords
from tests.e2e.helpers import Gate, by_x, calls, doubling, eventually, failing_while, gated, make_table, run, values
from tests.e2e.ray_cluster import RayCluster, two_nodes

ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with two_nodes(tmp_path_factory.mktemp("ray"), dashboard=True) as found:
        yield found


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one: this project's own would be sent for each test."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def address(ray_cluster: RayCluster) -> str:
    return f"http://{ray_cluster.dashboard}"


@pytest.fixture
def table(db: Connection) -> Table:
    return make_table(db, 100, rows_per_fragment=25)


def infill(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return run(["-m", "runner", *args], folder, PYTHONPATH=ROOT)


def test_a_job_runs_on_the_cluster_and_is_on_record(db: Connection, table: Table, address: str, log: Path) -> None:
    table.add_columns({"y": doubling(log)})
    with db.context(cluster=address):
        result = table.backfill("y", progress=False)
    assert values(table, "y") == [2 * x for x in range(100)]
    assert calls(log) == list(range(100))
    assert (result.rows_done, result.version_after) == (100, result.version_before + 1)
    record = db.job(result.job_id)
    assert (record.status, record.cluster, record.executor, record.rows_done) == ("DONE", "external", "cluster", 100)
    assert eventually(lambda: "backfill of y in t: DONE" in JobRecords(db.store).log(result.job_id))
    with db.context(cluster=address):
        assert table.backfill("y", progress=False).rows_done == 0


def test_ray_client(db: Connection, table: Table, ray_cluster: RayCluster, log: Path, tmp_path: Path) -> None:
    """With variables sent as on LanceDB's page, a secret among them, which neither Ray nor the database shows."""
    table.add_columns({"y": doubling(log)})
    script = f"""
import os
import runner
from infra import Cluster
db = runner.connect({db.uri!r})
env_vars = {{"LEVEL": "debug", "AWS_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"]}}
cluster = Cluster.create_external("there", {ray_cluster.client!r})
db.define_cluster("there", cluster.ray_init_kwargs({{"runtime_env": {{"env_vars": env_vars}}}}).build())

@runner.udf
def told(x: int) -> str:
    return os.environ["LEVEL"] + os.environ["AWS_SECRET_ACCESS_KEY"][-4:]

table = db.open_table("t")
table.add_columns({{"z": told}})
with db.context(cluster="there"):
    print(table.backfill("y", progress=False).rows_done, table.backfill("z", progress=False).rows_done)
"""
    secret = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
    done = run(["-c", script], tmp_path / "workspace", PYTHONPATH=ROOT, AWS_SECRET_ACCESS_KEY=secret)
    assert (done.returncode, done.stdout) == (0, "100 100\n"), done.stderr
    assert values(table, "y") == [2 * x for x in range(100)]
    assert set(values(table, "z")) == {f"debug{secret[-4:]}"}
    logs = [path for path in ray_cluster.session.glob("logs/**/*") if path.is_file()]
    files = [*logs, *(path for path in Path(db.uri).rglob("*") if path.is_file())]
    assert [path.name for path in files if secret.encode() in path.read_bytes()] == []


def test_two_jobs_of_a_column_queue_and_the_context_waits_for_both(
    db: Connection, table: Table, address: str, log: Path, gate: Gate
) -> None:
    table.add_columns({"y": gated(gate)})
    with db.context(cluster=address):
        first = table.backfill_async("y")
        gate.wait()
        second = table.backfill_async("y")
        third = table.backfill_async("y")
        third.cancel()
        with pytest.raises(JobCancelled):
            third.result(60)
        assert not first.done()
        gate.open()
    assert (first.result().rows_done, second.result().rows_done) == (100, 0)
    assert [record.status for record in db.jobs()] == ["CANCELLED", "DONE", "DONE"]


def test_a_function_that_fails_is_told_as_here(db: Connection, table: Table, address: str, tmp_path: Path, log: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    table.add_columns({"y": failing_while(flag, [60], log)})
    with db.context(cluster=address):
        with pytest.raises(BackfillFailed, match=r"ValueError at row 10 of fragment 2 .*: no value for 60") as failed:
            table.backfill("y", progress=False)
        assert [error.error for error in failed.value.errors] == ["ValueError"]
        flag.unlink()
        result = table.backfill("y", progress=False)
    assert by_x(table, "y") == {x: 2 * x for x in range(100)}
    assert result.rows_resumed >= 25


def test_from_another_directory_with_the_database_s_address_alone(
    db: Connection, table: Table, address: str, gate: Gate, tmp_path: Path
) -> None:
    table.add_columns({"y": gated(gate)})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = infill(tmp_path / "workspace", "backfill", db.uri, "t", "y", "--cluster", address, "--detach")
    assert done.returncode == 0, done.stderr
    found = re.match(rf"submitted job (\S+); `python -m runner jobs attach {db.uri} \1` follows it", done.stdout)
    assert found, done.stdout
    gate.wait()
    (listed,) = json.loads(infill(elsewhere, "jobs", "list", db.uri, "--json").stdout)
    assert (listed["job_id"], listed["status"], listed["cluster"]) == (found[1], "RUNNING", "external")
    done = infill(elsewhere, "jobs", "cancel", db.uri, found[1])
    assert (done.returncode, done.stdout) == (0, f"job {found[1]}: CANCELLED\n"), done.stderr
    attached = infill(elsewhere, "jobs", "attach", db.uri, found[1])
    assert attached.returncode == 1
    assert "the job was cancelled; finished work is kept" in attached.stderr
    assert "the job was cancelled" in infill(elsewhere, "jobs", "logs", db.uri, found[1]).stdout
    gate.open()
    done = infill(tmp_path / "workspace", "jobs", "resume", db.uri, found[1], "--cluster", address)
    assert done.returncode == 0, done.stderr
    assert values(table, "y") == [2 * x for x in range(100)]


def test_a_driver_that_is_killed_is_noticed_and_the_next_job_takes_over(
    db: Connection, table: Table, address: str, gate: Gate
) -> None:
    table.add_columns({"y": gated(gate, at=99)})
    context = db.context(cluster=address)
    context.__enter__()
    job = table.backfill_async("y", concurrency=1)
    gate.wait()
    (driver,) = [process for process in psutil.process_iter(["cmdline"]) if job.job_id in (process.info["cmdline"] or [])[-1:]]
    os.kill(driver.pid, signal.SIGKILL)
    with pytest.raises(JobLost, match=r"its driver has ended without a word, as Ray says: FAILED"):
        job.result(60)
    assert (db.job(job.job_id).status, db.job(job.job_id).error_type) == ("FAILED", "JobLost")
    context.__exit__(None, None, None)
    gate.open()
    with db.context(cluster=address):
        result = table.backfill("y", progress=False)
    assert values(table, "y") == [2 * x for x in range(100)]
    assert result.rows_resumed >= 75


def test_a_client_that_is_killed_leaves_a_job_that_ends(
    db: Connection, table: Table, address: str, gate: Gate, tmp_path: Path
) -> None:
    table.add_columns({"y": gated(gate)})
    command = [sys.executable, "-m", "runner", "backfill", db.uri, "t", "y", "--cluster", address]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    client = subprocess.Popen(command, cwd=tmp_path / "workspace", env=environment, stderr=subprocess.DEVNULL)
    gate.wait()
    client.kill()
    client.wait()
    gate.open()
    (record,) = db.jobs()
    done = infill(tmp_path, "jobs", "attach", db.uri, record.job_id)
    assert done.returncode == 0, done.stderr
    assert values(table, "y") == [2 * x for x in range(100)]
    assert db.job(record.job_id).status == "DONE"


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_leaves_the_job_and_twice_cancels_it(
    db: Connection, table: Table, address: str, gate: Gate, tmp_path: Path, times: int
) -> None:
    table.add_columns({"y": gated(gate)})
    command = [sys.executable, "-m", "runner", "backfill", db.uri, "t", "y", "--cluster", address]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    client = subprocess.Popen(command, cwd=tmp_path / "workspace", env=environment, stderr=subprocess.PIPE, text=True)
    assert client.stderr is not None
    gate.wait()
    client.send_signal(signal.SIGINT)
    said = [line for line in iter(client.stderr.readline, "runner: Ctrl-C again within 3 s cancels the jobs\n") if line]
    if times == 2:
        client.send_signal(signal.SIGINT)
    client.communicate(timeout=60)
    (record,) = db.jobs()
    assert client.returncode == 130
    assert f"runner: job {record.job_id} goes on; `python -m runner jobs attach {db.uri} {record.job_id}` follows it\n" in said
    assert record.status == ("RUNNING" if times == 1 else "CANCELLED")
    gate.open()
    done = infill(tmp_path, "jobs", "attach", db.uri, record.job_id)
    assert done.returncode == times - 1, done.stderr
    assert values(table, "y") == ([2 * x for x in range(100)] if times == 1 else [None] * 100)


def test_wait_timeout_and_retain_leave_jobs_running_and_a_cluster_of_others_stays(
    db: Connection, table: Table, address: str, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    table.add_columns({"y": gated(gate)})
    with db.context(cluster=address, on_exit=ExitMode.RETAIN_ON_FAILURE, wait_timeout=0.5):
        job = table.backfill_async("y")
        gate.wait()
    assert not job.done()
    with db.context(cluster=address, on_exit=ExitMode.RETAIN):
        pass
    gate.open()
    assert job.result(60).rows_done == 100
    assert "kept" not in capsys.readouterr().err


@pytest.mark.parametrize("given", [{"wait_timeout": -1}, {"on_exit": "keep"}, {"reuse": "never", "stack": "dev", "cluster": "x"}])
def test_wrong_arguments(db: Connection, given: dict[str, object]) -> None:
    expected = {
        "wait_timeout": r"wait_timeout=-1 must be seconds, 0 or more",
        "on_exit": r"on_exit='keep' is none of ExitMode.DELETE, ExitMode.RETAIN_ON_FAILURE, ExitMode.RETAIN",
        "reuse": r"both cluster='x' and stack='dev' are given; keep one",
    }
    with pytest.raises(BadInput, match=expected[next(iter(given))]):
        db.context(**{"cluster": "http://127.0.0.1:1", **given})  # type: ignore[arg-type]


def test_a_secret_that_could_only_be_sent_in_plain_sight_is_refused(db: Connection, address: str) -> None:
    with pytest.raises(BadInput, match=r"env_vars: API_TOKEN look like secrets, and the driver on cluster 'external'"):
        db.context(cluster=address, runtime_env={"env_vars": {"API_TOKEN": "0123456789abcdef"}})


def test_addresses_without_a_ray(db: Connection, table: Table, log: Path) -> None:
    table.add_columns({"y": doubling(log)})
    with pytest.raises(RunnerError, match=r"127\.0\.0\.1:9.*nothing listens there"), db.context(cluster="http://127.0.0.1:9"):
        pass
    with pytest.raises(ValueError, match=r"'ray://host' has no port"):
        db.context(cluster="ray://host")
    assert runner.connect(db.uri).jobs() == []


def test_ray_init_kwargs_that_mean_nothing_to_a_job_are_refused_by_name(db: Connection) -> None:
    from infra import Cluster

    spec = Cluster.create_external("far", "http://127.0.0.1:9").ray_init_kwargs({"num_cpus": 2, "namespace": "a"}).build()
    db.define_cluster("far", spec)
    with pytest.raises(BadInput, match=r"cluster 'far': ray_init_kwargs: namespace, num_cpus have no meaning there"):
        db.context(cluster="far")


def test_another_pyarrow_than_the_client_s_is_refused_before_a_job(db: Connection, address: str) -> None:
    with pytest.raises(BadInput, match=r"pyarrow==1\.0\.0: workers write files with pyarrow=="):
        db.context(cluster=address, runtime_env={"pip": ["pyarrow==1.0.0"]})


def test_async_with(db: Connection, table: Table, address: str, log: Path) -> None:
    import asyncio

    table.add_columns({"y": doubling(log)})

    async def work() -> int:
        async with db.context(cluster=address):
            return (await table.backfill_async("y")).rows_done

    assert asyncio.run(work()) == 100
    assert pa.compute.sum(table.to_arrow(["y"])["y"]).as_py() == 9900
