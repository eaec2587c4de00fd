"""`checkpoints gc`: what it takes away, and what it leaves to a job that can still use it."""

from __future__ import annotations

import datetime as dt
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runner import Connection, Table
from runner.cli.main import app
from runner.errors import BackfillFailed
from runner.leftovers import Leftover, collect
from tests.e2e.helpers import Gate, calls, failing_while, files, gated, make_table, values

OLD = dt.timedelta(days=30)


def leave_work(db: Connection, log: Path, flag: Path, name: str = "t") -> Table:
    """A table whose backfill of ``y`` failed at row 70, with the work before it staged."""
    flag.touch()
    table = make_table(db, 100, name=name, rows_per_fragment=30)
    table.add_columns({"y": failing_while(flag, [70], log)})
    with pytest.raises(BackfillFailed):
        table.backfill("y")
    flag.unlink()
    return table


def age(db: Connection, folder: str, days: int) -> None:
    then = dt.datetime.now().timestamp() - days * 86400
    for path, _ in db.store.objects(folder):
        os.utime(Path(db.uri) / "_runner" / path, (then, then))


def names(found: list[Leftover]) -> set[str]:
    return {"/".join(one.name.split("/")[:3]) for one in found}


def test_work_that_a_job_may_take_up_stays(inline: Connection, log: Path, tmp_path: Path) -> None:
    table = leave_work(inline, log, tmp_path / "broken")
    age(inline, "staging", 29)
    assert collect(inline, OLD) == []
    table.backfill("y")
    assert calls(log) == sorted([*range(100), 70])  # nothing but the failed row was computed again


def test_old_work_goes_and_is_computed_again(inline: Connection, log: Path, tmp_path: Path) -> None:
    table = leave_work(inline, log, tmp_path / "broken")
    age(inline, "staging", 31)
    before = files(Path(inline.uri) / "_runner")
    found = collect(inline, OLD, dry_run=True)
    assert names(found) == {"staging/t/y"}
    assert all(one.why.startswith("no job came back to it since ") and one.bytes > 0 for one in found)
    assert files(Path(inline.uri) / "_runner") == before
    assert collect(inline, OLD) == found
    assert list(inline.store.objects("staging")) == []
    table.backfill("y")
    assert values(table, "y") == [2 * x for x in range(100)]


def test_what_belongs_to_nothing_goes_whatever_its_age(inline: Connection, log: Path, tmp_path: Path) -> None:
    dropped = leave_work(inline, log, tmp_path / "broken", "dropped column")
    dropped.to_lance().drop_columns(["y"])
    leave_work(inline, log, tmp_path / "broken", "gone")
    kept = leave_work(inline, log, tmp_path / "broken", "kept")
    inline.store.put("freshness/gone/y-3/own-2", b"{}")
    shutil.rmtree(f"{inline.uri}/gone.lance")
    found = collect(inline, OLD)
    assert names(found) == {"staging/dropped=20column/y", "staging/gone/y", "freshness/gone"}
    assert {one.why for one in found} == {"column y of dropped column is gone", "table gone is gone"}
    assert {path.split("/")[1] for path, _ in inline.store.objects("staging")} == {"kept"}
    assert list(inline.store.objects("freshness")) == []
    kept.backfill("y")
    assert calls(log).count(10) == 3  # of each table once


def test_a_column_that_is_being_filled_is_left_alone(inline: Connection, gate: Gate) -> None:
    table = make_table(inline, 100, rows_per_fragment=30)
    table.add_columns({"y": gated(gate, 50)})
    inline.store.put("staging/t/y/0-old/1.part", b"x")
    age(inline, "staging", 31)
    job = table.backfill_async("y")
    gate.wait()
    try:
        (found,) = collect(inline, OLD)
        assert "is being filled by job" in found.problem
        done = CliRunner().invoke(app, ["checkpoints", "gc", inline.uri])
        assert done.exit_code == 1
        assert done.stdout.startswith("could not remove staging/t/y/0-old: column 'y' of table 't' is being filled")
    finally:
        gate.open()
    job.result(60)


def test_leases_and_tags_of_dead_jobs_and_old_records(inline: Connection, log: Path, tmp_path: Path) -> None:
    table = leave_work(inline, log, tmp_path / "broken")
    dead = '{"job": "20200101-000000-aa", "host": "elsewhere", "pid": 7, "started": 1.0, "renewed": 1.0}'
    inline.store.put("leases/t/y/0000000004.json", dead.encode())
    table.to_lance().tags.create("infill-20200101-000000-aa-0", 1)
    table.to_lance().tags.create("theirs", 1)
    (record,) = inline.jobs()
    for folder in ("leases", "jobs", "staging"):
        age(inline, folder, 31)
    found = collect(inline, OLD)
    assert {(one.name, one.why) for one in found if not one.name.startswith("staging")} == {
        ("leases/t/y/0000000004.json", "its holder is gone: process 7 on elsewhere"),
        ("tag infill-20200101-000000-aa-0 of t", "its job is gone"),
    }
    assert list(inline.store.objects("leases")) == []
    assert list(table.to_lance().tags.list()) == ["theirs"]
    assert [one.job_id for one in inline.jobs()] == [record.job_id]
    (job,) = collect(inline, OLD, job_records=True)
    assert (job.name, job.why) == (f"jobs/{record.job_id}", "the job ended: FAILED")
    assert inline.jobs() == []


def test_the_command_says_what_it_would_do_and_did(inline: Connection, log: Path, tmp_path: Path) -> None:
    leave_work(inline, log, tmp_path / "broken")
    shutil.rmtree(f"{inline.uri}/t.lance")
    would = CliRunner().invoke(app, ["checkpoints", "gc", inline.uri, "--dry-run"])
    did = CliRunner().invoke(app, ["checkpoints", "gc", inline.uri])
    assert (would.exit_code, did.exit_code) == (0, 0)
    assert would.stdout.splitlines()
    assert [line.replace("would remove", "removed") for line in would.stdout.splitlines()] == did.stdout.splitlines()
    assert all(line.startswith("removed staging/t/y/") and line.endswith(": table t is gone") for line in did.stdout.splitlines())
    assert CliRunner().invoke(app, ["checkpoints", "gc", inline.uri]).stderr == "nothing to remove\n"
    wrong = CliRunner().invoke(app, ["checkpoints", "gc", inline.uri, "--older-than", "long"])
    assert (wrong.exit_code, wrong.stderr) == (2, "runner: --older-than 'long' is no age; write 30d, 12h or 45m\n")
