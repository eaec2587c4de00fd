"""Failing, cancelling and going on: nothing that was computed is lost or computed twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runner import BackfillResult, Connection, Job, udf
from runner.errors import BackfillFailed, JobCancelled
from tests.e2e.helpers import Gate, calls, failing_while, files, gated, log_call, make_table, pass_gate, values, version


def test_failing_row_then_fixed(inline: Connection, log: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    table = make_table(inline, 1000, rows_per_fragment=300)
    table.add_columns({"y": failing_while(flag, [700], log)})
    before = files(table.uri)
    with pytest.raises(BackfillFailed, match=r"y: ValueError at row 100 of fragment 2 .*: no value for 700") as caught:
        table.backfill("y")
    (error,) = caught.value.errors
    assert (error.row_address, error.error, error.message) == ((2 << 32) | 100, "ValueError", "no value for 700")
    assert "raise ValueError" in error.traceback
    assert files(table.uri) == before
    (record,) = inline.jobs()
    assert (record.status, record.columns) == ("FAILED", ["y"])
    assert "no value for 700" in str(record.error)
    first = len(calls(log))

    flag.unlink()
    result = table.backfill("y")
    assert values(table, "y") == [2 * i for i in range(1000)]
    assert calls(log) == sorted([*range(1000), 700])
    assert result.rows_resumed == first - 1 > 0
    assert (result.rows_done, result.version_after) == (1000, version(table))


def test_failing_again_and_again(inline: Connection, log: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    table = make_table(inline, 50)
    table.add_columns({"y": failing_while(flag, [20], log)})
    for _ in range(3):
        with pytest.raises(BackfillFailed):
            table.backfill("y")
    flag.unlink()
    table.backfill("y")
    assert calls(log) == sorted([*range(50), 20, 20, 20])
    assert values(table, "y") == [2 * i for i in range(50)]


def test_fixed_function_computes_all_rows_anew(inline: Connection, log: Path) -> None:
    """Another version of the function may give other values, so nothing of the first is taken over."""
    path = str(log)

    @udf(version="1")
    def first(x: int) -> int:
        if x == 30:
            raise ValueError("thirty")
        return x

    @udf(version="2")
    def second(x: int) -> int:
        log_call(path, x)
        return -x

    table = make_table(inline, 50)
    table.add_columns({"y": first})
    with pytest.raises(BackfillFailed):
        table.backfill("y")
    assert table.backfill("y", udf=second).rows_resumed == 0
    assert calls(log) == list(range(50))
    assert values(table, "y") == [-i for i in range(50)]


def test_retry_is_enough(inline: Connection, log: Path) -> None:
    path = str(log)

    @udf(on_error="retry:2")
    def flaky(x: int) -> int:
        log_call(path, x)
        if x == 3 and calls(Path(path)).count(3) < 3:
            raise OSError("busy")
        return x

    table = make_table(inline, 5)
    table.add_columns({"y": flaky})
    result = table.backfill("y")
    assert (result.rows_done, result.rows_skipped) == (5, 0)
    assert calls(log) == [0, 1, 2, 3, 3, 3, 4]


def test_timeout_of_a_call_is_a_failure_of_its_row(inline: Connection) -> None:
    @udf(timeout=0.2, on_error="skip")
    def stuck(x: int) -> int:
        while x == 2:
            pass
        return x

    table = make_table(inline, 4)
    table.add_columns({"y": stuck})
    assert table.backfill("y").rows_skipped == 1
    assert values(table, "y") == [0, 1, None, 3]
    (error,) = table.errors("y")
    assert (error.error, error.message) == ("CallTimeout", "the call took longer than 0.2 s")


def test_future(inline: Connection, gate: Gate) -> None:
    table = make_table(inline, 100)
    table.add_columns({"double": gated(gate, at=40)})
    job = table.backfill_async("double")
    gate.wait()
    assert not job.done()
    with pytest.raises(TimeoutError):
        job.result(timeout=0.01)
    progress = job.progress()
    assert (progress.rows_total, progress.fragments_total, progress.phase) == (100, 1, "compute")
    assert progress.rows_done < 100
    assert inline.job(job.job_id).status == "RUNNING"
    gate.open()
    result = job.result(60)
    assert isinstance(result, BackfillResult)
    assert job.done()
    assert job.result() is result
    assert (job.progress().rows_done, job.progress().phase) == (100, "done")
    assert inline.job(job.job_id).status == "DONE"


def test_await(inline: Connection) -> None:
    table = make_table(inline, 10)
    table.add_columns({"b": triple, "c": triple})

    async def both() -> tuple[BackfillResult, BackfillResult]:
        return await asyncio.gather(_result(table.backfill_async("b")), _result(table.backfill_async("c")))

    first, second = asyncio.run(both())
    assert (first.rows_done, second.rows_done) == (10, 10)
    assert values(table, "b") == values(table, "c") == [3 * i for i in range(10)]


async def _result(job: Job) -> BackfillResult:
    return await job


def triple(x: int) -> int:
    return 3 * x


def test_context_waits_for_its_jobs(db: Connection, gate: Gate) -> None:
    table = make_table(db, 10)
    table.add_columns({"double": gated(gate)})
    with db.context(cluster="inline"):
        job = table.backfill_async("double")
        gate.wait()
        gate.open()
    assert job.done()
    assert values(table, "double") == [2 * i for i in range(10)]


def test_failure_comes_out_of_the_future(inline: Connection, log: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    table = make_table(inline, 10)
    table.add_columns({"y": failing_while(flag, [4], log)})
    job = table.backfill_async("y")
    with pytest.raises(BackfillFailed, match="no value for 4"):
        job.result(60)
    assert job.done()


def test_cancel_keeps_finished_work(inline: Connection, gate: Gate, log: Path) -> None:
    folder, path = str(gate.folder), str(log)

    @udf
    def slow(x: int) -> int:
        log_call(path, x)
        if x == 65:
            pass_gate(folder)
        return 2 * x

    table = make_table(inline, 100, rows_per_fragment=30)
    table.add_columns({"y": slow})
    job = table.backfill_async("y")
    gate.wait()
    job.cancel()
    gate.open()
    with pytest.raises(JobCancelled, match="finished work is kept"):
        job.result(60)
    assert job.done()
    assert inline.job(job.job_id).status == "CANCELLED"
    assert (version(table), values(table, "y")) == (2, [None] * 100)
    result = table.backfill("y")
    assert result.rows_resumed >= 60
    assert values(table, "y") == [2 * i for i in range(100)]
    assert calls(log)[:60] == list(range(60))
