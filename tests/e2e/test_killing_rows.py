"""Rows that kill their worker, or never let it go: the row is found, and nothing else is lost."""

from __future__ import annotations

import collections
import ctypes
import itertools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from runner import UDF, Connection, Context, udf
from runner.errors import BackfillFailed, JobCancelled
from tests.e2e.helpers import by_x, calls, log_call, make_table

ROWS, BAD = 400, 237


def segfault() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(3)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang_in_c() -> None:
    collections.deque(itertools.repeat(None), maxlen=0)


def killing(log: Path, how: Callable[[], None], bad: int = BAD, **options: object) -> UDF:
    path = str(log)

    def deadly(x: int) -> int:
        log_call(path, x)
        if x == bad:
            how()
        return 2 * x

    return udf(**options)(deadly)  # type: ignore[call-overload, no-any-return]


def expected(*bad: int) -> dict[int, int | None]:
    return {x: None if x in bad else 2 * x for x in range(ROWS)}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (segfault, "the worker died: exit code 139 (SIGSEGV)"),
        (leave, "the worker died: exit code 3"),
        (killed, "the worker died: exit code 137 (SIGKILL)"),
    ],
)
def test_the_one_row_that_kills_is_skipped(
    db: Connection, ray_session: Context, log: Path, how: Callable[[], None], message: str
) -> None:
    table = make_table(db, ROWS, rows_per_fragment=ROWS // 4)
    table.add_columns({"y": killing(log, how, on_error="skip")})
    result = table.backfill("y", progress=False)
    assert (result.rows_done, result.rows_skipped) == (ROWS - 1, 1)
    assert by_x(table, "y") == expected(BAD)
    (error,) = table.errors("y")
    assert (error.row_address, error.error, error.message) == ((BAD // 100) << 32 | BAD % 100, "WorkerDied", message)
    if how is segfault:
        assert "in deadly" in error.traceback
    made = collections.Counter(calls(log))
    assert table.backfill("y", progress=False).rows_done == 0
    assert collections.Counter(calls(log)) == made  # a row that was skipped is done, and is not called again
    assert set(made) == set(range(ROWS))
    assert made[BAD] == 4  # on two workers, and twice with care
    assert max(made[x] for x in range(200)) == 1  # what other workers did stays done


def test_fail_names_the_row_and_keeps_the_rest(db: Connection, ray_session: Context, log: Path, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    path = str(flag)

    def while_flagged() -> None:
        if os.path.exists(path):
            os._exit(7)

    table = make_table(db, ROWS, rows_per_fragment=ROWS // 4)
    table.add_columns({"y": killing(log, while_flagged)})
    with pytest.raises(BackfillFailed) as caught:
        table.backfill("y", progress=False)
    assert "WorkerDied at row 37 of fragment 2 (_rowaddr = 8589934629): the worker died: exit code 7" in str(caught.value)
    assert [(error.row_address, error.error) for error in caught.value.errors] == [((2 << 32) | 37, "WorkerDied")]
    assert set(by_x(table, "y").values()) == {None}
    flag.unlink()
    before = len(calls(log))
    result = table.backfill("y", progress=False)
    assert (result.rows_done, result.rows_skipped) == (ROWS, 0)
    assert result.rows_resumed >= 237
    assert len(calls(log)) - before == ROWS - result.rows_resumed
    assert by_x(table, "y") == expected()


def test_a_batch_function_is_halved_down_to_the_row(db: Connection, ray_session: Context, log: Path) -> None:
    path = str(log)

    @udf(data_type=pa.int64(), on_error="skip", batch_size=64)
    def deadly(x: pa.Array) -> pa.Array:
        for value in x.to_pylist():
            log_call(path, value)
        if BAD in x.to_pylist():
            os._exit(9)
        return pa.array([2 * value for value in x.to_pylist()])

    table = make_table(db, ROWS)
    table.add_columns({"y": deadly})
    result = table.backfill("y", progress=False, concurrency=1)
    assert (result.rows_done, result.rows_skipped) == (ROWS - 1, 1)
    assert by_x(table, "y") == expected(BAD)
    (error,) = table.errors("y")
    assert (error.row_address, error.message) == (BAD, "the worker died: exit code 9")
    assert collections.Counter(calls(log))[BAD] == 2 + 1 + 6  # two workers, and from 64 rows down to one with care


def test_workers_that_die_of_something_else_blame_no_row(db: Connection, ray_session: Context, log: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "deaths")

    def three_times() -> None:
        log_call(path, 1)
        if len(Path(path).read_text().split()) <= 3:
            os._exit(1)

    table = make_table(db, ROWS)
    table.add_columns({"y": killing(log, three_times)})
    assert table.backfill("y", progress=False).rows_done == ROWS
    assert by_x(table, "y") == expected()


def test_a_call_that_hangs_in_c_is_found_with_its_stack(db: Connection, ray_session: Context, log: Path) -> None:
    table = make_table(db, ROWS)
    table.add_columns({"y": killing(log, hang_in_c, on_error="skip", timeout=0.2)})
    result = table.backfill("y", progress=False)
    assert (result.rows_done, result.rows_skipped) == (ROWS - 1, 1)
    assert by_x(table, "y") == expected(BAD)
    (error,) = table.errors("y")
    assert (error.row_address, error.error) == (BAD, "CallTimeout")
    assert error.message == "the call took longer than 0.2 s, in code that cannot be interrupted"
    assert "in hang_in_c" in error.traceback
    assert "in deadly" in error.traceback


def test_a_class_that_dies_while_it_is_constructed_ends_the_job(db: Connection, ray_session: Context) -> None:
    @udf
    class Model:
        def setup(self) -> None:
            os._exit(5)

        def __call__(self, x: int) -> int:
            return x

    table = make_table(db, 10)
    table.add_columns({"y": Model})
    with pytest.raises(BackfillFailed, match=r"Model cannot be constructed: the worker died: exit code 5"):
        table.backfill("y", progress=False)


def test_a_row_that_kills_more_than_its_own_process_is_found_by_halves(db: Connection, ray_session: Context, log: Path) -> None:
    def kill_both() -> None:
        if "serve" in Path("/proc/self/cmdline").read_text():  # as the kernel would that takes the larger one
            os.kill(os.getppid(), signal.SIGKILL)
        os._exit(1)

    table = make_table(db, 16)
    table.add_columns({"y": killing(log, kill_both, bad=11, on_error="skip")})
    result = table.backfill("y", progress=False)
    assert (result.rows_done, result.rows_skipped) == (15, 1)
    assert by_x(table, "y") == {x: None if x == 11 else 2 * x for x in range(16)}
    (error,) = table.errors("y")
    assert (error.row_address, error.error) == (11, "WorkerDied")
    assert error.message.startswith("the worker died: ")


def test_a_death_is_noticed_though_a_process_that_the_function_forked_lives_on(
    db: Connection, ray_session: Context, tmp_path: Path, log: Path
) -> None:
    children = str(tmp_path / "children")

    def fork_and_leave() -> None:
        if "serve" not in Path("/proc/self/cmdline").read_text():  # Ray does not notice it of its own processes
            os._exit(6)
        child = os.fork()
        if child == 0:
            threading.Event().wait()
        log_call(children, child)
        os._exit(6)

    table = make_table(db, 20)
    table.add_columns({"y": killing(log, fork_and_leave, bad=7, on_error="skip")})
    try:
        table.backfill("y", progress=False)
    finally:
        for child in calls(tmp_path / "children"):
            os.kill(child, signal.SIGKILL)
    assert by_x(table, "y") == {x: None if x == 7 else 2 * x for x in range(20)}
    assert [error.message for error in table.errors("y")] == ["the worker died: exit code 6"]


def test_a_coroutine_that_does_not_give_way_is_found(db: Connection, ray_session: Context) -> None:
    @udf(on_error="skip", timeout=0.1)
    async def blocking(x: int) -> int:
        if x == 2:
            threading.Event().wait()
        return 2 * x

    table = make_table(db, 4)
    table.add_columns({"y": blocking})
    table.backfill("y", progress=False)
    assert by_x(table, "y") == {0: 0, 1: 2, 2: None, 3: 6}
    (error,) = table.errors("y")
    assert (error.row_address, error.error) == (2, "CallTimeout")
    assert "in blocking" in error.traceback


def test_a_cancelled_job_leaves_no_process_behind(db: Connection, ray_session: Context, tmp_path: Path) -> None:
    deaths, alive = str(tmp_path / "deaths"), tmp_path / "alive"
    os.mkfifo(alive)
    path = str(alive)

    def twice_then_stay() -> None:
        log_call(deaths, 1)
        if len(Path(deaths).read_text().split()) <= 2:
            os._exit(1)
        held = os.open(path, os.O_WRONLY)  # closed when this process ends, and no sooner
        os.write(held, b"%d" % os.getppid())
        threading.Event().wait()

    table = make_table(db, 10)
    table.add_columns({"y": killing(tmp_path / "log", twice_then_stay, bad=5)})
    job = table.backfill_async("y")
    with open(alive, "rb") as reader:
        first = reader.read(1)
        job.cancel()
        with pytest.raises(JobCancelled):
            job.result(60)
        worker = int(first + reader.read())  # to the end of the file: the process is gone
    assert worker > 1
    assert set(by_x(table, "y").values()) == {None}
