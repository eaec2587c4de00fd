"""Everything that a backfill does on storage, on a real S3 server."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fault_functions import failing, noted
from faults_processes import cli, spawned, wait_until
from faults_s3 import Server

import runner
from runner.connection import Connection
from runner.errors import BackfillFailed, ColumnBusy
from runner.lease import column_leases
from runner.table import Table

ROWS = 1000


@pytest.fixture
def database(s3: dict[str, str]) -> Connection:
    return runner.connect(f"s3://faults/{uuid.uuid4().hex}", storage_options=s3)


@pytest.fixture
def table(database: Connection, tmp_path: Path) -> Table:
    """Four fragments of 250 rows and a column ``out`` that is NULL; the log of calls is beside."""
    for start in range(0, ROWS, 250):
        rows = pa.table({"row": pa.array(range(start, start + 250), pa.int64()), "log": [str(tmp_path / "calls")] * 250})
        if start:
            database.to_lancedb().open_table("t").add(rows)
        else:
            database.create_table("t", rows)
    made = database.open_table("t")
    made.add_columns({"out": failing})
    assert len(made.to_lance().get_fragments()) == 4
    return made


def values(table: Table) -> list[Any]:
    return table.to_arrow(["row", "out"])["out"].to_pylist()


def expected(missing: set[int] = frozenset()) -> list[Any]:  # type: ignore[assignment]
    return [None if row in missing else 3 * row + 1 for row in range(ROWS)]


def objects(table: Table, *prefixes: str) -> list[str]:
    return [path for prefix in prefixes for path, _ in table.connection.store.objects(prefix)]


def calls(tmp_path: Path) -> int:
    log = tmp_path / "calls"
    return log.stat().st_size // 16 if log.exists() else 0


def test_inline_and_again(table: Table, tmp_path: Path) -> None:
    version = table.to_lance().version
    with table.connection.context("inline"):
        result = table.backfill("out", progress=False)
        assert (result.rows_done, result.version_before, result.version_after) == (ROWS, version, version + 1)
        assert values(table) == expected()
        again = table.backfill("out", progress=False)
    assert (again.rows_done, again.rows_valid, again.version_after) == (0, ROWS, version + 1)
    assert calls(tmp_path) == ROWS
    assert objects(table, "staging", "leases") == []
    assert [job.status for job in table.connection.jobs("t")] == ["DONE"]
    assert table.connection.job(result.job_id).rows_done == ROWS
    assert table.to_lancedb().count_rows("out IS NULL") == 0


def test_on_ray_by_the_command_line(table: Table, s3: dict[str, str], tmp_path: Path) -> None:
    options = [f"--storage-option={key}={value}" for key, value in s3.items()]
    with spawned(cli("backfill", table.connection.uri, "t", "out", "--json", *options), tmp_path) as child:
        result = child.result()
    assert (result["executor"], result["rows_done"]) == ("local", ROWS)
    assert values(table) == expected()
    assert objects(table, "staging", "leases") == []
    with spawned(cli("jobs", "list", table.connection.uri, "--json", *options), tmp_path) as child:
        assert child.wait() == 0
        (job,) = json.loads(child.output.with_suffix(".json").read_text())
    assert (job["job_id"], job["status"], job["rows_done"]) == (result["job_id"], "DONE", ROWS)
    assert s3["aws_secret_access_key"] not in json.dumps(job)


def test_where_and_append(table: Table) -> None:
    with table.connection.context("inline"):
        result = table.backfill("out", where="row >= 200 AND row < 300", progress=False)
        assert (result.rows_done, result.rows_valid) == (100, 0)
        assert values(table) == expected(set(range(200)) | set(range(300, ROWS)))
        assert table.backfill("out", progress=False).rows_done == ROWS - 100
        assert values(table) == expected()
        table.to_lancedb().add(pa.table({"row": pa.array([ROWS], pa.int64()), "log": table.to_arrow(["log"])["log"][:1]}))
        assert table.backfill("out", progress=False).rows_done == 1
    assert values(table) == [*expected(), 3 * ROWS + 1]
    assert objects(table, "staging", "leases") == []


def test_a_compaction_and_a_clean_up_meanwhile(table: Table, tmp_path: Path) -> None:
    """The job is cancelled once a part is done, so that the table changes at a known point; then it is run again."""
    (tmp_path / "calls.fail").write_text("650")
    with table.connection.context("inline"):
        with pytest.raises(BackfillFailed):
            table.backfill("out", commit_every=250, progress=False)
        assert values(table) == expected(set(range(500, ROWS)))
        table.to_lance().optimize.compact_files()
        (tmp_path / "calls.fail").unlink()
        assert table.backfill("out", limit=100, progress=False).rows_left == 400
        table.to_lance().update({"row": f"row + {ROWS}"}, where="row = 0")
        table.to_lance().cleanup_old_versions(dt.timedelta(0), delete_unverified=True)
        result = table.backfill("out", progress=False)
    assert result.rows_done == 400
    assert sorted(values(table))[:3] == [1, 4, 7]
    assert objects(table, "staging", "leases") == []
    assert table.to_lance().tags.list() == {}


def test_rows_that_fail_are_skipped_and_run_again(table: Table, tmp_path: Path) -> None:
    (tmp_path / "calls.fail").write_text("650")
    with table.connection.context("inline"):
        result = table.backfill("out", on_error="skip", progress=False)
        assert (result.rows_done, result.rows_skipped) == (ROWS - 1, 1)
        assert values(table) == expected({650})
        (error,) = table.errors("out")
        assert (error.row_address, error.error) == ((2 << 32) | 150, "ValueError")
        (tmp_path / "calls.fail").unlink()
        assert table.backfill("out", where=f"_rowaddr = {error.row_address}", progress=False).rows_done == 1
    assert values(table) == expected()
    assert table.errors("out") == []


def test_a_row_that_fails_ends_the_job_and_the_next_one_resumes(table: Table, tmp_path: Path) -> None:
    (tmp_path / "calls.fail").write_text("650")
    version = table.to_lance().version
    with table.connection.context("inline"):
        with pytest.raises(BackfillFailed, match="row 650 is refused"):
            table.backfill("out", progress=False)
        assert table.to_lance().version == version
        assert values(table) == [None] * ROWS
        made = calls(tmp_path)
        (tmp_path / "calls.fail").unlink()
        result = table.backfill("out", progress=False)
    assert (result.rows_done, result.version_after) == (ROWS, version + 1)
    assert result.rows_resumed >= made - 251  # the batch that the row was in may be cut short
    assert calls(tmp_path) <= ROWS + 1
    assert values(table) == expected()
    assert [job.status for job in table.connection.jobs()] == ["DONE", "FAILED"]
    assert objects(table, "staging", "leases") == []


def test_leases_are_created_only_once(table: Table) -> None:
    store = table.connection.store
    assert store.create("leases/probe", b"1")
    assert not store.create("leases/probe", b"2"), "this server does not honour If-None-Match"
    assert store.get("leases/probe") == b"1"
    store.delete(["leases/probe"])
    with column_leases(store, "t", ["out"], "another-job"), table.connection.context("inline"):
        with pytest.raises(ColumnBusy, match="another-job"):
            table.backfill("out", progress=False)
        assert values(table) == [None] * ROWS
    with table.connection.context("inline"):
        assert table.backfill("out", progress=False).rows_done == ROWS


def test_a_refused_key_is_one_message(table: Table, s3: dict[str, str], tmp_path: Path) -> None:
    options = [f"--storage-option={key}={value}" for key, value in {**s3, "aws_secret_access_key": "not this one"}.items()]
    for command in (["backfill", table.connection.uri, "t", "out", "--cluster", "inline"], ["jobs", "list", table.connection.uri]):
        with spawned(cli(*command, *options), tmp_path) as child:
            assert child.wait() == 1, child.text()
        (line,) = child.text().splitlines()
        assert line.startswith("runner: cannot ")
        assert table.connection.uri in line
        assert "403" in line or "denied" in line.lower()
    assert values(table) == [None] * ROWS


def test_a_backfill_outlives_a_restart_of_the_server(server: Server, tmp_path: Path) -> None:
    database = runner.connect("s3://faults/db", storage_options=server.options)
    rows = pa.table({"row": pa.array(range(4 * ROWS), pa.int64()), "log": [str(tmp_path / "calls")] * (4 * ROWS)})
    table = database.create_table("t", rows)
    table.add_columns({"out": noted})
    with database.context("inline"):
        job = table.backfill_async("out")
        wait_until(lambda: calls(tmp_path) > ROWS, "a quarter is computed")
        server.kill()
        server.start()
        result = job.result()
    assert (result.status, result.rows_done) == ("DONE", 4 * ROWS)
    assert values(table) == [3 * row + 1 for row in range(4 * ROWS)]
    assert calls(tmp_path) == 4 * ROWS
    assert objects(table, "staging", "leases") == []
