"""A worker that never comes to the end of its last task does not hold up a job."""

from __future__ import annotations

import os
import time
from pathlib import Path

from runner import Connection, Context, udf
from tests.e2e.helpers import by_x, calls, log_call, make_table

ROWS = 400


def test_a_slow_workers_last_task_is_run_twice_and_the_first_result_taken(
    db: Connection, ray_session: Context, log: Path, tmp_path: Path
) -> None:
    path, claim = str(log), str(tmp_path / "claim")

    @udf(batch_size=10)
    def stuck_once(x: int) -> int:
        log_call(path, x)
        if x == ROWS - 10:
            try:
                os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return 2 * x
            time.sleep(3600)
        return 2 * x

    table = make_table(db, ROWS, rows_per_fragment=ROWS // 8)
    table.add_columns({"y": stuck_once})
    result = table.backfill("y", progress=False, concurrency=2)
    assert (result.rows_done, result.rows_skipped) == (ROWS, 0)
    assert by_x(table, "y") == {x: 2 * x for x in range(ROWS)}
    again = [x for x in range(ROWS) if calls(log).count(x) > 1]
    assert ROWS - 10 in again
    assert set(again) <= set(range(ROWS - ROWS // 8, ROWS)), "only what the slow worker was at"
    assert not any((Path(db.uri) / "_runner" / "staging").rglob("*.lance"))
