"""The command line, in processes of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import runner
from runner import Table
from tests.e2e.helpers import Gate, cli, cli_json, files, make_table, values, version

FEATURES = """
import os
from pathlib import Path

from runner import udf
from tests.e2e.helpers import pass_gate


@udf
def double(x: int) -> int:
    return 2 * x


def plain(x: int) -> str:
    return f"<{x}>"


@udf
def fragile(x: int) -> int:
    if x == 3 and not Path("mended").exists():
        raise ValueError("three is not possible")
    return x


@udf
def waiting(x: int) -> int:
    if x == 5 and Path("gate").exists():
        pass_gate("gate")
    return 2 * x
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of functions and a database."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (tmp_path / "features.py").write_text(FEATURES)
    return tmp_path


@pytest.fixture
def table(project: Path) -> Table:
    return make_table(runner.connect(project / "db"), 10, rows_per_fragment=4)


def backfill(project: Path, column: str, *options: str) -> subprocess.CompletedProcess[str]:
    return cli(project, "backfill", "db", "t", column, "--cluster", "inline", *options)


def test_one_command_adds_the_column_and_fills_it(project: Path, table: Table) -> None:
    done = backfill(project, "double", "--udf", "features:double")
    assert done.returncode == 0, done.stderr
    assert "backfill of double in t: DONE" in done.stdout
    assert "rows done     10" in done.stdout
    assert values(table, "double") == [2 * i for i in range(10)]
    assert version(table) == 3
    again = backfill(project, "double")
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert version(table) == 3


def test_json_options_and_inputs(project: Path, table: Table) -> None:
    table.add_columns({"y": "x * 10"})
    result: dict[str, Any] = cli_json(
        project, "backfill", "db", "t", "text", "--udf", "features:plain", "--inputs", "y", "--where", "x < 6",
        "--cluster", "inline", "--batch-size", "3", "--concurrency", "1", "--on-error", "retry:1,skip",
    )  # fmt: skip
    assert (result["status"], result["rows_done"], result["columns"], result["executor"]) == ("DONE", 6, ["text"], "inline")
    assert values(table, "text") == [f"<{10 * i}>" if i < 6 else None for i in range(10)]
    shown = cli_json(project, "jobs", "show", "db", result["job_id"])
    assert shown["options"] == {"where": "x < 6", "batch_size": 3, "concurrency": 1, "on_error": "retry:1,skip"}


def test_dry_run_and_plan_change_nothing(project: Path, table: Table) -> None:
    before = files(project / "db")
    new = backfill(project, "double", "--udf", "features:double", "--dry-run")
    assert (new.returncode, new.stdout) == (0, "would add double to t and compute 10 rows\n")
    assert files(project / "db") == before

    assert backfill(project, "double", "--udf", "features:double", "--where", "x < 3").returncode == 0
    before = files(project / "db")
    dry = cli_json(project, "backfill", "db", "t", "double", "--dry-run")
    plan = cli_json(project, "plan", "db", "t", "double")
    estimate = plan.pop("estimate")
    assert dry == plan
    assert (estimate["seconds"], estimate["sample"]["rows"], estimate["tasks"] > 0) == (None, 0, True)  # nothing was called
    assert (plan["rows"], plan["valid_rows"], plan["total_rows"], plan["fragments"], plan["read_version"]) == (7, 3, 10, 3, 3)
    text = cli(project, "plan", "db", "t", "double", "--where", "x = 9")
    assert text.returncode == 0
    assert "rows to compute                1 of 1" in text.stdout
    assert files(project / "db") == before


def test_jobs_and_errors(project: Path, table: Table) -> None:
    skipped = backfill(project, "y", "--udf", "features:fragile", "--on-error", "skip")
    assert skipped.returncode == 0, skipped.stderr
    assert "1 rows left NULL by the error policy" in skipped.stdout
    failed = backfill(project, "y", "--where", "_rowaddr = 3")
    assert failed.returncode == 1
    assert "three is not possible" in failed.stderr

    listed = cli(project, "jobs", "list", "db")
    first, second = listed.stdout.splitlines()
    assert "FAILED" in first
    assert "DONE" in second
    assert "t.y" in second
    assert "9 of 10 rows" in second
    (record,) = cli_json(project, "jobs", "list", "db", "--table", "t", "--limit", "1")
    assert record["status"] == "FAILED"
    shown = cli(project, "jobs", "show", "db", second.split()[0])
    assert shown.returncode == 0
    assert "status        DONE" in shown.stdout
    assert "features:fragile" in shown.stdout

    errors = cli(project, "errors", "db", "t", "y")
    assert errors.returncode == 0
    assert errors.stdout == "3  ValueError: three is not possible\n"
    assert "--only-failed" in errors.stderr
    (error,) = cli_json(project, "errors", "db", "t", "y")
    assert (error["row_address"], error["error"]) == (3, "ValueError")
    assert 'raise ValueError("three' in cli(project, "errors", "db", "t", "y", "--traceback").stdout


