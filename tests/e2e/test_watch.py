"""What real jobs leave to watch: their history, and the report that the command line writes."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import time
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import Result
from typer.testing import CliRunner

from infra import parse_spec
from infra.prices import read_prices
from runner import Connection, Context, udf
from runner.cli.main import app
from runner.records import JobRecords
from runner.watch.history import DONE, FAILED, RETRIED, RUNNING, History
from runner.watch.metrics import CALLS, COUNTERS, GAUGES
from tests.e2e.helpers import ROOT, WAIT_SECONDS, Gate, make_table, pass_gate, run


def history(db: Connection, job_id: str) -> History:
    data = JobRecords(db.store).history(job_id)
    assert data is not None
    return History.from_bytes(data)


def cli(*args: str) -> Result:
    return CliRunner().invoke(app, args)


def cli_json(*args: str) -> Any:
    return json.loads(cli(*args, "--json").stdout)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def data_of(page: str) -> Any:
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(block)


def test_the_history_of_a_job_agrees_with_its_result(inline: Connection) -> None:
    @udf(on_error="skip")
    def fragile(x: int) -> int:
        if x % 10 == 3:
            raise ValueError(f"not {x}")
        return x

    table = make_table(inline, 100, rows_per_fragment=20)
    table.add_columns({"y": fragile})
    result = table.backfill("y")
    found = history(inline, result.job_id)
    assert (found.is_ended, found.columns, len(found.workers)) == (True, ("y",), 1)
    assert found.tasks["rows"].sum() == result.rows_done == 90
    assert found.tasks["failed"].sum() == found.errors["ValueError"].count == 10
    assert (found.errors["ValueError"].message, found.errors["ValueError"].row_address) == ("not 3", 3)
    assert found.tasks["bytes_read"].sum() == result.bytes_read == 800
    assert found.tasks["bytes_written"].sum() == result.bytes_written
    assert set(found.tasks["outcome"]) == {DONE}
    assert found.tasks["memory"].min() > 10_000_000  # this process has Arrow and Lance in it
    assert found.tasks["calls"].min() >= 1
    assert [phase.name for phase in found.phases if phase.name != "plan"] == ["start", "compute", "commit", "commit"]
    assert all(phase.end is not None and phase.start <= phase.end <= found.seconds for phase in found.phases)


def test_a_worker_that_dies_leaves_a_retried_task(db: Connection, ray_session: Context, tmp_path: Path) -> None:
    once = tmp_path / "died"

    @udf
    def mortal(x: int) -> int:
        import os

        if x == 25 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    table = make_table(db, 80, rows_per_fragment=10)
    table.add_columns({"y": mortal})
    job = table.backfill_async("y")
    assert job.result().rows_done == 80
    found = history(db, job.job_id)
    outcomes = list(found.tasks["outcome"])
    assert outcomes.count(RETRIED) == 1
    assert set(outcomes) == {DONE, RETRIED}
    retried = found.tasks["worker"][outcomes.index(RETRIED)]
    assert all(process > 0 for _, process in found.workers)
    assert found.tasks["worker"][-1] != retried
    assert data_of(job.report())["outcomes"][RETRIED] == ["retried", 1]


def test_the_command_writes_the_report_of_a_failed_job(inline: Connection, tmp_path: Path) -> None:
    @udf
    def wrong(x: int) -> int:
        raise ZeroDivisionError("</script>")

    table = make_table(inline, 10)
    table.add_columns({"y": wrong})
    job = table.backfill_async("y").start()
    with pytest.raises(Exception, match="ZeroDivisionError"):
        job.result(60)
    done = cli("jobs", "report", inline.uri, job.job_id[:15])
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{job.job_id}.html\n"
    data = data_of((tmp_path / f"{job.job_id}.html").read_text())
    assert (data["job"]["state"], data["outcomes"][FAILED]) == ("FAILED", ["failed", 1])
    assert data["errors"] == [["ZeroDivisionError", 1, "</script>", 0]]
    assert data_of(cli("jobs", "report", inline.uri, job.job_id, "-o", "-").stdout) == data

    refused = cli("jobs", "report", inline.uri, job.job_id, "-o", "no/such/folder/x.html")
    assert refused.exit_code == 2
    assert "--output no/such/folder/x.html: cannot be written: No such file" in refused.stderr
    assert cli("jobs", "report", inline.uri, "1999").exit_code == 2


WATCHED = """
import glob, logging, os, re, time, urllib.request
import ray, runner
from runner import udf
from tests.e2e.helpers import make_table

@udf(on_error="skip")
def fragile(x: int) -> int:
    if x == 7:
        logging.getLogger("mine").warning("seven of %s", "ten")
    return 1 // (x % 10)

db = runner.connect("db")
table = make_table(db, 200, rows_per_fragment=50)
table.add_columns({"y": fragile})
with db.context(cluster="local"):
    job = table.backfill_async("y")
    job.result()
    port = ray.nodes()[0]["MetricsExportPort"]
    end = time.monotonic() + 60
    text = ""
    while "infill_call_seconds_count" not in text and time.monotonic() < end:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        time.sleep(0.2)
    folder = ray._private.worker._global_node.get_session_dir_path()
