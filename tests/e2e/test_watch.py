"""What real jobs leave to watch: their history, and the report that the command line writes."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from runner import Connection, Context, udf
from runner.records import JobRecords
from runner.watch.history import DONE, FAILED, RETRIED, History
from tests.e2e.helpers import cli, make_table


def history(db: Connection, job_id: str) -> History:
    data = JobRecords(db.store).history(job_id)
    assert data is not None
    return History.from_bytes(data)


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
    done = cli(tmp_path, "jobs", "report", inline.uri, job.job_id[:15])
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{job.job_id}.html\n"
    data = data_of((tmp_path / f"{job.job_id}.html").read_text())
    assert (data["job"]["state"], data["outcomes"][FAILED]) == ("FAILED", ["failed", 1])
    assert data["errors"] == [["ZeroDivisionError", 1, "</script>", 0]]
    assert data_of(cli(tmp_path, "jobs", "report", inline.uri, job.job_id, "-o", "-").stdout) == data

    refused = cli(tmp_path, "jobs", "report", inline.uri, job.job_id, "-o", "no/such/folder/x.html")
    assert refused.returncode == 2
    assert "--output no/such/folder/x.html: cannot be written: No such file" in refused.stderr
    assert cli(tmp_path, "jobs", "report", inline.uri, "1999").returncode == 2