def test_exit_code_1_tells_the_row_and_the_traceback(project: Path, table: Table) -> None:
    done = backfill(project, "y", "--udf", "features:fragile")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "runner: y: ValueError at row 3 of fragment 0 (_rowaddr = 3): three is not possible" in done.stderr
    assert "features.py" in done.stderr
    assert values(table, "y") == [None] * 10


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("db", "nothing", "x"), "no table 'nothing'"),
        (("db", "t", "nothing"), "no column 'nothing'"),
        (("db", "t", "s"), "column 's' of 't' is not computed"),
        (("db", "t", "y", "--udf", "features:nothing"), "has no 'nothing'"),
        (("db", "t", "y", "--udf", "nothing:f"), "cannot import the module 'nothing'"),
        (("db", "t", "y", "--udf", "features"), "is not of the form module:function"),
        (("db", "t", "y", "--udf", "features:double", "--on-error", "ignore"), "on_error='ignore'"),
        (("db", "t", "y", "--udf", "features:double", "--where", "nothing > 1"), "is not a predicate"),
        (("db", "t", "y", "--cluster", "moon"), "moon"),
        (("db", "t", "y", "--nothing"), "No such option"),
    ],
)
def test_exit_code_2_changes_nothing(project: Path, table: Table, args: tuple[str, ...], message: str) -> None:
    before = files(project / "db")
    done = cli(project, "backfill", *args, *(() if "--cluster" in args else ("--cluster", "inline")))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert files(project / "db") == before


def test_exit_code_3_tells_of_the_other_job(project: Path, table: Table) -> None:
    gate = Gate(project / "gate")
    command = [sys.executable, "-m", "runner", "backfill", "db", "t", "y", "--udf", "features:waiting", "--cluster", "inline"]
    first = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True)
    try:
        gate.wait()
        second = backfill(project, "y")
        assert second.returncode == 3, second.stderr
        assert f"(process {first.pid} on " in second.stderr
        (running,) = cli_json(project, "jobs", "list", "db")
        assert running["status"] == "RUNNING"
    finally:
        gate.close()
        output, _ = first.communicate(timeout=60)
    assert (first.returncode, "rows done     10" in output) == (0, True)


def test_exit_code_130_keeps_what_is_finished(project: Path, table: Table) -> None:
    gate = Gate(project / "gate")
    command = [sys.executable, "-m", "runner", "backfill", "db", "t", "y", "--udf", "features:waiting", "--cluster", "inline"]
    job = subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True)
    gate.wait()
    job.send_signal(signal.SIGINT)
    _, stderr = job.communicate(timeout=60)
    gate.close()
    assert job.returncode == 130, stderr
    assert "interrupted; finished work is kept" in stderr
    (record,) = cli_json(project, "jobs", "list", "db")
    assert record["status"] == "CANCELLED"
    assert values(table, "y") == [None] * 10
    (project / "gate").rename(project / "no gate")
    result = json.loads(backfill(project, "y", "--json").stdout)
    assert (result["rows_done"], result["rows_resumed"]) == (10, 4)
    assert values(table, "y") == [2 * i for i in range(10)]


def test_a_job_is_resumed_where_it_ran_with_the_function_that_it_brought(project: Path, table: Table) -> None:
    assert backfill(project, "y", "--udf", "features:double").returncode == 0
    assert backfill(project, "y", "--udf", "features:fragile", "--stale").returncode == 1
    failed = cli_json(project, "jobs", "list", "db")[0]
    assert (failed["status"], failed["plan"]["rows"], failed["plan"]["stale_rows"]) == ("FAILED", 10, 0)
    assert failed["seconds"]["compute"] > 0
    assert values(table, "y") == [2 * i for i in range(10)]
    (project / "mended").touch()
    result = cli_json(project, "jobs", "resume", "db", failed["job_id"])
    assert (result["executor"], result["rows_done"]) == ("inline", 10)
    assert values(table, "y") == list(range(10))


def test_help_names_the_exit_codes(project: Path) -> None:
    done = cli(project, "--help")
    assert done.returncode == 0
    assert "Exit codes: 0 done" in done.stdout
    assert cli(project).returncode == 2