print(job.job_id)
print("\\n".join(line for line in text.splitlines() if line.startswith("ray_infill")))
for path in glob.glob(os.path.join(folder, "logs", "worker-*.err")):
    print(open(path).read(), end="")
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str], list[str]]:
    """A job on a Ray of its own with metrics and JSON logs: its id, lines of its output, lines of its standard error."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "script.py").write_text(WATCHED)
    settings = {"INFILL_METRICS": "1", "INFILL_LOG": "json", "RAY_metrics_report_interval_ms": "500"}
    done = run(["script.py"], folder, PYTHONPATH=str(ROOT), **settings)
    assert done.returncode == 0, done.stderr
    job_id, *lines = done.stdout.splitlines()
    return job_id, lines, done.stderr.splitlines()


def test_the_metrics_of_a_job_are_in_what_ray_exports(watched: tuple[str, list[str], list[str]]) -> None:
    job_id, lines, _ = watched
    found = {}
    for sample in lines:
        if not sample.startswith("ray_infill"):
            continue
        name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", sample).groups()  # type: ignore[union-attr]
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        assert (tags["job_id"], tags["table"], tags["column"]) == (job_id, "t", "y")
        found[name + (tags.get("le") or "")] = float(value)
    assert found["ray_infill_rows_done_total"] == 180
    assert found["ray_infill_rows_failed_total"] == 20
    assert found["ray_infill_read_bytes_total"] == 1600
    assert found["ray_infill_written_bytes_total"] > 0
    assert found["ray_infill_call_seconds_count"] >= 1
    assert found["ray_infill_call_seconds_bucket+Inf"] == found["ray_infill_call_seconds_count"]
    assert [found[f"ray_infill_{name}"] for name in ("workers", "tasks_running", "tasks_queued")] == [0, 0, 0]


def test_log_lines_of_driver_and_workers_are_json_with_the_ids_of_job_and_task(watched: tuple[str, list[str], list[str]]) -> None:
    job_id, lines, said = watched
    driver = [json.loads(line) for line in said]
    tasks = {line["task"]: line for line in driver if line["message"] == "task done"}
    (job,) = (line for line in driver if line["message"] == "job DONE")
    assert (job["columns"], job["rows_done"], sum(task["rows"] for task in tasks.values())) == (["y"], 180, 180)
    assert {line["job_id"] for line in (job, *tasks.values())} == {job_id}
    worker = [json.loads(line) for line in lines if line.startswith('{"time"')]
    (mine,) = (line for line in worker if line["logger"] == "mine")
    assert (mine["message"], mine["level"], mine["job_id"], mine["fragments"][0]) == ("seven of ten", "WARNING", job_id, 0)
    assert tasks[mine["task"]]["fragment"] == 0
    assert {line["task"] for line in worker if line["message"] == "task began"} == set(tasks)


def test_the_dashboard_shows_metrics_that_are_there(tmp_path: Path) -> None:
    shown = cli("dashboard")
    dashboard = json.loads(shown.stdout)
    assert shown.stdout == resources.files("runner.watch").joinpath("grafana.json").read_text()
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = set(re.findall(r"ray_(infill_\w+)", " ".join(queries)))
    assert used == {f"{name}_total" for name in COUNTERS} | set(GAUGES) | {f"{CALLS}_bucket"}


def test_top_prints_one_frame(inline: Connection, tmp_path: Path) -> None:
    table = make_table(inline, 10)
    table.add_columns({"y": udf(lambda x: x, data_type=pa.int64(), input_columns=["x"])})
    result = table.backfill("y")
    (line,) = cli_json("top", inline.uri)
    assert (line["job_id"], line["state"], line["rows_done"], line["rows_total"]) == (result.job_id, "DONE", 10, 10)
    shown = cli("top", inline.uri, "--once")
    assert shown.exit_code == 0, shown.stderr
    assert "10 of 10" in shown.stdout
    assert "100%" in shown.stdout


def test_a_report_has_the_cost_of_a_defined_cluster(inline: Connection, tmp_path: Path) -> None:
    table = make_table(inline, 10)
    table.add_columns({"y": udf(lambda x: x, data_type=pa.int64(), input_columns=["x"])})
    job_id = table.backfill("y").job_id
    (tmp_path / "prices.yaml").write_text("{source: a test, per_cpu: 3600, per_gib: 0}")
    assert data_of(inline.job_report(job_id, read_prices(tmp_path / "prices.yaml")))["cost"] is None
    refused = cli("jobs", "report", inline.uri, job_id, "--prices", "prices.yaml")
    assert refused.exit_code == 2
    assert "it prices the pods of a cluster, and job" in refused.stderr

    inline.define_cluster("one", parse_spec({"name": "one", "worker_groups": [{"cpus": 1, "memory": "1Gi"}]}))
    records = JobRecords(inline.store)
    records.save(dataclasses.replace(records.get(job_id), cluster="one"))
    cost = data_of(cli("jobs", "report", inline.uri, job_id, "-o", "-").stdout)["cost"]
    assert cost["amount"] > 0
    assert (cost["source"], list(cost["pod_hours"])) == ("a test", ["head", "cpu"])


def test_a_job_under_way_has_a_report(inline: Connection, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.jobs.HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr("runner.watch.job_watch.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("runner.watch.job_watch.SAVE_SHARE", 1.0)
    folder = gate.folder

    @udf
    def waiting(x: int) -> int:
        if x == 15:
            pass_gate(folder)
        return x

    table = make_table(inline, 20, rows_per_fragment=10)
    table.add_columns({"y": waiting})
    job = table.backfill_async("y")
    gate.wait()
    end = time.monotonic() + WAIT_SECONDS
    data: Any = {}
    while not (data and data["outcomes"][RUNNING][1]) and time.monotonic() < end:
        data = data_of(job.report())
    gate.open()
    assert job.result(WAIT_SECONDS).rows_done == 20
    assert "has not ended" in data["notes"][0]
    assert data["outcomes"][RUNNING] == ["running", 1]
    assert [name for name, _, end in data["phases"] if end is None] == ["compute"]
    assert data_of(job.report())["notes"] == []
